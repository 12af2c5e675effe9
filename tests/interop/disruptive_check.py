#!/usr/bin/env python3
"""Uses the emulator through DT's own Python client (disruptive), unmodified.

    EMULATOR_URL=http://127.0.0.1:8081 VENV/bin/python tests/interop/disruptive_check.py connectors|errors|publish|devices|stream|stream-errors

The emulator has two service accounts: dev:dev-secret and user:user-secret (which may only read).
Exit: 0 all as expected; otherwise the assertion that failed.
"""

import os
import sys
import threading
from datetime import datetime, timedelta, timezone

import disruptive as dt
import requests
from disruptive import errors, events

URL = os.environ["EMULATOR_URL"]


def authenticate(key_id="dev", secret="dev-secret", email="dev@x.serviceaccount.d21s.com"):
    dt.base_url = dt.emulator_base_url = URL + "/v2"
    dt.default_auth = dt.Auth.service_account(key_id, secret, email)
    dt.default_auth.token_endpoint = URL + "/oauth2/token"


def raises(kind, call, **kwargs):
    try:
        call(**kwargs)
    except kind:
        return
    raise AssertionError(f"{call.__qualname__} did not raise {kind.__name__}")


def connectors():
    project = "c0md3mm0c7pet3vico8g"
    made = dt.DataConnector.create_data_connector(
        project_id=project,
        config=dt.DataConnector.HttpPushConfig(
            url="http://127.0.0.1:9/dt", signature_secret="some-good-secret", headers={"my-header": "my-value"}
        ),
        display_name="first",
        status="ACTIVE",
        event_types=[events.TOUCH],
        labels=["name"],
    )
    assert (made.display_name, made.status, made.event_types, made.labels) == ("first", "ACTIVE", ["touch"], ["name"])
    assert made.project_id == project and len(made.data_connector_id) == 20
    assert made.config.url == "http://127.0.0.1:9/dt" and made.config.signature_secret == "some-good-secret"
    assert made.config.headers == {"my-header": "my-value"}
    ids = dict(data_connector_id=made.data_connector_id, project_id=project)

    got = dt.DataConnector.get_data_connector(**ids)
    assert got.raw == made.raw
    assert [one.raw for one in dt.DataConnector.list_data_connectors(project)] == [made.raw]
    assert dt.DataConnector.list_data_connectors("another-project") == []

    changed = dt.DataConnector.update_data_connector(
        **ids,
        config=dt.DataConnector.HttpPushConfig(signature_secret="another"),
        display_name="second",
        status="USER_DISABLED",
        event_types=[],
        labels=[],
    )
    assert (changed.display_name, changed.status, changed.event_types, changed.labels) == ("second", "USER_DISABLED", [], [])
    assert changed.config.url == "http://127.0.0.1:9/dt" and changed.config.signature_secret == "another"
    assert changed.config.headers == {"my-header": "my-value"}

    metrics = dt.DataConnector.get_metrics(**ids)
    assert (metrics.success_count, metrics.error_count, metrics.latency) == (0, 0, "0.000s")
    assert dt.DataConnector.sync_data_connector(**ids) is None
    assert dt.DataConnector.delete_data_connector(**ids) is None
    raises(errors.NotFound, dt.DataConnector.get_data_connector, **ids)

    # Ten are allowed, and all come in one list.
    for number in range(10):
        dt.DataConnector.create_data_connector(
            project_id=project, config=dt.DataConnector.HttpPushConfig(url=f"https://example.com/{number}")
        )
    assert len(dt.DataConnector.list_data_connectors(project)) == 10
    raises(
        errors.BadRequest,
        dt.DataConnector.create_data_connector,
        project_id=project,
        config=dt.DataConnector.HttpPushConfig(url="https://example.com/11"),
    )


def errors_():
    dt.request_attempts = 1
    project = "p"
    config = dt.DataConnector.HttpPushConfig
    raises(errors.BadRequest, dt.DataConnector.create_data_connector, project_id=project, config=config(url="ftp://x"))
    raises(errors.NotFound, dt.DataConnector.get_data_connector, data_connector_id="none", project_id=project)
    raises(errors.NotFound, dt.Device.get_device, device_id="none", project_id=project)
    for wrong in [("dev", "wrong", "dev@x.serviceaccount.d21s.com"), ("nobody", "x", "y"), ("dev", "dev-secret", "other")]:
        authenticate(*wrong)
        raises(errors.Unauthorized, dt.DataConnector.list_data_connectors, project_id=project)
    authenticate("user", "user-secret", "user@x.serviceaccount.d21s.com")
    assert dt.DataConnector.list_data_connectors(project) == []
    raises(errors.Forbidden, dt.DataConnector.create_data_connector, project_id=project, config=config(url="https://x"))
    raises(errors.Forbidden, dt.Emulator.create_device, project_id=project, device_type="touch")


