"""Writes records that break the contract, each in its own way; prints the dead letters of the unknown versions, one JSON a line."""
import json
import struct
import sys
import time
import uuid

from confluent_kafka import Consumer, Producer

bootstrap = sys.argv[1]
LANE = "media.jobs.default"
consumer = Consumer({
    "bootstrap.servers": bootstrap,
    "group.id": "wrong-producer",
    "auto.offset.reset": "earliest",
    "isolation.level": "read_committed",
})
consumer.subscribe(["media.dlq"])
producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "partitioner": "murmur2_random"})


def job(**fields):
    return {"id": str(uuid.uuid4()), "task": "loudness", "input": {"text": "no sound"}, **fields}


def write(record, key=None, **where):
    value = record if isinstance(record, bytes) else json.dumps(record).encode()
    producer.produce(LANE, value=value, key=key, **where)


def key_of(record):
    return f"default/{record['id']}"


def murmur2(data):
    m, h = 0x5BD1E995, 0x9747B28C ^ len(data)
    for at in range(0, len(data) & ~3, 4):
        k = int.from_bytes(data[at:at + 4], "little") * m & 0xFFFFFFFF
        k = (k ^ k >> 24) * m & 0xFFFFFFFF
        h = (h * m & 0xFFFFFFFF) ^ k
    rest = data[len(data) & ~3:]
    if rest:
        h = (h ^ int.from_bytes(rest, "little")) * m & 0xFFFFFFFF
    h = (h ^ h >> 13) * m & 0xFFFFFFFF
    return h ^ h >> 15


unknown_frame = b"RM" + struct.pack("<HBBHI", 0x0100, 2, 0, 0, 0)
unknown_json = json.dumps(job(version=2)).encode()
write(b"this is no job", "default/x")  # record.body
write(unknown_frame, "default/x")  # record.schema
write(unknown_json, "default/x")  # record.schema
write(job(idempotency_key=""), "default/x")  # job.rules
write({"task": "probe", "input": {"text": "no id"}}, "default/x")  # job.identity
misplaced = job()
partitions = len(producer.list_topics(LANE, timeout=10).topics[LANE].partitions)
right = (murmur2(key_of(misplaced).encode()) & 0x7FFFFFFF) % partitions
write(misplaced, None, partition=(right + 1) % partitions)  # record.key and record.partition
gateway = job()
write(gateway, key_of(gateway), headers={"relay-trick": "me", "traceparent": "not one"})  # record.headers, record.traceparent
twice = job()
write(twice, key_of(twice))
write({**twice, "task": "vad"}, key_of(twice))  # job.same_id
assert producer.flush(20) == 0, "the broker did not acknowledge the records"

wanted = {unknown_frame: "frame of version 2", unknown_json: "json of version 2"}
found = {}
deadline = time.monotonic() + 60
while len(found) < len(wanted):
    assert time.monotonic() < deadline, "the dead letters did not come in time"
    message = consumer.poll(0.5)
    if message is None or message.error() or message.value() not in wanted:
        continue
    found[wanted[message.value()]] = json.loads(dict(message.headers())["relay-error"])["code"]
for name in sorted(found):
    print(json.dumps({"name": name, "code": found[name]}))
consumer.close()
