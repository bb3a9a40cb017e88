#!/usr/bin/env bash
# A real Apache Kafka broker for development and tests, on free ports of 127.0.0.1.
#
#   kafka.sh install              fetch the jars by Maven (and Java and Maven by apt where that is allowed); prints
#                                 KAFKA_LIBS=, their folder
#   kafka.sh start [--dir DIR] [--sasl-ssl]
#                                 start a broker whose data lies in DIR; prints KAFKA_BOOTSTRAP=127.0.0.1:PORT once it answers.
#                                 --sasl-ssl, at the first start: also a TLS listener for the user "relay" (SCRAM-SHA-512);
#                                 prints KAFKA_SASL_SSL=127.0.0.1:PORT; DIR/tls holds ca.pem and password
#   kafka.sh status [--dir DIR]   print KAFKA_BOOTSTRAP=… and exit 0 if it answers, exit 3 if it does not
#   kafka.sh stop [--dir DIR] [--kill]
#                                 end exactly that broker (--kill: as a crash would); the data stay
#
# DIR is $RELAY_CACHE/kafka/default if not given; RELAY_CACHE is .cache at the top of the repository if not set.
# A broker keeps its ports from one start to the next. Several brokers live side by side, each with its own DIR.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${RELAY_CACHE:-$(cd "$here/../.." && pwd)/.cache}/kafka
heap=${RELAY_KAFKA_HEAP:-320m}
ready_seconds_max=90
stop_seconds_max=30

