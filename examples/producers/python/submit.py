"""Submits one job to the media relay over Kafka and waits for its end.

usage: submit.py BOOTSTRAP TASK FILE

Prints where the broker put the record, then the job's terminal event, one JSON a line. Exit code 0: completed, 1: any
other end, 2: wrong usage. The contract is docs/kafka.md.
"""
import base64
import json
import os
import sys
import time
import uuid

from confluent_kafka import Consumer, Producer, TopicPartition

LANE_TOPIC = "media.jobs.default"
EVENTS_TOPIC = "media.events"
TENANT = "default"
TERMINAL = {"completed", "failed", "cancelled", "expired", "dead_lettered"}
PATIENCE_S = 60


def new_job_id() -> uuid.UUID:
    """A UUID of version 7: time-ordered, so that nodes find the job's events quickly."""
    bits = int(time.time() * 1000) << 80 | int.from_bytes(os.urandom(10), "big")
    bits = bits & ~(0xF << 76) | 0x7 << 76
    return uuid.UUID(int=bits & ~(0x3 << 62) | 0x2 << 62)


def open_events(bootstrap: str, job_id: uuid.UUID) -> Consumer:
    """A consumer at the end of the one partition that this job's events go to; it joins no group."""
    consumer = Consumer({
        "bootstrap.servers": bootstrap,
        "group.id": "submit-example",  # librdkafka wants one; nothing is committed under it
        "enable.auto.commit": False,
        "isolation.level": "read_committed",
    })
    partitions = len(consumer.list_topics(EVENTS_TOPIC, timeout=10).topics[EVENTS_TOPIC].partitions)
    # The twelve bits after the UUID's version name the partition.
    at = TopicPartition(EVENTS_TOPIC, (job_id.int >> 64 & 0xFFF) % partitions)
    # Asked for before the job is submitted, so that no event is missed.
    at.offset = consumer.get_watermark_offsets(at, timeout=10)[1]
    consumer.assign([at])
    return consumer


def submit(bootstrap: str, job: dict) -> dict:
    """Writes the record; returns where it lies once every in-sync broker has it: from then on the job is accepted."""
    acks = []
    producer = Producer({
        "bootstrap.servers": bootstrap,
        "acks": "all",
        "enable.idempotence": True,
        "partitioner": "murmur2_random",  # places records as Java's default partitioner does
    })
    trace = f"00-{os.urandom(16).hex()}-{os.urandom(8).hex()}-01"
    producer.produce(
        LANE_TOPIC,
        key=f"{job['tenant']}/{job['id']}",
        value=json.dumps(job).encode(),
        headers={"traceparent": trace},
        on_delivery=lambda error, message: acks.append((error, message)),
    )
    producer.flush(PATIENCE_S)
    if not acks or acks[0][0]:
        # Not sure whether it was written: write it again with the same id, it runs once.
        sys.exit(f"the broker did not acknowledge the record: {acks}")
    message = acks[0][1]
    return {"topic": message.topic(), "partition": message.partition(), "offset": message.offset()}


def wait_for_end(consumer: Consumer, job_id: uuid.UUID) -> dict:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        message = consumer.poll(0.5)
        if message is None or message.error() or message.key() != str(job_id).encode():
            continue
        if dict(message.headers() or [])["relay-event"].decode() in TERMINAL:
            return json.loads(message.value())
    sys.exit("the job did not end in time")


def main() -> int:
    if len(sys.argv) != 4:
        print(__doc__, file=sys.stderr)
        return 2
    bootstrap, task, path = sys.argv[1:]
    with open(path, "rb") as media:
        data = base64.b64encode(media.read()).decode()
    job_id = new_job_id()
    job = {
        "id": str(job_id),
        "tenant": TENANT,
        "task": task,
        "input": {"inline": {"data": data, "name": os.path.basename(path)}},
    }
    consumer = open_events(bootstrap, job_id)
    print(json.dumps({"id": str(job_id), **submit(bootstrap, job)}))
    end = wait_for_end(consumer, job_id)
    print(json.dumps(end))
    consumer.close()
    return 0 if end["event"] == "completed" else 1


if __name__ == "__main__":
    sys.exit(main())
