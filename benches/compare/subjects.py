"""All that is compared, in the order of the report."""

from alternatives import Flask, Node, Webhook
from bare import Bare
from broker import KafkaReceiver
from receiver import Receiver

STORES = "verifies, refuses copies, stores and syncs before the 200, writes to "
WAITS = "verifies, refuses copies, answers 200 once it is in "
VERIFIES = "verifies and parses; stores nothing, refuses no copies"


def make(tools, broker):
    """Every subject; `tools` has the programs and folders."""
    receiver, bare, keys, modules = tools["dt-receiver"], tools["bare"], tools["keys"], tools["modules"]
    return [
        Bare("bare", "bare hyper server", "reads the body, answers 204", bare),
        Bare("bare-same", "the same, one request again and again", "tells what reading the others costs wrk", bare, again=True),
        Bare("verify-only", "bare hyper server with our library", "verifies; stores nothing", bare, verify=True),
        Receiver("spool-file", "dt-receiver: spool → file", STORES + "a file", receiver),
        Receiver("spool-file-es256", "the same, ES256", STORES + "a file", receiver, scheme="es256", keys=keys),
        Receiver("direct-file", "dt-receiver: direct → file", WAITS + "the file, synced", receiver, mode="direct"),
        KafkaReceiver("spool-kafka", "dt-receiver: spool → Kafka", STORES + "Kafka", receiver, broker=broker),
        KafkaReceiver(
            "direct-kafka", "dt-receiver: direct → Kafka", WAITS + "Kafka (acks=all)", receiver, mode="direct", broker=broker
        ),
        Node("node", "Node, jsonwebtoken", VERIFIES, modules, False, 1),
        Node("node-prepared", "the same, secret as a key object", VERIFIES, modules, True, 1),
        Node("node-cluster", "the same, 2 workers", VERIFIES, modules, True, 2),
        Flask("flask", "dtintegrations, Flask, gunicorn (2 workers, sync)", VERIFIES, "sync"),
        Flask("flask-threads", "the same, 4 threads a worker", VERIFIES, "gthread"),
        Webhook("webhook", "Debian's webhook", "sees that there is a token, cannot verify it; runs /bin/true"),
    ]


def alone(tools):
    """The two that are also measured with one connection."""
    return [
        Bare("bare-1", "bare hyper server, 1 connection", "reads the body, answers 204", tools["bare"], connections=1),
        Receiver(
            "spool-file-1", "dt-receiver: spool → file, 1 connection", STORES + "a file", tools["dt-receiver"], connections=1
        ),
    ]


QUICK = ("bare", "spool-file", "node")
