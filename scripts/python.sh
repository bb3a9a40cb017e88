#!/usr/bin/env bash
# A Python of the tests' own with the real Kafka client, in .cache/python.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${RELAY_CACHE:-.cache}/python
if ! "$venv/bin/python" -c 'import confluent_kafka' >/dev/null 2>&1; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check 'confluent-kafka==2.*'
fi
