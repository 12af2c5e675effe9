"""What the figures were made on: the machine, the build, and how long one sync of the disk takes."""

import os
import pathlib
import platform
import subprocess
import time

from summary import percentile


def said(command, folder=None):
    """The first line that a program prints, or that it is not there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, cwd=folder)
        return (done.stdout.strip() or done.stderr.strip()).splitlines()[0]
    except (OSError, IndexError, subprocess.TimeoutExpired):
        return "not there"


def file_system(folder):
    """The type and the options of the file system that a folder is on."""
    folder, best = os.path.realpath(folder), ("", "unknown")
    for line in pathlib.Path("/proc/mounts").read_text().splitlines():
        _, at, kind, options = line.split()[:4]
        inside = folder == at or folder.startswith(at.rstrip("/") + "/")
        if inside and len(at) >= len(best[0]):
            best = (at, f"{kind} ({options})")
    return best[1]


def on_disk(folder):
    """Refuses what has no disk below it: its syncs would cost nothing."""
    kind = file_system(folder)
    if kind.startswith(("tmpfs", "ramfs")):
        raise SystemExit(f"{folder} is on {kind}: nothing that is measured there is on a disk; put the clone elsewhere")


def sync_times(folder, count=300, size=1024):
    """Microseconds of `count` times appending so many bytes to a file and syncing it."""
    path, data, times = pathlib.Path(folder) / "sync-probe", os.urandom(size), []
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        for _ in range(count):
            began = time.perf_counter()
            os.write(handle, data)
            os.fdatasync(handle)
            times.append((time.perf_counter() - began) * 1e6)
    finally:
        os.close(handle)
        path.unlink()
    return times


def describe(root, folder):
    """`(name, value)` of everything that decides on the figures."""
    processor = "unknown"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
            break
    memory = pathlib.Path("/proc/meminfo").read_text().split()[1]
    syncs = sync_times(folder)
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True, cwd=root
    ).stdout.strip()
    commit = said(["git", "rev-parse", "--short=12", "HEAD"], root) + (", with changes" if changed else "")
    return [
        ("processor", f"{processor}, {os.cpu_count()} cores, shared by server, wrk and, where there is one, the broker"),
        ("memory", f"{int(memory) / 2**20:.0f} GiB"),
        ("kernel", f"Linux {platform.release()}"),
        ("file system", file_system(folder)),
        (
            "append and fdatasync of 1 KiB",
            f"p50 {percentile(syncs, 50):.0f} µs, p99 {percentile(syncs, 99):.0f} µs",
        ),
        ("rustc", said(["rustc", "--version"], root)),
        ("commit", commit),
        ("wrk", said(["wrk", "--version"]).partition(" Copyright")[0]),
        ("Python, Node", f"{platform.python_version()}, {said(['node', '--version'])}"),
    ]
