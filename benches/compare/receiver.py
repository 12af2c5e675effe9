"""dt-receiver as a subject, and the count of what it lost."""

import contextlib
import json
import re
import time
import urllib.request

import traffic
from process import Process
from subject import Subject

DELIVERED_WITHIN = 120  # seconds, from the end of the load
ID = re.compile(rb'"eventId":"([^"]+)"')


class LostCount(Exception):
    """What is in the sink does not fit what was answered."""


class Receiver(Subject):
    """`dt-receiver serve` with the defaults, but for what the arguments say."""

    def __init__(self, name, title, does, program, mode="spool", scheme="hs256", keys=None, sinks=("file",), **more):
        super().__init__(name, title, does)
        self.program, self.mode, self.scheme, self.keys = program, mode, scheme, keys
        self.sinks, self.secrets = list(sinks), more.get("secrets") or [traffic.SECRET]
        self.spool, self.data = more.get("spool", {}), more.get("data")
        self.connections = more.get("connections")
        # Sinks that never get anything, and are not waited for.
        self.dead = []
        # One verification of ES256 takes 60 µs.
        self.ceiling = 30_000 if scheme == "es256" else 60_000
        self.admin = self.folder = None

    def config(self, folder):
        lines = ['listen = "127.0.0.1:0"', 'admin = "127.0.0.1:0"']
        lines += [f'data = "{self.data or folder / "data"}"', f'mode = "{self.mode}"']
        if self.spool:
            lines += ["[spool]", *(f"{key} = {json.dumps(value)}" for key, value in self.spool.items())]
        several = len(self.secrets) > 1
        for number, _ in enumerate(self.secrets, 1):
            lines += ["[[connector]]", f'name = "c{number}"', f'path = "{traffic.target(number, several)}"']
            if self.scheme == "es256":
                lines += ['policy = "asymmetric"', "[connector.asymmetric]"]
                lines += [f'organization = "{traffic.ORGANIZATION}"', f'key_set = "{self.keys}"']
            else:
                lines += [f'secrets = [{{ env = "DT_SECRET_{number}" }}]']
        for sink in [*self.sinks, *self.dead]:
            lines += ["[[sink]]", f'name = "{sink}"', *self.sink(sink, folder)]
        return "\n".join(lines) + "\n"

    def sink(self, name, folder):
        """The keys of a sink, in TOML."""
        return ['type = "file"', f'path = "{folder / name}.ndjson"']

    def start(self, folder):
        self.folder = folder
        config = folder / "dt-receiver.toml"
        config.write_text(self.config(folder))
        environment = {f"DT_SECRET_{number}": secret for number, secret in enumerate(self.secrets, 1)}
        self.process = Process([self.program, "serve", "--config", config], folder / "log", environment)
        self.address = self.find_address(r'(?<="listen":")127\.0\.0\.1:\d+')
        self.admin = self.find_address(r'(?<="admin":")127\.0\.0\.1:\d+')
        self.process.wait_for(self.is_ready, "readiness")

    def is_ready(self):
        with contextlib.suppress(OSError):
            with urllib.request.urlopen(f"http://{self.admin}/readyz", timeout=5):
                return True

    def metrics(self):
        """`{name with labels: value}` of the metrics page."""
        with urllib.request.urlopen(f"http://{self.admin}/metrics", timeout=20) as page:
            lines = page.read().decode().splitlines()
        pairs = (line.rpartition(" ")[::2] for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def accepted(self, metrics):
        pattern = re.compile(r'dt_receiver_requests_total\{code="200",connector="[^"]*",reason="accepted"')
        return sum(value for name, value in metrics.items() if pattern.match(name))

    def delivered(self, metrics, sink):
        return metrics.get(f'dt_receiver_sink_records_total{{outcome="delivered",sink="{sink}"}}', 0)

    def settle(self):
        """Until each sink has what was accepted, and nothing is under way."""
        deadline = time.monotonic() + DELIVERED_WITHIN
        while True:
            metrics = self.metrics()
            accepted = self.accepted(metrics)
            waits = [sink for sink in self.sinks if self.delivered(metrics, sink) < accepted]
            if not waits and metrics["dt_receiver_requests_in_flight"] == 0:
                return
            if time.monotonic() > deadline:
                late = ", ".join(waits) or "the receiver"
                raise LostCount(f"{self.name}: {late} is not done with {accepted:.0f} events in {DELIVERED_WITHIN} s")
            time.sleep(0.02)

    def arrived(self, sink):
        """The ids of the events in a sink, in order, each as often as it is there."""
        with open(self.folder / f"{sink}.ndjson", "rb") as file:
            return [ID.search(line)[1] for line in file]

    def account(self, load, requests):
        # The first is the one that it was tried with.
        sent = requests.ids(load["sent"] + 1)
        return max(compare(self.arrived(sink), sent, load, sink, self.connections_used) for sink in self.sinks)


def compare(arrived, sent, load, sink, connections):
    """How many events of those answered 200 a sink lacks, which is known of the number only, as wrk tells no more.

    What was under way at the end was perhaps stored, and its answer not read. An event twice, or one that nobody sent, is
    an error at once.
    """
    once = set(arrived)
    if len(once) != len(arrived):
        raise LostCount(f"{sink} has {len(arrived) - len(once)} events twice")
    if not once <= set(sent):
        raise LostCount(f"{sink} has {len(once - set(sent))} events that nobody has sent")
    # And the one of before the load.
    answered = load["good"] + 1
    if len(once) > answered + connections:
        raise LostCount(f"{sink} has {len(once)} events, but only {answered} were answered 200, {connections} at a time")
    return max(answered - len(once), 0)
