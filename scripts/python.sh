#!/usr/bin/env bash
# A Python of the tests' own, in .cache/python: the real Kafka client, and moto, an S3-compatible server.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${RELAY_CACHE:-.cache}/python
if ! "$venv/bin/python" -c 'import confluent_kafka, flask_cors, moto.server' >/dev/null 2>&1; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check \
    'confluent-kafka==2.*' 'moto[s3]==5.*' 'flask==3.*' 'flask-cors==6.*'
fi
