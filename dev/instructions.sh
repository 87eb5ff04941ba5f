#!/usr/bin/env bash
# Instructions that one event costs the service, counted by valgrind on a fixed replay (`make instructions`): exact
# whatever else the machine does.
#
#   instructions.sh           prints a line for each way of an event
#   instructions.sh --check   also fails if one costs more than instructions.txt says, or so much less that it is out of date
#   instructions.sh --profile prints which functions spend them
#
# The replay is log-writer-service/examples/replay.rs by the profile of that name. Each count is the difference of two runs, of
# eleven passes and of one, so that what is done once does not count.
set -euo pipefail
# shellcheck source=dev/settings.sh
. "$(dirname "${BASH_SOURCE[0]}")/settings.sh"

percent=5 # how far a count may be off: seeds of hash tables move it by 2 %, a newer compiler may too
passes=10
stored=$dev/instructions.txt
need valgrind valgrind

target=${CARGO_TARGET_DIR:-$checkout/target}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cargo build --quiet --profile replay --package log-writer-service --features targets --example replay
replay=$target/replay/examples/replay

# counted WAY PASSES: instructions of a run; leaves the profile.
counted() {
  valgrind --tool=callgrind --callgrind-out-file="$scratch/$1.$2" "$replay" "$1" "$2" >"$scratch/events" 2>"$scratch/log" || {
    cat "$scratch/log" >&2
    die "valgrind could not run $replay"
  }
  sed -n 's/^.*Collected : *//p' "$scratch/log"
}

status=0
for way in receive deliver; do
  once=$(counted "$way" 1)
  often=$(counted "$way" $((passes + 1)))
  events=$(cat "$scratch/events") # of one pass
  each=$(((often - once) / passes / events))
  expected=$(sed -n "s/^$way //p" "$stored")
  echo "$way: $each instructions an event, $expected in dev/instructions.txt"
  case ${1:-} in
    --check)
      if [ $((each * 100)) -gt $((expected * (100 + percent))) ] || [ $((each * 100)) -lt $((expected * (100 - percent))) ]; then
        say "$way: more than $percent % off: make it cheaper again, or write the new count into dev/instructions.txt and say why"
        status=1
      fi
      ;;
    --profile) callgrind_annotate "$scratch/$way.$((passes + 1))" | sed -n 1,90p ;;
  esac
done
exit $status
