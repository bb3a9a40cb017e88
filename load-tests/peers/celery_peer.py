"""A Celery application that echoes, and its submitter: a job for each number read, which is written when its result came."""

import os
import sys
from multiprocessing import Pool

from celery import Celery

REDIS = os.environ["BENCH_REDIS"]
INPUT = "7" * int(os.environ["BENCH_BYTES"])
# Celery's client waits for one result at a time in each process: threads that wait side by side lose results.
SUBMITTERS = 16

app = Celery("celery_peer", broker=REDIS, backend=REDIS)
app.conf.update(task_acks_late=True, worker_prefetch_multiplier=32, task_serializer="json")


@app.task
def echo(number, data):
    return number


def submit(number):
    return echo.delay(number, INPUT).get(timeout=60)


def done(number):
    print(number, flush=True)


def failed(error):
    print(f"a job on Celery failed: {error!r}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    with Pool(SUBMITTERS) as pool:
        for line in sys.stdin:
            pool.apply_async(submit, (int(line),), callback=done, error_callback=failed)
        pool.close()
        pool.join()
