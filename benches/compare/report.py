"""Tables: what each run measured, as CSV, and the medians, as Markdown."""

import csv
import shutil

import measure
from summary import over_runs

def write(wanted, rows, facts, options, out):
    """Writes results.csv and results.md, and prints the table; whether any run failed."""
    medians = {}
    for subject in wanted:
        mine = [row for row in rows if row["name"] == subject.name]
        medians[subject.name] = over_runs(mine, measure.COLUMNS)
    with open(out / "results.csv", "w", newline="") as file:
        write_csv(file, rows, medians)
    text = markdown(wanted, medians, facts, options, [row for row in rows if row["failed"]])
    (out / "results.md").write_text(text)
    # Here, as the tables need no matplotlib.
    import charts

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


def table(head, rows, align="---:"):
    """A table in Markdown; all columns but the first are numbers, unless `align` says otherwise."""
    lines = ["| " + " | ".join(head) + " |", "|---|" + f"{align}|" * (len(head) - 1)]
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
    # One lost in any run is one too many.
    lost = thousands(found["lost"][2]) if "lost" in found else "–"
    return [
        subject.title,
        thousands(value["events_per_second"]) + against("events_per_second"),
        *(time_of(value[column]) for column in ("p50", "p90", "p99", "p99.9", "max")),
        f"{value['cpu_us']:.1f} µs" + against("cpu_us"),
        f"{value['rss'] / 2**20:.1f} MiB",
        lost,
    ]


def markdown(wanted, medians, facts, options, failures):
    """The whole report."""
    parts = ["\n".join(f"- {name}: {value}" for name, value in facts)]
    runs = f"{options.runs} run{'s' if options.runs != 1 else ''} of {options.seconds} s each"
    busy = f"{options.connections} connections" + (", unless stated otherwise" if options.connections != 1 else "")
    parts.append(f"Medians of {runs}, in turn; {busy}. In parentheses: relative to the bare server.")
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
    parts.append(table(["", "what it does with an event"], [[one.title, one.does] for one in wanted], "---"))
    if failures:
        said = (f"{row['name']}, run {row['run']}: {row['failed']}" for row in failures)
        parts.append("**Failed:** " + "; ".join(said))
    return "\n\n".join(parts) + "\n"


def acknowledgement(medians):
    """What one answer takes, but for what HTTP and the disk take."""
    answer, bare = (medians[name]["p50"][0] for name in ("spool-file-1", "bare-1"))
    sync = medians["spool-file-1"]["sync_p50"][0]
    return (
        f"An acknowledgement with one connection takes {time_of(answer)} (p50). One append and fdatasync of 1 KiB in the same "
        f"folder takes {time_of(sync)}, before and after the same load: {time_of(answer - sync)} more than one sync. "
        f"The bare server's answer takes {time_of(bare)}: the rest, without HTTP and the sync, is "
        f"{time_of(answer - sync - bare)}."
    )


def into_docs(page, out, what):
    """Puts `what`.md (`results` or `curves`) between its markers in the page, and the charts into the folder beside it."""
    begin, end = (f"<!-- {what}: {which} -->" for which in ("begin", "end"))
    before, found, rest = page.read_text().partition(begin)
    _, found_too, after = rest.partition(end)
    if not (found and found_too):
        raise SystemExit(f"{page} has no {begin} and {end}")
    folder = page.with_suffix("")
    folder.mkdir(exist_ok=True)
    text = (out / f"{what}.md").read_text()
    for chart in sorted(out.glob("*.svg")):
        if chart.name.startswith("curve-") == (what == "curves"):
            shutil.copy(chart, folder)
            text += f"\n![{chart.stem.removeprefix('curve-')}]({folder.name}/{chart.name})\n"
    page.write_text(f"{before}{begin}\n\n{text}\n{end}{after}")
