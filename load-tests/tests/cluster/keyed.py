"""Produces one job with an idempotency key to the partition that it is told; prints the job's id."""
import base64
import json
import sys
import uuid

from confluent_kafka import Producer

bootstrap, sample, idempotency_key, partition = sys.argv[1:5]
with open(sample, "rb") as media:
    data = base64.b64encode(media.read()).decode()
job_id = str(uuid.uuid4())
job = {
    "id": job_id,
    "tenant": "default",
    "task": "embed",
    "model": "m",
    "input": {"inline": {"data": data}},
    "idempotency_key": idempotency_key,
}
producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "enable.idempotence": True})
producer.produce("media.jobs.default", partition=int(partition), value=json.dumps(job).encode())
assert producer.flush(20) == 0, "the broker did not acknowledge the record"
print(job_id)
