"""A member of a lane's group that stands between sending its offsets and committing them, until it is killed.

dead_member.py BOOTSTRAP GROUP TOPIC: joins, waits for partitions, registers as a node does, opens a transaction with a record and
the partitions' offsets, prints the partitions as JSON, and stands still.
"""

import json
import sys
import time

from confluent_kafka import Consumer, Producer, TopicPartition

TRANSACTION_MS = 30_000  # the most that the broker allows
EVENT_PARTITIONS = 8

bootstrap, group, topic = sys.argv[1:]
name = "dead-node"
transactional_id = f"{group}.{name}"

consumer = Consumer(
    {
        "bootstrap.servers": bootstrap,
        "client.id": name,
        "group.id": group,
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": 6_000,
        "heartbeat.interval.ms": 500,
        "enable.auto.commit": False,
    }
)
consumer.subscribe([topic])
until = time.monotonic() + 60
while not consumer.assignment():
    if time.monotonic() > until:
        sys.exit("no partitions")
    consumer.poll(0.1)

registration = {"group": group, "client_id": name, "transactional_id": transactional_id, "incarnation": 1}
plain = Producer({"bootstrap.servers": bootstrap, "acks": "all"})
plain.produce("media.cluster", key=f"member/{transactional_id}/1", value=json.dumps(registration))
if plain.flush(30):
    sys.exit("not registered")

producer = Producer(
    {"bootstrap.servers": bootstrap, "transactional.id": transactional_id, "transaction.timeout.ms": TRANSACTION_MS}
)
producer.init_transactions(30)
producer.begin_transaction()
partitions = [place.partition for place in consumer.assignment()]
# Hides what lies behind it, from clients and from whoever reads what has ended.
for partition in range(EVENT_PARTITIONS):
    producer.produce("media.events", value="never committed", partition=partition)
for partition in partitions:
    producer.produce("media.dedup.default", value="never committed", partition=partition)
offsets = [TopicPartition(topic, partition, 0) for partition in partitions]
producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), 30)
producer.flush(30)
print(json.dumps(partitions), flush=True)
time.sleep(120)
