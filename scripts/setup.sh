#!/usr/bin/env bash
# Installs what building and testing need and the machine lacks; without root and sudo, prints the line to run.
# usage: setup.sh build|test
set -euo pipefail

packages=()
need() { # command package
  command -v "$1" >/dev/null 2>&1 || packages+=("$2")
}

need g++ g++
need make make
need perl perl
need curl curl
if [ "${1:-build}" = test ]; then
  need javac openjdk-17-jdk-headless # the producer example in Java runs from its source
  need mvn maven
  need openssl openssl
  need node nodejs
  need npm npm
  need python3 python3
  python3 -c 'import venv, ensurepip' >/dev/null 2>&1 || packages+=(python3-venv)
fi

if [ "${#packages[@]}" -gt 0 ]; then
  line="apt-get update && apt-get install -y --no-install-recommends ${packages[*]}"
  if [ "$(id -u)" = 0 ]; then
    sh -c "DEBIAN_FRONTEND=noninteractive; export DEBIAN_FRONTEND; $line" >&2
  elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    sudo -n sh -c "DEBIAN_FRONTEND=noninteractive; export DEBIAN_FRONTEND; $line" >&2
  else
    echo "These packages are missing: ${packages[*]}. Run as root: $line" >&2
    exit 1
  fi
fi

if ! command -v cargo >/dev/null 2>&1; then
  echo "cargo is missing: install rustup (https://rustup.rs), then run this again" >&2
  exit 1
fi
