#!/usr/bin/env bash
# Fuzzes what reads bytes that others wrote (`make fuzz`), one target after the other, on one core.
#
# fuzz.sh [SECONDS [TARGET...]]: 300 seconds for each of all targets by default. Needs a nightly compiler and cargo-fuzz
# (`rustup toolchain install nightly`, `cargo install cargo-fuzz`). Seeds are the recordings of tests/fixtures; what was
# found new is kept in target/fuzz/corpus and goes on from there. An input that breaks a promise lands in
# tests/fuzz/corpus/TARGET, where the tests of src/targets run it from then on: mend the cause, commit both.
set -euo pipefail
# shellcheck source=dev/settings.sh
. "$(dirname "${BASH_SOURCE[0]}")/settings.sh"

seconds=${1:-300}
shift || true
fuzz=$checkout/tests/fuzz
fixtures=$checkout/tests/fixtures
target_dir=${CARGO_TARGET_DIR:-$checkout/target}/fuzz
cargo fuzz --version >/dev/null 2>&1 || die "cargo-fuzz is missing: cargo install cargo-fuzz"
[ $# -gt 0 ] || mapfile -t all < <(cd "$fuzz/fuzz_targets" && basename -s .rs -- *.rs)
[ $# -gt 0 ] || set -- "${all[@]}"

# The same versions as the service.
cp "$checkout/Cargo.lock" "$fuzz/Cargo.lock"
status=0
for target; do
  found=$fuzz/corpus/$target corpus=$target_dir/corpus/$target
  mkdir -p "$found" "$corpus"
  say "== $target: $seconds s"
  nice cargo +nightly fuzz run --fuzz-dir "$fuzz" --target-dir "$target_dir" "$target" \
    "$corpus" "$found" "$fixtures/vector" "$fixtures/vector-events" "$fixtures/elasticsearch" -- \
    -max_total_time="$seconds" -artifact_prefix="$found/" -max_len=65536 -rss_limit_mb=2048 -timeout=10 -print_final_stats=1 || status=1
  rmdir --ignore-fail-on-non-empty "$found"
done
exit $status
