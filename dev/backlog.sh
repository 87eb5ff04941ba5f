# shellcheck shell=bash
# Sourced by test.sh: what `make backlog` runs, on servers of its own.
#
# EVENTS=N         events of the large backlog, 200,000 by default
# SLOW_SECONDS=N   how long a thousand events a second follow, 20 by default
# ROUNDS=N         rounds of Elasticsearch up, down and drain, 3 by default
# ROUND_EVENTS=N   events of each leg of a round, 100,000 by default
# CONNECTIONS=N    connections that send large bodies while PostgreSQL is stalled, 500 by default

check_backlog() {
  local measure=("$target/release/log-backlog" --service "$target/release/log-writer-service"
    ${EVENTS:+--events "$EVENTS"} ${SLOW_SECONDS:+--slow-seconds "$SLOW_SECONDS"}
    ${ROUNDS:+--rounds "$ROUNDS"} ${ROUND_EVENTS:+--round-events "$ROUND_EVENTS"}
    ${CONNECTIONS:+--connections "$CONNECTIONS"})
  check "release build" cargo build "${locked[@]}" --release --package log-writer-service --package log-writer-tests --bin log-writer-service --bin log-backlog || return 0
  await_servers || return 0
  check "memory and backlog" env TMPDIR="$scratch/tmp" "${measure[@]}" \
    --database-url "$TEST_DATABASE_URL" --elasticsearch-url "$TEST_ELASTICSEARCH_URL" || true
}
