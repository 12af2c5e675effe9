#!/usr/bin/env python3
"""Reads Kafka topics with a client that shares no code with ours, and prints each record as one JSON line.

    python3 -m venv VENV && VENV/bin/pip install -r tests/kafka/requirements.txt
    VENV/bin/python tests/kafka/consume.py --bootstrap LIST TOPIC... > records.jsonl

A TOPIC that begins with ^ is a regular expression. All partitions are read from the beginning to where they ended at
the start; with `--count N` until there are N records, also of topics and partitions that come meanwhile. Both end
after `--timeout` seconds, with exit code 1. Partitions are read at the same time: only within one is there an order.

    {"topic", "partition", "offset", "timestamp" (ms, or null), "key", "headers": [[name, value], ...], "value_base64"}

Keys and header values are strings, or null, or {"base64": ...} where they are not UTF-8. A null value, too, is null.

`--cloudevents` also has the CloudEvents SDK read each record as binary mode of the Kafka protocol binding, and adds
"event": {"specversion", "id", "source", "type", ..., "data"}. The SDK makes up what is missing (an id, the present as
time) and takes broken JSON for text, so that is checked here.

Exit: 0 all printed, 1 not all there in time, or an error, or no CloudEvent, 2 wrong usage, 3 packages missing.
"""

import argparse
import base64
import datetime
import json
import math
import os
import re
import sys
import time

try:
    import confluent_kafka as kafka
except ImportError as error:
    print(f"missing: {error.name}; pip install -r tests/kafka/requirements.txt", file=sys.stderr)
    sys.exit(3)

# What no wait mends. Brokers that are away are not among it: tests kill them.
HOPELESS = {
    kafka.KafkaError._AUTHENTICATION,
    kafka.KafkaError._SSL,
    kafka.KafkaError._AUTO_OFFSET_RESET,
    kafka.KafkaError.TOPIC_AUTHORIZATION_FAILED,
}


class Failed(Exception):
    """What went wrong, for the user."""


def text(value):
    if value is None or isinstance(value, str):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}


def record(message):
    kind, timestamp = message.timestamp()
    value = message.value()
    return {
        "topic": message.topic(),
        "partition": message.partition(),
        "offset": message.offset(),
        "timestamp": None if kind == kafka.TIMESTAMP_NOT_AVAILABLE else timestamp,
        "key": text(message.key()),
        "headers": [[name, text(value)] for name, value in message.headers() or []],
        "value_base64": None if value is None else base64.b64encode(value).decode(),
    }


def cloudevents():
    """A function from a message to its event, in the form that is printed."""
    try:
        from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event
    except ImportError as error:
        print(f"missing: {error.name}; pip install -r tests/kafka/requirements.txt", file=sys.stderr)
        sys.exit(3)

    def parse(message):
        headers = {}
        for name, value in message.headers() or []:
            if name in headers:
                raise ValueError(f"two headers {name}")
            headers[name] = value
        for name in ("ce_specversion", "ce_id", "ce_source", "ce_type"):
            if name not in headers:
                raise ValueError(f"no header {name}")
        event = from_binary_event(KafkaMessage(headers, message.key(), message.value()))
        attributes, data = event.get_attributes(), event.get_data()
        if "ce_time" not in headers:
            attributes.pop("time", None)
        if isinstance(data, str) and "json" in attributes.get("datacontenttype", "json"):
            json.loads(message.value())
        return {**attributes, "data": text(data) if isinstance(data, bytes) else data}

    return parse


