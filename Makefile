SHELL := /bin/bash

.PHONY: demo test test-chaos test-sim build bench bench-jobs kafka tidy

# The main job on the embedded default: starts the relay, submits real audio, shows events and results, stops.
demo:
	scripts/setup.sh build
	cargo build --quiet -p standalone -p client-cli
	scripts/demo.sh

# Every test. Ends with the line `N passed, N failed`.
test:
	scripts/test.sh

# Ten minutes of kills, freezes and cuts on a real cluster; SEED=n for another order.
test-chaos:
	scripts/setup.sh test
	cargo build --quiet --workspace --bins
	target/debug/load-tests chaos --seconds 600 --seed $(or $(SEED),1)

# Ten thousand simulated clusters with faults by a seed, and bugs on purpose that must be found; SEEDS=n for another number.
test-sim:
	scripts/setup.sh test
	cargo test --quiet --package load-tests --test simulate
	target/debug/load-tests simulate --seeds $(or $(SEEDS),10000)

build:
	scripts/setup.sh build
	cargo build --release

# What the relay adds to Kafka, and what a node costs when it is idle: docs/performance.md.
bench:
	scripts/setup.sh test
	cargo build --release --quiet
	target/release/load-tests bench path --local
	target/release/load-tests bench start

# The relay beside raw Kafka and other durable queues, in one run; installs those queues.
bench-jobs:
	scripts/setup.sh test
	scripts/bench-peers.sh
	cargo build --release --quiet --package load-tests --features peers
	target/release/load-tests bench jobs --peers redis,jetstream,celery

# A Kafka broker for development; prints KAFKA_BOOTSTRAP.
kafka:
	scripts/setup.sh test
	deploy/kafka-dev/kafka.sh start

tidy:
	cargo fmt --all
	cargo clippy --workspace -- -D warnings
	cargo run --quiet -p xtask -- tidy
