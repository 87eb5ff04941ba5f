# shellcheck shell=bash
# Sourced by the commands that run others for long: whatever ends the command, by Ctrl-C, `kill` or a failure, ends all
# that it started. Each job has a process group of its own, so that a Ctrl-C comes to it once, from here.
jobs_started=()

# start_job COMMAND...: sets $job.
start_job() {
  setsid "$@" 9>&- &
  job=$!
  jobs_started+=("$job")
}

# run_job COMMAND...: waits for it; its exit status.
run_job() {
  start_job "$@"
  wait "$job"
}

# end_jobs [SECONDS]: asks every process group to end, and ends what has not after that time.
end_jobs() {
  local pid
  for pid in "${jobs_started[@]}"; do kill -TERM -- "-$pid" 2>/dev/null || true; done
  for pid in "${jobs_started[@]}"; do
    for _ in $(seq $((${1:-30} * 10))); do
      kill -0 -- "-$pid" 2>/dev/null || break
      sleep 0.1
    done
    kill -KILL -- "-$pid" 2>/dev/null || true
  done
  wait 2>/dev/null || true
  jobs_started=()
}

# on_any_end COMMAND: runs it once, whatever ends this script. A second signal does not wait for jobs that won't end.
on_any_end() {
  # shellcheck disable=SC2064  # its words are fixed here
  trap "trap '' HUP; trap 'end_jobs 0' INT TERM; $1" EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  trap 'exit 129' HUP
}
