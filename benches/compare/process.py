"""Processes that are measured: started, watched through /proc, and ended by their ids."""

import os
import pathlib
import signal
import subprocess
import threading
import time

TICKS = os.sysconf("SC_CLK_TCK")


class Died(Exception):
    """A process ended, or did not start, when it should run."""


class Process:
    """One process with its children. It ends with this program, however that ends."""

    def __init__(self, command, log, environment=None, folder=None):
        self.log = pathlib.Path(log)
        with open(self.log, "wb") as file:
            self.child = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                cwd=folder,
                # Ctrl-C is for us alone: we end it.
                start_new_session=True,
            )
        self.peak_tree = 0
        self.watching = None

    def text(self):
        return self.log.read_text(errors="replace")

    def wait_for(self, find, what, seconds=60):
        """What `find` returns once that is not `None`."""
        deadline = time.monotonic() + seconds
        while True:
            found = find()
            if found is not None:
                return found
            if self.child.poll() is not None or time.monotonic() > deadline:
                raise Died(f"no {what}: {self.text()[-2000:]}")
            time.sleep(0.005)

    def family(self):
        """The ids of the process and of all below it."""
        found, left = [], [self.child.pid]
        while left:
            pid = left.pop()
            found.append(pid)
            try:
                for task in os.listdir(f"/proc/{pid}/task"):
                    left += map(int, pathlib.Path(f"/proc/{pid}/task/{task}/children").read_text().split())
            except OSError:
                continue  # it has just ended
        return found

    def cpu(self):
        """Seconds of CPU that it, its children and those of them that ended have used."""
        total = 0
        for pid in self.family():
            try:
                stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
            except OSError:
                continue
            # The name, in parentheses, may hold anything.
            total += sum(map(int, stat.rpartition(")")[2].split()[11:15]))
        return total / TICKS

    def watch(self):
        """Begins to note how much memory all of them take."""
        stop = threading.Event()

        def look():
            while not stop.wait(0.2):
                self.peak_tree = max(self.peak_tree, sum(share(pid) for pid in self.family()))

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        self.watching = (stop, thread)

    def peak(self):
        """The most memory they took at once, in bytes: as the kernel counted for one, by looking often for several."""
        if self.watching:
            stop, thread = self.watching
            stop.set()
            thread.join()
            self.watching = None
            return self.peak_tree
        return field(f"/proc/{self.child.pid}/status", "VmHWM")

    def stop(self, seconds=60):
        """Asks it to end, and sees to it."""
        if self.watching:
            self.watching[0].set()
            self.watching = None
        below = self.family()
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(seconds)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
                raise Died(f"it did not stop within {seconds} s: {self.text()[-2000:]}") from None
        for pid in below[1:]:
            try:
                if os.getsid(pid) == self.child.pid:
                    os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        return self.child.returncode


def field(path, name):
    """A line of a file below /proc that is given in kB, in bytes; 0 of a process that has ended."""
    try:
        for line in pathlib.Path(path).read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def share(pid):
    """The memory of a process, in bytes, where what it shares with others is split between them."""
    return field(f"/proc/{pid}/smaps_rollup", "Pss")