# Older than the default window of the history, younger than its 31 days.
TIME = (datetime.now(timezone.utc) - timedelta(days=2)).strftime("%Y-%m-%dT%H:%M:%S.678901Z")
PUBLISHABLE = [
    events.Touch(TIME),
    events.Temperature(21.5, timestamp=TIME),
    events.Temperature(
        -3,
        samples=[events.TemperatureSample(-3, TIME), events.TemperatureSample(-2.5, TIME)],
        is_backfilled=True,
        timestamp=TIME,
    ),
    events.ObjectPresent("PRESENT", TIME),
    events.Humidity(23, 76, timestamp=TIME),
    events.ObjectPresentCount(4176, TIME),
    events.TouchCount(469, TIME),
    events.WaterPresent("NOT_PRESENT", TIME),
    events.NetworkStatus(
        45,
        -83,
        "LOW_POWER_STANDARD_MODE",
        cloud_connectors=[events.NetworkStatusCloudConnector("c0md3mm0c7pet3vico8g", 45, -83)],
        timestamp=TIME,
    ),
    events.BatteryStatus(80, TIME),
    events.ConnectionStatus("ETHERNET", ["ETHERNET", "CELLULAR"], TIME),
    events.EthernetStatus("f0:b5:b7:00:0a:08", "10.0.0.1", TIME),
    events.CellularStatus(80, TIME),
    events.Co2(526, TIME),
    events.Pressure(99301, TIME),
    events.Motion("MOTION_DETECTED", TIME),
    events.DeskOccupancy("OCCUPIED", timestamp=TIME),
    events.Contact("OPEN", TIME),
    events.ProbeWireStatus("THREE_WIRE", TIME),
]


def device_type_of(event_type):
    """A type of device that sends such events."""
    return {
        "objectPresent": "proximity",
        "humidity": "humidity",
        "objectPresentCount": "proximityCounter",
        "touchCount": "touchCounter",
        "waterPresent": "waterDetector",
        "connectionStatus": "ccon",
        "ethernetStatus": "ccon",
        "cellularStatus": "ccon",
        "co2": "co2",
        "pressure": "co2",
        "motion": "motion",
        "deskOccupancy": "deskOccupancy",
        "contact": "contact",
    }.get(event_type, "temperature")


def publish():
    project = "p"
    device = dt.Emulator.create_device(project_id=project, device_type="temperature", display_name="Cold store")
    assert device.is_emulated and device.display_name == "Cold store" and device.labels["virtual-sensor"] == ""
    ids = dict(device_id=device.device_id, project_id=project)
    made = {"temperature": device}
    published = {}
    for data in PUBLISHABLE:
        kind = device_type_of(data.event_type)
        if kind not in made:
            made[kind] = dt.Emulator.create_device(project_id=project, device_type=kind)
        published.setdefault(kind, []).append(data)
        assert dt.Emulator.publish_event(made[kind].device_id, project, data=data) is None
    kinds = set()
    for kind, sent_by_device in published.items():
        history = dt.EventHistory.list_events(made[kind].device_id, project, start_time=TIME, end_time=TIME)
        assert len(history) == len(sent_by_device)
        for event, sent in zip(reversed(history), sent_by_device):
            assert event.event_type == sent.event_type and event.device_id == made[kind].device_id
            for name, value in sent._raw.items():
                if name != "cloud_connectors" and value is not None:
                    assert event.data.raw[name] == value, (event.event_type, name, event.data.raw, value)
            kinds.add(event.event_type)
    assert kinds == set(events.EVENT_TYPES) - {"labelsChanged"}, set(events.EVENT_TYPES) ^ kinds
    raises(errors.BadRequest, dt.Emulator.publish_event, **ids, data=events.Co2(526, TIME))

    # Time and types are filters, the last day is the default.
    assert dt.EventHistory.list_events(**ids) == []
    touches = dt.EventHistory.list_events(
        **ids, start_time=TIME, end_time=TIME, event_types=["touch", "probeWireStatus"]
    )
    assert sorted(event.event_type for event in touches) == ["probeWireStatus", "touch"]
    dt.Emulator.publish_event(**ids, data=events.Touch())
    (touch,) = dt.EventHistory.list_events(**ids)
    assert abs(touch.data.timestamp - datetime.now(timezone.utc)) < timedelta(minutes=1)
    assert dt.Device.get_device(**ids).reported.temperature.celsius == -3
    assert dt.Device.get_device(device.device_id).project_id == project

    # More than a page.
    for _ in range(120):
        dt.Emulator.publish_event(**ids, data=events.BatteryStatus(80))
    levels = dt.EventHistory.list_events(**ids, event_types=["batteryStatus"])
    assert len({event.event_id for event in levels}) == 120
    dt.Emulator.delete_device(**ids)
    raises(errors.NotFound, dt.Device.get_device, **ids)


