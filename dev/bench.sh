#!/usr/bin/env bash
# How fast the service is beside raw COPY and Vector's statement (`make bench`), on a server of its own that is removed
# after, and how many instructions an event costs.
#
# ROOT=PATH        another TimescaleDB (timescaledb.sh --root), for instance with the Community edition
# ROUNDS=N         rounds, 3 by default
# EVENTS=N         events of each leg, 400,000 by default
#
# The tables stand in target/bench.md, all figures in target/bench.json. The server syncs every commit.
set -euo pipefail
# shellcheck source=dev/settings.sh
. "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
# shellcheck source=dev/jobs.sh
. "$dev/jobs.sh"

server=(--name "bench-$$")
[ -z "${ROOT:-}" ] || server+=(--root "$ROOT")
end_bench() {
  end_jobs 10
  "$dev/timescaledb.sh" stop "${server[@]}" --now --remove
}
on_any_end end_bench

target=${CARGO_TARGET_DIR:-$checkout/target}
cargo build --quiet --release --package log-writer-service --package log-writer-tests --bin log-writer-service --bin log-bench
run_job "$dev/instructions.sh" | tee "$target/instructions.txt" || rm -f "$target/instructions.txt"
url=$("$dev/timescaledb.sh" start "${server[@]}" --set shared_buffers=2GB --set max_wal_size=8GB | sed -n 's/^url=//p')
counted=()
[ ! -s "$target/instructions.txt" ] || counted=(--instructions "$target/instructions.txt")
run_job "$target/release/log-bench" --database-url "$url" --service "$target/release/log-writer-service" \
  --json "$target/bench.json" --markdown "$target/bench.md" "${counted[@]}" \
  ${ROUNDS:+--rounds "$ROUNDS"} ${EVENTS:+--events "$EVENTS"}
