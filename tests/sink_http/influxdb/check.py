#!/usr/bin/env python3
"""Compares the database `sensors` of an InfluxDB 1 with the events that were sent to it, without any code of this project.

    check.py URL FILE

A login is the query of URL: "http://HOST?u=USER&p=PASSWORD". FILE has a body on each line, those of a device in the order in which they were accepted. `points` of line_protocol.py says which
points a body holds; of points with equal series and time, the later one replaces the fields of the earlier one. The database must
have exactly these points, with exactly these tags, times and values.
"""

import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "vectors"))
from line_protocol import call, points


def expected(path):
    found = {}
    with open(path, encoding="utf-8") as bodies:
        for body in bodies:
            for point in points(json.loads(body)):
                key = (point["measurement"], tuple(sorted(point["tags"].items())), point["time"])
                found.setdefault(key, {}).update(point["fields"])
    return found


def stored(url):
    def query(statement):
        answer = json.loads(call(url, "/query", {"db": "sensors", "epoch": "ns", "q": statement}))
        result = answer["results"][0]
        if "error" in result or result.get("partial"):
            sys.exit(f"{statement}: {result.get('error', 'only a part')}")
        return result.get("series", [])

    found = {}
    for (name,) in (row for series in query("SHOW MEASUREMENTS") for row in series["values"]):
        for series in query(f'SELECT * FROM "{name}" GROUP BY *'):
            tags = tuple(sorted((key, value) for key, value in series.get("tags", {}).items() if value))
            for row in series["values"]:
                fields = dict(zip(series["columns"], row))
                time = fields.pop("time")
                found[name, tags, time] = {key: value for key, value in fields.items() if value is not None}
    return found


def main():
    url, path = sys.argv[1:]
    wanted, there = expected(path), stored(url)
    missing = sorted(set(wanted) - set(there))
    added = sorted(set(there) - set(wanted))
    other = sorted(key for key in set(wanted) & set(there) if wanted[key] != there[key])
    for what, keys in ("missing", missing), ("not expected", added), ("with other values", other):
        if keys:
            first = keys[0]
            print(f"{len(keys)} points {what}, first {first}: expected {wanted.get(first)}, found {there.get(first)}", file=sys.stderr)
    if missing or added or other:
        sys.exit(1)
    series = {key[:2] for key in wanted}
    print(f"{len(wanted)} points in {len(series)} series, all as expected")


if __name__ == "__main__":
    main()
