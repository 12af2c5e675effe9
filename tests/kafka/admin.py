#!/usr/bin/env python3
"""What tests do to a Kafka cluster besides producing and consuming.

    VENV/bin/python tests/kafka/admin.py --bootstrap LIST COMMAND

    create TOPIC [--partitions N] [--replication N] [--set K=V]...    where nothing is said: the cluster's defaults
    alter TOPIC K=V...                     the topic's configuration, as max.message.bytes=1000
    delete TOPIC
    describe TOPIC                         prints {"0": {"leader", "replicas", "isr"}, ...}; without a leader it is -1
    deny USER TOPIC [--operation NAME]...  an ACL for User:USER: ALL, WRITE, READ, DESCRIBE, CREATE, ...; default: ALL
    allow USER TOPIC [--operation NAME]...
    forget TOPIC                           all ACLs of the topic

A topic with any ACL is closed to all users that no ACL of it allows, but for the anonymous one of the plain listener:
use that here. So whoever is denied no more than WRITE, and is to see the topic, has to be allowed DESCRIBE.

Exit: 0 done, 1 failed, 2 wrong usage, 3 packages missing.
"""

import argparse
import json
import sys
import time

try:
    import confluent_kafka as kafka
    from confluent_kafka import admin
except ImportError as error:
    print(f"missing: {error.name}; pip install -r tests/kafka/requirements.txt", file=sys.stderr)
    sys.exit(3)

TIMEOUT = 30  # seconds
OPERATIONS = [operation.name for operation in admin.AclOperation if operation.name not in ("UNKNOWN", "ANY")]


def done(futures):
    for future in futures.values() if isinstance(futures, dict) else futures:
        future.result(TIMEOUT)


def pairs(given):
    return dict(pair.split("=", 1) for pair in given)


def pair(given):
    if "=" not in given:
        raise argparse.ArgumentTypeError(f"{given!r} is not K=V")
    return given


def create(client, given):
    new = admin.NewTopic(given.topic, given.partitions, given.replication, config=pairs(given.set))
    done(client.create_topics([new], operation_timeout=TIMEOUT))


def alter(client, given):
    operation = admin.AlterConfigOpType.SET
    entries = [admin.ConfigEntry(k, v, incremental_operation=operation) for k, v in pairs(given.pair).items()]
    resource = admin.ConfigResource(admin.ConfigResource.Type.TOPIC, given.topic, incremental_configs=entries)
    done(client.incremental_alter_configs([resource]))


def delete(client, given):
    done(client.delete_topics([given.topic], operation_timeout=TIMEOUT))


def describe(client, given):
    topic = client.list_topics(given.topic, timeout=TIMEOUT).topics[given.topic]
    if topic.error:
        raise kafka.KafkaException(topic.error)
    partitions = {id: {"leader": p.leader, "replicas": p.replicas, "isr": p.isrs} for id, p in topic.partitions.items()}
    print(json.dumps(dict(sorted(partitions.items()))))


def acl(given, user, operation, permission):
    topic, literal = admin.ResourceType.TOPIC, admin.ResourcePatternType.LITERAL
    return topic, given.topic, literal, user, "*", operation, permission


def deny(client, given):
    permission = admin.AclPermissionType[given.command.upper()]
    for operation in given.operation or ["ALL"]:
        rule = acl(given, f"User:{given.user}", admin.AclOperation[operation], permission)
        done(client.create_acls([admin.AclBinding(*rule)]))


def forget(client, given):
    rule = admin.AclBindingFilter(
        admin.ResourceType.TOPIC,
        given.topic,
        admin.ResourcePatternType.LITERAL,
        None,
        None,
        admin.AclOperation.ANY,
        admin.AclPermissionType.ANY,
    )
    done(client.delete_acls([rule]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap", required=True, metavar="LIST")
    parser.add_argument("--config", action="append", default=[], type=pair, metavar="K=V", help="librdkafka's own")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name, action):
        new = commands.add_parser(name)
        new.set_defaults(action=action)
        if action is deny:
            new.add_argument("user", metavar="USER")
            new.add_argument("--operation", action="append", type=str.upper, choices=OPERATIONS, metavar="NAME")
        new.add_argument("topic", metavar="TOPIC")
        return new

    new = command("create", create)
    new.add_argument("--partitions", type=int, default=-1, metavar="N")
    new.add_argument("--replication", type=int, default=-1, metavar="N")
    new.add_argument("--set", action="append", default=[], type=pair, metavar="K=V")
    command("alter", alter).add_argument("pair", nargs="+", type=pair, metavar="K=V")
    command("delete", delete)
    command("describe", describe)
    command("deny", deny)
    command("allow", deny)
    command("forget", forget)
    given = parser.parse_args()
    config = {"bootstrap.servers": given.bootstrap, "log_level": 4, **pairs(given.config)}

    try:
        given.action(admin.AdminClient(config), given)
    except (kafka.KafkaException, TimeoutError) as error:
        print(f"admin: {error or 'no answer'}", file=sys.stderr)
        sys.exit(1)
    if given.command != "describe":
        time.sleep(0.5)  # the answer is the controller's: the brokers hear of it a moment later


if __name__ == "__main__":
    main()
