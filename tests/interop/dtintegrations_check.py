#!/usr/bin/env python3
"""Asks the official Python receiver (dtintegrations) what it thinks of our requests.

    python3 -m venv VENV && VENV/bin/pip install -r tests/interop/requirements.txt
    VENV/bin/python tests/interop/dtintegrations_check.py < requests.jsonl > answers.jsonl

One JSON object a line in:   {"name", "headers": {...}, "body_base64", "secret"}
one a line out, same order:  {"name", "accepted", "event_id", "event_type", "error"}
Unused members are null. The clock is the real one, so sign just before asking.

Exit: 0 all lines answered (accepted or not), 2 a line could not be read, 3 packages missing. `--version` prints versions.
"""

import base64
import importlib.metadata
import json
import sys
import warnings

PACKAGES = ("dtintegrations", "disruptive", "PyJWT", "cryptography", "flask")


def load():
    """HttpPush, or exit 3 with one line that says what is missing."""
    try:
        versions = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
        import jwt  # noqa: F401  dtintegrations needs it without asking for it
        from dtintegrations.data_connector.http_push import HttpPush
    except ImportError as error:  # PackageNotFoundError is one too
        print(f"missing: {error.name or error}; pip install -r tests/interop/requirements.txt", file=sys.stderr)
        sys.exit(3)
    return HttpPush, versions


def ask(http_push, line):
    request = json.loads(line)
    answer = {"name": request["name"], "accepted": False, "event_id": None, "event_type": None, "error": None}
    headers, body, secret = request["headers"], base64.b64decode(request["body_base64"], validate=True), request["secret"]
    try:
        push = http_push(headers, body, secret)
        answer.update(accepted=True, event_id=push.event.event_id, event_type=push.event.event_type)
    except Exception as error:  # whatever escapes is the finding
        answer["error"] = f"{type(error).__name__}: {error}"
    return answer


def main():
    if sys.argv[1:] not in ([], ["--version"]):
        print("usage: dtintegrations_check.py [--version] < requests.jsonl", file=sys.stderr)
        sys.exit(2)
    http_push, versions = load()
    if sys.argv[1:]:
        print("\n".join([*versions, "Python " + sys.version.split()[0]]))
        return
    warnings.simplefilter("ignore")  # PyJWT warns about short secrets
    for number, line in enumerate(sys.stdin, 1):
        if not line.strip():
            continue
        try:
            answer = ask(http_push, line)
        except (ValueError, KeyError, TypeError) as error:
            print(f"line {number}: {type(error).__name__}: {error}", file=sys.stderr)
            sys.exit(2)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
