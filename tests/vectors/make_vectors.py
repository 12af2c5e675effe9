#!/usr/bin/env python3
"""Makes verify.json, the known-answer vectors for the verifier, without using any code of this project.

    python3 -m venv VENV && VENV/bin/pip install pyjwt cryptography
    VENV/bin/python tests/vectors/make_vectors.py            write verify.json
    VENV/bin/python tests/vectors/make_vectors.py --check    judge the committed verify.json again, and see that a run would
                                                             reproduce it; writes nothing

The `openssl` command line is needed too. Tokens come from three independent makers, named in "made_by":
  pyjwt    PyJWT signed it (perhaps altered afterwards; "why" says so)
  openssl  `openssl dgst` signed it
  hashlib  put together by hand (base64, hmac, hashlib): what PyJWT refuses to make, and what nobody signed

ES256 signatures are random, so those in the present verify.json are used again when they still fit (same maker, key and
signed text, and they verify). A run therefore changes nothing unless a vector changes. `--fresh` signs all anew.

Expectations are written by hand next to each vector. `judge` below is a second reading of the rules, and the script
stops if the two disagree, or if a vector strays into what the rules leave open (`Unclear`).
"""

import base64
import gzip
import hashlib
import hmac
import json
import math
import pathlib
import re
import subprocess
import sys
import tempfile
import unicodedata
import warnings

import jwt
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

warnings.filterwarnings("ignore", module="jwt")  # short keys are wanted here
warnings.filterwarnings("ignore", category=jwt.warnings.InsecureKeyLengthWarning)

HERE = pathlib.Path(__file__).resolve().parent
OUT = HERE / "verify.json"
KEYS = HERE / "keys"

NOW = 1_736_000_000
IAT = NOW - 2
EXP = IAT + 3600
LEEWAY = 60
DEFAULT_ISSUER = "https://identity.disruptive-technologies.com/data-connector"
ORG = "c0ngtest0rg0vd5c9a1g"
OTHER_ORG = "c0ngtest0rg1vd5c9a1g"
I64_MIN, I64_MAX = -(2**63), 2**63 - 1
P256_N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

XDT = "X-Dt-Signature"
ASYM = "DT-Asymmetric-Signature"


# --- small things -----------------------------------------------------------------------------------------------------

