# shellcheck shell=bash
# Sourced by test.sh: what `make faults` runs, on servers of its own.
#
# Then the suites of dead letters, limits and security, conservation runs, and what `make backlog` runs (backlog.sh). With
# TIMESCALEDB_COMMUNITY_ROOT the fault suite and the runs once more on that edition.
#
# PARTS="runs"     some of suite, others, runs, backlog; all by default
# RUNS=N           conservation runs, 100 by default
# SEED=N           seed of the first of them; drawn and printed if not given
# JSON=FILE        all their figures as JSON; of Community in FILE-community.json
# FAULT_ROUNDS=N   rounds of the crash loop, 3 by default
#
# Logs of replicas of runs that went wrong are kept in target/faults/.

check_faults() {
  export FAULT_ROUNDS=${FAULT_ROUNDS:-3}
  build_tests || return 0
  await_servers || return 0
  if wants suite; then run_tests "fault suite" "" --test faults; fi
  if wants others; then run_tests "dead letters, limits, security" "" --test system --test hostile --test e2e; fi
  if wants runs; then check_conservation "conservation runs" "${JSON:-}"; fi
  if wants backlog; then check_backlog; fi
  [ -n "${TIMESCALEDB_COMMUNITY_ROOT:-}" ] || return 0
  use_community
  if wants suite; then run_tests "fault suite on Community" " on Community" --test faults; fi
  if wants runs; then check_conservation "conservation runs on Community" "${JSON:+${JSON%.json}-community.json}"; fi
}

# Whether the caller wants this part.
wants() { case " ${PARTS:-suite others runs backlog} " in *" $1 "*) ;; *) return 1 ;; esac }

# check_conservation NAME JSON-FILE
check_conservation() {
  check "$1" env TMPDIR="$scratch/tmp" "$target/debug/log-faults" --runs "${RUNS:-100}" --logs "$target/faults" \
    ${SEED:+--seed "$SEED"} ${2:+--json "$2"} || true
}
