"""Files of ready-made HTTP requests, each with an event id of its own, for wrk to send.

A file has one record for each request: its length in 8 digits, then its bytes as they go over the wire. Beside it, `.ids`
has the id of each event, in the same order, 20 bytes and a newline. wrk holds nothing of it in memory.
"""

import base64
import hashlib
import hmac
import json
import os
import pathlib
import subprocess
import time

SECRET = "a-secret-of-the-comparison-with-48-characters-xx"
ORGANIZATION = "c0md3mm0c7pet3vico8g"
KID = "compare"
# Not `/`, where webhook cannot have a hook.
TARGET = "/dt"
# Tokens hold for 24 h; a file of an earlier run is good for half of that.
LIFETIME = 24 * 3600
ID = b'"eventId":"'
HEADERS = {"hs256": b"X-Dt-Signature", "es256": b"DT-Asymmetric-Signature"}


class Traffic:
    """A file of requests, and how many it has."""

    def __init__(self, path):
        self.path = pathlib.Path(path)

    def count(self):
        return self.path.with_suffix(".ids").stat().st_size // 21

    def ids(self, count):
        """The ids of the first `count` events."""
        with open(self.path.with_suffix(".ids"), "rb") as file:
            return file.read(21 * count).split(b"\n")[:-1]

    def first(self):
        """The first request, as bytes."""
        with open(self.path, "rb") as file:
            return file.read(int(file.read(8)))

    def warm(self):
        """Reads it once, so that wrk has it from memory also at the first run."""
        with open(self.path, "rb", 0) as file:
            while file.read(1 << 24):
                pass

    def is_fresh(self, count):
        try:
            age = time.time() - self.path.stat().st_mtime
            return age < LIFETIME / 2 and self.count() >= count
        except OSError:
            return False

    def remove(self):
        self.path.unlink(missing_ok=True)
        self.path.with_suffix(".ids").unlink(missing_ok=True)


def target(number, several):
    """The path of a connector, by its number."""
    return f"/c{number}" if several else TARGET


def write(path, signed):
    """Writes a file of `(header, path, token, body, id)`."""
    traffic = Traffic(path)
    traffic.path.parent.mkdir(parents=True, exist_ok=True)
    partial = traffic.path.with_suffix(".partial")
    with open(partial, "wb", 1 << 20) as requests, open(traffic.path.with_suffix(".ids"), "wb", 1 << 20) as ids:
        for header, target, token, body, event_id in signed:
            request = (
                b"POST %s HTTP/1.1\r\nHost: receiver.example\r\nUser-Agent: compare\r\nContent-Type: application/json\r\n"
                b"%s: %s\r\nContent-Length: %d\r\n\r\n%s" % (target, header, token, len(body), body)
            )
            requests.write(b"%08d" % len(request))
            requests.write(request)
            ids.write(event_id + b"\n")
        # What is still to be written back would make the syncs of the first run slow.
        for file in (requests, ids):
            file.flush()
            os.fsync(file.fileno())
    partial.rename(traffic.path)
    return traffic


def of_receiver(program, scheme, count, folder):
    """A file made by `dt-receiver sign`: events of all types, as DT's. One of an earlier run is taken if it will do."""
    folder.mkdir(parents=True, exist_ok=True)
    traffic = Traffic(folder / f"{scheme}.requests")
    if traffic.is_fresh(count) and (scheme == "hs256" or (folder / "jwks.json").exists()):
        return traffic
    options = []
    if scheme == "es256":
        make_key(folder)
        options = ["--asymmetric-key", folder / "key.pem", "--kid", KID, "--organization", ORGANIZATION]
    command = [program, "sign", "--count", str(count), "--out", "-", "--ttl", f"{LIFETIME}s", *options]
    # Half an hour back, so that none is of the future for who allows no skew.
    command += ["--at", str(int(time.time()) - 1800)]
    environment = {**os.environ, "DT_SIGNATURE_SECRET": SECRET}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        made = write(traffic.path, split(process.stdout, HEADERS[scheme]))
    if process.returncode != 0:
        made.remove()
        raise RuntimeError(f"dt-receiver sign ended with {process.returncode}")
    return made


def split(lines, header):
    """The lines that `sign --count` writes."""
    for line in lines:
        token, body = line.rstrip(b"\n").split(b"\t", 1)
        at = body.index(ID) + len(ID)
        yield header, TARGET.encode(), token, body, body[at : at + 20]


def make_key(folder):
    """A key on P-256 and its key set, which the receiver reads in place of DT's."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(pem)
    point = key.public_key().public_numbers()
    x, y = (text(number.to_bytes(32, "big")).decode() for number in (point.x, point.y))
    jwk = {"kty": "EC", "crv": "P-256", "kid": KID, "use": "sig", "alg": "ES256", "x": x, "y": y}
    (folder / "jwks.json").write_text(json.dumps({"keys": [jwk]}))


def text(data):
    """base64url without padding, as tokens have it."""
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def event_ids():
    """Ids like DT's (xid), never one twice."""
    prefix = int(time.time()).to_bytes(4, "big") + os.urandom(3)
    number = 0
    while True:
        number += 1
        yield base64.b32hexencode(prefix + number.to_bytes(5, "big")).rstrip(b"=").lower()


def sign(body, secret, issued_at):
    """The token that DT would send with a body."""
    claims = {
        "checksum": hashlib.sha1(body).hexdigest(),
        "checksum_sha256": hashlib.sha256(body).hexdigest(),
        "exp": issued_at + LIFETIME,
        "iat": issued_at,
        "jti": "c82gg9catj3vmh4248og",
    }
    signed = text(b'{"alg":"HS256","typ":"JWT"}') + b"." + text(json.dumps(claims, separators=(",", ":")).encode())
    return signed + b"." + text(hmac.digest(secret.encode(), signed, "sha256"))


EVENT = (
    b'{"event":{"eventId":"%s","targetName":"projects/b5k2u070istcjpse6mhg/devices/%s","eventType":"touch",'
    b'"data":{"touch":{"updateTime":"2026-01-31T12:00:00.000000Z"}},"timestamp":"2026-01-31T12:00:00.000000Z"},'
    b'"labels":{"note":"%s"},"metadata":{"deviceId":"%s","projectId":"b5k2u070istcjpse6mhg","deviceType":"touch",'
    b'"productNumber":"100002"}}'
)


def padded(size):
    """`(id, body)` of events whose body has this size, made larger by a label."""
    devices = [b"btf1004u6tsrivqaf%03d" % number for number in range(100)]
    room = size - len(EVENT % (b"x" * 20, devices[0], b"", devices[0]))
    note = b"n" * max(room, 0)
    for number, event_id in enumerate(event_ids()):
        device = devices[number % len(devices)]
        yield event_id, EVENT % (event_id, device, note, device)


def of_our_own(path, count, size=460, secrets=(SECRET,), targets=(TARGET,), forged=0.0):
    """A file of events of one size, spread over targets that each have a secret, of which a part is forged."""
    issued_at = int(time.time()) - 1800
    bodies = padded(size)

    def signed():
        owed = 0.0
        for number in range(count):
            which = number % len(targets)
            secret = secrets[which]
            # Never the first one: it is what a subject is tried with.
            owed += forged if number else 0.0
            if owed >= 1.0:
                owed -= 1.0
                secret = "a secret that nobody has given to anybody else"
            event_id, body = next(bodies)
            # What is forged must be nowhere, so it is not among the ids that may.
            event_id = event_id if secret in secrets else b"-" * 20
            yield HEADERS["hs256"], targets[which].encode(), sign(body, secret, issued_at), body, event_id

    return write(path, signed())
