"""All that is compared, in the order of the report."""

from alternatives import Flask, Node, Webhook
from bare import Bare
from broker import KafkaReceiver
from receiver import Receiver

STORES = "verifies, de-duplicates, stores and syncs before the 200, then writes to "
WAITS = "verifies, de-duplicates, answers 200 after it is in "
VERIFIES = "verifies and parses; does not store or de-duplicate"


def make(tools, broker):
    """Every subject; `tools` has the programs and folders."""
    receiver, bare, keys, modules = tools["dt-receiver"], tools["bare"], tools["keys"], tools["modules"]
    hyper, own, node, flask = "bare hyper server", "dt-receiver: ", "Node + jsonwebtoken", "dtintegrations, gunicorn: "
    return [
        Bare("bare", hyper, "reads the body, answers 204", bare),
        Bare("bare-same", f"{hyper}, one request again and again", "shows what wrk spends on reading the requests", bare, again=True),
        Bare("verify-only", f"{hyper} + our library", "verifies; stores nothing", bare, verify=True),
        Receiver("spool-file", f"{own}spool → file", f"{STORES}a file", receiver),
        Receiver("spool-file-es256", f"{own}spool → file, ES256", f"{STORES}a file", receiver, scheme="es256", keys=keys),
        Receiver("direct-file", f"{own}direct → file", f"{WAITS}the file, synced", receiver, mode="direct"),
        KafkaReceiver("spool-kafka", f"{own}spool → Kafka", f"{STORES}Kafka", receiver, broker=broker),
        KafkaReceiver("direct-kafka", f"{own}direct → Kafka", f"{WAITS}Kafka", receiver, mode="direct", broker=broker),
        Node("node", node, f"{VERIFIES}; in the usual form", modules, False, 1),
        Node("node-prepared", f"{node}, key object", f"{VERIFIES}; the secret is made a key once", modules, True, 1),
        Node("node-cluster", f"{node}, key object, 2 workers", f"{VERIFIES}; two processes", modules, True, 2),
        Flask("flask", f"{flask}2 sync workers", VERIFIES, "sync"),
        Flask("flask-threads", f"{flask}2 workers × 4 threads", VERIFIES, "gthread"),
        Webhook("webhook", "Debian's webhook", "sees that there is a token, cannot verify it; runs /bin/true, after its answer"),
    ]


def alone(tools):
    """The two that are also measured with one connection."""
    receiver, one = tools["dt-receiver"], "1 connection"
    return [
        Bare("bare-1", f"bare hyper server, {one}", "reads the body, answers 204", tools["bare"], connections=1),
        Receiver("spool-file-1", f"dt-receiver: spool → file, {one}", f"{STORES}a file", receiver, connections=1),
    ]


QUICK = ("bare", "spool-file", "node")
