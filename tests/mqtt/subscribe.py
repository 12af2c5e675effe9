#!/usr/bin/env python3
"""Subscribes to topics of an MQTT broker with a client that shares no code with ours, and prints each message as one JSON line.

    python3 -m venv VENV && VENV/bin/pip install -r tests/mqtt/requirements.txt
    VENV/bin/python tests/mqtt/subscribe.py --port 1883 'dt/#'

    {"topic", "retain", "qos", "dup", "payload_base64", "content_type" (or null), "properties": [[name, value], ...]}

The first line is {"subscribed": true}; later ones with it mean that the client has connected again. The session is kept
(QoS 1, MQTT 5), so that nothing is missed while the broker restarts. Ends when standard input does.

Exit: 0 at the end of standard input, 2 wrong usage, 3 packages missing.
"""

import argparse
import base64
import json
import os
import sys
import threading

try:
    from paho.mqtt import client as mqtt
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties
except ImportError as error:
    print(f"missing: {error.name}; pip install -r tests/mqtt/requirements.txt", file=sys.stderr)
    sys.exit(3)


def say(line):
    """Prints one line at once."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--client-id", default="independent")
    parser.add_argument("topic", nargs="+")
    arguments = parser.parse_args()

    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=arguments.client_id, protocol=mqtt.MQTTv5)
    client.reconnect_delay_set(1, 1)

    def connected(client, _data, _flags, reason, _properties):
        if reason.is_failure:
            print(f"subscribe: {reason}", file=sys.stderr, flush=True)
        else:
            client.subscribe([(topic, 1) for topic in arguments.topic])

    def message(_client, _data, message):
        properties = message.properties
        say(
            {
                "topic": message.topic,
                "retain": bool(message.retain),
                "qos": message.qos,
                "dup": bool(message.dup),
                "payload_base64": base64.b64encode(message.payload).decode(),
                "content_type": getattr(properties, "ContentType", None),
                "properties": getattr(properties, "UserProperty", []),
            }
        )

    client.on_connect = connected
    client.on_subscribe = lambda *_: say({"subscribed": True})
    client.on_message = message
    session = Properties(PacketTypes.CONNECT)
    session.SessionExpiryInterval = 3600
    client.connect(arguments.host, arguments.port, clean_start=False, properties=session)
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    client.loop_forever(retry_first_connection=True)


if __name__ == "__main__":
    main()