def devices():
    project = "p"
    made = {}
    for kind in dt.Device.DEVICE_TYPES:
        made[kind] = dt.Emulator.create_device(project_id=project, device_type=kind, labels={"kind": kind, "floor": "2"})
    assert len(dt.Device.list_devices(project)) == len(made) == 12
    (one,) = dt.Device.list_devices(project, label_filters={"kind": "ccon", "floor": "2"})
    assert one.raw == made["ccon"].raw
    assert len(dt.Device.list_devices(project, device_types=["touch", "co2"])) == 2
    ids = [made["touch"].device_id, made["co2"].device_id]
    assert sorted(d.device_id for d in dt.Device.list_devices(project, device_ids=ids)) == sorted(ids)

    assert len(dt.Device.list_devices(project, label_filters={"floor": ""})) == 12
    assert [one.device_type for one in dt.Device.list_devices(project, query="ccon")] == ["ccon"]
    kinds = [one.device_type for one in dt.Device.list_devices(project, order_by="-type")]
    assert kinds == sorted(kinds, reverse=True), kinds
    assert len(dt.Device.list_devices("-", organization_id="emulator")) == 12
    assert dt.Device.list_devices("-", organization_id="other") == []

    assert dt.Device.set_label(ids[0], project, "room", "17") == []
    assert dt.Device.set_label(ids[0], project, "room", "18") == []
    assert dt.Device.remove_label(ids[0], project, "room") == []
    assert dt.Device.remove_label(ids[0], project, "no such") == []
    history = dt.EventHistory.list_events(ids[0], project, event_types=["labelsChanged"])
    seen = [(event.data.added, event.data.modified, event.data.removed) for event in reversed(history)]
    assert seen == [({"room": "17"}, {}, []), ({}, {"room": "18"}, []), ({}, {}, ["room"])], seen
    failed = dt.Device.batch_update_labels(["none", ids[1]], project, set_labels={"a": "b"}, remove_labels=["floor"])
    assert [error.device_id for error in failed] == ["none"]
    labels = dt.Device.get_device(ids[1], project).labels
    assert labels == {"a": "b", "kind": "co2", "virtual-sensor": ""}, labels

    assert dt.Device.transfer_devices(ids, project, "q") == []
    assert len(dt.EventHistory.list_events(ids[0], "q")) == 3, "the history goes with the device"
    assert len(dt.Device.list_devices("q")) == 2 and len(dt.Device.list_devices(project)) == 10
    assert sorted(one.project_id for one in dt.Project.list_projects()) == ["p", "q"]
    assert dt.Project.get_project("q").sensor_count == 2
    dt.Project.update_project("q", display_name="North wing")
    assert [one.project_id for one in dt.Project.list_projects(query="north")] == ["q"]


def stream():
    project = "p"
    touch = dt.Emulator.create_device(project_id=project, device_type="touch", labels={"room": "1"})
    other = dt.Emulator.create_device(project_id=project, device_type="touch", labels={"room": "2"})
    stop = threading.Event()

    def keep_publishing():
        # The client does not tell when it is connected, so there is always something to come.
        while not stop.wait(0.05):
            for device in (other, touch):
                dt.Emulator.publish_event(device.device_id, project, events.Touch())
                dt.Emulator.publish_event(device.device_id, project, events.BatteryStatus(80))

    publisher = threading.Thread(target=keep_publishing)
    publisher.start()
    try:
        found = dt.Stream.event_stream(project, label_filters={"room": "1"}, event_types=["touch"], device_types=["touch"])
        for _, event in zip(range(5), found):
            assert (event.event_type, event.device_id) == ("touch", touch.device_id)
        found = dt.Stream.event_stream(project, device_ids=[other.device_id])
        seen = [event for _, event in zip(range(6), found)]
        assert {event.event_type for event in seen} == {"touch", "batteryStatus"}
        assert {event.device_id for event in seen} == {other.device_id}
    finally:
        stop.set()
        publisher.join()


class BadToken:
    """Credentials that the emulator does not know."""

    def get_token(self):
        return "Bearer bad"


def stream_errors():
    dt.request_attempts = 1
    raises(errors.Unauthorized, lambda: next(dt.Stream.event_stream("p", auth=BadToken())))
    patch = dict(auth=("dev", "dev-secret"), json={"apiOutage": True})
    requests.patch(URL + "/emulator/faults", **patch).raise_for_status()
    raises(errors.InternalServerError, lambda: next(dt.Stream.event_stream("p")))


if __name__ == "__main__":
    authenticate()
    parts = {
        "connectors": connectors,
        "errors": errors_,
        "publish": publish,
        "devices": devices,
        "stream": stream,
        "stream-errors": stream_errors,
    }
    parts[sys.argv[1]]()
