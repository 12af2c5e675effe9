"""Medians and percentiles."""

import math


def percentile(values, percent):
    """The least value that so many per cent of all are not above."""
    ordered = sorted(values)
    return ordered[max(math.ceil(len(ordered) * percent / 100) - 1, 0)]


def median(values):
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def over_runs(rows, columns):
    """`{column: (median, least, most)}` of what several runs of one subject measured; not of what none has."""
    found = {}
    for column in columns:
        values = [row[column] for row in rows if row.get(column) is not None]
        if values:
            found[column] = (median(values), min(values), max(values))
    return found
