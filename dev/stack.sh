#!/usr/bin/env bash
# The local stack: TimescaleDB, Elasticsearch and the service. What the Makefile's targets call.
#
#   stack.sh run     the two servers, the release binary, its migrations and the service in the foreground
#   stack.sh up      the two servers alone, in the background
#   stack.sh down    stops all that run
#   stack.sh env     DATABASE_URL=, ELASTICSEARCH_URL= and LOG_WRITER_URL= of what runs
#   stack.sh psql    psql on what runs; $PSQL_COMMAND is one command for it, else its standard input is read
#   stack.sh clean   down, and removes data and downloads
#
# Servers given by DATABASE_URL and ELASTICSEARCH_URL are used and left alone. Otherwise, where a Docker engine answers,
# they come from docker-compose.elasticsearch.yml; else timescaledb.sh and elasticsearch.sh run them here.
# TIMESCALEDB_PORT and ELASTICSEARCH_PORT fix their ports.
set -euo pipefail
# shellcheck source=dev/settings.sh
. "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
# shellcheck source=dev/jobs.sh
. "$dev/jobs.sh"
# shellcheck source=dev/docker.sh
. "$dev/docker.sh"

state=$stack_dir/checkouts/$checkout_name
mkdir -p "$state"
export LOG_WRITER_NODES_DIR=$state
listen=${LOG_WRITER__HTTP__LISTEN:-127.0.0.1:8080}

# `run.lock` is held by `make run` as long as it lives; `kept` says that `make up` asked for the servers.
run_is_active() { is_locked "$state/run.lock"; }

service_url() {
  local host=${listen%:*}
  case $host in 0.0.0.0) host=127.0.0.1 ;; '[::]') host='[::1]' ;; esac
  echo "http://$host:${listen##*:}"
}

timescaledb() { "$dev/timescaledb.sh" "$1" --name "$checkout_name" "${@:2}"; }
elasticsearch() { "$dev/elasticsearch.sh" "$1" --name elasticsearch "${@:2}"; }

# Starts what is not given; sets $database_url and $elasticsearch_url. Leaves alone what runs already.
start_servers() {
  local jobs=() stores=()
  database_url=${DATABASE_URL:-} elasticsearch_url=${ELASTICSEARCH_URL:-}
  [ -n "$database_url" ] || stores+=(timescaledb)
  [ -n "$elasticsearch_url" ] || stores+=(elasticsearch)
  echo "${stores[*]}" >"$state/own"
  [ ${#stores[@]} -gt 0 ] || return 0
  if docker_answers; then
    start_containers "${stores[@]}"
    [ -n "$database_url" ] || database_url=postgres://postgres@127.0.0.1:$TIMESCALEDB_PORT/logs
    [ -n "$elasticsearch_url" ] || elasticsearch_url=http://127.0.0.1:$ELASTICSEARCH_PORT
    return
  fi
  say "starting ${stores[*]} (data and logs: $state and $stack_dir)"
  if [ -z "$database_url" ]; then
    start_job "$dev/timescaledb.sh" start --name "$checkout_name" --database logs \
      ${TIMESCALEDB_PORT:+--port "$TIMESCALEDB_PORT"} >"$state/timescaledb.started"
    jobs+=("$job")
  fi
  if [ -z "$elasticsearch_url" ]; then
    start_job "$dev/elasticsearch.sh" start --name elasticsearch --keep --heap 1g \
      ${ELASTICSEARCH_PORT:+--port "$ELASTICSEARCH_PORT"} >"$state/elasticsearch.started"
    jobs+=("$job")
  fi
  for job in "${jobs[@]}"; do wait "$job" || exit 1; done
  [ -n "$database_url" ] || database_url=$(field url "$state/timescaledb.started")
  [ -n "$elasticsearch_url" ] || elasticsearch_url=$(field url "$state/elasticsearch.started")
}

stop_servers() {
  if docker_answers; then compose stop timescaledb elasticsearch >&2; fi
  # Both, each a few seconds.
  timescaledb stop &
  elasticsearch stop &
  wait
  rm -f "$state/kept" "$state/run.env"
}

# A service that outlived a `make run` which was killed.
stop_left_service() {
  local pid program
  pid=$(cat "$state/service.pid" 2>/dev/null) || return 0
  program=$(readlink "/proc/$pid/exe" 2>/dev/null || true)
  # A rebuilt binary's process shows the old one.
  if [ "${program% (deleted)}" = "$(cat "$state/service.exe")" ]; then
    kill "$pid" && { wait_for_end "$pid" 40 || kill -KILL "$pid"; }
  fi
  rm -f "$state/service.pid" "$state/service.exe"
}

print_addresses() {
  printf '%s\n' "DATABASE_URL=$database_url" "ELASTICSEARCH_URL=$elasticsearch_url" "LOG_WRITER_URL=$(service_url)"
}

# Prints the addresses of what runs, or fails.
addresses() {
  if run_is_active && [ -s "$state/run.env" ]; then
    cat "$state/run.env"
  elif [ -e "$state/kept" ] && own_servers_run; then
    cat "$state/kept"
  else
    die "nothing runs: start it with 'make run' or, the two servers alone, with 'make up'"
  fi
}

# Whether those that `make up` started still run; given ones are not asked.
own_servers_run() {
  local store port
  # shellcheck disable=SC2013  # words of one line
  for store in $(cat "$state/own"); do
    case $store in timescaledb) port=5432 ;; *) port=9200 ;; esac
    if docker_answers; then compose_port "$store" "$port"; else "$store" status; fi >/dev/null || return 1
  done
}

