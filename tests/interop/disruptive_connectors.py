#!/usr/bin/env python3
"""Prints the connectors of a project as DT's own Python client (disruptive), unmodified, sees them: a JSON array.

    EMULATOR_URL=http://127.0.0.1:8081 VENV/bin/python tests/interop/disruptive_connectors.py PROJECT KEY_ID SECRET EMAIL
"""

import json
import sys

import disruptive as dt
from disruptive_check import authenticate

project, *account = sys.argv[1:]
authenticate(*account)
seen = [
    {
        "name": one.display_name,
        "type": one.data_connector_type,
        "status": one.status,
        "events": one.event_types,
        "labels": one.labels,
        "url": one.config.url,
        "secret": one.config.signature_secret,
        "headers": one.config.headers,
    }
    for one in dt.DataConnector.list_data_connectors(project)
]
print(json.dumps(sorted(seen, key=lambda one: one["name"])))
