#!/usr/bin/env bash
# A real Elasticsearch on one node, without Docker: Elastic's test distribution from Maven Central and a plugin of ours.
#
#   elasticsearch.sh prepare
#   elasticsearch.sh [start] [--name NAME] [--port PORT] [--heap 512m] [--secure] [--keep] [--set key=value]...
#   elasticsearch.sh stop|status --name NAME [--remove]
#
# start prints, once the node answers, lines `pid=`, `port=`, `url=`, `log=`, and with --secure `ca=`, `user=`,
# `password=`. A node of the same name is ended first, unless --keep is given and it runs. `kill PID` ends it cleanly.
#
# --name NAME   its folder of configuration, data and logs in $LOG_WRITER_NODES_DIR, else in the stack folder (default: node-PORT)
# --port PORT   default: a free one
# --keep        keeps the data of the last time, and the port if it is free (default: begins empty)
# --secure      HTTPS with a CA of its own; user elastic, password $ELASTICSEARCH_TEST_PASSWORD or test-node-secret
# --set K=V     one more line of elasticsearch.yml, e.g. --set http.max_content_length=1mb
#
# Needs a JDK (17 or newer; ES_JAVA_HOME picks one) and Maven. Elasticsearch refuses to run as root: then it is `nobody`.
set -euo pipefail
# shellcheck source=dev/settings.sh
. "$(dirname "${BASH_SOURCE[0]}")/settings.sh"

version=8.19.2 # on Maven Central besides: 8.18.0 and 8.19.0, and none of the other 8.19 or any 9
nodes=${LOG_WRITER_NODES_DIR:-$stack_dir/elasticsearch/nodes}
home=$stack_dir/elasticsearch/elasticsearch-$version
name='' port='' heap=512m secure=no keep=no remove=no extra=()

parse_arguments() {
  action=start
  case ${1:-} in prepare | start | stop | status) action=$1; shift ;; esac
  while [ $# -gt 0 ]; do
    case $1 in
      --name) name=$2; shift 2 ;;
      --port) port=$2; shift 2 ;;
      --heap) heap=$2; shift 2 ;;
      --set) extra+=("$2"); shift 2 ;;
      --secure) secure=yes; shift ;;
      --keep) keep=yes; shift ;;
      --remove) remove=yes; shift ;;
      *) die "unknown argument: $1" ;;
    esac
  done
}

find_java() {
  java_home=${ES_JAVA_HOME:-}
  if [ -z "$java_home" ]; then
    need javac default-jdk-headless
    java_home=$(dirname "$(dirname "$(readlink -f "$(command -v javac)")")")
  fi
}

# Once for each stack folder; moved into place whole, so that a start never sees half of it.
fetch_distribution() {
  local work log=$stack_dir/elasticsearch/maven.log
  [ ! -d "$home" ] || return 0
  need mvn maven
  say "fetching Elasticsearch $version from Maven Central to $home (about 120 MB to download, unless Maven has it)"
  work=$(mktemp -d "$stack_dir/elasticsearch/unpack.XXXXXX")
  (cd "$work" && mvn -q -B org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy \
    -Dartifact="org.elasticsearch.distribution.integ-test-zip:elasticsearch:$version:zip" -DoutputDirectory="$work") \
    >"$log" 2>&1 </dev/null || {
    tail -n 20 "$log" >&2
    rm -rf "$work"
    die "Elasticsearch could not be fetched; all of Maven's output is in $log. Another way: give a server by ELASTICSEARCH_URL or TEST_ELASTICSEARCH_URL"
  }
  (cd "$work" && "$java_home/bin/jar" --extract --file "elasticsearch-$version.zip")
  chmod 755 "$work/elasticsearch-$version"/bin/*
  chmod -R a+rX "$work"
  mv "$work/elasticsearch-$version" "$home"
  rm -rf "$work"
}

# Again only when its source has changed.
build_plugin() {
  local work plugin=$home/plugins/test-node source=$dev/elasticsearch-plugin sum
  sum=$(cat "$source"/testnode/*.java "$source/plugin-descriptor.properties" | cksum)
  [ "$(cat "$plugin/source.cksum" 2>/dev/null)" != "$sum" ] || return 0
  work=$(mktemp -d "$stack_dir/elasticsearch/build.XXXXXX")
  mkdir "$work/test-node"
  "$java_home/bin/javac" --release 17 -nowarn -XDsuppressNotes -d "$work/classes" \
    -cp "$home/lib/*:$home/modules/x-pack-core/*" "$source"/testnode/*.java
  "$java_home/bin/jar" --create --file "$work/test-node/test-node.jar" -C "$work/classes" .
  sed "s/@VERSION@/$version/" "$source/plugin-descriptor.properties" >"$work/test-node/plugin-descriptor.properties"
  echo "$sum" >"$work/test-node/source.cksum"
  chmod -R a+rX "$work"
  rm -rf "$plugin"
  mv "$work/test-node" "$plugin"
  rm -rf "$work"
}

prepare() {
  find_java
  need curl curl
  mkdir -p "$stack_dir/elasticsearch"
  # Two starts wait for each other here.
  exec 8>"$stack_dir/elasticsearch/lock"
  flock 8
  { fetch_distribution; build_plugin; } 8>&-
  exec 8>&-
}

# The pids of the node and of its launcher. By their command lines: the pid file comes later than the processes, and
# pids are given again.
node_pids() {
  local file
  for file in $(grep -lsaF -- "=$node/" /proc/[0-9]*/cmdline || true); do
    file=${file%/cmdline}
    [ "$(cat "$file/comm" 2>/dev/null)" != java ] || echo "${file#/proc/}"
  done
}

