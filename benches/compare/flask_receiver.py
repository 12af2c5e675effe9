"""A receiver as DT's documentation shows one: dtintegrations in Flask. It keeps nothing. Run by gunicorn."""

import os
import warnings

from dtintegrations import data_connector, provider
from flask import Flask, request

warnings.simplefilter("ignore")
SECRET = os.environ["DT_SIGNATURE_SECRET"]
app = Flask(__name__)


@app.post("/dt")
def receive():
    try:
        push = data_connector.HttpPush.from_provider(request=request, provider=provider.FLASK, secret=SECRET)
    except Exception:  # it raises errors of its own, PyJWT's and others
        return ("refused", 401)
    # What a user's code would begin with.
    assert push.event.event_id
    return ("OK", 200)
