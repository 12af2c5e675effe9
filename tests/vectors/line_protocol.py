#!/usr/bin/env python3
"""Makes line_protocol.json, the known answers for the format `line-protocol`, without using any code of this project.

    python3 -m venv VENV && VENV/bin/pip install -r tests/vectors/requirements.txt
    VENV/bin/python tests/vectors/line_protocol.py            write line_protocol.json
    VENV/bin/python tests/vectors/line_protocol.py --check    check the committed file, and that a run would reproduce it; writes nothing
    VENV/bin/python tests/vectors/line_protocol.py --server URL    also write each line to an InfluxDB 1 at URL, and read the point
                                                                   back; a login is the query of URL: "http://HOST?u=USER&p=PASSWORD"

A case is a body, when it was received, and the lines that it must become. `points` below is a second reading of docs/formats.md:
which points a body holds. `line` writes a point. The package line-protocol-parser, which is independent of both, then reads each
line: it must find exactly that point, or the script stops.
"""

import datetime
import json
import pathlib
import re
import sys
import urllib.parse
import urllib.request

PATH = pathlib.Path(__file__).with_name("line_protocol.json")
RECEIVED_AT = 1_700_000_000_123
TIME = "2022-02-10T11:22:13.123456Z"

# What a payload reports: the quantity and the member that has it.
NUMBERS = {
    "co2": {"co2": "ppm"},
    "pressure": {"pressure": "pascal"},
    "objectPresentCount": {"objectPresentCount": "total"},
    "touchCount": {"touchCount": "total"},
    "batteryStatus": {"batteryStatus": "percentage"},
    "networkStatus": {"signalStrength": "signalStrength", "rssi": "rssi"},
    "cellularStatus": {"signalStrength": "signalStrength"},
}
TEXTS = {
    "objectPresent": {"objectPresent": "state"},
    "waterPresent": {"waterPresent": "state"},
    "motion": {"motion": "state"},
    "deskOccupancy": {"deskOccupancy": "state"},
    "contact": {"contact": "state"},
    "probeWireStatus": {"probeWireStatus": "state"},
    "networkStatus": {"transmissionMode": "transmissionMode"},
    "connectionStatus": {"connectionStatus": "connection"},
    "ethernetStatus": {"ipAddress": "ipAddress"},
}
SAMPLED = {
    "temperature": {"temperature": "value"},
    "humidity": {"temperature": "temperature", "relativeHumidity": "relativeHumidity"},
}


def body(event_type, payload, *, labels=None, device="b6roh6d7rihmn9oji86g", device_type="temperature", time=TIME, keyed=True):
    target = "projects/b5rj9ed7rihk942p48og" + (f"/devices/{device}" if device else "")
    event = {"eventId": "c82gg9catj3vmh4248og", "targetName": target, "eventType": event_type}
    event |= {"data": {event_type: payload} if keyed else payload, "timestamp": time}
    metadata = {"deviceId": device, "projectId": "b5rj9ed7rihk942p48og", "deviceType": device_type, "productNumber": "102058"}
    return {"event": event, "labels": labels or {}} | ({"metadata": metadata} if device_type else {})


def at(payload, time=TIME):
    return payload | {"updateTime": time}


AWKWARD = {
    "room": "2.31, north = cold",
    "a key, with = all": "x",
    'say "hi"': '"quoted"',
    "path": "C:\\temp\\",
    "lines": "one\ntwo\r\nthree\ttab\u0000nul\u0085next\u007fdel",
    "injected": "x touch=9 1\ntouch,device=forged touch=1 1",
    "empty": "",
    "device": "not the device",
    "name": "Kjølerom ❄️ 3",
    "a/b": "first",
    "a\\b": "second",
    "": "no key",
    "#": "#",
    "number": 5,
}