die() { echo "kafka.sh: $*" >&2; exit 1; }
usage() { sed -n '2,16s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }

# ---- install ------------------------------------------------------------------------------------------------------

java_command() { if [ -n "${JAVA_HOME:-}" ]; then echo "$JAVA_HOME/bin/java"; else echo java; fi; }

java_is_new_enough() {
  local version
  version=$("$(java_command)" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p') || return 1
  [ "${version:-0}" -ge 17 ]
}

# Installs Java 17 (or the system's newer default) and Maven, or says which line to run.
install_packages() {
  local missing=() sudo=()
  java_is_new_enough || missing+=(java)
  command -v mvn >/dev/null || missing+=(maven)
  [ ${#missing[@]} -eq 0 ] && return
  if [ "$(id -u)" -ne 0 ]; then sudo=(sudo -n); fi
  if ! command -v apt-get >/dev/null || ! "${sudo[@]}" true 2>/dev/null; then
    die "missing: ${missing[*]}; run: sudo apt-get install -y openjdk-17-jre-headless maven (or install Java >= 17 and Maven)"
  fi
  echo "kafka.sh: installing ${missing[*]}" >&2
  "${sudo[@]}" apt-get update -qq >&2
  local packages=() package
  for package in "${missing[@]}"; do
    if [ "$package" = java ]; then
      package=openjdk-17-jre-headless
      apt-cache show "$package" >/dev/null 2>&1 || package=default-jre-headless
    fi
    packages+=("$package")
  done
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${packages[@]}" >&2
  java_is_new_enough || die "java is older than 17; set JAVA_HOME to a newer one"
}

# Copies the jars into a folder that is named after pom.xml's content, so that a changed pom.xml is fetched anew.
install_jars() {
  libs=$cache/libs-$(cksum <"$here/pom.xml" | cut -d' ' -f1)
  [ -d "$libs" ] && return
  mkdir -p "$cache"
  (
    flock 9
    [ -d "$libs" ] && exit
    install_packages
    rm -rf "$libs.part"
    echo "kafka.sh: fetching Apache Kafka by Maven" >&2
    mvn -q -B -Dstyle.color=never -f "$here/pom.xml" dependency:copy-dependencies "-DoutputDirectory=$libs.part" -DincludeScope=runtime >&2
    mv "$libs.part" "$libs"
  ) 9>"$cache/install.lock"
}

# ---- is it ready? -------------------------------------------------------------------------------------------------

# ask PORT HEX SKIP: sends one request (given without its length), prints the two bytes after the answer's first SKIP as hex.
ask() {
  local port=$1 request=$2 skip=$3 framed
  framed=$(printf '%08x%s' $((${#request} / 2)) "$request" | sed 's/../\\x&/g')
  # shellcheck disable=SC2016
  timeout 3 bash -c '
    exec 3<>"/dev/tcp/127.0.0.1/$0" || exit 1
    printf "$1" >&3
    dd bs=1 count=$(($2 + 2)) <&3 2>/dev/null | od -An -v -tx1 -j "$2" | tr -d " \n"' "$port" "$framed" "$skip" 2>/dev/null
}

# True if every group coordinator and every transaction coordinator of the broker has loaded its state. The names a to h
# hash to all eight partitions of either internal topic, which FindCoordinator creates on a fresh broker.
answers() {
  local port=$1 letter code head='00000001ffff'
  for kind in 00 01; do # FindCoordinator v1, error after throttle time
    [ "$(ask "$port" "000a0001${head}000161${kind}" 12)" = 0000 ] || return 1
  done
  for letter in 61 62 63 64 65 66 67 68; do
    # DescribeGroups v0: 0 = no error (a group that nobody knows is called dead).
    [ "$(ask "$port" "000f0000${head}000000010001${letter}" 12)" = 0000 ] || return 1
    # DescribeTransactions v0: 0x69 = the coordinator knows that there is no such id.
    code=$(ask "$port" "00410000${head}000202${letter}00" 14)
    [ "$code" = 0069 ] || [ "$code" = 0000 ] || return 1
  done
}

# ---- start, stop --------------------------------------------------------------------------------------------------

# Prints the pid of DIR's broker if it lives; a pid that another program has now is not ours.
live_pid() {
  local pid
  pid=$(cat "$dir/pid" 2>/dev/null) || return 1
  tr '\0' '\n' 2>/dev/null <"/proc/$pid/cmdline" | grep -qxF "$dir/server.properties" || return 1
  echo "$pid"
}

port_is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

free_port() {
  local port
  for _ in $(seq 100); do
    port=$((10000 + RANDOM % 20000)) # below the range that the kernel hands to clients
    port_is_free "$port" && echo "$port" && return
  done
  die "no free port found"
}

choose_ports() {
  port= controller_port=
  if [ -f "$dir/ports" ]; then read -r port controller_port <"$dir/ports"; fi
  if [ -z "$port" ] || ! port_is_free "$port" || ! port_is_free "$controller_port"; then
    port=$(free_port)
    controller_port=$(free_port)
    [ "$port" != "$controller_port" ] || controller_port=$(free_port)
    echo "$port $controller_port" >"$dir/ports"
  fi
}

# Makes a CA, the broker's certificate and the password of the user "relay", once.
make_tls() {
  local tls=$dir/tls subject
  [ -f "$tls/password" ] && return
  command -v openssl >/dev/null || die "missing: openssl; run: sudo apt-get install -y openssl"
  mkdir -p "$tls"
  (
    umask 077
    cd "$tls"
    for subject in ca broker; do openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$subject.key"; done
    openssl req -x509 -key ca.key -subj "/CN=relay test CA" -days 3650 -out ca.pem
    openssl req -new -key broker.key -subj "/CN=127.0.0.1" -out broker.csr
    openssl x509 -req -in broker.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 3650 -out broker.crt \
      -extfile <(echo "subjectAltName=IP:127.0.0.1,DNS:localhost")
    cat broker.key broker.crt ca.pem >broker.pem
    head -c 18 /dev/urandom | base64 | tr '+/' '-_' >password
  ) >"$dir/tls.log" 2>&1 || die "making the certificates failed, see $dir/tls.log"
}

# Adds the TLS listener to the broker's properties; of a key that comes twice the later counts.
add_sasl_ssl() {
  secure_port=$(cat "$dir/sasl_ssl_port" 2>/dev/null) && port_is_free "$secure_port" || secure_port=
  while [ -z "$secure_port" ] || [ "$secure_port" = "$port" ] || [ "$secure_port" = "$controller_port" ]; do
    secure_port=$(free_port)
  done
  echo "$secure_port" >"$dir/sasl_ssl_port"
  sed -e "s|@TLS@|$dir/tls|" -e "s|@PORT@|$port|" -e "s|@CONTROLLER_PORT@|$controller_port|" \
    -e "s|@SASL_SSL_PORT@|$secure_port|" "$here/sasl-ssl.properties.in" >>"$dir/server.properties"
}

launch() {
  if [ -f "$dir/libs" ] && [ "$(cat "$dir/libs")" != "$(basename "$libs")" ]; then
    die "$dir was made by another version of Kafka; remove it to start with an empty broker"
  fi
  choose_ports
  sed -e "s|@DATA@|$dir/data|" -e "s|@PORT@|$port|" -e "s|@CONTROLLER_PORT@|$controller_port|" \
    "$here/server.properties.in" >"$dir/server.properties"
  local users=()
  if [ -n "$sasl_ssl" ]; then
    make_tls
    add_sasl_ssl
    users=(--add-scram "SCRAM-SHA-512=[name=relay,password=$(cat "$dir/tls/password")]")
  fi
  local java=("$(java_command)" -cp "$libs/*" -Dorg.slf4j.simpleLogger.defaultLogLevel=warn)
  if [ ! -f "$dir/data/meta.properties" ]; then
    rm -rf "$dir/data"
    basename "$libs" >"$dir/libs"
    local id # 16 bytes in base64; the zero in front keeps the text from beginning with a dash
    id=$({ printf '\0'; head -c 15 /dev/urandom; } | base64 | tr '+/' '-_' | tr -d '=')
    "${java[@]}" kafka.tools.StorageTool format -t "$id" "${users[@]}" \
      -c "$dir/server.properties" >"$dir/format.log" 2>&1 || die "formatting failed, see $dir/format.log"
  fi
  setsid "${java[@]}" "-Xmx$heap" -XX:+UseSerialGC kafka.Kafka "$dir/server.properties" \
    </dev/null >"$dir/broker.log" 2>&1 9>&- &
  echo $! >"$dir/pid"
}

start() {
  install_packages
  install_jars
  mkdir -p "$dir"
  if [ -d "$dir/tls" ]; then sasl_ssl=1; fi
  if [ -n "$sasl_ssl" ] && [ ! -d "$dir/tls" ] && [ -f "$dir/data/meta.properties" ]; then
    die "$dir was made without --sasl-ssl; remove it to start with an empty broker"
  fi
  exec 9>"$dir/lock"
  flock 9
  if live_pid >/dev/null; then
    read -r port controller_port <"$dir/ports"
  else
    launch
  fi
  local deadline=$((SECONDS + ready_seconds_max))
  until answers "$port"; do
    live_pid >/dev/null || { tail -n 20 "$dir/broker.log" >&2; die "the broker ended, see $dir/broker.log"; }
    [ $SECONDS -lt $deadline ] || die "the broker did not answer within $ready_seconds_max s, see $dir/broker.log"
    sleep 0.2
  done
  echo "127.0.0.1:$port" >"$dir/bootstrap"
  echo "KAFKA_BOOTSTRAP=127.0.0.1:$port"
  if [ -n "$sasl_ssl" ]; then echo "KAFKA_SASL_SSL=127.0.0.1:$(cat "$dir/sasl_ssl_port")"; fi
}

status() {
  local port
  if live_pid >/dev/null && read -r port _ <"$dir/ports" && answers "$port"; then
    echo "KAFKA_BOOTSTRAP=127.0.0.1:$port"
  else
    echo "kafka.sh: no broker answers in $dir" >&2
    exit 3
  fi
}

stop() {
  local pid deadline=$((SECONDS + stop_seconds_max))
  if pid=$(live_pid); then
    kill "-$signal" "$pid" 2>/dev/null || true
    while live_pid >/dev/null; do
      [ $SECONDS -lt $deadline ] || kill -KILL "$pid" 2>/dev/null || true
      sleep 0.1
    done
  fi
  rm -f "$dir/pid"
}

command=${1:-}
[ $# -gt 0 ] && shift
dir=$cache/default
signal=TERM
sasl_ssl=
while [ $# -gt 0 ]; do
  case $1 in
    --dir) [ $# -ge 2 ] || usage; dir=$2; shift 2 ;;
    --kill) signal=KILL; shift ;;
    --sasl-ssl) sasl_ssl=1; shift ;;
    *) usage ;;
  esac
done
case $dir in /*) ;; *) dir=$PWD/$dir ;; esac

case $command in
  install) install_packages; install_jars; echo "KAFKA_LIBS=$libs" ;;
  start) start ;;
  status) status ;;
  stop) stop ;;
  *) usage ;;
esac
