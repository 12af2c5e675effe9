"""A broker of Apache Kafka, started as the tests do, and dt-receiver with a topic of it as its sink."""

import json
import os
import pathlib
import subprocess
import uuid

from receiver import Receiver

CLUSTER = pathlib.Path(__file__).resolve().parents[2] / "tests" / "kafka" / "cluster"


class Broker:
    """One broker. It is started when it is first asked for, and ends with this program, however that ends."""

    def __init__(self, folder):
        self.folder, self.watchdog, self.address = folder, None, None

    def bootstrap(self):
        if self.address is None:
            environment = {**os.environ, "DT_RECEIVER_TEST_KAFKA_DIR": str(self.folder)}
            # Ends the broker once its standard input does, so also when this program is killed.
            self.watchdog = subprocess.Popen(
                ["sh", "-c", 'cat >/dev/null; exec "$0" stop', CLUSTER],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            subprocess.run([CLUSTER, "stop"], env=environment, check=True, timeout=60)
            started = subprocess.run(
                [CLUSTER, "start", "1"], env=environment, capture_output=True, text=True, timeout=600
            )
            if started.returncode != 0:
                raise RuntimeError(f"no broker: {started.stderr.strip()}")
            self.address = started.stdout.split()[-1]
        return self.address

    def stop(self):
        if self.watchdog is not None:
            self.watchdog.stdin.close()
            self.watchdog.wait(60)
            self.watchdog = self.address = None


class KafkaReceiver(Receiver):
    """`dt-receiver serve` whose sink is a topic, made anew for each run."""

    needs_broker = True

    def __init__(self, *arguments, broker, **options):
        super().__init__(*arguments, sinks=("kafka",), **options)
        self.broker, self.topic = broker, None

    def sink(self, name, folder):
        self.topic = f"compare-{uuid.uuid4().hex[:12]}"
        keys = ['type = "kafka"', f"brokers = {json.dumps([self.broker.bootstrap()])}", f'topic = "{self.topic}"']
        return [*keys, "create_topic = { partitions = 6, replication = 1 }"]

    def arrived(self, sink):
        """The ids in the topic's records, read to the ends that it has now; then it is deleted."""
        from confluent_kafka import Consumer, TopicPartition
        from confluent_kafka.admin import AdminClient

        settings = {"bootstrap.servers": self.broker.bootstrap()}
        consumer = Consumer({**settings, "group.id": "compare", "enable.auto.commit": False, "fetch.wait.max.ms": 50})
        try:
            known = consumer.list_topics(self.topic, timeout=20).topics[self.topic].partitions
            ends = {number: consumer.get_watermark_offsets(TopicPartition(self.topic, number))[1] for number in known}
            consumer.assign([TopicPartition(self.topic, number, 0) for number in ends])
            left, ids = sum(ends.values()), []
            while left:
                messages = consumer.consume(min(left, 10_000), timeout=20)
                if not messages:
                    raise RuntimeError(f"the topic's last {left} records do not come")
                for message in messages:
                    if message.error():
                        raise RuntimeError(f"the topic cannot be read: {message.error()}")
                    ids.append(dict(message.headers())["dt-event-id"])
                left -= len(messages)
        finally:
            consumer.close()
        admin = AdminClient(settings)
        for deleted in admin.delete_topics([self.topic]).values():
            deleted.result(30)
        return ids
