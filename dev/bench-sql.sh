#!/usr/bin/env bash
# How long each question takes on many events (`make bench-sql ROWS=20000000`), on a server of its own that is removed after.
#
# ROOT names another TimescaleDB (timescaledb.sh --root), for instance with the Community edition. 20 million events take
# 15 GB of disk and a quarter of an hour; the server does not sync, so only reading is measured.
set -euo pipefail
# shellcheck source=dev/settings.sh
. "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
# shellcheck source=dev/jobs.sh
. "$dev/jobs.sh"

rows=${1:-20000000}
server=(--name "bench-sql-$$")
[ -z "${ROOT:-}" ] || server+=(--root "$ROOT")
end_bench() {
  end_jobs 10
  "$dev/timescaledb.sh" stop "${server[@]}" --now --remove
}
on_any_end end_bench

cargo build --quiet --release --package log-writer-service --package log-writer-tests --bin log-writer-service --bin log-bench-sql
url=$("$dev/timescaledb.sh" start "${server[@]}" --database bench --set shared_buffers=1GB --set max_wal_size=2GB \
  --set wal_level=minimal --set max_wal_senders=0 --set fsync=off --set synchronous_commit=off | sed -n 's/^url=//p')
binaries=${CARGO_TARGET_DIR:-$checkout/target}/release
DATABASE_URL=$url run_job "$binaries/log-writer-service" migrate >&2
run_job "$binaries/log-bench-sql" --database-url "$url" --rows "$rows"
