#!/usr/bin/env bash
# The clients of the programs in examples/, in .cache/examples: exactly the versions and digests that the lock files name.
# Run scripts/setup.sh test first.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${RELAY_CACHE:-.cache}/examples
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
exec 9>"$cache/install.lock"
flock 9

# Calls HOW DIR FROM for the clients of examples/FROM if its files have changed since the last time.
install() { # how from file...
  local how=$1 from=$2 digest file
  shift 2
  digest=$(for file in "$@"; do cat "examples/$from/$file"; done | sha256sum | cut -d' ' -f1)
  if [ "$(cat "$cache/$from.digest" 2>/dev/null)" != "$digest" ]; then
    rm -rf "${cache:?}/$from"
    mkdir -p "$(dirname "$cache/$from")"
    "install_$how" "$cache/$from" "examples/$from"
    echo "$digest" >"$cache/$from.digest"
  fi
}

install_python() {
  python3 -m venv "$1"
  "$1/bin/pip" install --quiet --disable-pip-version-check --require-hashes --only-binary=:all: -r "$2/requirements.txt"
}

install_java() {
  mvn -q -B -Dstyle.color=never -f "$2/pom.xml" dependency:copy-dependencies "-DoutputDirectory=$1" -DincludeScope=runtime
  cp "$2/SHA256SUMS" "$1/"
  (cd "$1" && sha256sum --quiet --check --strict SHA256SUMS && [ "$(ls ./*.jar | wc -l)" = "$(wc -l <SHA256SUMS)" ]) ||
    { echo "examples.sh: the jars are not those of $2/SHA256SUMS" >&2; return 1; }
}

install_node() {
  mkdir -p "$1"
  cp "$2/package.json" "$2/package-lock.json" "$1/"
  (cd "$1" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2)
}

install python producers/python requirements.txt
install java producers/java pom.xml SHA256SUMS
install node producers/node package.json package-lock.json
install python openai/python requirements.txt
install node openai/node package.json package-lock.json