up() {
  on_any_end end_jobs
  start_servers
  [ -z "${DATABASE_URL:-}${ELASTICSEARCH_URL:-}" ] || say "those given by DATABASE_URL or ELASTICSEARCH_URL are left alone"
  (umask 077; print_addresses >"$state/kept")
  print_addresses
  say "no password is asked from this machine; stop them with 'make down'"
}

down() {
  if run_is_active; then
    say "stopping 'make run'"
    kill "$(cat "$state/run.pid")"
    for _ in $(seq 600); do run_is_active || break; sleep 0.1; done
  fi
  stop_left_service
  stop_servers
}

next_steps() {
  cat >&2 <<TEXT

The log writer listens at $(service_url). In a second terminal:
  curl -i $(service_url)/ingest -d '[{"level":"ERROR","service":"shop","message":"card declined"}]'
  make psql SQL="select * from search_logs(p_level := 'ERROR')"
  curl '$elasticsearch_url/logs-*/_search?pretty'
  make env      the addresses, for other programs
Servers without a password, for this machine only. Ctrl-C stops all that this command started.

TEXT
}

run() {
  local binary build status
  exec 9>"$state/run.lock"
  flock -n 9 || die "'make run' runs already in this checkout (process $(cat "$state/run.pid")): 'make down' stops it"
  echo $$ >"$state/run.pid"
  stop_left_service
  ! port_is_taken "${listen##*:}" "$(service_url | sed 's,^http://\[*\([^]]*\)\]*:[0-9]*$,\1,')" ||
    die "something listens at $listen already: LOG_WRITER__HTTP__LISTEN=127.0.0.1:8081 make run takes another port"
  on_any_end end_run
  start_job cargo build --release --package log-writer-service --manifest-path "$checkout/Cargo.toml"
  build=$job
  start_servers # meanwhile
  ! kill -0 "$build" 2>/dev/null || say "the servers are up; the service is still being built"
  wait "$build"
  binary=${CARGO_TARGET_DIR:-$checkout/target}/release/log-writer-service
  export DATABASE_URL=$database_url ELASTICSEARCH_URL=$elasticsearch_url LOG_WRITER__HTTP__LISTEN=$listen
  # Our Elasticsearch is one node: a copy of a shard would have nowhere to go.
  case " $(cat "$state/own") " in
    *" elasticsearch "*) export LOG_WRITER__ELASTICSEARCH__REPLICAS=${LOG_WRITER__ELASTICSEARCH__REPLICAS:-0} ;;
  esac
  run_job "$binary" migrate
  (umask 077; print_addresses >"$state/run.env")
  next_steps
  readlink -f "$binary" >"$state/service.exe"
  start_job "$binary" serve
  echo "$job" >"$state/service.pid"
  status=0
  wait "$job" || status=$?
  say "the service ended with status $status"
  exit "$status"
}

end_run() {
  end_jobs 40
  rm -f "$state/service.pid" "$state/service.exe" "$state/run.env"
  if [ -e "$state/kept" ]; then
    say "the servers of 'make up' go on"
  else
    say "stopping the servers"
    stop_servers
  fi
}

psql_of_stack() {
  local url arguments=() root=$stack_dir/trixie
  url=${DATABASE_URL:-}
  if [ -z "$url" ]; then
    url=$(addresses)
    url=$(sed -n 's/^DATABASE_URL=//p' <<<"$url")
  fi
  arguments=(-v ON_ERROR_STOP=1)
  [ -z "${PSQL_COMMAND:-}" ] || arguments+=(-c "$PSQL_COMMAND")
  if command -v psql >/dev/null; then exec psql "$url" "${arguments[@]}"; fi
  if [ -d "$root" ] && am_root; then
    exec chroot "$root" env -i PATH=/usr/bin:/bin LC_ALL=C.UTF-8 TERM="${TERM:-dumb}" psql "$url" "${arguments[@]}"
  fi
  if docker_answers; then exec docker compose --project-name "log-writer-$checkout_name" \
    --file "$checkout/docker-compose.elasticsearch.yml" exec -T timescaledb psql -U postgres -d logs "${arguments[@]}"; fi
  die "there is no psql here: install the package postgresql-client"
}

# What others use of a shared folder stays: other checkouts, tests, and whatever runs from it.
downloads_are_used() {
  local other
  other=$(find "$stack_dir/checkouts" "$stack_dir/tests" -mindepth 1 -maxdepth 1 2>/dev/null | head -n 1 || true)
  [ -z "$other" ] || { say "kept: the downloads in $stack_dir, used by $other"; return 0; }
  # The text comes from a file: grep's own command line must not have it.
  if grep -qsaF -f <(echo "$stack_dir/") /proc/[0-9]*/cmdline ||
    [ -n "$(find /proc/[0-9]*/root -maxdepth 0 -lname "$stack_dir/*" 2>/dev/null | head -n 1)" ]; then
    say "kept: the downloads in $stack_dir, used by a running process"
    return 0
  fi
  return 1
}

clean() {
  down
  timescaledb stop --remove
  if docker_answers; then compose down --volumes >&2; fi
  remove_below "$stack_dir" "$state"
  downloads_are_used && return
  for path in trixie trixie.partial trixie.log trixie.lock postgres elasticsearch checkouts tests apt.log; do
    remove_below "$stack_dir" "$stack_dir/$path"
  done
  rmdir "$stack_dir" 2>/dev/null || true
}

case ${1:-} in
  run | up | down | clean) "$1" ;;
  env) addresses ;;
  psql) psql_of_stack ;;
  *) die "run, up, down, env, psql or clean" ;;
esac