def b64u(raw):
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unb64u(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def compact(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def xid(unix, tag):
    """12 bytes (4 of unix time, 8 that depend on the tag) in lower-case base32hex, unpadded: 20 characters."""
    raw = unix.to_bytes(4, "big") + hashlib.sha256(tag.encode()).digest()[:8]
    bits = int.from_bytes(raw, "big") << 4
    return "".join("0123456789abcdefghijklmnopqrstuv"[(bits >> shift) & 31] for shift in range(95, -1, -5))


# --- secrets and keys -------------------------------------------------------------------------------------------------

SECRET = "test-only-7Jq3vX0cK9wPz2LrT5mYbN8s"
OLD_SECRET = "test-only-old-uE4hGd1RkV6aWfQ0iZxC"
THIRD_SECRET = "test-only-third-B2nM8oS5tUyH3jL7p"
NON_ASCII = unicodedata.normalize("NFC", "bl\u00e5b\u00e6rsyltet\u00f8y-\u6e29\u5ea6-\U0001F511")
SHORT = "k"
LONG = ("0123456789abcdefghijklmnopqrstuvwxyz-ABCDEFGHIJKLMNOPQRSTUVWXYZ_" * 4)[:200]
EXACT_BLOCK = "0123456789abcdef" * 4  # 64 bytes, the HMAC block size of SHA-256
BASE64ISH = "dGVzdC1vbmx5LXNlY3JldC1pbi1iYXNlNjQ="
SPACED = " test-only secret with spaces "


def pem(name):
    return KEYS / f"test-only-{name}.pem"


PRIVATE = {
    name: serialization.load_pem_private_key(pem(name).read_bytes(), None)
    for name in ("es256", "es256-next", "es256-stranger", "es256-enc", "p384", "rsa")
}


def fixed(number, size):
    return b64u(number.to_bytes(size, "big"))


def ec_jwk(name, kid, crv="P-256", size=32, **more):
    public = PRIVATE[name].public_key().public_numbers()
    return {"kid": kid, "kty": "EC", "crv": crv, "x": fixed(public.x, size), "y": fixed(public.y, size), **more}


def rsa_jwk(kid):
    public = PRIVATE["rsa"].public_key().public_numbers()
    return {"kid": kid, "kty": "RSA", "use": "sig", "alg": "RS256",
            "n": fixed(public.n, 256), "e": b64u(public.e.to_bytes(3, "big"))}


KID = {"es256": "test-es256-1", "es256-next": "test-es256-2", "es256-stranger": "test-stranger",
       "es256-enc": "test-enc", "p384": "test-p384", "rsa": "test-rsa"}
JWK1 = ec_jwk("es256", KID["es256"], use="sig", alg="ES256")
JWK2 = ec_jwk("es256-next", KID["es256-next"], use="sig")
JWKS_ONE = {"keys": [JWK1]}
JWKS_TWO = {"keys": [JWK1, JWK2]}
JWKS_MIXED = {"keys": [
    rsa_jwk(KID["rsa"]),
    ec_jwk("p384", KID["p384"], "P-384", 48, use="sig", alg="ES384"),
    ec_jwk("es256-enc", KID["es256-enc"], use="enc", alg="ECDH-ES"),
    JWK1, JWK2,
]}


def verifier(policy, secrets=(), key_set=None, issuer=DEFAULT_ISSUER, organization=ORG, required=None):
    return {"policy": policy, "secrets": [{"label": label, "secret": secret} for label, secret in secrets],
            "issuer": issuer, "organization": organization, "required_headers": required or {}, "key_set": key_set}


ONE = [("primary", SECRET)]
VERIFIERS = {
    "secret": verifier("secret", ONE),
    "rotation": verifier("secret", ONE + [("old", OLD_SECRET), ("third", THIRD_SECRET)]),
    "non_ascii": verifier("secret", [("unicode", NON_ASCII)]),
    "short": verifier("secret", [("short", SHORT)]),
    "long": verifier("secret", [("long", LONG), ("block", EXACT_BLOCK)]),
    "base64ish": verifier("secret", [("text", BASE64ISH)]),
    "spaced": verifier("secret", [("spaced", SPACED)]),
    "required": verifier("secret", ONE, required={"x-my-header": "my-value"}),
    "required_two": verifier("secret", ONE, required={"X-Tenant": "Blue Team", "x-my-header": "my-value"}),
    "asym": verifier("asymmetric", key_set=JWKS_TWO),
    "asym_one": verifier("asymmetric", key_set=JWKS_ONE),
    "asym_mixed": verifier("asymmetric", key_set=JWKS_MIXED),
    "asym_issuer": verifier("asymmetric", key_set=JWKS_TWO, issuer="http://127.0.0.1:8081/data-connector"),
    "asym_required": verifier("asymmetric", key_set=JWKS_TWO, required={"x-my-header": "my-value"}),
    "secret_only_has_keys": verifier("secret", ONE, JWKS_TWO),
    "asym_only_has_secret": verifier("asymmetric", ONE, JWKS_TWO),
    "either": verifier("either", ONE + [("old", OLD_SECRET)], JWKS_TWO),
    "either_secret_alone": verifier("either", ONE),
    "either_keys_alone": verifier("either", (), JWKS_TWO),
    "both": verifier("both", ONE, JWKS_TWO),
    "both_required": verifier("both", ONE, JWKS_TWO, required={"x-my-header": "my-value"}),
}


# --- bodies -----------------------------------------------------------------------------------------------------------

def stamp(micro="123456"):
    return "2025-01-04T14:13:18." + micro + "Z"  # = IAT


def delivery(event_type, data, device="bvj2geoul7hg008c0ab0", device_type="temperature", product="102058", labels=None):
    project = "bhmh0143iktucae701vg"
    return compact({
        "event": {
            "eventId": xid(IAT, event_type + device),
            "targetName": f"projects/{project}/devices/{device}",
            "eventType": event_type,
            "data": data,
            "timestamp": stamp(),
        },
        "labels": labels or {},
        "metadata": {"deviceId": device, "projectId": project, "deviceType": device_type, "productNumber": product},
    }).encode()


def keyed(kind, **payload):
    return {kind: {**payload, "updateTime": stamp()}}


TEMPERATURE = delivery("temperature", keyed(
    "temperature", value=21.35, samples=[{"value": 21.35, "sampleTime": stamp()}], isBackfilled=False),
    labels={"name": "Cold room 2", "floor": "3"})
TOUCH = delivery("touch", keyed("touch"), "emubvj2geoul7hg008c0ab0", "touch", "")
HUMIDITY = delivery("humidity", keyed(
    "humidity", temperature=-18.0, relativeHumidity=41.5,
    samples=[{"temperature": -18.0, "relativeHumidity": 41.5, "sampleTime": stamp()}], isBackfilled=True),
    "c05b9ljk4h6g00d2r0sg", "humidity", "102081")
NETWORK = delivery("networkStatus", keyed(
    "networkStatus", signalStrength=72, rssi=-61,
    cloudConnectors=[{"id": "bdkjbo2v0000uk377c4g", "signalStrength": 72, "rssi": -61}],
    transmissionMode="LOW_POWER_STANDARD_MODE"))
LABELS = delivery("labelsChanged", {"added": {"room": "Kj\u00f8kken \u2013 \u51b7\u5374"}, "modified": {}, "removed": ["old"]})
DESK = delivery("deskOccupancy", keyed("deskOccupancy", state="OCCUPIED", remarks=["INCOMPLETE_DATA"]),
                "c1k0b2jk4h6g00d2r1t0", "deskOccupancy", "102111")
ETHERNET = delivery("ethernetStatus", keyed("ethernetStatus", macAddress="f0:b5:b7:00:0a:08", ipAddress="", errors=[]),
                    "bdkjbo2v0000uk377c4g", "ccon", "102011")
UNKNOWN = delivery("quantumFlux", keyed("quantumFlux", level=1e-7))
BIG = delivery("temperature", keyed(
    "temperature", value=4.0, isBackfilled=True,
    samples=[{"value": 4.0 + n / 100, "sampleTime": stamp(f"{n:06}")} for n in range(60)]))
PRETTY = json.dumps(json.loads(TEMPERATURE), indent=2).encode()
SPACED_BODY = json.dumps(json.loads(TEMPERATURE)).encode()
SORTED_BODY = json.dumps(json.loads(TEMPERATURE), separators=(",", ":"), sort_keys=True).encode()
ONE_BYTE = TEMPERATURE.replace(b"21.35", b"21.36", 1)


# --- claims -----------------------------------------------------------------------------------------------------------

DROP = object()


def claims(body, /, **over):
    """The claims of a shared-secret token for this body, alphabetical; DROP removes one."""
    made = {
        "checksum": hashlib.sha1(body).hexdigest(),
        "checksum_sha256": hashlib.sha256(body).hexdigest(),
        "iat": IAT,
        "exp": EXP,
        "jti": xid(IAT, "jti" + hashlib.sha256(body).hexdigest()),
    }
    made.update(over)
    return {name: made[name] for name in sorted(made) if made[name] is not DROP}


def asym_claims(body, /, **over):
    """The same with `iss` and `sub`, and without the SHA-1 checksum."""
    return claims(body, **{"checksum": DROP, "iss": DEFAULT_ISSUER, "sub": ORG, **over})


def literal(made, **texts):
    """Claims as JSON text in which some values are written exactly as given."""
    names = sorted(set(made) | set(texts))
    return ("{" + ",".join(f'"{n}":' + (texts[n] if n in texts else compact(made[n])) for n in names) + "}").encode()


def payload_bytes(made):
    return made if isinstance(made, bytes) else compact(made).encode()


# --- makers -----------------------------------------------------------------------------------------------------------

class Token(str):
    """A token that knows who made it."""

    made_by = "hashlib"

    def __new__(cls, text, made_by="hashlib"):
        self = super().__new__(cls, text)
        self.made_by = made_by
        return self

    def parts(self):
        return self.split(".")

    def signature(self):
        return unb64u(self.parts()[2])

    def with_signature(self, raw):
        head, body, _ = self.parts()
        return Token(f"{head}.{body}.{b64u(raw)}", self.made_by)

    def with_payload(self, made):
        head, _, signature = self.parts()
        return Token(f"{head}.{b64u(payload_bytes(made))}.{signature}", self.made_by)

    def altered(self, text):
        """Keeps the maker only if something that was signed is left."""
        return Token(text, self.made_by if self.parts()[1] in text else "hashlib")


known_signatures = {}  # (maker, key, signed text) -> r||s


def good_es256(key, text, raw):
    if len(raw) != 64:
        return False
    der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    try:
        PRIVATE[key].public_key().verify(der, text.encode(), ec.ECDSA(hashes.SHA256()))
        return True
    except InvalidSignature:
        return False


def remember_old_signatures():
    if "--fresh" in sys.argv or not OUT.exists():
        return
    for vector in json.loads(OUT.read_text())["vectors"]:
        for _, value in vector["headers"]:
            text, dot, signature = value.rpartition(".")
            if not dot or not re.fullmatch(r"[A-Za-z0-9_-]{86}", signature):
                continue
            for key in ("es256", "es256-next", "es256-stranger", "es256-enc"):
                if good_es256(key, text, unb64u(signature)):
                    known_signatures.setdefault((vector["made_by"], key, text), unb64u(signature))


def reuse(maker, key, fresh, fits=lambda raw: True):
    """`fresh()` signs; its signature gives way to a known one for the same text."""
    text = fresh().rpartition(".")[0]
    raw = known_signatures.get((maker, key, text))
    while raw is None or not fits(raw):
        raw = unb64u(fresh().rpartition(".")[2])
    known_signatures[(maker, key, text)] = raw
    return Token(f"{text}.{b64u(raw)}", maker)


def py_hs(made, secret=SECRET, alg="HS256", headers=None):
    if isinstance(made, dict):
        return Token(jwt.encode(made, secret, alg, headers=headers), "pyjwt")
    return Token(jwt.PyJWS().encode(made, secret, alg, headers=headers), "pyjwt")


def py_es(made, key="es256", headers=None, fits=lambda raw: True):
    """`headers` defaults to the key's own `kid`."""
    headers = {"kid": KID[key]} if headers is None else headers
    secret = pem(key).read_bytes()
    return reuse("pyjwt", key, lambda: jwt.PyJWS().encode(payload_bytes(made), secret, "ES256", headers=headers), fits)


def openssl(*args, text):
    with tempfile.NamedTemporaryFile() as file:
        file.write(text)
        file.flush()
        return subprocess.run(["openssl", *args, file.name], check=True, capture_output=True).stdout


def ossl_hs(made, secret=SECRET, way="hmac"):
    text = b64u(b'{"alg":"HS256","typ":"JWT"}') + "." + b64u(payload_bytes(made))
    if way == "hmac":
        how = ("-hmac", secret)
    else:
        how = ("-mac", "HMAC", "-macopt", "hexkey:" + secret.encode().hex())
    return Token(text + "." + b64u(openssl("dgst", "-sha256", *how, "-binary", text=text.encode())), "openssl")


def der_integers(der):
    """r and s of SEQUENCE { INTEGER r, INTEGER s }, read by hand."""
    assert der[0] == 0x30 and der[1] == len(der) - 2 and der[2] == 0x02
    cut = 4 + der[3]
    assert der[cut] == 0x02 and cut + 2 + der[cut + 1] == len(der)
    return int.from_bytes(der[4:cut], "big"), int.from_bytes(der[cut + 2:], "big")


def ossl_es(made, key="es256", kid=None):
    head = {"alg": "ES256", "kid": kid or KID[key], "typ": "JWT"}
    text = b64u(compact(head).encode()) + "." + b64u(payload_bytes(made))

    def sign():
        r, s = der_integers(openssl("dgst", "-sha256", "-sign", str(pem(key)), text=text.encode()))
        return text + "." + b64u(r.to_bytes(32, "big") + s.to_bytes(32, "big"))

    return reuse("openssl", key, sign)


def es384(made):
    """ES384 by the P-384 key; deterministic, which PyJWT does not offer."""
    text = b64u(compact({"alg": "ES384", "kid": KID["p384"], "typ": "JWT"}).encode()) + "." + b64u(payload_bytes(made))
    der = PRIVATE["p384"].sign(text.encode(), ec.ECDSA(hashes.SHA384(), deterministic_signing=True))
    r, s = decode_dss_signature(der)
    return Token(text + "." + b64u(r.to_bytes(48, "big") + s.to_bytes(48, "big")))


def hand(head, made, key=SECRET.encode(), digest="sha256"):
    """Any header and payload, HMAC by hand; key None leaves the signature empty."""
    head = head if isinstance(head, bytes) else compact(head).encode()
    text = b64u(head) + "." + b64u(payload_bytes(made))
    raw = b"" if key is None else hmac.new(key, text.encode(), digest).digest()
    return Token(text + "." + b64u(raw))


# --- the second reading of the rules ----------------------------------------------------------------------------------

class Unclear(Exception):
    """The rules do not decide this."""


class Refused(Exception):
    pass


def strict_json(raw):
    """(value, names given twice at the top level)"""
    twice = set()

    def pairs(items):
        names = [name for name, _ in items]
        doubled.append({name for name in names if names.count(name) > 1})
        return dict(items)

    def constant(name):
        raise ValueError(name)

    doubled = []
    value = json.loads(raw.decode("utf-8"), object_pairs_hook=pairs, parse_constant=constant)
    if isinstance(value, dict):
        twice = doubled[-1]  # the outermost object is finished last
    return value, twice


def values_of(headers, name):
    return [value for given, value in headers if given.lower() == name.lower()]


def open_token(headers, name, pinned):
    found = values_of(headers, name)
    if not found:
        raise Refused("signature_missing")
    if len(found) > 1:
        raise Refused("signature_malformed")
    token = found[0].strip(" \t")
    if len(token.encode()) > 8192:
        raise Refused("signature_malformed")
    if len(found[0].encode()) > 8192:
        raise Unclear("is the limit taken before or after trimming?")
    parts = token.split(".")
    raw = []
    if len(parts) != 3:
        raise Refused("signature_malformed")
    for part in parts:
        if not re.fullmatch(r"[A-Za-z0-9_-]*", part) or len(part) % 4 == 1:
            raise Refused("signature_malformed")
        raw.append(unb64u(part))
        if b64u(raw[-1]) != part:
            raise Unclear("stray bits in the last base64url character")
    try:
        head, doubled = strict_json(raw[0])
    except ValueError:
        raise Refused("signature_malformed")
    if not isinstance(head, dict) or "alg" not in head:
        raise Refused("signature_malformed")
    if doubled or not isinstance(head["alg"], str) or not isinstance(head.get("kid", ""), str):
        raise Unclear("odd JWT header")
    if "crit" in head:
        raise Refused("signature_malformed")
    if head["alg"] != pinned:
        raise Refused("algorithm_not_allowed")
    return head, f"{parts[0]}.{parts[1]}".encode(), raw[1], raw[2]


def read_claims(raw):
    try:
        value, doubled = strict_json(raw)
    except ValueError:
        raise Refused("signature_malformed")
    if not isinstance(value, dict):
        raise Refused("signature_malformed")
    known_numbers = ("exp", "iat", "nbf")
    known_texts = ("checksum", "checksum_sha256", "iss", "sub", "jti")
    if doubled - set(known_numbers + known_texts):
        raise Unclear("a claim that is not used, given twice")
    if doubled:
        raise Refused("signature_malformed")
    value = {name: item for name, item in value.items() if item is not None}
    for name in known_numbers:
        item = value.get(name, 0)
        if isinstance(item, bool) or not isinstance(item, (int, float)):
            raise Refused("signature_malformed")
        if isinstance(item, float) and not abs(item) < 2**53:
            raise Unclear("a huge number that is not an integer")
        if name in value:
            value[name] = max(I64_MIN, min(I64_MAX, math.floor(item)))
    for name in known_texts:
        if not isinstance(value.get(name, ""), str):
            raise Refused("signature_malformed")
    return value


def same_hex(claim, digest):
    return re.fullmatch(r"[0-9A-Fa-f]*", claim) is not None and claim.lower() == digest


def check_rest(config, headers, body, now, found, asymmetric):
    exp = found.get("exp")
    if exp is None and asymmetric and "iat" in found:
        exp = min(I64_MAX, found["iat"] + 3600)
    if exp is None:
        raise Refused("claims_missing")
    sums = [(found[name], digest(body).hexdigest())
            for name, digest in (("checksum", hashlib.sha1), ("checksum_sha256", hashlib.sha256)) if name in found]
    if not sums or asymmetric and "checksum_sha256" not in found:
        raise Refused("checksum_missing")
    if not all(same_hex(claim, digest) for claim, digest in sums):
        raise Refused("checksum_mismatch")
    for name, wanted in config["required_headers"].items():
        if values_of(headers, name) != [wanted]:
            raise Refused("header_mismatch")
    if now >= exp + LEEWAY:
        raise Refused("expired")
    if found.get("iat", now) > now + LEEWAY or found.get("nbf", now) > now + LEEWAY:
        raise Refused("not_yet_valid")


def judge_secret(config, headers, body, now):
    _, text, payload, signature = open_token(headers, XDT, "HS256")
    for entry in config["secrets"]:
        if hmac.compare_digest(hmac.digest(entry["secret"].encode(), text, "sha256"), signature):
            break
    else:
        raise Refused("signature_mismatch")
    check_rest(config, headers, body, now, read_claims(payload), False)
    return "secret:" + entry["label"]


def judge_asymmetric(config, headers, body, now):
    head, text, payload, signature = open_token(headers, ASYM, "ES256")
    every = config["key_set"]["keys"]
    usable = [k for k in every if k["kty"] == "EC" and k["crv"] == "P-256" and k.get("use", "sig") == "sig"]
    if "kid" in head:
        chosen = [k for k in usable if k["kid"] == head["kid"]]
    else:
        if len(usable) == 1 and len(every) > 1:
            raise Unclear("one usable key among several")
        chosen = usable
    if len(chosen) != 1:
        raise Refused("key_unknown")
    point = ec.EllipticCurvePublicNumbers(*(int.from_bytes(unb64u(chosen[0][c]), "big") for c in "xy"), ec.SECP256R1())
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    if len(signature) != 64 or not (0 < r < P256_N and 0 < s < P256_N):
        raise Refused("signature_mismatch")
    try:
        point.public_key().verify(encode_dss_signature(r, s), text, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise Refused("signature_mismatch")
    found = read_claims(payload)
    if found.get("iss") != config["issuer"]:
        raise Refused("issuer_mismatch")
    if found.get("sub") != config["organization"]:
        raise Refused("organization_mismatch")
    check_rest(config, headers, body, now, found, True)
    return "asymmetric:" + chosen[0]["kid"]


def judge(config, headers, body, now):
    """(expect, by)"""
    policy = config["policy"]
    tried = []
    for name, on, header, check in (
        ("secret", policy != "asymmetric" and config["secrets"], XDT, judge_secret),
        ("asymmetric", policy != "secret" and config["key_set"], ASYM, judge_asymmetric),
    ):
        if on:
            try:
                tried.append((bool(values_of(headers, header)), "accepted", check(config, headers, body, now)))
            except Refused as refused:
                tried.append((bool(values_of(headers, header)), str(refused), None))
    good = [(code, by) for _, code, by in tried if code == "accepted"]
    bad = [code for _, code, _ in tried if code != "accepted"]
    if policy == "both":
        if len(tried) != 2:
            raise Unclear("policy both with one scheme")
        if not bad:
            return good[0]
        return next((code for code in bad if code != "expired"), "expired"), None
    if good:
        return good[0]
    if "expired" in bad:
        return "expired", None
    if "header_mismatch" in bad and len(set(bad)) > 1:
        raise Unclear("required headers: once, or per scheme?")
    return next((code for present, code, _ in tried if present), "signature_missing"), None


# --- the vectors ------------------------------------------------------------------------------------------------------

vectors = []


def add(name, why, use, headers, body, expect, by=None, now=NOW):
    """`headers` is a token for the verifier's own header, or a list of pairs."""
    if isinstance(headers, str):
        headers = [(ASYM if VERIFIERS[use]["policy"] == "asymmetric" else XDT, headers)]
    makers = [value.made_by for _, value in headers if isinstance(value, Token)]
    vectors.append({
        "name": name, "why": why, "made_by": makers[0] if makers else "hashlib", "verifier": use,
        "headers": [[header, str(value)] for header, value in headers],
        "body_base64": base64.b64encode(body).decode(), "now": now, "expect": expect, **({"by": by} if by else {}),
    })


P, OLD, THIRD = "secret:primary", "secret:old", "secret:third"
E1, E2 = "asymmetric:test-es256-1", "asymmetric:test-es256-2"
OK = "accepted"


def both_headers(secret_token, asym_token, *more):
    return [(XDT, secret_token), (ASYM, asym_token), *more]


def secret_good():
    for label, body in (("temperature", TEMPERATURE), ("touch_emulated", TOUCH), ("humidity", HUMIDITY),
                        ("network_status", NETWORK), ("labels_changed_utf8", LABELS), ("ethernet_status", ETHERNET),
                        ("unknown_event_type", UNKNOWN)):
        add(f"hs256_good_{label}", "A token as DT makes it today, over a compact body.", "secret", py_hs(claims(body)),
            body, OK, P)
    add("hs256_good_openssl_hmac", "The same with openssl dgst -hmac.", "secret", ossl_hs(claims(DESK)), DESK, OK, P)
    add("hs256_good_openssl_mac", "The same with openssl dgst -mac HMAC and a hex key.", "secret",
        ossl_hs(claims(BIG), way="mac"), BIG, OK, P)
    add("hs256_good_by_hand", "The same with hmac and base64 alone, header in DT's exact spelling.", "secret",
        hand(b'{"alg":"HS256","typ":"JWT"}', claims(TEMPERATURE)), TEMPERATURE, OK, P)
    add("hs256_sha1_only", "Tokens before 2022 had no checksum_sha256.", "secret",
        py_hs(claims(TEMPERATURE, checksum_sha256=DROP)), TEMPERATURE, OK, P)
    add("hs256_sha256_only", "SHA-1 may go away one day.", "secret", py_hs(claims(TEMPERATURE, checksum=DROP)),
        TEMPERATURE, OK, P)
    add("hs256_sha1_null", "null counts as absent.", "secret", py_hs(claims(TEMPERATURE, checksum=None)), TEMPERATURE, OK, P)
    add("hs256_sha256_null", "null counts as absent; SHA-1 holds.", "secret",
        py_hs(claims(TEMPERATURE, checksum_sha256=None)), TEMPERATURE, OK, P)
    upper = {n: claims(TEMPERATURE)[n].upper() for n in ("checksum", "checksum_sha256")}
    add("hs256_upper_case_hex", "Hex in either case.", "secret", py_hs(claims(TEMPERATURE, **upper)), TEMPERATURE, OK, P)
    mixed = claims(TOUCH)["checksum_sha256"]
    mixed = mixed[:32].upper() + mixed[32:]
    add("hs256_mixed_case_hex", "Hex in mixed case.", "secret", py_hs(claims(TOUCH, checksum_sha256=mixed)), TOUCH, OK, P)
    add("hs256_no_jti", "jti is optional.", "secret", py_hs(claims(TEMPERATURE, jti=DROP)), TEMPERATURE, OK, P)
    add("hs256_jti_not_an_xid", "jti may be any string.", "secret", py_hs(claims(TEMPERATURE, jti="")), TEMPERATURE, OK, P)
    add("hs256_no_iat", "iat is optional.", "secret", py_hs(claims(TEMPERATURE, iat=DROP)), TEMPERATURE, OK, P)
    add("hs256_null_extras", "iat, nbf, jti, iss and sub null count as absent.", "secret",
        py_hs(literal(claims(TEMPERATURE), iat="null", nbf="null", jti="null", iss="null", sub="null")),
        TEMPERATURE, OK, P)
    add("hs256_extra_claims", "Unknown claims, and iss/sub/aud of any text, do not matter to the shared-secret scheme.",
        "secret", py_hs(claims(TEMPERATURE, aud=["x"], iss="anyone", sub="anything", nested={"a": [1, None]})),
        TEMPERATURE, OK, P)
    add("hs256_claims_in_other_order_with_spaces", "Claims need not be compact or alphabetical.", "secret",
        py_hs(json.dumps(dict(reversed(claims(TEMPERATURE).items())), indent=1).encode()), TEMPERATURE, OK, P)
    add("hs256_header_without_typ", "typ is not needed.", "secret", py_hs(claims(TEMPERATURE), headers={"typ": None}),
        TEMPERATURE, OK, P)
    add("hs256_header_with_kid", "A kid means nothing to the shared-secret scheme.", "secret",
        py_hs(claims(TEMPERATURE), headers={"kid": "whatever"}), TEMPERATURE, OK, P)
    # 8192 = 36 (header) + 1 + payload + 1 + 43 (signature)
    full = claims(TEMPERATURE, padding="")
    room = 8111 * 6 // 8 - len(compact(full))
    token = py_hs(claims(TEMPERATURE, padding="x" * room))
    assert len(token) == 8192
    add("hs256_token_of_8192_bytes", "The longest token allowed.", "secret", token, TEMPERATURE, OK, P)
    token = py_hs(claims(TEMPERATURE, padding="x" * (room + 1)))
    assert len(token) == 8193
    add("hs256_token_of_8193_bytes", "One byte longer than allowed.", "secret", token, TEMPERATURE, "signature_malformed")


def header_names():
    token = py_hs(claims(TEMPERATURE))
    for label, name in (("lower", "x-dt-signature"), ("upper", "X-DT-SIGNATURE"), ("odd", "x-dT-sIgNaTuRe")):
        add(f"hs256_header_name_{label}", "Header names compare case-insensitively.", "secret", [(name, token)],
            TEMPERATURE, OK, P)
    token_es = py_es(asym_claims(TEMPERATURE))
    for label, name in (("lower", "dt-asymmetric-signature"), ("odd", "Dt-ASYMMETRIC-signature")):
        add(f"es256_header_name_{label}", "Header names compare case-insensitively.", "asym", [(name, token_es)],
            TEMPERATURE, OK, E1)
    add("hs256_white_space_around", "Spaces and tabs around the value are ignored.", "secret",
        token.altered(f" \t{token}\t "), TEMPERATURE, OK, P)
    add("es256_white_space_around", "Spaces around the value are ignored.", "asym", token_es.altered(f"  {token_es} "),
        TEMPERATURE, OK, E1)
    add("hs256_other_headers_around", "Unrelated headers, some doubled, do not matter.", "secret",
        [("Content-Type", "application/json"), ("Accept", "a"), (XDT, token), ("accept", "b"), ("X-Dt-Signature-2", "x")],
        TEMPERATURE, OK, P)
    add("hs256_missing", "No signature header at all.", "secret", [], TEMPERATURE, "signature_missing")
    add("hs256_missing_among_others", "Similar names are not the signature header.", "secret",
        [("X-Dt-Signatur", token), ("Dt-Signature", token), ("X_Dt_Signature", token), ("Authorization", token)],
        TEMPERATURE, "signature_missing")
    add("es256_missing", "No signature header at all.", "asym", [], TEMPERATURE, "signature_missing")
    add("hs256_in_the_other_header_only", "A good shared-secret token, but only in the asymmetric header.", "secret",
        [(ASYM, token)], TEMPERATURE, "signature_missing")
    add("es256_in_the_other_header_only", "A good asymmetric token, but only in the shared-secret header.", "asym",
        [(XDT, token_es)], TEMPERATURE, "signature_missing")
    add("hs256_twice", "The header is given twice, with the same good token.", "secret", [(XDT, token), (XDT, token)],
        TEMPERATURE, "signature_malformed")
    add("hs256_twice_in_different_case", "Twice, in different case; the first is good.", "secret",
        [(XDT, token), ("x-dt-signature", "x.y.z")], TEMPERATURE, "signature_malformed")
    add("es256_twice", "The header is given twice.", "asym", [(ASYM, token_es), (ASYM.lower(), token_es)], TEMPERATURE,
        "signature_malformed")


def malformed():
    token = py_hs(claims(TEMPERATURE))
    head, payload, signature = token.parts()
    bad = "signature_malformed"
    for label, why, text in (
        ("empty", "An empty value.", ""),
        ("blank", "Only white space.", "   "),
        ("word", "Not a JWT.", "signature"),
        ("two_segments", "Two segments.", f"{head}.{payload}"),
        ("four_segments", "Four segments.", f"{token}.{signature}"),
        ("five_segments", "Five segments, like an encrypted token.", f"{head}.{payload}.{signature}.{signature}.{signature}"),
        ("dots_only", "Three empty segments.", ".."),
        ("leading_dot", "A dot in front.", f".{token}"),
        ("empty_header", "An empty header segment.", f".{payload}.{signature}"),
        ("padded", "Base64url with padding.", f"{head}.{payload}.{signature}="),
        ("space_inside", "White space within the token.", f"{head}. {payload}.{signature}"),
        ("comma_joined", "Two tokens in one value, as a proxy joins them.", f"{token}, {token}"),
        ("quoted", "In double quotes.", f'"{token}"'),
        ("bearer", "With 'Bearer ' in front.", f"Bearer {token}"),
        ("bearer_lower_case", "With 'bearer ' in front.", f"bearer {token}"),
        ("not_ascii", "A letter outside ASCII.", f"{head}.{payload}.{signature[:-1]}\u00e9"),
        ("odd_length", "A segment length that base64 cannot have (4n + 1).", f"{head}.{payload}.{signature}AA"),
        ("huge", "A megabyte-like nuisance, 20 kB here.", "A" * 20_000),
    ):
        add(f"hs256_malformed_{label}", why, "secret", token.altered(text), TEMPERATURE, bad)
    # A token whose signature has both letters that differ between the two alphabets.
    n = 0
    while True:
        plain = py_hs(claims(TEMPERATURE, jti=xid(IAT, f"alphabet{n}")))
        if "-" in plain.parts()[2] and "_" in plain.parts()[2]:
            break
        n += 1
    add("hs256_malformed_standard_alphabet", "The signature in base64 with + and / in place of - and _.", "secret",
        plain.altered(plain.replace("-", "+").replace("_", "/")), TEMPERATURE, bad)
    for label, why, raw in (
        ("header_not_json", "The header is not JSON.", b"alg=HS256"),
        ("header_array", "The header is a JSON array.", b'["HS256"]'),
        ("header_string", "The header is a JSON string.", b'"HS256"'),
        ("header_not_utf8", "The header is not UTF-8.", b'{"alg":"HS256","typ":"\xff"}'),
        ("header_cut", "The header is cut off.", b'{"alg":"HS256","typ":"JWT"'),
        ("header_trailing", "Something follows the header object.", b'{"alg":"HS256"}{}'),
        ("alg_missing", "No alg; the HMAC is right.", b'{"typ":"JWT"}'),
        ("header_empty_object", "An empty header object; the HMAC is right.", b"{}"),
    ):
        add(f"hs256_malformed_{label}", why, "secret", hand(raw, claims(TEMPERATURE)), TEMPERATURE, bad)
    add("hs256_malformed_crit", "crit is refused; the HMAC is right.", "secret",
        hand({"alg": "HS256", "crit": ["exp"], "typ": "JWT"}, claims(TEMPERATURE)), TEMPERATURE, bad)
    add("hs256_malformed_crit_unknown", "crit with an unknown extension; the HMAC is right.", "secret",
        hand({"alg": "HS256", "crit": ["x-new"], "typ": "JWT", "x-new": True}, claims(TEMPERATURE)), TEMPERATURE, bad)
    es = py_es(asym_claims(TEMPERATURE))
    es_head, es_payload, es_signature = es.parts()
    add("es256_malformed_bearer", "With 'Bearer ' in front.", "asym", es.altered(f"Bearer {es}"), TEMPERATURE, bad)
    add("es256_malformed_two_segments", "The signature segment is missing.", "asym", es.altered(f"{es_head}.{es_payload}"),
        TEMPERATURE, bad)
    add("es256_malformed_padded", "Base64url with padding.", "asym", es.altered(f"{es}=="), TEMPERATURE, bad)
    add("es256_malformed_alg_missing", "No alg.", "asym", hand({"kid": KID["es256"]}, asym_claims(TEMPERATURE)),
        TEMPERATURE, bad)
    add("es256_malformed_crit", "crit is refused.", "asym",
        hand({"alg": "ES256", "crit": ["b64"], "b64": False, "kid": KID["es256"]}, asym_claims(TEMPERATURE)),
        TEMPERATURE, bad)

    # Signed properly, but the claims are not what they should be.
    base = claims(TEMPERATURE)
    for label, why, raw in (
        ("array", "The claims are an array.", b"[1]"),
        ("string", "The claims are a string.", b'"claims"'),
        ("null", "The claims are null.", b"null"),
        ("empty", "The claims are empty.", b""),
        ("not_json", "The claims are not JSON.", b"exp=1"),
        ("not_utf8", "The claims are not UTF-8.", literal(base, jti='"@"').replace(b"@", b"\xff")),
        ("cut", "The claims are cut off.", payload_bytes(base)[:-1]),
        ("trailing", "Something follows the claims.", payload_bytes(base) + b"x"),
        ("exp_string", "exp is a string.", literal(base, exp=f'"{EXP}"')),
        ("exp_bool", "exp is a boolean.", literal(base, exp="true")),
        ("exp_array", "exp is an array.", literal(base, exp=f"[{EXP}]")),
        ("iat_string", "iat is a string.", literal(base, iat=f'"{IAT}"')),
        ("iat_object", "iat is an object.", literal(base, iat="{}")),
        ("nbf_string", "nbf is a string.", literal(base, nbf=f'"{IAT}"')),
        ("checksum_number", "checksum is a number.", literal(base, checksum="1")),
        ("checksum_sha256_array", "checksum_sha256 is an array that holds the right value.",
         literal(base, checksum_sha256=compact([base["checksum_sha256"]]))),
        ("checksum_sha256_bool", "checksum_sha256 is a boolean.", literal(base, checksum_sha256="true")),
        ("jti_number", "jti is a number.", literal(base, jti="12345")),
        ("iss_number", "iss is a number.", literal(base, iss="1")),
        ("sub_object", "sub is an object.", literal(base, sub="{}")),
        ("exp_twice", "exp twice: one of them has passed.", payload_bytes(base)[:-1] + b',"exp":1}'),
        ("exp_twice_same", "exp twice, with the same value.", payload_bytes(base)[:-1] + b',"exp":%d}' % EXP),
        ("checksum_twice", "checksum_sha256 twice: one of them is wrong.",
         b'{"checksum_sha256":"' + b"0" * 64 + b'",' + payload_bytes(base)[1:]),
    ):
        add(f"hs256_claims_{label}", why + " The signature is right.", "secret", py_hs(raw), TEMPERATURE, bad)
    base = asym_claims(TEMPERATURE)
    for label, why, raw in (
        ("array", "The claims are an array.", b"[]"),
        ("exp_string", "exp is a string.", literal(base, exp=f'"{EXP}"')),
        ("iss_array", "iss is an array that holds the right value.", literal(base, iss=compact([DEFAULT_ISSUER]))),
        ("sub_number", "sub is a number.", literal(base, sub="7")),
        ("sub_twice", "sub twice, another organization first.", b'{"sub":"' + OTHER_ORG.encode() + b'",' + payload_bytes(base)[1:]),
    ):
        add(f"es256_claims_{label}", why + " The signature is right.", "asym", py_es(raw), TEMPERATURE, bad)
    add("hs256_claims_array_unsigned", "The claims are an array, but the signature is wrong too and is checked first.",
        "secret", py_hs(b"[1]", OLD_SECRET), TEMPERATURE, "signature_mismatch")


def algorithms():
    bad = "algorithm_not_allowed"
    made = claims(TEMPERATURE)
    add("hs256_alg_none", "alg none with an empty signature.", "secret", py_hs(made, None, "none"), TEMPERATURE, bad)
    for spelling in ("none", "None", "NONE", "nOnE"):
        add(f"hs256_alg_{spelling}_signed".replace("None", "title").replace("NONE", "upper").replace("nOnE", "odd"),
            f"alg {spelling}, with an HMAC-SHA-256 that would be right.", "secret",
            hand({"alg": spelling, "typ": "JWT"}, made), TEMPERATURE, bad)
    for alg in ("HS384", "HS512"):
        add(f"hs256_alg_{alg.lower()}", f"A right {alg} signature with the right secret.", "secret",
            py_hs(made, SECRET, alg), TEMPERATURE, bad)
    add("hs256_alg_rs256", "A right RS256 signature, in the shared-secret header.", "secret",
        Token(jwt.encode(made, pem("rsa").read_bytes(), "RS256"), "pyjwt"), TEMPERATURE, bad)
    add("hs256_alg_es256", "A right ES256 token, in the shared-secret header.", "secret", py_es(asym_claims(TEMPERATURE)),
        TEMPERATURE, bad)
    add("hs256_alg_lower_case", "alg hs256 in lower case: names of algorithms are case-sensitive.", "secret",
        hand({"alg": "hs256", "typ": "JWT"}, made), TEMPERATURE, bad)
    add("hs256_alg_empty", "alg is an empty string.", "secret", hand({"alg": "", "typ": "JWT"}, made), TEMPERATURE, bad)
    add("hs256_alg_unknown", "An algorithm that nobody knows.", "secret", hand({"alg": "XX999", "typ": "JWT"}, made),
        TEMPERATURE, bad)
    add("hs256_alg_none_bad_claims", "alg none comes before everything that is wrong with the claims.", "secret",
        hand({"alg": "none"}, b"not json", None), TEMPERATURE, bad)
    made = asym_claims(TEMPERATURE)
    kid = KID["es256"]
    public = PRIVATE["es256"].public_key()
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    for label, key in (
        ("pem", public.public_bytes(serialization.Encoding.PEM, spki)),
        ("der", public.public_bytes(serialization.Encoding.DER, spki)),
        ("point", public.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)),
        ("x_coordinate", unb64u(JWK1["x"])),
    ):
        add(f"es256_alg_hs256_with_public_key_{label}", f"HS256 keyed with the public key ({label}), the classic confusion.",
            "asym", hand({"alg": "HS256", "kid": kid, "typ": "JWT"}, made, key), TEMPERATURE, bad)
    add("es256_alg_hs256_with_secret", "HS256 with the connector's right secret, in the asymmetric header.",
        "asym_only_has_secret", py_hs(made, SECRET, headers={"kid": kid}), TEMPERATURE, bad)
    add("es256_alg_none", "alg none.", "asym", py_hs(made, None, "none", headers={"kid": kid}), TEMPERATURE, bad)
    add("es256_alg_es384", "A right ES384 signature by the set's P-384 key.", "asym_mixed",
        es384(made), TEMPERATURE, bad)
    add("es256_alg_rs256", "A right RS256 signature by the set's RSA key.", "asym_mixed",
        Token(jwt.PyJWS().encode(payload_bytes(made), pem("rsa").read_bytes(), "RS256", headers={"kid": KID["rsa"]}), "pyjwt"),
        TEMPERATURE, bad)


def flip(raw, bit):
    raw = bytearray(raw)
    raw[bit // 8] ^= 1 << (bit % 8)
    return bytes(raw)


def secret_signature_wrong():
    bad = "signature_mismatch"
    token = py_hs(claims(TEMPERATURE))
    raw = token.signature()
    add("hs256_wrong_secret", "Signed with another secret.", "secret", py_hs(claims(TEMPERATURE), OLD_SECRET), TEMPERATURE, bad)
    add("hs256_wrong_secret_openssl", "Signed with another secret.", "rotation",
        ossl_hs(claims(TEMPERATURE), "test-only-nobody-has-this"), TEMPERATURE, bad)
    add("hs256_empty_key", "Signed with an empty key.", "secret", hand({"alg": "HS256", "typ": "JWT"}, claims(TEMPERATURE), b""),
        TEMPERATURE, bad)
    add("hs256_signature_empty", "The signature segment is empty.", "secret", token.with_signature(b""), TEMPERATURE, bad)
    add("hs256_signature_first_bit", "The first bit of the signature is flipped.", "secret",
        token.with_signature(flip(raw, 7)), TEMPERATURE, bad)
    add("hs256_signature_last_bit", "The last bit of the signature is flipped.", "secret",
        token.with_signature(flip(raw, 248)), TEMPERATURE, bad)
    add("hs256_signature_cut_by_one", "The last byte of the signature is missing.", "secret", token.with_signature(raw[:-1]),
        TEMPERATURE, bad)
    add("hs256_signature_half", "Only the first half of the signature.", "secret", token.with_signature(raw[:16]),
        TEMPERATURE, bad)
    add("hs256_signature_one_byte_more", "One byte follows the signature.", "secret", token.with_signature(raw + b"\0"),
        TEMPERATURE, bad)
    add("hs256_signature_in_hex", "The signature as 64 hex digits, which is base64url too.", "secret",
        token.altered(".".join([*token.parts()[:2], raw.hex()])), TEMPERATURE, bad)
    add("hs256_exp_raised_after_signing", "exp was raised after signing.", "secret",
        token.with_payload(claims(TEMPERATURE, exp=EXP + 86400)), TEMPERATURE, bad)
    add("hs256_checksums_swapped_after_signing", "Body and checksums were replaced after signing.", "secret",
        token.with_payload(claims(ONE_BYTE)), ONE_BYTE, bad)
    changed = token.altered(".".join([b64u(b'{"typ":"JWT","alg":"HS256"}'), *token.parts()[1:]]))
    add("hs256_header_respelled_after_signing", "The header says the same in another order.", "secret", changed, TEMPERATURE, bad)
    add("hs256_signature_of_another_token", "The signature belongs to another token.", "secret",
        token.with_signature(py_hs(claims(TOUCH)).signature()), TEMPERATURE, bad)
    add("hs256_mismatch_before_expired", "Wrong secret and long expired: the signature is checked first.", "secret",
        py_hs(claims(TEMPERATURE, exp=1), OLD_SECRET), TEMPERATURE, bad)


def secrets():
    add("rotation_first", "The first of three secrets.", "rotation", py_hs(claims(TEMPERATURE), SECRET), TEMPERATURE, OK, P)
    add("rotation_second", "The second of three secrets.", "rotation", py_hs(claims(TEMPERATURE), OLD_SECRET), TEMPERATURE, OK, OLD)
    add("rotation_third_openssl", "The third of three secrets.", "rotation", ossl_hs(claims(TEMPERATURE), THIRD_SECRET),
        TEMPERATURE, OK, THIRD)
    add("rotation_second_expired", "The second secret matches, but the token has expired.", "rotation",
        py_hs(claims(TEMPERATURE, exp=NOW - 61), OLD_SECRET), TEMPERATURE, "expired")
    add("rotation_second_wrong_body", "The second secret matches, but not the body.", "rotation",
        py_hs(claims(TEMPERATURE), OLD_SECRET), ONE_BYTE, "checksum_mismatch")
    add("secret_non_ascii", "The key is the UTF-8 form of the secret.", "non_ascii", py_hs(claims(TEMPERATURE), NON_ASCII),
        TEMPERATURE, OK, "secret:unicode")
    add("secret_non_ascii_openssl", "The same with openssl.", "non_ascii", ossl_hs(claims(TOUCH), NON_ASCII, "mac"),
        TOUCH, OK, "secret:unicode")
    decomposed = unicodedata.normalize("NFD", NON_ASCII)
    assert decomposed != NON_ASCII
    add("secret_non_ascii_decomposed", "The same letters in decomposed form are other bytes.", "non_ascii",
        py_hs(claims(TEMPERATURE), decomposed), TEMPERATURE, "signature_mismatch")
    add("secret_non_ascii_utf16", "The key is not UTF-16.", "non_ascii",
        hand({"alg": "HS256", "typ": "JWT"}, claims(TEMPERATURE), NON_ASCII.encode("utf-16-le")), TEMPERATURE,
        "signature_mismatch")
    add("secret_of_one_byte", "A very short secret.", "short", py_hs(claims(TEMPERATURE), SHORT), TEMPERATURE, OK, "secret:short")
    add("secret_of_one_byte_openssl", "A very short secret.", "short", ossl_hs(claims(HUMIDITY), SHORT), HUMIDITY, OK,
        "secret:short")
    add("secret_of_200_bytes", "Longer than the HMAC block, so that the key is hashed first.", "long",
        py_hs(claims(TEMPERATURE), LONG), TEMPERATURE, OK, "secret:long")
    add("secret_of_200_bytes_openssl", "The same with openssl.", "long", ossl_hs(claims(NETWORK), LONG), NETWORK, OK, "secret:long")
    add("secret_of_64_bytes", "Exactly the HMAC block.", "long", py_hs(claims(TEMPERATURE), EXACT_BLOCK), TEMPERATURE, OK,
        "secret:block")
    add("secret_of_200_bytes_cut_to_64", "Keyed with the first 64 bytes of the long secret.", "long",
        py_hs(claims(TEMPERATURE), LONG[:64]), TEMPERATURE, "signature_mismatch")
    add("secret_that_looks_like_base64", "The text itself is the key.", "base64ish", py_hs(claims(TEMPERATURE), BASE64ISH),
        TEMPERATURE, OK, "secret:text")
    add("secret_decoded_from_base64", "Keyed with the base64-decoded secret.", "base64ish",
        hand({"alg": "HS256", "typ": "JWT"}, claims(TEMPERATURE), base64.b64decode(BASE64ISH)), TEMPERATURE,
        "signature_mismatch")
    add("secret_with_outer_spaces", "Spaces at the ends of the secret belong to it.", "spaced",
        py_hs(claims(TEMPERATURE), SPACED), TEMPERATURE, OK, "secret:spaced")
    add("secret_with_outer_spaces_trimmed", "Keyed with the trimmed secret.", "spaced",
        py_hs(claims(TEMPERATURE), SPACED.strip()), TEMPERATURE, "signature_mismatch")
    add("secret_with_newline", "Keyed with the secret and a newline, as read from a file.", "secret",
        py_hs(claims(TEMPERATURE), SECRET + "\n"), TEMPERATURE, "signature_mismatch")
    add("secret_in_other_case", "Keyed with the secret in upper case.", "secret", py_hs(claims(TEMPERATURE), SECRET.upper()),
        TEMPERATURE, "signature_mismatch")


def bodies():
    for label, why, body in (
        ("empty", "An empty body.", b""),
        ("nul", "One NUL byte.", b"\0"),
        ("not_utf8", "Not UTF-8.", b'{"event":"\xff\xfe\xc3\x28"}'),
        ("all_bytes", "Every byte value.", bytes(range(256))),
        ("not_json", "Not JSON.", b"hello"),
        ("cut_json", "JSON that ends too early.", TEMPERATURE[:40]),
        ("bom", "JSON after a byte order mark.", b"\xef\xbb\xbf" + TEMPERATURE),
        ("pretty", "Pretty-printed, and signed like that.", PRETTY),
        ("crlf", "CR LF at the end, and signed like that.", TEMPERATURE + b"\r\n"),
        ("duplicate_keys", "JSON with a name given twice.", b'{"event":{},"event":{},"labels":{}}'),
        ("gzip", "Compressed, and the compressed bytes are signed.", gzip.compress(TEMPERATURE, mtime=0)),
        ("form", "Like a form.", b"a=1&b=2"),
        ("json_null", "JSON null.", b"null"),
    ):
        add(f"body_{label}", why + " The verifier looks at bytes only.", "secret", py_hs(claims(body)), body, OK, P)
    add("body_empty_openssl", "An empty body.", "secret", ossl_hs(claims(b"")), b"", OK, P)
    add("body_not_utf8_es256", "Not UTF-8, asymmetric.", "asym", py_es(asym_claims(b"\xff\0\xfe")), b"\xff\0\xfe", OK, E1)
    bad = "checksum_mismatch"
    token, es = py_hs(claims(TEMPERATURE)), py_es(asym_claims(TEMPERATURE))
    for label, why, body in (
        ("one_byte_changed", "One digit of the value differs.", ONE_BYTE),
        ("last_byte_changed", "The last byte differs.", TEMPERATURE[:-1] + b"]"),
        ("pretty_printed", "The body was pretty-printed on the way.", PRETTY),
        ("spaced", "The body was re-serialised with spaces.", SPACED_BODY),
        ("sorted", "The body was re-serialised with sorted names.", SORTED_BODY),
        ("truncated", "The last byte is missing.", TEMPERATURE[:-1]),
        ("trailing_newline", "A newline was added.", TEMPERATURE + b"\n"),
        ("trailing_crlf", "CR LF was added.", TEMPERATURE + b"\r\n"),
        ("leading_bom", "A byte order mark was added.", b"\xef\xbb\xbf" + TEMPERATURE),
        ("gone", "The body is empty.", b""),
        ("compressed", "The body was compressed on the way.", gzip.compress(TEMPERATURE, mtime=0)),
        ("doubled", "The body arrives twice in a row.", TEMPERATURE * 2),
        ("of_another_event", "The body of another event with this token: a splice.", TOUCH),
    ):
        add(f"hs256_body_{label}", why, "secret", token, body, bad)
        if label in ("one_byte_changed", "trailing_newline", "gone", "pretty_printed"):
            add(f"es256_body_{label}", why, "asym", es, body, bad)
    lf, crlf = PRETTY, PRETTY.replace(b"\n", b"\r\n")
    add("hs256_body_lf_became_crlf", "Line ends were converted.", "secret", py_hs(claims(lf)), crlf, bad)
    add("hs256_body_lf_became_crlf_openssl", "Line ends were converted.", "secret", ossl_hs(claims(lf)), crlf, bad)
    escaped = json.dumps(json.loads(LABELS), separators=(",", ":")).encode()
    add("hs256_body_escaped", "Letters outside ASCII were turned into escapes.", "secret", py_hs(claims(LABELS)), escaped, bad)
    add("hs256_body_latin1", "The body was turned into Latin-1.", "secret", py_hs(claims(LABELS)),
        LABELS.decode().encode("latin-1", "replace"), bad)
    right1, right256 = claims(TEMPERATURE)["checksum"], claims(TEMPERATURE)["checksum_sha256"]
    wrong1, wrong256 = claims(TOUCH)["checksum"], claims(TOUCH)["checksum_sha256"]
    for label, why, over in (
        ("sha256_wrong", "SHA-1 is right, SHA-256 is not.", {"checksum_sha256": wrong256}),
        ("sha1_wrong", "SHA-256 is right, SHA-1 is not.", {"checksum": wrong1}),
        ("sha1_wrong_alone", "Only SHA-1, and it is wrong.", {"checksum": wrong1, "checksum_sha256": DROP}),
        ("sha256_wrong_alone", "Only SHA-256, and it is wrong.", {"checksum": DROP, "checksum_sha256": wrong256}),
        ("sha256_empty", "SHA-256 is an empty string; SHA-1 is right.", {"checksum_sha256": ""}),
        ("sha1_empty", "SHA-1 is an empty string; SHA-256 is right.", {"checksum": ""}),
        ("sha256_cut", "SHA-256 lacks its last digit.", {"checksum_sha256": right256[:-1]}),
        ("sha256_long", "SHA-256 has two digits more.", {"checksum_sha256": right256 + "00"}),
        ("sha256_half", "The first half of SHA-256.", {"checksum_sha256": right256[:32]}),
        ("sha256_not_hex", "SHA-256 with a letter that is no hex digit.", {"checksum_sha256": "g" + right256[1:]}),
        ("sha256_not_ascii", "SHA-256 with full-width digits.", {"checksum_sha256": "\uff10" + right256[1:]}),
        ("sha256_base64", "SHA-256 in base64.",
         {"checksum_sha256": base64.b64encode(hashlib.sha256(TEMPERATURE).digest()).decode()}),
        ("sha256_0x", "SHA-256 with 0x in front.", {"checksum_sha256": "0x" + right256}),
        ("sha256_space", "SHA-256 with a space behind.", {"checksum_sha256": right256 + " "}),
        ("swapped", "The two checksums in each other's place.", {"checksum": right256, "checksum_sha256": right1}),
        ("sha256_in_sha1_place", "Only checksum, and it holds SHA-256.", {"checksum": right256, "checksum_sha256": DROP}),
    ):
        add(f"hs256_checksum_{label}", why, "secret", py_hs(claims(TEMPERATURE, **over)), TEMPERATURE, bad)
    add("es256_checksum_sha1_wrong", "SHA-256 is right, SHA-1 is not.", "asym",
        py_es(asym_claims(TEMPERATURE, checksum=wrong1)), TEMPERATURE, bad)
    add("hs256_checksum_missing", "Neither checksum.", "secret",
        py_hs(claims(TEMPERATURE, checksum=DROP, checksum_sha256=DROP)), TEMPERATURE, "checksum_missing")
    add("hs256_checksum_both_null", "Both checksums null.", "secret",
        py_hs(claims(TEMPERATURE, checksum=None, checksum_sha256=None)), TEMPERATURE, "checksum_missing")
    add("hs256_checksum_other_name", "Only names that mean nothing.", "secret",
        py_hs(claims(TEMPERATURE, checksum=DROP, checksum_sha256=DROP, checksum_md5="0" * 32, Checksum=right1)),
        TEMPERATURE, "checksum_missing")
    add("es256_checksum_missing", "Neither checksum.", "asym", py_es(asym_claims(TEMPERATURE, checksum_sha256=DROP)),
        TEMPERATURE, "checksum_missing")
    add("hs256_checksum_missing_before_expired", "No checksum and expired: the checksum comes first.", "secret",
        py_hs(claims(TEMPERATURE, checksum=DROP, checksum_sha256=DROP, exp=1)), TEMPERATURE, "checksum_missing")
    add("hs256_checksum_mismatch_before_expired", "Wrong body and expired: the body comes first.", "secret",
        py_hs(claims(TEMPERATURE, exp=1)), ONE_BYTE, bad)
    add("hs256_no_exp_before_checksum", "No exp and no checksum: exp comes first.", "secret",
        py_hs(claims(TEMPERATURE, exp=DROP, checksum=DROP, checksum_sha256=DROP)), TEMPERATURE, "claims_missing")


def required_headers():
    token = py_hs(claims(TEMPERATURE))
    my = ("X-My-Header", "my-value")
    bad = "header_mismatch"
    add("required_present", "The required header is there, its name in other case.", "required", [(XDT, token), my],
        TEMPERATURE, OK, P)
    add("required_before_signature", "The order of headers does not matter.", "required", [("x-my-header", "my-value"), (XDT, token)],
        TEMPERATURE, OK, P)
    add("required_two_present", "Two required headers, one with a space in its value.", "required_two",
        [my, (XDT, token), ("x-tenant", "Blue Team")], TEMPERATURE, OK, P)
    for label, why, use, more in (
        ("absent", "The required header is absent.", "required", []),
        ("other_value", "Another value.", "required", [("X-My-Header", "your-value")]),
        ("other_case", "The value in other case.", "required", [("X-My-Header", "My-Value")]),
        ("prefix", "The value goes on.", "required", [("X-My-Header", "my-value2")]),
        ("empty", "An empty value.", "required", [("X-My-Header", "")]),
        ("quoted", "The value in double quotes, as some configuration tools send it.", "required", [("X-My-Header", '"my-value"')]),
        ("doubled", "The header twice, each with the right value.", "required", [my, ("x-my-header", "my-value")]),
        ("doubled_other", "The header twice, one with the right value.", "required", [my, ("x-my-header", "x")]),
        ("joined", "Two right values joined into one.", "required", [("X-My-Header", "my-value, my-value")]),
        ("one_of_two", "One of two required headers is absent.", "required_two", [my]),
        ("second_wrong", "One of two required headers is wrong.", "required_two", [my, ("X-Tenant", "Red Team")]),
    ):
        add(f"required_{label}", why, use, [(XDT, token), *more], TEMPERATURE, bad)
    add("required_absent_es256", "The required header is absent, asymmetric.", "asym_required", py_es(asym_claims(TEMPERATURE)),
        TEMPERATURE, bad)
    add("required_present_es256", "The required header is there, asymmetric.", "asym_required",
        [(ASYM, py_es(asym_claims(TEMPERATURE))), my], TEMPERATURE, OK, E1)
    add("required_before_expired", "Header absent and token expired: the header comes first.", "required",
        py_hs(claims(TEMPERATURE, exp=1)), TEMPERATURE, bad)
    add("required_after_checksum", "Header absent and body changed: the body comes first.", "required", token, ONE_BYTE,
        "checksum_mismatch")
    add("required_after_signature", "The right header without a signature is worth nothing.", "required", [my], TEMPERATURE,
        "signature_missing")
    add("required_expired", "The header is right, the token expired.", "required",
        [(XDT, py_hs(claims(TEMPERATURE, exp=NOW - 60))), my], TEMPERATURE, "expired")


def times():
    def hs(name, why, expect, now=NOW, **over):
        texts = {k: v for k, v in over.items() if isinstance(v, str)}
        plain = {k: v for k, v in over.items() if not isinstance(v, str)}
        made = claims(TEMPERATURE, **plain)
        add(f"hs256_time_{name}", why, "secret", py_hs(literal(made, **texts) if texts else made), TEMPERATURE, expect,
            P if expect == OK else None, now)

    hs("exp_60_s_ago", "now = exp + 60 is too late.", "expired", exp=NOW - 60)
    hs("exp_59_s_ago", "now = exp + 59 is within the leeway.", OK, exp=NOW - 59)
    hs("exp_61_s_ago", "One second more.", "expired", exp=NOW - 61)
    hs("exp_now", "Exactly at exp.", OK, exp=NOW)
    hs("day_later", "A good token a day later: a late retry or a replay.", "expired", now=NOW + 86400)
    hs("exp_zero", "exp 0.", "expired", exp=0)
    hs("exp_negative", "exp -1.", "expired", exp=-1)
    hs("exp_i64_min", "exp is the smallest 64-bit integer.", "expired", exp=I64_MIN)
    hs("exp_below_i64", "exp is one below the smallest 64-bit integer.", "expired", exp=I64_MIN - 1)
    hs("exp_i64_max", "exp is the largest 64-bit integer; exp + 60 must not overflow.", OK, exp=I64_MAX)
    hs("exp_near_i64_max", "exp + 60 is just the largest 64-bit integer.", OK, exp=I64_MAX - 60)
    hs("exp_above_i64", "exp is one above the largest 64-bit integer.", OK, exp=I64_MAX + 1)
    hs("exp_above_u64", "exp is above the largest unsigned 64-bit integer.", OK, exp=2**64)
    hs("exp_fraction", "exp with a fraction.", OK, exp=f"{EXP}.25")
    hs("exp_exponent", "exp in scientific notation.", OK, exp="1.736003598e9")
    hs("exp_fraction_floor", "exp = now - 59.5 becomes now - 60.", "expired", exp=f"{NOW - 60}.5")
    hs("exp_fraction_edge", "exp = now - 58.5 becomes now - 59.", OK, exp=f"{NOW - 59}.5")
    hs("exp_negative_fraction", "exp -0.5.", "expired", exp="-0.5")
    hs("iat_60_s_ahead", "iat = now + 60 is within the leeway.", OK, iat=NOW + 60)
    hs("iat_61_s_ahead", "iat = now + 61 is not.", "not_yet_valid", iat=NOW + 61)
    hs("iat_fraction_floor", "iat = now + 60.9 becomes now + 60.", OK, iat=f"{NOW + 60}.9")
    hs("iat_fraction_edge", "iat = now + 61.2 becomes now + 61.", "not_yet_valid", iat=f"{NOW + 61}.2")
    hs("iat_i64_max", "iat is the largest 64-bit integer.", "not_yet_valid", iat=I64_MAX, exp=I64_MAX)
    hs("iat_above_u64", "iat is above the largest unsigned 64-bit integer.", "not_yet_valid", iat=2**64 + 1)
    hs("iat_i64_min", "iat is the smallest 64-bit integer.", OK, iat=I64_MIN)
    hs("iat_after_exp", "iat after exp, both within the leeway.", OK, iat=NOW + 30, exp=NOW - 30)
    hs("nbf_60_s_ahead", "nbf = now + 60 is within the leeway.", OK, nbf=NOW + 60)
    hs("nbf_61_s_ahead", "nbf = now + 61 is not.", "not_yet_valid", nbf=NOW + 61)
    hs("nbf_past", "nbf in the past.", OK, nbf=NOW - 1)
    hs("nbf_i64_max", "nbf is the largest 64-bit integer.", "not_yet_valid", nbf=I64_MAX)
    hs("exp_before_iat", "Expired, and iat in the future: exp is checked first.", "expired", exp=NOW - 60, iat=NOW + 3600)
    hs("exp_before_nbf", "Expired, and nbf in the future: exp is checked first.", "expired", exp=NOW - 600, nbf=NOW + 3600)
    hs("hour_early", "A good token on a clock that is an hour slow.", "not_yet_valid", now=NOW - 3600)
    hs("now_zero", "A clock that was never set: 1970.", "not_yet_valid", now=0)
    hs("no_exp", "The shared-secret scheme needs exp.", "claims_missing", exp=DROP)
    hs("null_exp", "exp null counts as absent.", "claims_missing", exp=None)
    hs("no_times", "Neither exp nor iat.", "claims_missing", exp=DROP, iat=DROP)
    add("hs256_time_expired_openssl", "Expired, signed by openssl.", "secret", ossl_hs(claims(TEMPERATURE, exp=NOW - 60)),
        TEMPERATURE, "expired")

    def es(name, why, expect, now=NOW, **over):
        add(f"es256_time_{name}", why, "asym", py_es(asym_claims(TEMPERATURE, **over)), TEMPERATURE, expect,
            E1 if expect == OK else None, now)

    es("no_exp", "Without exp, iat + 3600 counts.", OK, exp=DROP)
    es("null_exp", "exp null counts as absent.", OK, exp=None)
    es("no_exp_3659_s_old", "Without exp, iat + 3600 + 59.", OK, exp=DROP, iat=NOW - 3659)
    es("no_exp_3660_s_old", "Without exp, iat + 3600 + 60.", "expired", exp=DROP, iat=NOW - 3660)
    es("no_exp_iat_61_s_ahead", "Without exp, iat too far ahead.", "not_yet_valid", exp=DROP, iat=NOW + 61)
    es("no_exp_iat_i64_max", "Without exp, iat + 3600 must not overflow.", "not_yet_valid", exp=DROP, iat=I64_MAX)
    es("no_exp_iat_i64_min", "Without exp, iat is the smallest 64-bit integer.", "expired", exp=DROP, iat=I64_MIN)
    es("no_times", "Neither exp nor iat.", "claims_missing", exp=DROP, iat=DROP)
    es("nbf_only", "nbf does not stand in for iat.", "claims_missing", exp=DROP, iat=DROP, nbf=IAT)
    es("no_iat", "exp without iat.", OK, iat=DROP)
    es("exp_60_s_ago", "now = exp + 60 is too late.", "expired", exp=NOW - 60)
    es("exp_59_s_ago", "now = exp + 59 is within the leeway.", OK, exp=NOW - 59)
    es("exp_shorter_than_hour", "exp counts, not iat + 3600.", "expired", iat=NOW - 120, exp=NOW - 100)
    es("exp_longer_than_hour", "exp counts, not iat + 3600.", OK, iat=NOW - 7200, exp=NOW + 60)
    es("iat_60_s_ahead", "iat = now + 60 is within the leeway.", OK, iat=NOW + 60)
    es("iat_61_s_ahead", "iat = now + 61 is not.", "not_yet_valid", iat=NOW + 61)
    es("nbf_61_s_ahead", "nbf = now + 61 is not within the leeway.", "not_yet_valid", nbf=NOW + 61)


def asymmetric():
    made = asym_claims(TEMPERATURE)
    good = py_es(made)
    add("es256_good_temperature", "As DT makes it: kid, iss, sub, checksum_sha256, iat, exp.", "asym", good, TEMPERATURE, OK, E1)
    add("es256_good_second_key", "kid selects the second key.", "asym", py_es(made, "es256-next"), TEMPERATURE, OK, E2)
    add("es256_good_openssl", "Signed by openssl, DER turned into r||s.", "asym", ossl_es(asym_claims(TOUCH)), TOUCH, OK, E1)
    add("es256_good_openssl_second_key", "The second key, signed by openssl.", "asym",
        ossl_es(asym_claims(HUMIDITY), "es256-next"), HUMIDITY, OK, E2)
    add("es256_good_openssl_no_exp", "Signed by openssl, without exp.", "asym", ossl_es(asym_claims(LABELS, exp=DROP)), LABELS, OK, E1)
    add("es256_good_both_checksums", "SHA-1 as well.", "asym",
        py_es(asym_claims(TEMPERATURE, checksum=claims(TEMPERATURE)["checksum"])), TEMPERATURE, OK, E1)
    add("es256_sha1_only", "DT's asymmetric tokens have SHA-256; one with SHA-1 alone is not theirs.", "asym",
        py_es(asym_claims(TEMPERATURE, checksum=claims(TEMPERATURE)["checksum"], checksum_sha256=DROP)), TEMPERATURE,
        "checksum_missing")
    add("es256_good_mixed_set", "The set also holds an RSA, a P-384 and an encryption key.", "asym_mixed", good, TEMPERATURE, OK, E1)
    add("es256_good_mixed_set_last", "The last key of the mixed set.", "asym_mixed", py_es(made, "es256-next"), TEMPERATURE, OK, E2)
    add("es256_no_jti", "jti is optional.", "asym", py_es(asym_claims(TEMPERATURE, jti=DROP)), TEMPERATURE, OK, E1)
    add("es256_aud_ignored", "aud is ignored.", "asym", py_es(asym_claims(TEMPERATURE, aud="https://example.com/")),
        TEMPERATURE, OK, E1)
    add("es256_aud_array_ignored", "aud is ignored, also as an array.", "asym", py_es(asym_claims(TEMPERATURE, aud=["a", "b"])),
        TEMPERATURE, OK, E1)
    add("es256_own_issuer", "A verifier with an issuer of its own.", "asym_issuer",
        py_es(asym_claims(TEMPERATURE, iss="http://127.0.0.1:8081/data-connector")), TEMPERATURE, OK, E1)
    add("es256_r_with_leading_zero", "r begins with a zero byte and stays 32 bytes long.", "asym",
        py_es(asym_claims(TEMPERATURE, jti="r0"), fits=lambda raw: raw[0] == 0), TEMPERATURE, OK, E1)
    add("es256_s_with_leading_zero", "s begins with a zero byte and stays 32 bytes long.", "asym",
        py_es(asym_claims(TEMPERATURE, jti="s0"), fits=lambda raw: raw[32] == 0), TEMPERATURE, OK, E1)
    raw = good.signature()
    r, s = raw[:32], raw[32:]
    mirrored = (P256_N - int.from_bytes(s, "big")).to_bytes(32, "big")
    add("es256_mirrored_s", "(r, n - s) is just as valid for ECDSA, and ES256 does not forbid it.", "asym",
        good.with_signature(r + mirrored), TEMPERATURE, OK, E1)

    bad = "signature_mismatch"
    zero, order = bytes(32), P256_N.to_bytes(32, "big")
    short = py_es(asym_claims(TEMPERATURE, jti="r0"), fits=lambda raw: raw[0] == 0)
    short_s = py_es(asym_claims(TEMPERATURE, jti="s0"), fits=lambda raw: raw[32] == 0)
    for label, why, token in (
        ("r_zero", "r is 0.", good.with_signature(zero + s)),
        ("s_zero", "s is 0.", good.with_signature(r + zero)),
        ("both_zero", "r and s are 0.", good.with_signature(zero + zero)),
        ("r_is_order", "r is the order of the group.", good.with_signature(order + s)),
        ("both_order", "r and s are the order of the group.", good.with_signature(order + order)),
        ("all_ones", "r and s have all bits set.", good.with_signature(b"\xff" * 64)),
        ("swapped", "s||r.", good.with_signature(s + r)),
        ("der", "The signature in DER.",
         good.with_signature(encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big")))),
        ("leading_zero_stripped", "63 bytes: the leading zero byte of r is missing.", short.with_signature(short.signature()[1:])),
        ("s_zero_stripped", "63 bytes: the leading zero byte of s is missing.",
         short_s.with_signature(short_s.signature()[:32] + short_s.signature()[33:])),
        ("s_zero_prefixed", "65 bytes: a zero byte more in front of s.", good.with_signature(r + b"\0" + s)),
        ("cut", "The last byte of the signature is missing.", good.with_signature(raw[:-1])),
        ("longer", "One byte follows the signature.", good.with_signature(raw + b"\0")),
        ("half", "r alone.", good.with_signature(r)),
        ("empty", "The signature segment is empty.", good.with_signature(b"")),
        ("first_bit", "One bit of r is flipped.", good.with_signature(flip(raw, 0))),
        ("last_bit", "One bit of s is flipped.", good.with_signature(flip(raw, 504))),
    ):
        add(f"es256_signature_{label}", why, "asym", token, TEMPERATURE, bad)
    add("es256_claims_changed_after_signing", "sub was replaced after signing.", "asym",
        good.with_payload(asym_claims(TEMPERATURE, sub=OTHER_ORG)), TEMPERATURE, bad)
    add("es256_kid_of_other_key", "Signed by the first key, kid of the second.", "asym",
        py_es(made, headers={"kid": KID["es256-next"]}), TEMPERATURE, bad)
    add("es256_kid_of_other_key_openssl", "Signed by the second key, kid of the first.", "asym",
        ossl_es(made, "es256-next", KID["es256"]), TEMPERATURE, bad)
    add("es256_stranger_with_known_kid", "Signed by a stranger's key, with a known kid.", "asym",
        py_es(made, "es256-stranger", headers={"kid": KID["es256"]}), TEMPERATURE, bad)
    add("es256_stranger_brings_own_key", "A stranger's key in the token's own jwk header, with a known kid.", "asym",
        py_es(made, "es256-stranger", headers={
            "kid": KID["es256"], "jwk": ec_jwk("es256-stranger", KID["es256"], use="sig", alg="ES256")}), TEMPERATURE, bad)
    add("es256_stranger_brings_own_url", "A stranger's jku with a known kid must not be fetched.", "asym",
        py_es(made, "es256-stranger", headers={"kid": KID["es256"], "jku": "https://example.com/keys"}), TEMPERATURE, bad)
    add("es256_hmac_under_es256", "alg says ES256, but the signature is an HMAC with the secret.", "asym_only_has_secret",
        hand({"alg": "ES256", "kid": KID["es256"], "typ": "JWT"}, made), TEMPERATURE, bad)

    bad = "key_unknown"
    add("es256_kid_unknown", "A kid that the set does not have; signed by a stranger.", "asym", py_es(made, "es256-stranger"),
        TEMPERATURE, bad)
    add("es256_kid_unknown_good_key", "A kid that the set does not have; signed by the first key.", "asym",
        py_es(made, headers={"kid": "test-es256-0"}), TEMPERATURE, bad)
    add("es256_kid_unknown_single_key", "An unknown kid is refused even if there is only one key.", "asym_one",
        py_es(made, headers={"kid": "test-es256-0"}), TEMPERATURE, bad)
    add("es256_kid_other_case", "kid compares exactly.", "asym", py_es(made, headers={"kid": "TEST-ES256-1"}), TEMPERATURE, bad)
    add("es256_kid_empty", "An empty kid is a kid that is not in the set.", "asym", py_es(made, headers={"kid": ""}), TEMPERATURE, bad)
    add("es256_kid_of_rsa_key", "kid of the RSA key.", "asym_mixed", py_es(made, headers={"kid": KID["rsa"]}), TEMPERATURE, bad)
    add("es256_kid_of_p384_key", "kid of the P-384 key.", "asym_mixed", py_es(made, headers={"kid": KID["p384"]}), TEMPERATURE, bad)
    add("es256_kid_of_enc_key", "kid of the encryption key, and really signed by it.", "asym_mixed", py_es(made, "es256-enc"),
        TEMPERATURE, bad)
    add("es256_kid_missing_two_keys", "No kid, and the set has two keys.", "asym", py_es(made, headers={}), TEMPERATURE, bad)
    add("es256_kid_missing_mixed_set", "No kid, and the set has two usable keys and three others.", "asym_mixed",
        py_es(made, headers={}), TEMPERATURE, bad)
    add("es256_kid_missing_one_key", "No kid, and the set has exactly one key.", "asym_one", py_es(made, headers={}), TEMPERATURE, OK, E1)
    add("es256_kid_missing_one_key_stranger", "No kid, one key, and a stranger's signature.", "asym_one",
        py_es(made, "es256-stranger", headers={}), TEMPERATURE, "signature_mismatch")

    bad = "issuer_mismatch"
    for label, why, over in (
        ("absent", "No iss.", {"iss": DROP}),
        ("null", "iss null counts as absent.", {"iss": None}),
        ("other", "Another issuer.", {"iss": "https://identity.example.com/data-connector"}),
        ("slash", "A slash at the end.", {"iss": DEFAULT_ISSUER + "/"}),
        ("http", "http in place of https.", {"iss": DEFAULT_ISSUER.replace("https", "http")}),
        ("parent", "Only the beginning.", {"iss": "https://identity.disruptive-technologies.com"}),
        ("empty", "An empty iss.", {"iss": ""}),
        ("and_organization", "iss and sub are both wrong: iss comes first.", {"iss": "x", "sub": OTHER_ORG}),
    ):
        add(f"es256_issuer_{label}", why, "asym", py_es(asym_claims(TEMPERATURE, **over)), TEMPERATURE, bad)
    add("es256_issuer_default_at_own_issuer", "The default issuer, at a verifier with its own.", "asym_issuer", good, TEMPERATURE, bad)
    bad = "organization_mismatch"
    for label, why, over in (
        ("absent", "No sub.", {"sub": DROP}),
        ("null", "sub null counts as absent.", {"sub": None}),
        ("other", "Another customer of DT: a valid signature, but not ours.", {"sub": OTHER_ORG}),
        ("upper_case", "The right id in upper case.", {"sub": ORG.upper()}),
        ("prefix", "The beginning of the right id.", {"sub": ORG[:-1]}),
        ("empty", "An empty sub.", {"sub": ""}),
        ("before_checksum", "Another organization, and no checksum.", {"sub": OTHER_ORG, "checksum_sha256": DROP}),
        ("before_claims_missing", "Another organization, and no times.", {"sub": OTHER_ORG, "exp": DROP, "iat": DROP}),
        ("before_expired", "Another organization, and expired.", {"sub": OTHER_ORG, "exp": 1}),
    ):
        add(f"es256_organization_{label}", why, "asym", py_es(asym_claims(TEMPERATURE, **over)), TEMPERATURE, bad)
    add("es256_organization_other_openssl", "Another customer of DT, signed by openssl.", "asym",
        ossl_es(asym_claims(TEMPERATURE, sub=OTHER_ORG)), TEMPERATURE, bad)


def policies():
    hs, es = py_hs(claims(TEMPERATURE)), py_es(asym_claims(TEMPERATURE))
    hs_old = py_hs(claims(TEMPERATURE), OLD_SECRET)
    hs_wrong = py_hs(claims(TEMPERATURE), THIRD_SECRET)
    es_wrong = py_es(asym_claims(TEMPERATURE), "es256-stranger", headers={"kid": KID["es256"]})
    hs_late, es_late = py_hs(claims(TEMPERATURE, exp=NOW - 60)), py_es(asym_claims(TEMPERATURE, exp=NOW - 60))
    hs_early, es_early = py_hs(claims(TEMPERATURE, iat=NOW + 61)), py_es(asym_claims(TEMPERATURE, iat=NOW + 61))
    hs_none = py_hs(claims(TEMPERATURE), None, "none")
    es_org = py_es(asym_claims(TEMPERATURE, sub=OTHER_ORG))
    es_kid = py_es(asym_claims(TEMPERATURE), "es256-stranger")
    hs_bare = py_hs(claims(TEMPERATURE, exp=DROP))
    junk = "not a token"

    def case(name, why, use, headers, expect, by=None, body=TEMPERATURE):
        add(name, why, use, headers, body, expect, by)

    # A header of a scheme that is not in the policy, or not configured.
    case("policy_secret_ignores_bad_other", "Not in the policy, so ignored.", "secret_only_has_keys", both_headers(hs, junk), OK, P)
    case("policy_secret_ignores_doubled_other", "Not in the policy, so ignored, even twice.", "secret_only_has_keys",
         both_headers(hs, es, (ASYM, es)), OK, P)
    case("policy_secret_ignores_good_other", "A good asymmetric token does not help a bad shared-secret one.",
         "secret_only_has_keys", both_headers(hs_wrong, es), "signature_mismatch")
    case("policy_secret_other_alone", "Only the asymmetric header.", "secret_only_has_keys", [(ASYM, es)], "signature_missing")
    case("policy_asymmetric_ignores_bad_other", "Not in the policy, so ignored.", "asym_only_has_secret", both_headers(junk, es), OK, E1)
    case("policy_asymmetric_ignores_good_other", "A good shared-secret token does not help a bad asymmetric one.",
         "asym_only_has_secret", both_headers(hs, es_wrong), "signature_mismatch")
    case("policy_asymmetric_other_alone", "Only the shared-secret header.", "asym_only_has_secret", [(XDT, hs)], "signature_missing")
    case("policy_unconfigured_ignored", "No keys configured, so the asymmetric header is ignored.", "secret", both_headers(hs, junk), OK, P)

    case("either_both_good", "Both hold: the shared secret is named.", "either", both_headers(hs, es), OK, P)
    case("either_both_good_other_order", "The order of headers does not matter.", "either", [(ASYM, es), (XDT, hs)], OK, P)
    case("either_secret_alone", "Only the shared-secret header.", "either", [(XDT, hs)], OK, P)
    case("either_asymmetric_alone", "Only the asymmetric header.", "either", [(ASYM, es)], OK, E1)
    case("either_old_secret_and_bad_other", "The old secret holds, the other header is junk.", "either", both_headers(hs_old, junk), OK, OLD)
    case("either_secret_wrong", "A wrong shared-secret token does not matter.", "either", both_headers(hs_wrong, es), OK, E1)
    case("either_asymmetric_wrong", "A wrong asymmetric token does not matter.", "either", both_headers(hs, es_wrong), OK, P)
    case("either_secret_alg_none", "alg none in one header does not matter.", "either", both_headers(hs_none, es), OK, E1)
    case("either_secret_expired", "An expired shared-secret token does not matter.", "either", both_headers(hs_late, es), OK, E1)
    case("either_asymmetric_expired", "An expired asymmetric token does not matter.", "either", both_headers(hs, es_late), OK, P)
    case("either_secret_doubled", "A doubled shared-secret header does not matter.", "either", both_headers(hs, es, (XDT, hs)), OK, E1)
    case("either_other_organization", "The asymmetric token is another customer's, the secret holds.", "either", both_headers(hs, es_org), OK, P)
    case("either_none", "Neither header.", "either", [], "signature_missing")
    case("either_both_wrong", "Both wrong: the shared secret's reason.", "either", both_headers(hs_wrong, es_org), "signature_mismatch")
    case("either_secret_none_asymmetric_wrong", "alg none, and another organization.", "either", both_headers(hs_none, es_org), "algorithm_not_allowed")
    case("either_only_asymmetric_wrong", "Only the asymmetric header is there: its reason.", "either", [(ASYM, es_org)], "organization_mismatch")
    case("either_only_asymmetric_unknown_key", "Only the asymmetric header is there: its reason.", "either", [(ASYM, es_kid)], "key_unknown")
    case("either_only_secret_wrong", "Only the shared-secret header is there: its reason.", "either", [(XDT, hs_wrong)], "signature_mismatch")
    case("either_doubled_secret_asymmetric_wrong", "A doubled header is present.", "either",
         both_headers(hs, es_wrong, (XDT, hs)), "signature_malformed")
    case("either_secret_wrong_asymmetric_expired", "Expired wins over another reason.", "either", both_headers(hs_wrong, es_late), "expired")
    case("either_secret_expired_asymmetric_wrong", "Expired wins over another reason.", "either", both_headers(hs_late, es_org), "expired")
    case("either_secret_expired_asymmetric_missing", "Expired alone.", "either", [(XDT, hs_late)], "expired")
    case("either_both_expired", "Both expired.", "either", both_headers(hs_late, es_late), "expired")
    case("either_secret_early_asymmetric_expired", "Expired wins over not yet valid.", "either", both_headers(hs_early, es_late), "expired")
    case("either_secret_early_asymmetric_wrong", "Not yet valid has no such privilege, but comes first.", "either",
         both_headers(hs_early, es_wrong), "not_yet_valid")
    case("either_body_changed", "The body fits neither.", "either", both_headers(hs, es), "checksum_mismatch", body=ONE_BYTE)
    case("either_secret_of_other_body", "The shared-secret token is for another body.", "either",
         both_headers(py_hs(claims(TOUCH)), es), OK, E1)
    case("either_without_keys", "Either, with secrets only.", "either_secret_alone", both_headers(hs, junk), OK, P)
    case("either_without_keys_wrong", "Either, with secrets only: a good asymmetric token does not count.", "either_secret_alone",
         both_headers(hs_wrong, es), "signature_mismatch")
    case("either_without_secrets", "Either, with keys only.", "either_keys_alone", both_headers(junk, es), OK, E1)
    case("either_without_secrets_missing", "Either, with keys only: the shared-secret header does not count.", "either_keys_alone",
         [(XDT, hs)], "signature_missing")

    case("both_good", "Both hold.", "both", both_headers(hs, es), OK, P)
    case("both_good_other_order", "The order of headers does not matter.", "both", [(ASYM, es), (XDT, hs)], OK, P)
    case("both_good_openssl", "Both hold, both signed by openssl.", "both",
         both_headers(ossl_hs(claims(DESK)), ossl_es(asym_claims(DESK))), OK, P, DESK)
    case("both_second_key", "Both hold, the second key.", "both", both_headers(hs, py_es(asym_claims(TEMPERATURE), "es256-next")), OK, P)
    case("both_none", "Neither header.", "both", [], "signature_missing")
    case("both_secret_missing", "The shared-secret header is missing.", "both", [(ASYM, es)], "signature_missing")
    case("both_asymmetric_missing", "The asymmetric header is missing.", "both", [(XDT, hs)], "signature_missing")
    case("both_secret_wrong", "The shared-secret token is wrong.", "both", both_headers(hs_wrong, es), "signature_mismatch")
    case("both_asymmetric_wrong", "The asymmetric token is another organization's.", "both", both_headers(hs, es_org), "organization_mismatch")
    case("both_wrong_secret_first", "Both wrong: the shared secret is checked first.", "both", both_headers(hs_wrong, es_org), "signature_mismatch")
    case("both_secret_alg_none", "alg none in one header.", "both", both_headers(hs_none, es), "algorithm_not_allowed")
    case("both_secret_missing_asymmetric_wrong", "A missing header is a failure like any other.", "both", [(ASYM, es_org)], "signature_missing")
    case("both_secret_expired", "The shared-secret token has expired.", "both", both_headers(hs_late, es), "expired")
    case("both_asymmetric_expired", "The asymmetric token has expired.", "both", both_headers(hs, es_late), "expired")
    case("both_expired", "Both expired.", "both", both_headers(hs_late, es_late), "expired")
    case("both_secret_expired_asymmetric_wrong", "Another failure wins over expired.", "both", both_headers(hs_late, es_org), "organization_mismatch")
    case("both_secret_expired_asymmetric_missing", "Another failure wins over expired.", "both", [(XDT, hs_late)], "signature_missing")
    case("both_secret_wrong_asymmetric_expired", "Another failure wins over expired.", "both", both_headers(hs_wrong, es_late), "signature_mismatch")
    case("both_secret_expired_asymmetric_early", "Not yet valid wins over expired.", "both", both_headers(hs_late, es_early), "not_yet_valid")
    case("both_secret_early_asymmetric_unknown_key", "The shared secret's failure is first.", "both", both_headers(hs_early, es_kid), "not_yet_valid")
    case("both_body_changed", "The body fits neither.", "both", both_headers(hs, es), "checksum_mismatch", body=ONE_BYTE)
    case("both_asymmetric_of_other_body", "The asymmetric token is for another body.", "both",
         both_headers(hs, py_es(asym_claims(TOUCH))), "checksum_mismatch")
    case("both_secret_without_exp", "The shared-secret token lacks exp.", "both", both_headers(hs_bare, es), "claims_missing")
    case("both_tokens_swapped", "Each token in the other's header.", "both", both_headers(es, hs), "algorithm_not_allowed")
    case("both_required_present", "Both hold, and the required header.", "both_required",
         both_headers(hs, es, ("x-my-header", "my-value")), OK, P)
    case("both_required_absent", "Both hold, but the required header is absent.", "both_required", both_headers(hs, es), "header_mismatch")


# --- writing and checking ---------------------------------------------------------------------------------------------

ABOUT = (
    "Known answers for the verifier, made by make_vectors.py without any code of this project. made_by says who signed the "
    "(first) token: pyjwt, openssl (command line) or hashlib (by hand). Tokens that were altered after signing keep their maker. "
    "All secrets and keys here are for tests only. Do not edit; run the script again."
)


def dump(value):
    return json.dumps(value, ensure_ascii=True)


def render():
    lines = ["{", f' "about": {dump(ABOUT)},', ' "verifiers": {']
    entries = []
    for name, config in VERIFIERS.items():
        key_set = config["key_set"]
        if key_set is not None:
            key_set = '{"keys": [\n    ' + ",\n    ".join(dump(key) for key in key_set["keys"]) + "]}"
        entries.append(
            f'  {dump(name)}: {{"policy": {dump(config["policy"])}, "secrets": {dump(config["secrets"])},\n'
            f'   "issuer": {dump(config["issuer"])}, "organization": {dump(config["organization"])},'
            f' "required_headers": {dump(config["required_headers"])},\n'
            f'   "key_set": {key_set or "null"}}}')
    lines += [",\n".join(entries), " },", ' "vectors": [']
    entries = []
    for v in vectors:
        headers = ",\n    ".join(dump(pair) for pair in v["headers"])
        by = f', "by": {dump(v["by"])}' if "by" in v else ""
        entries.append(
            f'  {{"name": {dump(v["name"])}, "why": {dump(v["why"])},\n'
            f'   "made_by": {dump(v["made_by"])}, "verifier": {dump(v["verifier"])}, "now": {v["now"]},'
            f' "expect": {dump(v["expect"])}{by},\n'
            f'   "headers": [{headers}],\n'
            f'   "body_base64": {dump(v["body_base64"])}}}')
    lines += [",\n".join(entries), " ]", "}", ""]
    return "\n".join(lines)


CODES = ("accepted", "signature_missing", "signature_malformed", "algorithm_not_allowed", "signature_mismatch", "key_unknown",
         "expired", "not_yet_valid", "claims_missing", "checksum_missing", "checksum_mismatch", "issuer_mismatch",
         "organization_mismatch", "header_mismatch")


def count(items):
    items = list(items)
    return {item: items.count(item) for item in dict.fromkeys(items)}


def check(text):
    """Judge everything again from the text that will be committed."""
    data = json.loads(text)
    names = [v["name"] for v in data["vectors"]]
    assert len(names) == len(set(names)), [n for n in names if names.count(n) > 1]
    wrong = 0
    for v in data["vectors"]:
        try:
            found = judge(data["verifiers"][v["verifier"]], v["headers"], base64.b64decode(v["body_base64"]), v["now"])
        except Unclear as unclear:
            found = ("unclear: " + str(unclear), None)
        if found != (v["expect"], v.get("by")):
            wrong += 1
            print(f'{v["name"]}: written {(v["expect"], v.get("by"))}, judged {found}', file=sys.stderr)
    codes, makers = count(v["expect"] for v in data["vectors"]), count(v["made_by"] for v in data["vectors"])
    assert set(codes) == set(CODES) and min(codes.values()) >= 2, codes
    assert makers["pyjwt"] >= 30 and makers["openssl"] >= 6, makers
    assert {v["verifier"] for v in data["vectors"]} == set(data["verifiers"]), "a verifier that no vector uses"
    if wrong:
        sys.exit(f"{wrong} vectors disagree with the rules")
    print(f"{len(names)} vectors; " + ", ".join(f"{code} {codes[code]}" for code in CODES))
    print("made by " + ", ".join(f"{maker} {n}" for maker, n in sorted(makers.items())))


def check_keys():
    der = PRIVATE["es256"].private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    assert (KEYS / "es256.pk8.der").read_bytes() == der, "es256.pk8.der is not test-only-es256.pem"


def main():
    remember_old_signatures()
    check_keys()
    for group in (secret_good, header_names, malformed, algorithms, secret_signature_wrong, secrets, bodies,
                  required_headers, times, asymmetric, policies):
        group()
    text = render()
    check(text)
    if "--check" in sys.argv:
        if not OUT.exists() or OUT.read_text() != text:
            sys.exit("verify.json differs from what this script makes")
    else:
        OUT.write_text(text)


if __name__ == "__main__":
    main()
