"""wrk: runs it, and reads what it says."""

import json
import pathlib
import subprocess

SCRIPT = pathlib.Path(__file__).with_name("stream.lua")
PERCENTILES = ("p50", "p90", "p99", "p99.9", "max")


class LoadFailed(Exception):
    """wrk could not do its work."""


def run(address, traffic, seconds, connections, again=False):
    """Loads `address` for some seconds; what `parse` makes of it."""
    return parse(wrk(address, traffic, seconds, connections, *(["again"] if again else [])))


def send_all(address, traffic):
    """Sends all requests of a file, each once; what became of them is for the receiver to say."""
    wrk(address, traffic, 120, 64, "all")


def wrk(address, traffic, seconds, connections, *how):
    """What wrk prints; with one thread, as the server needs a core as well."""
    command = ["setpriv", "--pdeathsig", "KILL", "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s"]
    command += ["--latency", "-s", str(SCRIPT), f"http://{address}/", "--", str(traffic.path), *how]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds + 60)
    except subprocess.TimeoutExpired:
        raise LoadFailed(f"wrk did not end within {seconds + 60} s") from None
    if done.returncode != 0:
        raise LoadFailed(f"wrk ended with {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def parse(output):
    """The figures in the last line that stream.lua prints; latencies in microseconds."""
    lines = output.strip().splitlines()
    if not lines or not lines[-1].startswith("{"):
        raise LoadFailed(f"wrk said no figures: {output!r}")
    said = json.loads(lines[-1])
    seconds = said["duration_us"] / 1e6
    good = said["requests"] - said["status"]
    return {
        "good": good,
        "bad": said["status"],
        # Asked for, so sent at least in part.
        "sent": said["asked"],
        "seconds": seconds,
        "events_per_second": good / seconds,
        "requests_per_second": said["requests"] / seconds,
        "socket_errors": said["connect"] + said["read"] + said["write"] + said["timeout"],
        **{name: said[name] for name in PERCENTILES},
    }
