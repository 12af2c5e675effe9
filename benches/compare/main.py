#!/usr/bin/env python3
"""Measures dt-receiver beside a bare server and what else one could take, on this machine, in one run.

    benches/compare/run                        all of it: some 15 minutes
    benches/compare/run --only bare,spool-file some of it, by name
    benches/compare/run --quick                whether it works: one run of a second of three subjects
    benches/compare/run --curves               how the cost of an event grows: some 12 minutes
"""

import argparse
import json
import pathlib
import shutil
import signal
import subprocess
import sys

import curves
import machine
import measure
import report
import subjects
import traffic
from broker import Broker

ROOT = pathlib.Path(__file__).resolve().parents[2]


def progress(text):
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def build():
    """Builds the programs that are measured; the path of each."""
    command = ["cargo", "build", "--release", "--locked", "--bin", "dt-receiver", "--bench", "bare_server"]
    done = subprocess.run([*command, "--message-format", "json"], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    made = [json.loads(line) for line in done.stdout.splitlines()]
    paths = {one["target"]["name"]: one["executable"] for one in made if one.get("executable")}
    return paths["dt-receiver"], paths["bare_server"]


def arguments():
    help = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="benches/compare/run", description=__doc__, formatter_class=help)
    parser.add_argument("--runs", type=int, help="how often each is run, in turn with the others [5; a point of a curve 3]")
    parser.add_argument("--seconds", type=int, default=8, help="how long each is loaded [8]")
    parser.add_argument("--connections", type=int, default=64, help="connections that wrk keeps busy [64]")
    parser.add_argument("--only", metavar="NAME,…", help="only these; also bare-1, spool-file-1")
    parser.add_argument("--quick", action="store_true", help="one run of 1 s of " + ", ".join(subjects.QUICK))
    parser.add_argument("--curves", nargs="?", const="all", metavar="NAME,…", help="the curves instead, all or these")
    parser.add_argument("--out", type=pathlib.Path, help="where the results go [target/compare/results]")
    parser.add_argument("--docs", action="store_true", help="put table and charts into docs/performance.md as well")
    return parser.parse_args()


def chosen(options, tools, broker):
    everything = subjects.make(tools, broker) + subjects.alone(tools)
    names = options.only.split(",") if options.only else None
    names = list(subjects.QUICK) if options.quick and not names else names
    if names is None:
        return everything
    unknown = set(names) - {subject.name for subject in everything}
    if unknown:
        raise SystemExit(f"no subject {', '.join(sorted(unknown))}; there are {', '.join(s.name for s in everything)}")
    return [subject for subject in everything if subject.name in names]


def compare(options, tools, broker, work):
    """The rows of all runs: the first of each subject, then the second of each, and so on."""
    wanted, rows = chosen(options, tools, broker), []
    requests = {}
    for scheme in sorted({subject.scheme for subject in wanted}):
        progress(f"signing requests ({scheme})")
        ceiling = max(subject.ceiling for subject in wanted if subject.scheme == scheme)
        count = ceiling * options.seconds
        requests[scheme] = traffic.of_receiver(tools["dt-receiver"], scheme, count, work / "requests")
        requests[scheme].warm()
    for number in range(1, options.runs + 1):
        for subject in wanted:
            progress(f"run {number} of {options.runs}: {subject.name}")
            # A broker that is idle takes a little of the others' CPU.
            if not subject.needs_broker:
                broker.stop()
            row = measure.run(subject, requests[subject.scheme], options.seconds, options.connections, work / "run")
            rows.append({**row, "run": number})
            if row["failed"]:
                print(f"{subject.name}, run {number}: {row['failed']}", file=sys.stderr)
    progress("")
    return wanted, rows


def main():
    options = arguments()
    if options.quick:
        options.runs, options.seconds = 1, 1
    if not options.curves:
        options.runs = options.runs or 5
    # As an exception, so that all that was started is ended.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    receiver, bare = build()
    work = ROOT / "target" / "compare"
    work.mkdir(parents=True, exist_ok=True)
    machine.on_disk(work)
    out = options.out or work / "results"
    out.mkdir(parents=True, exist_ok=True)
    tools = {"dt-receiver": receiver, "bare": bare, "keys": work / "requests" / "jwks.json"}
    tools["modules"] = ROOT / "target" / "bench-tools" / "node" / "node_modules"
    broker = Broker(work / "broker")
    try:
        facts = machine.describe(ROOT, work)
        if options.curves:
            failed = curves.run(options.curves, options.runs or 3, tools, work, out, facts, progress)
        else:
            wanted, rows = compare(options, tools, broker, work)
            failed = report.write(wanted, rows, facts, options, out)
    finally:
        broker.stop()
        shutil.rmtree(work / "run", ignore_errors=True)
    if options.docs:
        report.into_docs(ROOT / "docs" / "performance.md", out, "curves" if options.curves else "results")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
