# shellcheck shell=bash
# Sourced by test.sh: what `make faults` runs, on servers of its own.
#
# RUNS=N           conservation runs, 100 by default
# SEED=N           seed of the first of them; drawn and printed if not given
# JSON=FILE        all their figures as JSON
# FAULT_ROUNDS=N   rounds of the crash loop, 3 by default
#
# Logs of replicas of runs that went wrong are kept in target/faults/.

check_faults() {
  local conservation=("$target/debug/log-faults" --runs "${RUNS:-100}" --logs "$target/faults"
    ${SEED:+--seed "$SEED"} ${JSON:+--json "$JSON"})
  export FAULT_ROUNDS=${FAULT_ROUNDS:-3}
  build_tests || return 0
  await_servers || return 0
  run_tests "fault suite" "" --test faults
  check "conservation runs" env TMPDIR="$scratch/tmp" "${conservation[@]}" || true
}
