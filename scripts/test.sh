#!/usr/bin/env bash
# Every test of the project. Ends with the line `N passed, N failed`.
set -uo pipefail
cd "$(dirname "$0")/.."

passed=0
failed=0
out=$(mktemp -d)
trap 'finish' EXIT

finish() {
  [ -n "${kafka_dir:-}" ] && deploy/kafka-dev/kafka.sh stop --dir "$kafka_dir" >/dev/null 2>&1
  rm -rf "$out"
}

check() { # name command...
  local name=$1
  shift
  echo "== $name"
  if "$@"; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "FAILED: $name" >&2
  fi
}

# Adds up the result lines of `cargo test`.
count() { # file
  local p f
  p=$(sed -n 's/^test result: .* \([0-9]*\) passed; .*/\1/p' "$1" | paste -sd+ - | sed 's/^$/0/')
  f=$(sed -n 's/^test result: .*passed; \([0-9]*\) failed; .*/\1/p' "$1" | paste -sd+ - | sed 's/^$/0/')
  passed=$((passed + p))
  failed=$((failed + f))
}

scripts/setup.sh test || { echo "0 passed, 1 failed"; exit 1; }
export CARGO_TERM_COLOR=never

check "format" cargo fmt --all --check
check "lints" cargo clippy --workspace --quiet -- -D warnings
# Helpers of tests may unwrap: a panic there is a failed test.
check "lints of tests" cargo clippy --workspace --all-targets --quiet -- -D warnings -A clippy::unwrap_used -A clippy::expect_used
check "tidy" cargo run --quiet -p xtask -- tidy

echo "== python for the producer examples and the S3 server"
if scripts/python.sh; then :; else failed=$((failed + 1)); fi

echo "== the clients of the examples"
if scripts/examples.sh; then :; else failed=$((failed + 1)); fi

echo "== a Kafka broker of our own"
kafka_dir=$out/kafka
if line=$(deploy/kafka-dev/kafka.sh start --dir "$kafka_dir" | grep '^KAFKA_BOOTSTRAP='); then
  export "${line?}"
  echo "$line"
else
  failed=$((failed + 1))
  echo "FAILED: the Kafka broker does not start" >&2
fi

echo "== build"
if cargo test --workspace --no-run --quiet; then
  cargo test --workspace --no-fail-fast 2>&1 | tee "$out/cargo-test.log"
  if [ "${PIPESTATUS[0]}" -ne 0 ] && ! grep -q '^test result: FAILED' "$out/cargo-test.log"; then
    failed=$((failed + 1))
    echo "FAILED: a test program died" >&2
  fi
  count "$out/cargo-test.log"
else
  failed=$((failed + 1))
  echo "FAILED: the tests do not build" >&2
fi

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
