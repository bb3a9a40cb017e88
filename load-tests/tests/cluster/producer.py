"""Produces one job as JSON, and one record that is no job; prints the job's events and the dead letter, one JSON a line."""
import base64
import json
import sys
import time
import uuid

from confluent_kafka import Consumer, Producer

bootstrap, sample = sys.argv[1:3]
job_id = str(uuid.uuid4())
consumer = Consumer({
    "bootstrap.servers": bootstrap,
    "group.id": f"watch-{job_id}",
    "auto.offset.reset": "earliest",
    "isolation.level": "read_committed",
})
consumer.subscribe(["media.events", "media.dlq"])
with open(sample, "rb") as media:
    data = base64.b64encode(media.read()).decode()
job = {"id": job_id, "tenant": "default", "task": "loudness", "input": {"inline": {"data": data, "name": "speech.wav"}}}
producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "enable.idempotence": True})
producer.produce("media.jobs.default", key=f"default/{job_id}", value=b"this is no job")
producer.produce("media.jobs.default", key=f"default/{job_id}", value=json.dumps(job).encode())
assert producer.flush(20) == 0, "the broker did not acknowledge the records"

ended = dead = False
deadline = time.monotonic() + 60
while not (ended and dead):
    assert time.monotonic() < deadline, "the events did not come in time"
    message = consumer.poll(0.5)
    if message is None or message.error():
        continue
    headers = dict(message.headers() or [])
    if message.topic() == "media.dlq":
        if message.value() == b"this is no job":
            dead = True
            code = json.loads(headers["relay-error"])["code"]
            print(json.dumps({"dead_letter": True, "code": code}))
    elif message.key() == job_id.encode():
        event = json.loads(message.value())
        ended = ended or event["event"] in ("completed", "failed", "cancelled", "expired", "dead_lettered")
        print(json.dumps(event))
consumer.close()
