"""How the cost of an event goes as one thing grows: one short run for each point, of dt-receiver with a file sink."""

import csv
import statistics

import backlog
import charts
import measure
import traffic
from receiver import Receiver
from report import table, thousands, time_of

SECONDS = 3
CONNECTIONS = 64
NAMES = ("connections", "bodies", "connectors", "spool", "sinks", "forged")
COLUMNS = ("requests_per_second", "events_per_second", "cpu_us", "p50", "p99", "rss", "lost", "sync_p50", "sync_p99")
TITLES = {
    "connections": ("Connections", "connections"),
    "bodies": ("Size of the body", "KiB"),
    "connectors": ("Connectors, each with a secret of its own", "connectors"),
    "spool": ("Events that already wait in the spool for another sink", "GiB"),
    "sinks": ("File sinks, each of which gets every event", "sinks"),
    "forged": ("Forged requests among the load", "% forged"),
}


class Runner:
    """Makes the points of the curves."""

    def __init__(self, tools, work, progress):
        self.tools, self.work, self.progress = tools, work, progress
        self.rows = []

    def point(self, curve, x, subject, requests, connections=CONNECTIONS):
        self.progress(f"curve {curve}: {x}")
        row = measure.run(
            subject, requests, SECONDS, connections, self.work / "run", may_refuse=curve == "forged"
        )
        self.rows.append({**row, "curve": curve, "x": x})

    def receiver(self, **options):
        return Receiver("receiver", "", "", self.tools["dt-receiver"], **options)

    def requests(self, rate=60_000, **options):
        """Requests for one point; the file is used by that one alone."""
        self.progress("signing requests")
        return traffic.of_our_own(self.work / "requests" / "curve.requests", rate * SECONDS, **options)

    def connections(self):
        requests = self.requests()
        for count in (1, 4, 16, 64, 256, 512):
            self.point("connections", count, self.receiver(), requests, count)

    def bodies(self):
        for size in (0.4, 1, 4, 16, 60):
            octets = int(size * 1024)
            # No disk here takes 300 MB a second with syncs.
            requests = self.requests(min(60_000, 300_000_000 // octets), size=octets)
            self.point("bodies", size, self.receiver(), requests)

    def connectors(self):
        for count in (1, 10, 50):
            secrets = [f"{traffic.SECRET}-{number}" for number in range(1, count + 1)]
            targets = [traffic.target(number, count > 1) for number in range(1, count + 1)]
            requests = self.requests(secrets=secrets, targets=targets)
            self.point("connectors", count, self.receiver(secrets=secrets), requests)

    def sinks(self):
        requests = self.requests()
        for count in (1, 2, 3, 4):
            sinks = [f"file-{number}" for number in range(1, count + 1)]
            self.point("sinks", count, self.receiver(sinks=sinks), requests)

    def forged(self):
        for percent in (0, 1, 10, 50):
            requests = self.requests(forged=percent / 100)
            self.point("forged", percent, self.receiver(), requests)

    def spool(self):
        spool = backlog.Spool(self.tools["dt-receiver"], self.work)
        try:
            for size in (0, 1, 2, 4):
                spool.fill(size * 2**30, self.progress)
                requests = self.requests()
                # A sink of a new name begins with the next event.
                receiver = backlog.Backlogged(self.tools["dt-receiver"], spool.data, [f"file-{size}"])
                self.point("spool", size, receiver, requests)
            return [
                f"start with {size} GiB in the spool, to the first answer on /readyz: "
                f"{statistics.median(spool.start_times(cold=False)):.0f} ms, "
                f"{statistics.median(spool.start_times(cold=True)):.0f} ms when none of it is in memory (medians of 5)"
            ]
        finally:
            spool.remove()


def run(which, tools, work, out, facts, progress):
    """Runs the curves of these names, and writes curves.csv, curves.md and a chart each; whether any point failed."""
    names = NAMES if which == "all" else tuple(which.split(","))
    if unknown := set(names) - set(NAMES):
        raise SystemExit(f"no curve {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    runner, notes = Runner(tools, work, progress), []
    for name in names:
        notes += getattr(runner, name)() or []
        draw(name, [row for row in runner.rows if row["curve"] == name], out)
    progress("")
    with open(out / "curves.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["curve", "x", *COLUMNS, "failed"])
        for row in runner.rows:
            writer.writerow([row["curve"], row["x"], *(round(row[column], 2) for column in COLUMNS), row["failed"] or ""])
    text = markdown(names, runner.rows, notes, facts)
    (out / "curves.md").write_text(text)
    print(text)
    return any(row["failed"] for row in runner.rows)


def draw(name, rows, out):
    title, unit = TITLES[name]
    charts.curve(out / f"curve-{name}.svg", title, unit, [(row["x"], row) for row in rows])


def growth(rows):
    """By how many per cent the CPU of an event grows from the first point to the last."""
    return (rows[-1]["cpu_us"] / rows[0]["cpu_us"] - 1) * 100


def markdown(names, rows, notes, facts):
    parts = ["\n".join(f"- {name}: {value}" for name, value in facts)]
    parts.append(f"One run of {SECONDS} s for each point; {CONNECTIONS} connections, bodies of 460 B where nothing else is said.")
    for name in names:
        mine = [row for row in rows if row["curve"] == name]
        title, unit = TITLES[name]
        lines = [
            [f"{row['x']}", thousands(row["requests_per_second"]), f"{row['cpu_us']:.1f} µs", time_of(row["p99"]),
             f"{row['rss'] / 2**20:.0f} MiB", thousands(row["lost"])]
            for row in mine
        ]
        head = [unit, "requests/s", "CPU a request", "p99", "memory", "lost"]
        first, last = mine[0]["x"], mine[-1]["x"]
        summary = f"From {first} to {last} {unit}, the CPU of a request changes by {growth(mine):+.0f} %."
        parts.append(f"**{title}.** {summary}\n\n{table(head, lines)}")
    parts += notes
    if failures := [f"{row['curve']} {row['x']}: {row['failed']}" for row in rows if row["failed"]]:
        parts.append("**Failed:** " + "; ".join(failures))
    return "\n\n".join(parts) + "\n"