CASES = {
    "a temperature with its only sample": body(
        "temperature", at({"value": 24.9, "samples": [{"value": 24.9, "sampleTime": TIME}], "isBackfilled": False}), labels={"room": "2.31"}
    ),
    "a temperature without samples": body("temperature", at({"value": -27})),
    "back-filled samples, each with its time": body(
        "temperature",
        at(
            {
                "value": 3,
                "samples": [
                    {"value": 3, "sampleTime": "2022-02-10T11:22:13Z"},
                    {"value": 2.5, "sampleTime": "2022-02-10T11:17:13Z"},
                    {"value": 2, "sampleTime": "2022-02-10T12:12:13.000000001+01:00"},
                ],
                "isBackfilled": True,
            }
        ),
    ),
    "samples without a time of their own": body("temperature", at({"value": 3, "samples": [{"value": 3}, {"value": 4}]})),
    "two quantities on a line for each sample": body(
        "humidity",
        at(
            {
                "temperature": 22.45,
                "relativeHumidity": 17,
                "samples": [
                    {"temperature": 22.45, "relativeHumidity": 17, "sampleTime": TIME},
                    {"temperature": 22, "relativeHumidity": 18.5, "sampleTime": "2022-02-10T11:17:13.123456Z"},
                ],
            }
        ),
        device_type="humidity",
    ),
    "a touch": body("touch", at({}), device_type="touch"),
    "an object": body("objectPresent", at({"state": "NOT_PRESENT"}), device_type="proximity"),
    "a count": body("objectPresentCount", at({"total": 4176}), device_type="proximityCounter"),
    "touches": body("touchCount", at({"total": 469}), device_type="touchCounter"),
    "water": body("waterPresent", at({"state": "PRESENT"}), device_type="waterDetector"),
    "carbon dioxide": body("co2", at({"ppm": 526}), device_type="co2"),
    "pressure": body("pressure", at({"pascal": 99301.25}), device_type="co2"),
    "motion": body("motion", at({"state": "MOTION_DETECTED"}), device_type="motion"),
    "a desk": body("deskOccupancy", at({"state": "OCCUPIED", "remarks": ["INCOMPLETE_DATA"]}), device_type="deskOccupancy"),
    "a door": body("contact", at({"state": "OPEN"}), device_type="contact"),
    "a probe": body("probeWireStatus", at({"state": "TWO_WIRE"})),
    "a battery": body("batteryStatus", at({"percentage": 100})),
    "a network": body(
        "networkStatus",
        at({"signalStrength": 45, "rssi": -83, "cloudConnectors": [], "transmissionMode": "LOW_POWER_STANDARD_MODE"}),
    ),
    "a connection": body("connectionStatus", at({"connection": "ETHERNET", "available": ["ETHERNET"]}), device_type="ccon"),
    "an address": body("ethernetStatus", at({"macAddress": "f0:b5:b7:00:0a:08", "ipAddress": "10.0.0.1", "errors": []}), device_type="ccon"),
    "no address": body("ethernetStatus", at({"macAddress": "f0:b5:b7:00:0a:08"}), device_type="ccon"),
    "a cellular signal": body("cellularStatus", at({"signalStrength": 80, "errors": []}), device_type="ccon"),
    "awkward labels": body("touch", at({}), labels=AWKWARD),
    "an unknown state with all that must be escaped": body("contact", at({"state": 'AJAR "\\" \\, = \nx=1 1\u0000\\'})),
    "a device and a type with all that must be escaped": body("touch", at({}), device="a b,c=d\\", device_type="e f,g=h\n"),
    "no device and no metadata": body("touch", at({}), device=None, device_type=None),
    "the time of the event where the payload has none": body("touch", {}),
    "the time of the event where that of the payload is none": body("touch", at({}, "yesterday")),
    "the time of receipt where there is no other": body("touch", {}, time="now"),
    "the time of receipt where 64 bits cannot hold the time": body("touch", at({}, "2262-04-12T00:00:00Z")),
    "a time before 1970": body("touch", at({}, "1969-12-31T23:59:59.999999999Z")),
    "very large and very small numbers": body("pressure", at({"pascal": 1.5e300})),
    "a number that no decimal fraction is": body("pressure", at({"pascal": 0.1 + 0.2})),
    "no readings: labels": body("labelsChanged", {"added": {"a": "b"}, "modified": {}, "removed": []}, keyed=False),
    "no readings: an unknown type": body("smell, x=1 1\nsmell", at({"value": 1})),
    "no readings: an unreadable payload": body("temperature", at({"value": "24.9"})),
}


def nanos(text):
    """The time in Unix nanoseconds; None if the text is not RFC 3339."""
    found = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", text or "")
    if not found:
        return None
    whole = datetime.datetime.fromisoformat(found[1] + found[3].replace("Z", "+00:00"))
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
    return round((whole - epoch).total_seconds()) * 10**9 + int((found[2] or "").ljust(9, "0"))


def values(event_type, payload):
    """Yields (quantity, value, time of the sample or None)."""
    if event_type == "touch":
        yield "touch", 1.0, None
    members = SAMPLED.get(event_type, {})
    if all(isinstance(payload.get(member), (int, float)) for member in members.values()):
        for sample in payload.get("samples") or [payload]:
            for quantity, member in members.items():
                yield quantity, float(sample[member]), sample.get("sampleTime")
    for quantity, member in NUMBERS.get(event_type, {}).items():
        yield quantity, float(payload[member]), None
    for quantity, member in TEXTS.get(event_type, {}).items():
        yield quantity, re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", payload.get(member, "")), None


