#!/usr/bin/env bash
# Every check and test, on servers of its own (`make test`); with the argument `faults`: faults.sh (`make faults`),
# with `backlog`: backlog.sh (`make backlog`).
#
# Formatting, lints and documentation count as one check each; then all tests of the workspace; then, if
# TIMESCALEDB_COMMUNITY_ROOT names a root with the Community edition, the suites that use a database once more on it,
# else each of their tests counts as skipped. The last line is `N passed, N failed, N skipped`.
#
# Servers given by TEST_DATABASE_URL and TEST_ELASTICSEARCH_URL are used in place of own ones; DATABASE_URL and all other
# settings of the caller are not seen by the tests. What the tests are told: dev/README.md.
set -euo pipefail
# shellcheck source=dev/settings.sh
. "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
# shellcheck source=dev/jobs.sh
. "$dev/jobs.sh"
# shellcheck source=dev/docker.sh
. "$dev/docker.sh"
# shellcheck source=dev/faults.sh
. "$dev/faults.sh"
# shellcheck source=dev/backlog.sh
. "$dev/backlog.sh"

run=test-${checkout_name#checkout-}-$$
runs=$stack_dir/tests
scratch=$runs/$run
minutes_max=${TEST_MINUTES_MAX:-60} # for the tests on one edition
passed=0 failed=0 skipped=0 table=() skipped_names=()
target=${CARGO_TARGET_DIR:-$checkout/target}

# record NAME PASSED FAILED SKIPPED
record() {
  table+=("$(printf '%-56s %6s %6s %7s' "$@")")
  passed=$((passed + $2)) failed=$((failed + $3)) skipped=$((skipped + $4))
}

# check NAME COMMAND...: one check that passes or fails; its exit status.
check() {
  local name=$1 started=$SECONDS status=0
  say "== $name"
  run_job "${@:2}" </dev/null || status=$?
  if [ $status = 0 ]; then record "$name" 1 0 0; else record "$name" 0 1 0; fi
  say "== $name: $((SECONDS - started)) s"
  return $status
}

forget_settings_of_caller() {
  local variable
  for variable in DATABASE_URL ELASTICSEARCH_URL RUST_LOG "${!PG@}" "${!LOG_WRITER__@}"; do unset "$variable"; done
}

# remove_run NAME: stops and removes the servers of a run, its suites' own too, and its folder.
remove_run() {
  local base node
  for base in "$stack_dir"/{trixie/srv/log-writer,postgres}/"$1"* ${TIMESCALEDB_COMMUNITY_ROOT:+"$TIMESCALEDB_COMMUNITY_ROOT/srv/log-writer/$1"*}; do
    [ ! -e "$base" ] || "$dev/timescaledb.sh" stop --name "${base##*/}" --root "$(root_of "$base")" --now --remove
  done
  for node in "$runs/$1/nodes"/*/; do
    [ ! -e "$node" ] || LOG_WRITER_NODES_DIR=$runs/$1/nodes "$dev/elasticsearch.sh" stop --name "$(basename "$node")" --remove
  done
  if [ -e "$runs/$1/docker" ]; then compose_project=$1 compose down --volumes >&2; fi
  remove_below "$runs" "$runs/$1"
}

# The root of a cluster's folder.
root_of() {
  case $1 in */srv/log-writer/*) echo "${1%/srv/log-writer/*}" ;; *) echo / ;; esac
}

# Runs that were killed could not clean up.
remove_dead_runs() {
  local lock name
  for lock in "$runs"/*/lock; do
    if [ ! -e "$lock" ] || is_locked "$lock"; then continue; fi
    name=$(basename "$(dirname "$lock")")
    say "removing what a killed run left: $name"
    remove_run "$name"
  done
}

end_run() {
  end_jobs 10
  remove_run "$run"
}

# start_server NAME COMMAND...: in the background; what it prints is in $scratch/NAME.
start_server() {
  start_job "${@:2}" >"$scratch/$1" 2>"$scratch/$1.log"
  server_jobs[$1]=$job
}

# Starts what is not given, all at once: the machine compiles meanwhile.
start_servers() {
  local name=(--name "$run") settings=(--set max_connections=300 --set max_worker_processes=64
    --set timescaledb.max_background_workers=32 --set checkpoint_timeout=30min)
  declare -gA server_jobs=()
  if [ -z "${TEST_DATABASE_URL:-}" ]; then
    start_server timescaledb "$dev/timescaledb.sh" start "${name[@]}" "${settings[@]}"
  else
    # Suites that stop servers start their own.
    start_server timescaledb "$dev/timescaledb.sh" prepare
  fi
  if [ -n "${TIMESCALEDB_COMMUNITY_ROOT:-}" ]; then
    start_server community "$dev/timescaledb.sh" start --name "$run-community" --root "$TIMESCALEDB_COMMUNITY_ROOT" "${settings[@]}"
  fi
  if [ -z "${TEST_ELASTICSEARCH_URL:-}" ]; then
    start_server elasticsearch "$dev/elasticsearch.sh" start --name main
  fi
  start_server secure "$dev/elasticsearch.sh" start --name secure --secure
}

# A caller who may not use chroot and has no TimescaleDB installed, but Docker.
start_containers_for_tests() {
  compose_project=$run
  touch "$scratch/docker"
  start_containers timescaledb elasticsearch
  export TEST_DATABASE_URL=${TEST_DATABASE_URL:-postgres://postgres@127.0.0.1:$TIMESCALEDB_PORT/postgres}
  export TEST_ELASTICSEARCH_URL=${TEST_ELASTICSEARCH_URL:-http://127.0.0.1:$ELASTICSEARCH_PORT}
}

# Waits for the servers and tells the tests where they are; fails if one did not start.
await_servers() {
  local server
  for server in "${!server_jobs[@]}"; do
    if wait "${server_jobs[$server]}"; then continue; fi
    cat "$scratch/$server.log" >&2
    if [ "$server" = timescaledb ] && [ -n "${TEST_DATABASE_URL:-}" ]; then
      say "suites that start PostgreSQL themselves cannot: TEST_POSTGRES_ROOT is not set"
      continue
    fi
    record "server: $server" 0 1 0
    return 1
  done
  export TEST_DATABASE_URL=${TEST_DATABASE_URL:-$(field url "$scratch/timescaledb")}
  export TEST_ELASTICSEARCH_URL=${TEST_ELASTICSEARCH_URL:-$(field url "$scratch/elasticsearch")}
  TEST_POSTGRES_ROOT=$(field root "$scratch/timescaledb")
  [ -z "$TEST_POSTGRES_ROOT" ] || export TEST_POSTGRES_ROOT
  TEST_ELASTICSEARCH_SECURE_URL=$(field url "$scratch/secure")
  TEST_ELASTICSEARCH_SECURE_CA=$(field ca "$scratch/secure")
  TEST_ELASTICSEARCH_SECURE_PASSWORD=$(field password "$scratch/secure")
  export TEST_ELASTICSEARCH_SECURE_URL TEST_ELASTICSEARCH_SECURE_CA TEST_ELASTICSEARCH_SECURE_PASSWORD
  export TEST_RUN=$run TEST_TIMESCALEDB_START=$dev/timescaledb.sh TEST_ELASTICSEARCH_START=$dev/elasticsearch.sh
  export LOG_WRITER_TEST_BINARY=$target/debug/log-writer-service
  export LOG_WRITER_FAILPOINTS_BINARY=$LOG_WRITER_TEST_BINARY-with-failpoints
}

# Adds a row to the table for each suite of a log of `cargo test`; a suite that printed no result has failed.
record_tests() {
  local suite ok bad ignored
  while IFS=$'\t' read -r suite ok bad ignored; do
    record "$suite$2" "$ok" "$bad" "$ignored"
  done < <(awk '
    function row(a, b, c) { if (suite != "") printf "%s\t%d\t%d\t%d\n", suite, a, b, c; suite = "" }
    /^ +Running .*\(.*\)\r?$/ { row(0, 1, 0); suite = $NF; gsub(/^\(.*\/|-[0-9a-f]+\)$/, "", suite); suite = suite " (" $(NF - 1) ")" }
    /^ +Doc-tests / { row(0, 1, 0); suite = "examples of " $2 }
    /^test result: / { row($4, $6, $8) }
    END { row(0, 1, 0) }' "$1")
  while read -r suite; do skipped_names+=("$suite$2"); done < <(sed -n 's/^test \(.*\) \.\.\. ignored.*/\1/p' "$1")
}

# run_tests TITLE SUFFIX CARGO-ARGUMENT...: streams the tests and counts them.
run_tests() {
  local log=$scratch/tests${2// /-}.log status=0 started=$SECONDS failed_before=$failed ran_before=$((passed + failed)) tests limit ended=''
  say "== $1"
  # shellcheck disable=SC2016  # for the inner shell
  start_job bash -c 'set -o pipefail; "${@:2}" 2>&1 | tee "$1"' - "$log" \
    env TMPDIR="$scratch/tmp" CARGO_TERM_COLOR=never cargo test "${locked[@]}" --workspace --no-fail-fast "${@:3}" </dev/null
  tests=$job
  start_job sleep $((minutes_max * 60))
  limit=$job
  wait -n -p ended "$tests" "$limit" || status=$?
  if [ "$ended" = "$limit" ]; then
    say "== no end after $minutes_max minutes"
    kill -KILL -- "-$tests"
    status=124
  fi
  kill "$limit" 2>/dev/null || true
  record_tests "$log" "$2"
  # Nothing may fail without being counted: a build, a limit of time, a suite that was not found.
  if [ $status != 0 ] && [ "$failed" = "$failed_before" ]; then record "$1" 0 1 0; fi
  if [ $((passed + failed)) = "$ran_before" ]; then record "$1: no test ran" 0 1 0; fi
  say "== $1: $((SECONDS - started)) s"
}

# What an event costs, where valgrind is or can be had.
check_instructions() {
  if command -v valgrind >/dev/null || (need valgrind valgrind); then
    check "instructions an event" "$dev/instructions.sh" --check || true
  else
    skipped_names+=("instructions an event: there is no valgrind")
    record "instructions an event" 0 0 1
  fi
}

# Prints `path of the binary, how cargo selects it` of each suite that uses a database.
database_suites() {
  local binary
  sed -n 's/^ *Executable .*(\(.*\))$/\1/p' "$scratch/built.log" | while read -r binary; do
    grep -qaF TEST_DATABASE_URL "$binary" || continue
    case $(grep -F "($binary)" "$scratch/built.log") in
      *unittests*src/lib.rs*) echo "$binary --lib" ;;
      *unittests*) echo "$binary --bins" ;;
      *) echo "$binary --test $(basename "${binary%-*}")" ;;
    esac
  done
}

# What is run from here on is run on the second edition.
use_community() {
  TEST_DATABASE_URL=$(field url "$scratch/community")
  TEST_POSTGRES_ROOT=$(field root "$scratch/community")
  export TEST_DATABASE_URL TEST_POSTGRES_ROOT
}

# The second edition, or its tests by name.
run_tests_on_community() {
  local binary select selects=() name names
  while read -r binary select; do
    if [ -n "${TIMESCALEDB_COMMUNITY_ROOT:-}" ]; then
      # shellcheck disable=SC2206  # `--test system` is two words
      selects+=($select)
      continue
    fi
    mapfile -t names < <("$binary" --list 2>/dev/null | sed -n 's/: test$//p')
    name=$(basename "${binary%-*}")
    for suite_test in "${names[@]}"; do skipped_names+=("$name::$suite_test on Community"); done
    record "$name on Community" 0 0 "${#names[@]}"
  done < <(database_suites)
  [ ${#selects[@]} -gt 0 ] || return 0
  use_community
  run_tests "tests on Community" " on Community" "${selects[@]}"
}

build_tests() {
  # shellcheck disable=SC2016  # for the inner shell
  check "build" bash -c 'set -o pipefail; build=(cargo build "${@:3}" --package log-writer-service)
    "${build[@]}" --features failpoints && cp "$2" "$2-with-failpoints" && "${build[@]}" &&
    CARGO_TERM_COLOR=never cargo test "${@:3}" --workspace --no-run 2>&1 | tee "$1" >&2' \
    - "$scratch/built.log" "$target/debug/log-writer-service" "${locked[@]}"
}

check_everything() {
  check "format" cargo fmt --all --check || true
  check "lints" cargo clippy "${locked[@]}" --workspace --all-targets --all-features -- -D warnings || true
  check "documentation" env RUSTDOCFLAGS="-D warnings" cargo doc "${locked[@]}" --workspace --no-deps || true
  check_instructions
  build_tests || return 0
  await_servers || return 0
  run_tests "tests" ""
  run_tests_on_community
}

print_results() {
  [ ${#skipped_names[@]} -eq 0 ] || printf 'skipped: %s\n' "${skipped_names[@]}"
  printf '\n%-56s %6s %6s %7s\n' suite passed failed skipped
  printf '%s\n' "${table[@]}"
  printf '\n%s\n' "$passed passed, $failed failed, $skipped skipped"
}

forget_settings_of_caller
export LOG_WRITER_STACK_DIR=$stack_dir LOG_WRITER_NODES_DIR=$scratch/nodes
# Of a fresh clone nothing is built twice, and Cargo.lock must be complete.
locked=()
if [ "${CI:-}" = true ]; then
  locked=(--locked)
  export CARGO_INCREMENTAL=0
fi
mkdir -p "$runs"
remove_dead_runs
mkdir -p "$scratch/nodes" "$scratch/tmp"
exec 9>"$scratch/lock"
flock 9
on_any_end end_run
if ! am_root && docker_answers && ! "$dev/timescaledb.sh" prepare >/dev/null 2>&1; then start_containers_for_tests; fi
start_servers
case ${1:-} in
  faults) check_faults ;;
  backlog) check_backlog ;;
  *) check_everything ;;
esac
trap - EXIT
end_run
print_results
[ "$failed" -eq 0 ]
