#!/usr/bin/env bash
# Installs the durable queues that `load-tests bench jobs --peers` measures: Redis (package), NATS (Go), Celery (Python).
set -euo pipefail
cd "$(dirname "$0")/.."
peers=$(mkdir -p "${RELAY_CACHE:-.cache}/bench-peers" && cd "${RELAY_CACHE:-.cache}/bench-peers" && pwd)
if ! command -v redis-server >/dev/null; then
  as_root=$([ "$(id -u)" = 0 ] || echo sudo)
  $as_root apt-get install -y redis-server
fi
if [ ! -x "$peers/bin/nats-server" ]; then
  command -v go >/dev/null || { echo "install Go 1.24 or newer, for nats-server" >&2; exit 1; }
  GOBIN="$peers/bin" go install github.com/nats-io/nats-server/v2@v2.12.2
fi
if ! "$peers/celery/bin/python" -c 'import celery, redis' >/dev/null 2>&1; then
  python3 -m venv "$peers/celery"
  "$peers/celery/bin/pip" install --quiet --disable-pip-version-check 'celery[redis]==5.*'
fi