class Reader:
    """All records of some topics, in batches."""

    def __init__(self, config, patterns, count, timeout):
        self.patterns, self.wanted, self.timeout = patterns, count, timeout
        self.deadline = time.monotonic() + timeout
        self.last_error = None
        self.count = 0
        # Partitions, and the offset that each is to be read to, if there is one.
        self.known, self.left = set(), {}
        self.consumer = kafka.Consumer(
            {
                "group.id": f"consume-{os.getpid()}",  # the client wants one; no group is joined
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
                "queued.min.messages": 200000,
                "error_cb": self.note,
                "log_level": 2,  # `note` says it once
                **config,
            }
        )

    def note(self, error):
        if error.code() in HOPELESS or error.fatal():
            raise Failed(error.str())
        self.last_error = error.str()

    def fail(self):
        what = f"not {self.wanted}" if self.wanted is not None else f"not to the end of {sorted(self.left)}"
        last = f"; the last error: {self.last_error}" if self.last_error else ""
        raise Failed(f"{self.count} records in {self.timeout:g} s, {what}{last}")

    def patiently(self, ask):
        """An answer, although the brokers may be busy with an election."""
        while True:
            try:
                return ask()
            except kafka.KafkaException as error:
                self.note(error.args[0])
            self.consumer.poll(0.2)  # where `note` hears of the client's own troubles
            if time.monotonic() > self.deadline:
                self.fail()

    def add_new(self):
        topics = self.patiently(lambda: self.consumer.list_topics(timeout=5)).topics
        names = set()
        for pattern in self.patterns:
            if pattern.startswith("^"):
                names.update(name for name in topics if re.search(pattern, name))
            elif pattern in topics:
                names.add(pattern)
            elif self.wanted is None:
                raise Failed(f"there is no topic {pattern}")
        new = {(name, partition) for name in names for partition in topics[name].partitions} - self.known
        self.known |= new
        begin = []
        for key in sorted(new):
            partition = kafka.TopicPartition(*key, kafka.OFFSET_BEGINNING)
            low, high = 0, math.inf
            if self.wanted is None:
                low, high = self.patiently(lambda p=partition: self.consumer.get_watermark_offsets(p, timeout=5))
            if low < high:
                self.left[key] = high
                begin.append(partition)
        if begin:
            self.consumer.incremental_assign(begin)

    def complete(self):
        return not self.left if self.wanted is None else self.count >= self.wanted

    def batches(self):
        self.add_new()
        looked = time.monotonic()
        while not self.complete():
            if self.wanted is not None and time.monotonic() > looked + 0.5:
                self.add_new()
                looked = time.monotonic()
            batch = []
            for message in self.consumer.consume(10000, timeout=0.2):
                key, error = (message.topic(), message.partition()), message.error()
                end = self.left.get(key, 0)
                if error is None:
                    if message.offset() < end:
                        batch.append(message)
                    read_to = message.offset() + 1
                elif error.code() == kafka.KafkaError._PARTITION_EOF:
                    read_to = message.offset()  # past what is no record, such as the end of a transaction
                else:
                    self.note(error)
                    continue
                if end and read_to >= end:
                    del self.left[key]
                    self.consumer.incremental_unassign([kafka.TopicPartition(*key)])
            if self.wanted is not None:
                del batch[self.wanted - self.count :]
            self.count += len(batch)
            yield batch
            if time.monotonic() > self.deadline and not self.complete():
                self.fail()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap", required=True, metavar="LIST")
    parser.add_argument("--config", action="append", default=[], metavar="K=V", help="any of librdkafka's properties")
    parser.add_argument("--count", type=int, metavar="N")
    parser.add_argument("--timeout", type=float, default=60, metavar="SECONDS")
    parser.add_argument("--cloudevents", action="store_true")
    parser.add_argument("topic", nargs="+", metavar="TOPIC")
    arguments = parser.parse_args()
    if not all("=" in given for given in arguments.config):
        parser.error("--config takes K=V")
    config = {"bootstrap.servers": arguments.bootstrap, **dict(given.split("=", 1) for given in arguments.config)}
    parse = cloudevents() if arguments.cloudevents else None

    try:
        reader = Reader(config, arguments.topic, arguments.count, arguments.timeout)
        for batch in reader.batches():
            for message in batch:
                line = record(message)
                if parse:
                    try:
                        line["event"] = parse(message)
                    except Exception as error:  # whatever escapes the SDK is the finding
                        at = f"{line['topic']}/{line['partition']}@{line['offset']}"
                        raise Failed(f"{at} is no CloudEvent: {type(error).__name__}: {error}") from None
                sys.stdout.write(json.dumps(line, default=datetime.datetime.isoformat) + "\n")
            sys.stdout.flush()
    except (Failed, kafka.KafkaException) as error:
        sys.stdout.flush()
        print(f"consume: {error}", file=sys.stderr)
        sys.stderr.flush()
        os._exit(1)  # the client's threads may hang on brokers that are away


if __name__ == "__main__":
    main()