end_node() {
  local pid pids
  pids=$(node_pids)
  for pid in $pids; do kill "$pid" 2>/dev/null || true; done
  for pid in $pids; do wait_for_end "$pid" 20 || kill -KILL "$pid" 2>/dev/null || true; done
}

write_configuration() {
  mkdir -p "$node/config/jvm.options.d" "$node/data" "$node/logs" "$node/tmp"
  grep -v -e '^-Xlog:gc' -e '^-XX:HeapDumpPath' -e '^-XX:ErrorFile' "$home/config/jvm.options" >"$node/config/jvm.options"
  printf '%s\n' "-Xms$heap" "-Xmx$heap" "-XX:HeapDumpPath=$node/logs" "-XX:ErrorFile=$node/logs/hs_err_pid%p.log" \
    >"$node/config/jvm.options.d/node.options"
  cp "$home/config/log4j2.properties" "$node/config/"
  printf '%s: %s\n' \
    cluster.name log-writer node.name "$name" network.host 127.0.0.1 http.port "$port" transport.port 0 \
    discovery.type single-node path.data "$node/data" path.logs "$node/logs" \
    cluster.routing.allocation.disk.threshold_enabled false >"$node/config/elasticsearch.yml"
}

secure_node() {
  local tls=$node/config/tls
  need openssl openssl
  mkdir -p "$tls"
  (
    cd "$tls"
    openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj "/CN=log writer tests" -keyout ca.key -out ca.crt
    openssl req -newkey rsa:2048 -nodes -subj "/CN=localhost" -keyout node.key -out node.csr
    printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n' >ext
    openssl x509 -req -in node.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 -extfile ext -out node.crt
  ) 2>/dev/null
  printf 'xpack.security.%s\n' 'enabled: true' 'authc.api_key.enabled: true' 'http.ssl.enabled: true' \
    'http.ssl.key: tls/node.key' 'http.ssl.certificate: tls/node.crt' 'http.ssl.certificate_authorities: tls/ca.crt' \
    >>"$node/config/elasticsearch.yml"
  export ES_JAVA_HOME=$java_home ES_PATH_CONF=$node/config
  "$home/bin/elasticsearch-keystore" create >&2
  printf %s "$password" | "$home/bin/elasticsearch-keystore" add -x bootstrap.password >&2
}

configure() {
  local line
  rm -rf "$node/config"
  write_configuration
  url=http://127.0.0.1:$port ask=(curl -sf --noproxy '*')
  if [ $secure = yes ]; then
    password=${ELASTICSEARCH_TEST_PASSWORD:-test-node-secret}
    secure_node
    url=https://localhost:$port
    ask+=(--cacert "$node/config/tls/ca.crt" -u "elastic:$password")
  else
    echo 'xpack.security.enabled: false' >>"$node/config/elasticsearch.yml"
  fi
  for line in "${extra[@]}"; do echo "${line%%=*}: ${line#*=}" >>"$node/config/elasticsearch.yml"; done
}

locate() {
  [ -n "$name" ] || name=node-${port:-$(free_port)}
  [[ $name =~ ^[a-z0-9][a-z0-9.-]*$ ]] || die "--name must be of a-z, 0-9, dot and hyphen, not '$name'"
  mkdir -p "$nodes"
  nodes=$(cd "$nodes" && pwd -P)
  node=$nodes/$name
}

choose_port() {
  if [ -n "$port" ]; then
    ! port_is_taken "$port" || die "port $port, wanted for Elasticsearch, is taken"
    return
  fi
  if [ $keep = yes ] && [ -e "$node/started" ]; then port=$(field port "$node/started"); fi
  if [ -z "$port" ] || port_is_taken "$port"; then port=$(free_port); fi
}

launch() {
  local as=()
  if am_root; then
    chown -R "nobody:$(id -gn nobody)" "$node"
    as=(setpriv --reuid=nobody --regid="$(id -gn nobody)" --clear-groups)
  fi
  # In a session of its own: a Ctrl-C for its starter is none for the node.
  ES_JAVA_HOME=$java_home ES_PATH_CONF=$node/config ES_TMPDIR=$node/tmp HOME=$node \
    setsid "${as[@]}" "$home/bin/elasticsearch" -p "$node/pid" >"$node/logs/console.log" 2>&1 </dev/null 9>&- &
  launcher=$!
}

wait_until_it_answers() {
  for _ in $(seq 240); do
    "${ask[@]}" -o /dev/null "$url/_cluster/health?wait_for_status=yellow&timeout=1s" && return
    kill -0 "$launcher" 2>/dev/null || break
    sleep 0.5
  done
  tail -n 20 "$node/logs/console.log" >&2
  die "Elasticsearch did not start; its log is $node/logs/console.log"
}

start() {
  prepare
  locate
  if [ $keep = yes ] && status; then return; fi
  end_node
  [ $keep = yes ] || remove_below "$nodes" "$node"
  choose_port
  configure
  # Whoever ends this script while the node starts leaves no node behind.
  trap 'end_node' EXIT
  trap 'exit 143' TERM INT HUP
  launch
  wait_until_it_answers
  trap - EXIT
  {
    printf '%s\n' "pid=$(cat "$node/pid")" "port=$port" "url=$url" "log=$node/logs/console.log"
    [ $secure = no ] || printf '%s\n' "ca=$node/config/tls/ca.crt" "user=elastic" "password=$password"
  } >"$node/started"
  cat "$node/started"
}

stop() {
  locate
  end_node
  [ $remove = no ] || remove_below "$nodes" "$node"
}

status() {
  locate
  # Not through a pipe: the end of grep would end what writes into it.
  [ -e "$node/started" ] && grep -qxF "$(field pid "$node/started")" <(node_pids) && cat "$node/started"
}

parse_arguments "$@"
"$action"
