#!/usr/bin/env python3
"""Validates MQTT discovery messages with the schemas of Home Assistant itself.

    python3 -m venv VENV && VENV/bin/pip install -r tests/mqtt/requirements-home-assistant.txt
    VENV/bin/python tests/mqtt/discovery.py < lines

Each line of standard input is {"topic": "homeassistant/…/config", "payload": {…}}. Prints `COMPONENT NAME` for each.

Exit: 0 all are valid, 1 one is not, 3 packages missing.
"""

import json
import sys

try:
    import voluptuous
    from homeassistant.components.mqtt.binary_sensor import DISCOVERY_SCHEMA as BINARY_SENSOR
    from homeassistant.components.mqtt.discovery import TOPIC_MATCHER
    from homeassistant.components.mqtt.sensor import DISCOVERY_SCHEMA as SENSOR
    from homeassistant.components.sensor.const import DEVICE_CLASS_STATE_CLASSES, DEVICE_CLASS_UNITS
except ImportError as error:
    print(f"missing: {error.name}; pip install -r tests/mqtt/requirements-home-assistant.txt", file=sys.stderr)
    sys.exit(3)

SCHEMAS = {"sensor": SENSOR, "binary_sensor": BINARY_SENSOR}


def main():
    for line in sys.stdin:
        message = json.loads(line)
        prefix, _, topic = message["topic"].partition("/")
        match = TOPIC_MATCHER.match(topic)
        if prefix != "homeassistant" or not match:
            sys.exit(f"{message['topic']} is no discovery topic")
        component = match.group("component")
        try:
            config = SCHEMAS[component](message["payload"])
        except voluptuous.Invalid as error:
            sys.exit(f"{message['topic']}: {error}")
        # Home Assistant only logs a warning for these two, later.
        if component == "sensor" and (device_class := config.get("device_class")):
            unit, state_class = config.get("unit_of_measurement"), config.get("state_class")
            if device_class in DEVICE_CLASS_UNITS and unit not in DEVICE_CLASS_UNITS[device_class]:
                sys.exit(f"{message['topic']}: {device_class} is not measured in {unit}")
            if state_class and state_class not in DEVICE_CLASS_STATE_CLASSES.get(device_class, {state_class}):
                sys.exit(f"{message['topic']}: {device_class} has no state class {state_class}")
        print(component, config["name"])


if __name__ == "__main__":
    main()
