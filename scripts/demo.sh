#!/usr/bin/env bash
# Starts the relay in one process, submits a spoken sample for each built-in audio task, shows events and results, stops.
set -euo pipefail
cd "$(dirname "$0")/.."

bin=${CARGO_TARGET_DIR:-target}/debug
data=$(mktemp -d)
sample=fixtures/audio/speech.wav
backends=()
[ -n "${LOCALAI_URL:-}" ] && backends=(--backend "$LOCALAI_URL")

mkfifo "$data/ready"
RELAY__TELEMETRY__LOG_LEVEL=warn "$bin/standalone" --listen 127.0.0.1:0 --data-dir "$data/relay" "${backends[@]}" >"$data/ready" &
relay=$!
trap 'kill "$relay" 2>/dev/null; wait "$relay" 2>/dev/null; rm -rf "$data"' EXIT
read -r -t 60 word url <"$data/ready" || { echo "the relay did not start" >&2; exit 1; }
[ "$word" = ready ]
echo "the relay is ready at $url"
export RELAY_URL=$url

show() { # task, and more of the command line
  echo
  echo "\$ client-cli submit --task $* $sample"
  "$bin/client-cli" submit --json --task "$@" "$sample" | cut -c1-240
}

show probe
show vad
show loudness
show waveform --param points=40 --output "$data/waveform.png"
echo "(the picture of the waveform has $(wc -c <"$data/waveform.png") bytes)"
if [ -n "${LOCALAI_URL:-}" ]; then
  show transcribe
else
  echo
  echo "To transcribe as well: LOCALAI_URL=http://HOST:PORT make demo"
fi
