"""One run of one subject."""

import os
import shutil

import load
from machine import sync_times
from subject import ask, forge
from summary import percentile

# What a run measures; the order of the columns in the CSV.
COLUMNS = {
    "events_per_second": "events/s that were answered 2xx",
    "p50": "latency, µs",
    "p90": "latency, µs",
    "p99": "latency, µs",
    "p99.9": "latency, µs",
    "max": "latency, µs",
    "cpu_us": "µs of CPU that the server took for an event, to its end in the sink",
    "rss": "most memory at once, bytes",
    "lost": "events that were answered 200 and are not in the sink",
    "good": "answers with 2xx",
    "bad": "answers with another status",
    "socket_errors": "connections that failed",
    "sync_p50": "µs of append and fdatasync of 1 KiB, before and after the load",
    "sync_p99": "the same; far above p50, something else was at the disk",
}


class WrongAnswer(Exception):
    """A server does not do what it is said to do."""


def run(subject, requests, seconds, connections, folder, may_refuse=False, probe=True):
    """Starts the subject in a folder of its own, loads it, and returns its row."""
    connections = subject.connections or connections
    subject.connections_used = connections
    clear(folder)
    folder.mkdir(parents=True)
    try:
        subject.start(folder)
        answer_as_they_should(subject, requests.first())
        syncs = sync_times(folder, 100) if probe else []
        if subject.is_family:
            subject.process.watch()
        before = subject.process.cpu()
        row = load.run(subject.address, requests, seconds, connections, subject.again)
        subject.settle()
        used = subject.process.cpu() - before
        syncs += sync_times(folder, 100) if probe else []
        row["rss"] = subject.process.peak()
        subject.stop()
        row["lost"] = subject.account(row, requests)
    finally:
        subject.stop()
    for percent in (50, 99):
        row[f"sync_p{percent}"] = percentile(syncs, percent) if syncs else None
    row["cpu_us"] = used * 1e6 / max(row["good"] + row["bad"], 1)
    row["name"], row["connections"] = subject.name, connections
    row["failed"] = fault(row, may_refuse)
    clear(folder)
    return row


def clear(folder):
    """Removes what a run wrote, and waits for it: the next run's syncs would wait for the removal otherwise."""
    if folder.exists():
        shutil.rmtree(folder)
        os.sync()


def answer_as_they_should(subject, request):
    """A server that takes a changed body does not verify, and must not be compared as if it did."""
    got = (ask(subject.address, request), ask(subject.address, forge(request)))
    if got != subject.answers:
        raise WrongAnswer(f"{subject.name} answered {got} to a good and a forged request, not {subject.answers}")


def fault(row, may_refuse):
    """Why a run does not count, or `None`."""
    if row["bad"] and not may_refuse:
        return f"{row['bad']} requests were not answered 2xx"
    if row["socket_errors"] and not may_refuse:
        return f"{row['socket_errors']} connections failed"
    if row["lost"]:
        return f"{row['lost']} events are lost"
    return None
