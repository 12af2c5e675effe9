"""The bare hyper server (`benches/bare_server.rs`) as a subject, with and without verification."""

import traffic
from process import Process
from subject import Subject


class Bare(Subject):
    """The least that a server of the same make does."""

    def __init__(self, name, title, does, program, verify=False, connections=None, again=False):
        super().__init__(name, title, does)
        self.program, self.verify, self.connections, self.again = program, verify, connections, again
        self.answers = (204, 401) if verify else (204, 204)

    def start(self, folder):
        options = ["--verify"] if self.verify else []
        environment = {"DT_SIGNATURE_SECRET": traffic.SECRET}
        self.process = Process([self.program, "127.0.0.1:0", *options], folder / "log", environment)
        self.address = self.find_address()
