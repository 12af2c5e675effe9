"""Charts of the results, as small SVG files that are the same for the same figures."""

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402, the back-end has to be chosen before

OURS, BARE, OTHERS = "#1f6f8b", "#8a8a8a", "#d98b2b"
PERCENTILES = (("p50", "o"), ("p90", "s"), ("p99", "D"), ("p99.9", "^"))

plt.rcParams.update(
    {
        "svg.fonttype": "none",
        "svg.hashsalt": "dt-receiver",
        "font.family": "sans-serif",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.grid": True,
        "axes.grid.axis": "x",
        "grid.color": "#dddddd",
        "path.simplify": True,
    }
)


def color(subject):
    if subject.name.startswith(("bare", "verify")):
        return BARE
    return OURS if "dt-receiver" in subject.title else OTHERS


def save(figure, path):
    figure.savefig(path, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    plt.close(figure)


def rows(count):
    """A figure with a line for each of so many subjects, the first on top."""
    figure, axes = plt.subplots(figsize=(7.5, 0.6 + 0.32 * count))
    axes.invert_yaxis()
    return figure, axes


def bars(path, title, unit, values, form, log=False):
    """One bar for each `(subject, value)`, with its figure beside it; dots where the axis is logarithmic."""
    figure, axes = rows(len(values))
    names = [subject.title for subject, _ in values]
    colors = [color(subject) for subject, _ in values]
    figures = [value for _, value in values]
    if log:
        # A bar's length means nothing on such an axis.
        axes.scatter(figures, names, color=colors, zorder=3)
        axes.set_xscale("log")
        axes.set_xlim(min(figures) / 1.5, max(figures) * 3)
        axes.xaxis.set_minor_formatter("")
    else:
        axes.barh(names, figures, color=colors, height=0.65)
        axes.set_xlim(0, max(figures) * 1.15)
    for line, value in enumerate(figures):
        axes.annotate(form(value), (value, line), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8)
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.set_xlabel(unit)
    axes.set_title(title, loc="left", fontsize=10)
    save(figure, path)


def latencies(path, values):
    """The percentiles of each `(subject, {name: microseconds})`."""
    figure, axes = rows(len(values))
    names = [subject.title for subject, _ in values]
    for name, marker in PERCENTILES:
        axes.scatter(
            [found[name] / 1000 for _, found in values], names, marker=marker, s=22, zorder=3, label=name,
            color=[color(subject) for subject, _ in values],
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.xaxis.set_minor_formatter("")
    axes.set_xlabel("ms, logarithmic")
    axes.set_title("Latency of an answer", loc="left", fontsize=10)
    legend = axes.legend(ncols=4, loc="lower right", bbox_to_anchor=(1, 1), frameon=False, fontsize=8)
    for handle in legend.legend_handles:
        handle.set_color("#444444")
    save(figure, path)


def curve(path, title, x_label, points):
    """How events a second, CPU an event and p99 go with what grows: `(x, row)` each, at even distances."""
    figure, three = plt.subplots(1, 3, figsize=(9, 2.4))
    places = range(len(points))
    for axes, column, label, scale in (
        (three[0], "requests_per_second", "requests/s", 1),
        (three[1], "cpu_us", "µs of CPU a request", 1),
        (three[2], "p99", "p99, ms", 1000),
    ):
        axes.plot(places, [row[column] / scale for _, row in points], marker="o", color=OURS, markersize=4)
        axes.set_xticks(places, [x for x, _ in points])
        axes.set_ylim(bottom=0)
        axes.grid(axis="y")
        axes.grid(visible=False, axis="x")
        axes.set_xlabel(x_label)
        axes.set_title(label, loc="left", fontsize=9)
    figure.suptitle(title, x=0.02, ha="left", fontsize=10)
    figure.tight_layout()
    save(figure, path)


def compare(wanted, medians, folder):
    """The four charts of the comparison."""
    many = [(subject, {name: values[0] for name, values in medians[subject.name].items()}) for subject in wanted]
    many = [(subject, found) for subject, found in many if subject.connections is None and not subject.again]
    if not many:
        return
    of = lambda column: [(subject, found[column]) for subject, found in many]
    bars(folder / "throughput.svg", "Events a second", "events/s", of("events_per_second"), "{:,.0f}".format)
    cpu = "CPU of the server for an event"
    bars(folder / "cpu.svg", cpu, "µs, logarithmic", of("cpu_us"), "{:.1f} µs".format, log=True)
    mebibytes = [(subject, value / 2**20) for subject, value in of("rss")]
    bars(folder / "memory.svg", "Most memory at once", "MiB", mebibytes, "{:.0f} MiB".format)
    latencies(folder / "latency.svg", many)
