#!/usr/bin/env python3
"""Runs a Python example of DT's documentation (on standard input) with another base URL and nothing else changed.

    EMULATOR_URL=http://127.0.0.1:8081 VENV/bin/python tests/interop/run_example.py < example.py
"""

import os
import sys

import disruptive
from disruptive.authentication import ServiceAccountAuth

disruptive.base_url = os.environ["EMULATOR_URL"] + "/v2"
ServiceAccountAuth.token_endpoint = os.environ["EMULATOR_URL"] + "/oauth2/token"
exec(compile(sys.stdin.read(), "example", "exec"))  # our own committed text
