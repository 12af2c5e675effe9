"""What one could take in place of dt-receiver, each as fast as it can be set up."""

import json
import pathlib
import sys

import traffic
from process import Process
from subject import Subject, free_port

HERE = pathlib.Path(__file__).resolve().parent


class Flask(Subject):
    """DT's own package, dtintegrations, in Flask under gunicorn."""

    is_family = True
    ceiling = 20_000

    def __init__(self, name, title, does, worker):
        super().__init__(name, title, does)
        self.worker = worker

    def start(self, folder):
        threads = ["--threads", "4"] if self.worker == "gthread" else []
        command = [sys.executable, "-m", "gunicorn", "flask_receiver:app", "--chdir", HERE, "--bind", "127.0.0.1:0"]
        command += ["--workers", "2", "--worker-class", self.worker, *threads]
        self.process = Process(command, folder / "log", {"DT_SIGNATURE_SECRET": traffic.SECRET})
        self.address = self.find_address(r"(?<=Listening at: http://)127\.0\.0\.1:\d+")
        # The address is said before the workers are there.
        self.wait_for_lines("Booting worker with pid", 2)

    def wait_for_lines(self, text, count):
        self.process.wait_for(lambda: self.process.text().count(text) >= count or None, text)


class Node(Subject):
    """Node's http module with the npm package jsonwebtoken."""

    is_family = True
    ceiling = 60_000

    def __init__(self, name, title, does, modules, prepared, workers):
        super().__init__(name, title, does)
        self.modules, self.prepared, self.workers = modules, prepared, workers

    def start(self, folder):
        environment = {
            "DT_SIGNATURE_SECRET": traffic.SECRET,
            "NODE_PATH": str(self.modules),
            "NODE_ENV": "production",
            "PREPARED": "yes" if self.prepared else "",
            "WORKERS": str(self.workers),
        }
        self.process = Process(["node", HERE / "node" / "server.js"], folder / "log", environment)
        self.address = self.find_address()


class Webhook(Subject):
    """Debian's webhook: it compares headers or HMACs of the body, which DT does not send, and runs a program."""

    is_family = True
    ceiling = 20_000
    # The header is there in both, which is all that it can see.
    answers = (200, 200)

    def start(self, folder):
        has_header = {"source": "header", "name": "X-Dt-Signature"}
        rule = {"match": {"type": "regex", "regex": "^[^.]+[.][^.]+[.][^.]+$", "parameter": has_header}}
        hook = {"id": traffic.TARGET[1:], "execute-command": "/bin/true", "http-methods": ["POST"]}
        hook |= {"trigger-rule": rule, "trigger-rule-mismatch-http-response-code": 401}
        (folder / "hooks.json").write_text(json.dumps([hook]))
        address = f"127.0.0.1:{free_port()}"
        host, _, port = address.rpartition(":")
        command = ["webhook", "-hooks", folder / "hooks.json", "-ip", host, "-port", port, "-urlprefix", ""]
        self.process = Process(command, folder / "log")
        self.wait_until_open(address)
        self.address = address

    def settle(self):
        """It answers before its programs have run."""
        self.process.wait_for(lambda: len(self.process.family()) == 1 or None, "end of its programs")
