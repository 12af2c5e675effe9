"""How the cost of an event goes as one thing grows: short runs of dt-receiver with a file sink, a few for each point."""

import csv

import backlog
import measure
import traffic
from receiver import Receiver
from report import table, thousands, time_of
from summary import median

SECONDS = 3
CONNECTIONS = 64
NAMES = ("connections", "bodies", "connectors", "spool", "retained", "sinks", "forged")
COLUMNS = ("requests_per_second", "events_per_second", "cpu_us", "p50", "p99", "rss", "lost", "sync_p50", "sync_p99")
TITLES = {
    "connections": ("Connections", "connections"),
    "bodies": ("Size of the body", "KiB"),
    "connectors": ("Connectors, each with a secret of its own", "connectors"),
    "spool": ("Events that already wait in the spool for another sink", "GiB"),
    "retained": ("Events that every sink has, kept by `retain = \"24h\"`", "GiB"),
    "sinks": ("File sinks, each of which gets every event", "sinks"),
    "forged": ("Forged requests among the load", "% forged"),
}


class Runner:
    """Makes the points of the curves."""

    spools = (0, 1, 2, 4)  # GiB
    retentions = (0, 8)  # GiB

    def __init__(self, tools, work, runs, progress):
        self.tools, self.work, self.runs, self.progress = tools, work, runs, progress
        self.rows = []

    def points(self, curve, cases):
        """Adds the medians of a few runs for each case, interleaved: a machine that is slower for a minute is slower for
        all of them. A case is x, the subject, what makes its requests, and maybe the number of connections."""
        rows = {case[0]: [] for case in cases}
        for number in range(1, self.runs + 1):
            for x, subject, requests, *connections in cases:
                file = requests()
                self.progress(f"curve {curve}: {x}, run {number} of {self.runs}")
                load = (SECONDS, *(connections or [CONNECTIONS]))
                rows[x].append(measure.run(subject, file, *load, self.work / "run", curve == "forged"))
        for x, mine in rows.items():
            failed = next((row["failed"] for row in mine if row["failed"]), None)
            medians = {column: median([row[column] for row in mine]) for column in COLUMNS}
            lost = max(row["lost"] for row in mine)
            self.rows.append({**medians, "lost": lost, "curve": curve, "x": x, "failed": failed})

    def receiver(self, **options):
        return Receiver("receiver", "", "", self.tools["dt-receiver"], **options)

    def requests(self, rate=60_000, name="curve", **options):
        """Requests for one case, or for all of a curve."""
        self.progress("signing requests")
        return traffic.of_our_own(self.work / "requests" / f"{name}.requests", rate * SECONDS, **options)

    def connections(self):
        requests = self.requests()
        counts = (1, 4, 16, 64, 256, 512)
        self.points("connections", [(count, self.receiver(), lambda: requests, count) for count in counts])

    def bodies(self):
        def case(size):
            octets = int(size * 1024)
            # No disk here takes 800 MB a second with syncs.
            requests = self.requests(min(60_000, 800_000_000 // octets), f"curve-{size}", size=octets)
            return size, self.receiver(), lambda: requests

        self.points("bodies", [case(size) for size in (0.4, 1, 4, 16, 60)])

    def connectors(self):
        def case(count):
            secrets = [f"{traffic.SECRET}-{number}" for number in range(1, count + 1)]
            targets = [traffic.target(number, count > 1) for number in range(1, count + 1)]
            requests = self.requests(name=f"curve-{count}", secrets=secrets, targets=targets)
            return count, self.receiver(secrets=secrets), lambda: requests

        self.points("connectors", [case(count) for count in (1, 10, 50)])

    def sinks(self):
        requests = self.requests()

        def case(count):
            return count, self.receiver(sinks=[f"file-{number}" for number in range(1, count + 1)]), lambda: requests

        self.points("sinks", [case(count) for count in (1, 2, 3, 4)])

    def forged(self):
        def case(percent):
            requests = self.requests(name=f"curve-{percent}", forged=percent / 100)
            return percent, self.receiver(), lambda: requests

        self.points("forged", [case(percent) for percent in (0, 1, 10, 50)])

    def spool(self):
        return self.stored("spool", backlog.Backlogged, self.spools)

    def retained(self):
        return self.stored("retained", backlog.Retained, self.retentions)

    def stored(self, curve, kind, sizes):
        """The cost of an event, and the time of a start, with so many GiB in the log."""
        program = self.tools["dt-receiver"]
        spool = backlog.Spool(program, self.work, kind)
        try:
            data = {}
            for size in sizes:
                spool.fill(size * 2**30, self.progress)
                data[size] = spool.copy(f"data-{size}")
            cases = [(size, kind(program, data[size], ["file"]), self.requests) for size in data]
            self.points(curve, cases)
            return [
                f"start with {size} GiB in the log ({curve}), to the first answer on /readyz: "
                f"{median(spool.start_times(cold=False)):.0f} ms, "
                f"{median(spool.start_times(cold=True)):.0f} ms when none of it is in memory (medians of 5)"
            ]
        finally:
            spool.remove()


def run(which, runs, tools, work, out, facts, progress):
    """Runs the curves of these names, and writes curves.csv, curves.md and a chart each; whether any point failed."""
    names = NAMES if which == "all" else tuple(which.split(","))
    if unknown := set(names) - set(NAMES):
        raise SystemExit(f"no curve {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    runner, notes = Runner(tools, work, runs, progress), []
    for name in names:
        notes += getattr(runner, name)() or []
        draw(name, [row for row in runner.rows if row["curve"] == name], out)
    progress("")
    with open(out / "curves.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["curve", "x", *COLUMNS, "failed"])
        for row in runner.rows:
            values = (round(row[column], 2) for column in COLUMNS)
            writer.writerow([row["curve"], row["x"], *values, row["failed"] or ""])
    text = markdown(names, runner, notes, facts)
    (out / "curves.md").write_text(text)
    print(text)
    return any(row["failed"] for row in runner.rows)


def draw(name, rows, out):
    # Here, as the tables need no matplotlib.
    import charts

    title, unit = TITLES[name]
    charts.curve(out / f"curve-{name}.svg", title, unit, [(row["x"], row) for row in rows])


def growth(rows):
    """By how many per cent the CPU of an event grows from the first point to the last."""
    return (rows[-1]["cpu_us"] / rows[0]["cpu_us"] - 1) * 100


def markdown(names, runner, notes, facts):
    parts = ["\n".join(f"- {name}: {value}" for name, value in facts)]
    how = f"one run of {SECONDS} s" if runner.runs == 1 else f"the medians of {runner.runs} runs of {SECONDS} s"
    usual = f"{CONNECTIONS} connections, bodies of 460 B, one connector, one sink"
    parts.append(f"Each point: {how}; {usual}, unless stated otherwise.")
    rows = runner.rows
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
