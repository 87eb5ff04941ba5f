#!/usr/bin/env bash
# How fast the service is beside raw COPY and Vector's statement (`make bench`), on a server of its own that is removed
# after, and how many instructions an event costs. With the argument `full`: how cost grows, both stores at a rate that is
# held, two replicas, receiving and delivering apart (`make bench-full`), with an Elasticsearch of its own besides.
#
# ROOT=PATH        another TimescaleDB (timescaledb.sh --root), for instance with the Community edition
# ROUNDS=N         rounds, 3 by default
# EVENTS=N         events of each leg, 400,000 by default; full: 200,000
# PARTS="A B"      full: only these of connections request-events event-bytes rows chunks held highest replicas apart
# ROWS=N           full: rows of the table at the end of `rows`, 10,000,000 by default: half a GB for each million
# MINUTES=N        full: how long `held` holds its rate, 10 by default
# RATE=N           full: that rate, 10,000 events a second by default
# VECTOR=PATH      Vector 0.57, whose own sinks are measured too; the `vector` of the path by default, if there is one; VECTOR= for none
# PROFILE=columnar that storage profile beside `row` and nothing else; ROOT must have the Community edition
#
# The tables stand in target/bench.md, all figures in target/bench.json; full: full.md, full.json and plots in
# target/bench-full, where parts that were not run stay as they were. The server syncs every commit.
set -euo pipefail
# shellcheck source=dev/settings.sh
. "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
# shellcheck source=dev/jobs.sh
. "$dev/jobs.sh"

server=(--name "bench-$$")
[ -z "${ROOT:-}" ] || server+=(--root "$ROOT")
settings=(--set shared_buffers=2GB)
end_bench() {
  end_jobs 10
  [ "${what:-}" != full ] || "$dev/elasticsearch.sh" stop --name "bench-$$" --remove
  "$dev/timescaledb.sh" stop "${server[@]}" --now --remove
}
on_any_end end_bench

# Both stores. WAL is kept smaller: it lies beside ten million rows.
run_full() {
  local url elasticsearch_url
  cargo build --quiet --release --package log-writer-service --package log-writer-tests --bin log-writer-service --bin log-bench-full
  url=$("$dev/timescaledb.sh" start "${server[@]}" "${settings[@]}" --set max_wal_size=4GB | sed -n 's/^url=//p')
  elasticsearch_url=$("$dev/elasticsearch.sh" start --name "bench-$$" --heap 2g | sed -n 's/^url=//p')
  run_job "$target/release/log-bench-full" --database-url "$url" --elasticsearch-url "$elasticsearch_url" \
    --service "$target/release/log-writer-service" --folder "$target/bench-full" \
    ${PARTS:+--parts "${PARTS// /,}"} ${ROUNDS:+--rounds "$ROUNDS"} ${EVENTS:+--events "$EVENTS"} \
    ${ROWS:+--rows "$ROWS"} ${MINUTES:+--minutes "$MINUTES"} ${RATE:+--rate "$RATE"}
}

what=${1:-} target=${CARGO_TARGET_DIR:-$checkout/target}
if [ "$what" = full ]; then
  run_full
  exit
fi
if [ "${PROFILE:-row}" = columnar ]; then
  cargo build --quiet --release --package log-writer-service --package log-writer-tests --bin log-writer-service --bin log-bench-profiles
  url=$("$dev/timescaledb.sh" start "${server[@]}" "${settings[@]}" --set max_wal_size=8GB | sed -n 's/^url=//p')
  run_job "$target/release/log-bench-profiles" --database-url "$url" --service "$target/release/log-writer-service" \
    --markdown "$target/bench-profiles.md" ${ROUNDS:+--rounds "$ROUNDS"} ${EVENTS:+--events "$EVENTS"}
  exit
fi
cargo build --quiet --release --package log-writer-service --package log-writer-tests --bin log-writer-service --bin log-bench
run_job "$dev/instructions.sh" | tee "$target/instructions.txt" || rm -f "$target/instructions.txt"
url=$("$dev/timescaledb.sh" start "${server[@]}" "${settings[@]}" --set max_wal_size=8GB | sed -n 's/^url=//p')
vector=${VECTOR-$(command -v vector || true)}
counted=()
[ ! -s "$target/instructions.txt" ] || counted=(--instructions "$target/instructions.txt")
run_job "$target/release/log-bench" --database-url "$url" --service "$target/release/log-writer-service" \
  --json "$target/bench.json" --markdown "$target/bench.md" "${counted[@]}" \
  ${vector:+--vector "$vector"} ${ROUNDS:+--rounds "$ROUNDS"} ${EVENTS:+--events "$EVENTS"}
