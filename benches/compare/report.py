"""Tables: what each run measured, as CSV, and the medians, as Markdown."""

import csv

import charts
import measure
from summary import over_runs

START, END = "<!-- results: begin -->", "<!-- results: end -->"


def write(wanted, rows, facts, options, out):
    """Writes results.csv and results.md, and prints the table; whether any run failed."""
    medians = {subject.name: over_runs([row for row in rows if row["name"] == subject.name], measure.COLUMNS) for subject in wanted}
    with open(out / "results.csv", "w", newline="") as file:
        write_csv(file, rows, medians)
    text = markdown(wanted, medians, facts, options, [row for row in rows if row["failed"]])
    (out / "results.md").write_text(text)
    charts.compare(wanted, medians, out)
    print(text)
    return any(row["failed"] for row in rows)


def write_csv(file, rows, medians):
    """A line for each run, then one each for the median, the least and the most of all runs."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["subject", "run", "connections", *measure.COLUMNS, "failed"])
    for row in rows:
        values = [number(row.get(column)) for column in measure.COLUMNS]
        writer.writerow([row["name"], row["run"], row["connections"], *values, row["failed"] or ""])
    for name, columns in medians.items():
        for which, what in enumerate(("median", "min", "max")):
            values = [number(columns[column][which]) if column in columns else "" for column in measure.COLUMNS]
            writer.writerow([name, what, "", *values, ""])


def number(value):
    if value is None:
        return ""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def table(head, rows):
    """A table in Markdown; all columns but the first are numbers."""
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def thousands(value):
    return f"{value:,.0f}"


def time_of(microseconds):
    """With three digits that count."""
    if microseconds < 1000:
        return f"{microseconds:.0f} µs"
    return f"{microseconds / 1000:.3g} ms" if microseconds < 999_500 else f"{microseconds / 1e6:.3g} s"


def line_of(subject, found, base):
    """A subject's medians, beside those of the bare server where that was measured along."""
    value = {column: values[0] for column, values in found.items()}
    against = lambda column: f" ({value[column] / base[column][0]:.2f})" if base else ""
    lost = thousands(value["lost"]) if "lost" in value and keeps(subject) else "–"
    return [
        subject.title,
        thousands(value["events_per_second"]) + against("events_per_second"),
        *(time_of(value[column]) for column in ("p50", "p90", "p99", "p99.9", "max")),
        f"{value['cpu_us']:.1f} µs" + against("cpu_us"),
        f"{value['rss'] / 2**20:.1f} MiB",
        lost,
    ]


def keeps(subject):
    return hasattr(subject, "arrived")


def markdown(wanted, medians, facts, options, failures):
    """The whole report."""
    parts = ["\n".join(f"- {name}: {value}" for name, value in facts)]
    runs = f"{options.runs} run{'s' if options.runs != 1 else ''} of {options.seconds} s each"
    parts.append(f"Medians of {runs}, in turn; {options.connections} connections where nothing else is said. In parentheses: beside the bare server.")
    head = ["", "events/s", "p50", "p90", "p99", "p99.9", "max", "CPU an event", "memory", "lost"]
    many = [subject for subject in wanted if subject.connections is None]
    if many:
        base = medians.get("bare")
        parts.append(table(head, [line_of(subject, medians[subject.name], base) for subject in many]))
    alone = [subject for subject in wanted if subject.connections == 1]
    if alone:
        parts.append("One connection:")
        parts.append(table(head, [line_of(subject, medians[subject.name], None) for subject in alone]))
    if {"bare-1", "spool-file-1"} <= medians.keys():
        parts.append(acknowledgement(medians))
    if failures:
        parts.append("**Failed:** " + "; ".join(f"{row['name']}, run {row['run']}: {row['failed']}" for row in failures))
    return "\n\n".join(parts) + "\n"


def acknowledgement(medians):
    """What one answer takes, but for what HTTP and the disk take."""
    answer, bare = (medians[name]["p50"][0] for name in ("spool-file-1", "bare-1"))
    sync = medians["spool-file-1"]["sync_p50"][0]
    return (
        f"An acknowledgement with one connection takes {time_of(answer)} (p50). One append and fdatasync of 1 KiB in the same "
        f"folder takes {time_of(sync)}, before and after the same load: {time_of(answer - sync)} more than one sync. "
        f"The bare server's answer takes {time_of(bare)}: what is ours beside HTTP and the sync is "
        f"{time_of(answer - sync - bare)}."
    )


def into_docs(page, out):
    """Puts the table between the two markers of the page."""
    text = page.read_text()
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{START}\n\n{(out / 'results.md').read_text()}\n{END}{after}")
