#!/usr/bin/env python3
"""A receiver as DT's documentation shows one: dtintegrations in Flask. For tests of the emulator.

    VENV/bin/python tests/interop/flask_receiver.py SECRET

Prints its port, verifies each POST to / with HttpPush.from_provider, and tells at GET /summary what it accepted by event
type and what it refused. Refused ones get 400, so that they can be told from a crash.
"""

import collections
import logging
import sys
import warnings

from dtintegrations import data_connector, provider
from flask import Flask, jsonify, request
from werkzeug.serving import make_server

warnings.simplefilter("ignore")  # PyJWT warns about short secrets
logging.getLogger("werkzeug").setLevel(logging.ERROR)
app = Flask(__name__)
accepted, refused = collections.Counter(), []


@app.post("/")
def receive():
    try:
        push = data_connector.HttpPush.from_provider(request=request, provider=provider.FLASK, secret=sys.argv[1])
        assert push.event.event_type == "labelsChanged" or push.event.data is not None
    except Exception as error:  # whatever escapes is the finding
        refused.append(f"{type(error).__name__}: {error}: {request.data!r}")
        return ("refused", 400)
    accepted[push.event.event_type] += 1
    return ("OK", 200)


@app.get("/summary")
def summary():
    return jsonify(accepted=dict(accepted), refused=refused)


if __name__ == "__main__":
    server = make_server("127.0.0.1", 0, app, threaded=True)
    print(server.server_port, flush=True)
    server.serve_forever()