def points(case):
    """The points of a body, as `parse_line` returns them."""
    event, metadata = case["event"], case.get("metadata", {})
    payload = event["data"].get(event["eventType"], {})
    target = event["targetName"].split("/")
    tag = lambda text: re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", text).replace("\\", "/")
    tags = {}
    for key, value in sorted(case["labels"].items()):
        tags.setdefault("label_" + tag(key), tag(value if isinstance(value, str) else json.dumps(value)))
    tags |= {"project": target[1], "type": tag(metadata.get("deviceType", "")), "device": tag(target[3] if len(target) > 3 else "")}
    tags = {key: value for key, value in tags.items() if value}
    found = []
    for quantity, value, sample_time in values(event["eventType"], payload):
        times = (nanos(text) for text in (sample_time, payload.get("updateTime"), event["timestamp"]))
        time = next((time for time in times if time is not None), None)
        if time is None or not -(2**63) + 2 <= time < 2**63 - 1:
            time = RECEIVED_AT * 10**6
        last = found[-1] if found else None
        if last is None or last["time"] != time or quantity in last["fields"]:
            last = {"measurement": event["eventType"], "tags": tags, "fields": {}, "time": time}
            found.append(last)
        last["fields"][quantity] = value
    return found


def line(point):
    """Writes a point."""
    plain = lambda text: re.sub(r"([,= ])", r"\\\1", text)
    string = lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    number = lambda value: repr(value).replace("e+", "e")
    tags = "".join(f",{plain(key)}={plain(value)}" for key, value in sorted(point["tags"].items()))
    fields = ",".join(f"{key}={string(value) if isinstance(value, str) else number(value)}" for key, value in point["fields"].items())
    return f"{point['measurement']}{tags} {fields} {point['time']}"


def call(url, path, parameters, data=None):
    url, _, login = url.partition("?")
    url = f"{url}{path}?{urllib.parse.urlencode(parameters)}&{login}"
    with urllib.request.urlopen(urllib.request.Request(url, data=data)) as answer:
        return answer.read()


def is_in(url, point):
    """Whether an InfluxDB has a point, with these tags and no others."""
    query = f'SELECT * FROM "{point["measurement"]}" WHERE time = {point["time"]} GROUP BY *'
    answer = json.loads(call(url, "/query", {"db": "vectors", "q": query, "epoch": "ns"}))
    for series in answer["results"][0].get("series", []):
        tags = {key: value for key, value in series["tags"].items() if value}
        for row in series["values"]:
            fields = dict(zip(series["columns"], row))
            if tags == point["tags"] and all(fields.get(key) == value for key, value in point["fields"].items()):
                return True
    return False


def try_server(url):
    """Writes the points of all cases to an InfluxDB, one by one, and reads each back."""
    call(url, "/query", {"q": "CREATE DATABASE vectors"}, b"")
    found = [point for case in CASES.values() for point in points(case)]
    for point in found:
        call(url, "/write", {"db": "vectors"}, line(point).encode())
        if not is_in(url, point):
            sys.exit(f"the server does not have {point}")
    print(f"the server has {len(found)} points")


def main():
    server = sys.argv[2] if sys.argv[1:2] == ["--server"] and len(sys.argv) == 3 else None
    if server is None and sys.argv[1:] not in ([], ["--check"]):
        print("usage: line_protocol.py [--check | --server URL]", file=sys.stderr)
        sys.exit(2)
    # Only here, so that other scripts can use `points` and `call` without the package.
    from line_protocol_parser import parse_line

    vectors = []
    for name, case in CASES.items():
        lines = []
        for point in points(case):
            lines.append(line(point))
            read = parse_line(lines[-1])
            if read != point or "\n" in lines[-1]:
                sys.exit(f"{name}: {lines[-1]!r} is read as {read}, but means {point}")
        vectors.append({"name": name, "received_at": RECEIVED_AT, "body": json.dumps(case, separators=(",", ":")), "lines": lines})
    text = json.dumps(vectors, indent=1) + "\n"
    if sys.argv[1:] and PATH.read_text() != text:
        sys.exit(f"{PATH.name} is not what this script makes")
    if not sys.argv[1:]:
        PATH.write_text(text)
    if server:
        try_server(server)
    print(f"{len(vectors)} vectors, {sum(len(vector['lines']) for vector in vectors)} lines")


if __name__ == "__main__":
    main()
