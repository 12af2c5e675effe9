"""A spool with gigabytes in it: filled behind a sink that is down, to see what it costs to receive and to start."""

import os
import pathlib
import shutil
import time

import load
import traffic
from receiver import Receiver

PIECE = 100_000  # events that are made, and sent, at a time
SIZE = 1000  # bytes of a body


class Backlogged(Receiver):
    """dt-receiver on a data folder that stays, with the sink `down`, which never works, beside those that do."""

    def __init__(self, program, data, sinks=()):
        super().__init__("backlog", "", "", program, sinks=sinks, data=data, spool={"max_size": "6GiB"})
        self.dead = ["down"]

    def start(self, folder):
        # The events of a run are no copies of those of the run before, nor does a sink of a new name get those.
        self.sinks = [f"file-{time.time_ns()}" for _ in self.sinks]
        super().start(folder)

    def sink(self, name, folder):
        if name != "down":
            return super().sink(name, folder)
        # Nothing listens there.
        return ['type = "kafka"', 'brokers = ["127.0.0.1:1"]', 'topic = "nowhere"']


class Retained(Backlogged):
    """dt-receiver on a data folder that stays, with sinks that work alone: what they have is kept for a day."""

    def __init__(self, program, data, sinks=("file",)):
        super().__init__(program, data, sinks)
        self.dead = []
        self.spool = {"max_size": "12GiB", "retain": "24h"}


class Spool:
    """A data folder, and how to make it larger."""

    def __init__(self, program, work, kind=Backlogged):
        self.program, self.work, self.kind = program, work, kind
        self.data, self.folder = work / "backlog" / "data", work / "backlog" / "run"
        shutil.rmtree(work / "backlog", ignore_errors=True)
        self.folder.mkdir(parents=True)

    def fill(self, size, progress):
        """Sends events until the spool has `size` bytes."""
        receiver = self.kind(self.program, self.data)
        try:
            receiver.start(self.folder)
            while (used := receiver.metrics()["dt_receiver_spool_used_bytes"]) < size:
                progress(f"filling the spool: {used / 2**30:.2f} of {size / 2**30:.0f} GiB")
                requests = traffic.of_our_own(self.work / "requests" / "fill.requests", PIECE, SIZE)
                before = receiver.accepted(receiver.metrics())
                load.send_all(receiver.address, requests)
                accepted = receiver.accepted(receiver.metrics()) - before
                # Some were under way when wrk had sent the last.
                if accepted < PIECE - 1000:
                    raise RuntimeError(f"only {accepted:.0f} of {PIECE} events came into the spool")
                requests.remove()
        finally:
            receiver.stop()
        os.sync()

    def copy(self, name):
        """A copy of it as it is now, in a data folder beside its own, which it gives."""
        copy = self.data.with_name(name)
        shutil.copytree(self.data, copy)
        os.sync()
        return copy

    def start_times(self, cold):
        """Milliseconds from the start of the program to its first answer on /readyz, five times."""
        return [self.start_time(cold) for _ in range(5)]

    def start_time(self, cold):
        if cold:
            forget(self.data)
        receiver = self.kind(self.program, self.data)
        began = time.perf_counter()
        try:
            receiver.start(self.folder)
            return (time.perf_counter() - began) * 1000
        finally:
            receiver.stop()

    def remove(self):
        shutil.rmtree(self.work / "backlog", ignore_errors=True)


def forget(folder):
    """Makes the system read the files from the disk again."""
    for path in pathlib.Path(folder).rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            os.fdatasync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)
