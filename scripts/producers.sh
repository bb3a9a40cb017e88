#!/usr/bin/env bash
# The clients of examples/producers, in .cache/producers: exactly the versions and digests that the lock files name.
# Run scripts/setup.sh test first.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${RELAY_CACHE:-.cache}/producers
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
exec 9>"$cache/install.lock"
flock 9

# Calls install_NAME DIR if the files of examples/producers/NAME have changed since the last time.
install() { # name file...
  local name=$1 digest file
  shift
  digest=$(for file in "$@"; do cat "examples/producers/$name/$file"; done | sha256sum | cut -d' ' -f1)
  if [ "$(cat "$cache/$name.digest" 2>/dev/null)" != "$digest" ]; then
    rm -rf "${cache:?}/$name"
    "install_$name" "$cache/$name"
    echo "$digest" >"$cache/$name.digest"
  fi
}

install_python() {
  python3 -m venv "$1"
  "$1/bin/pip" install --quiet --disable-pip-version-check --require-hashes --only-binary=:all: \
    -r examples/producers/python/requirements.txt
}

install_java() {
  mvn -q -B -Dstyle.color=never -f examples/producers/java/pom.xml dependency:copy-dependencies \
    "-DoutputDirectory=$1" -DincludeScope=runtime
  cp examples/producers/java/SHA256SUMS "$1/"
  (cd "$1" && sha256sum --quiet --check --strict SHA256SUMS && [ "$(ls ./*.jar | wc -l)" = "$(wc -l <SHA256SUMS)" ]) ||
    { echo "producers.sh: the jars are not those of examples/producers/java/SHA256SUMS" >&2; return 1; }
}

install_node() {
  mkdir -p "$1"
  cp examples/producers/node/package.json examples/producers/node/package-lock.json "$1/"
  (cd "$1" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2)
}

install python requirements.txt
install java pom.xml SHA256SUMS
install node package.json package-lock.json
