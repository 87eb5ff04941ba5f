#!/usr/bin/env bash
# A private PostgreSQL server with TimescaleDB, without Docker.
#
#   timescaledb.sh prepare                      finds or installs the software; prints root=
#   timescaledb.sh start --name NAME [--root ROOT] [--port PORT] [--database NAME] [--set key=value]...
#                                               prints pid=, port=, url=, log=, root=; a running one is left as it is
#   timescaledb.sh stop --name NAME [--root ROOT] [--now] [--remove]
#   timescaledb.sh status --name NAME [--root ROOT]   prints the same as start, or fails
#
# --root ROOT     a root to run it in by chroot, with PostgreSQL and TimescaleDB as Debian lays them out; / is this
#                 machine's own. Default: what `prepare` finds
# --now           without a shutdown checkpoint: for data that is thrown away
# --remove        the data too
#
# Where the software comes from: this machine's packages; else apt; else a Debian root (timescaledb-root.sh).
# The server runs as `postgres` (or the caller, if not root), on loopback only, and lets in who comes from there
# without a password.
set -euo pipefail
# shellcheck source=dev/settings.sh
. "$(dirname "${BASH_SOURCE[0]}")/settings.sh"

name='' root='' port='' database=postgres now=no remove=no settings=()

parse_arguments() {
  action=${1:-}
  shift || true
  while [ $# -gt 0 ]; do
    case $1 in
      --name) name=$2; shift 2 ;;
      --root) root=$2; shift 2 ;;
      --port) port=$2; shift 2 ;;
      --database) database=$2; shift 2 ;;
      --set) settings+=("$2"); shift 2 ;;
      --now) now=yes; shift ;;
      --remove) remove=yes; shift ;;
      *) die "unknown argument: $1" ;;
    esac
  done
}

# The newest PostgreSQL with TimescaleDB in a root; prints its folder as seen from inside.
postgres_home() {
  local library
  library=$(find "${1%/}/usr/lib/postgresql" -maxdepth 3 -path '*/lib/timescaledb.so' 2>/dev/null | sort -V | tail -n 1)
  [ -n "$library" ] || return 1
  library=${library#"${1%/}"}
  echo "${library%/lib/timescaledb.so}"
}

# Prints the package of this distribution, if there is one; PostgreSQL 15 is the oldest that the service takes.
packaged() {
  apt-cache search --names-only '^postgresql-[0-9]+-timescaledb$' 2>/dev/null | cut -d ' ' -f 1 |
    awk -F - '$2 >= 15' | sort -V | tail -n 1
}

# Sets $root.
prepare() {
  local package
  if postgres_home / >/dev/null; then root=/; return; fi
  if [ ! -d "$stack_dir/trixie" ] && am_root && command -v apt-get >/dev/null; then
    package=$(packaged)
    if [ -n "$package" ]; then
      # The package would start a server of its own on port 5432.
      if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
        apt_install postgresql-common
        sed -i 's/^#\?create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf
      fi
      apt_install "${package%-timescaledb}" "$package"
      root=/
      return
    fi
  fi
  "$dev/timescaledb-root.sh"
  root=$stack_dir/trixie
}

# Where a cluster lies: `place` as the server sees it, `base` as we see it.
locate() {
  [[ $name =~ ^[a-z0-9][a-z0-9.-]*$ ]] || die "--name must be of a-z, 0-9, dot and hyphen, not '$name'"
  if [ -z "$root" ]; then
    if postgres_home / >/dev/null; then root=/; else root=$stack_dir/trixie; fi
  fi
  if [ "$root" = / ]; then
    parent=$stack_dir/postgres place=$stack_dir/postgres/$name base=$place
  else
    # Without the root there is nothing to stop either.
    [ ! -d "$root" ] || root=$(cd "$root" && pwd -P)
    parent=$root/srv/log-writer place=/srv/log-writer/$name base=$root/srv/log-writer/$name
  fi
}

# Sets the command that runs another as the server's user, with nothing of our environment.
choose_user() {
  local clean=(env -i PATH=/usr/bin:/bin LC_ALL=C.UTF-8)
  if [ "$root" != / ]; then
    am_root || die "only root can run a server inside $root"
    as_postgres=(chroot --userspec=postgres:postgres "$root" "${clean[@]}")
  elif am_root; then
    as_postgres=(setpriv --reuid=postgres --regid=postgres --init-groups "${clean[@]}")
  else
    as_postgres=("${clean[@]}")
  fi
}

# Prints the pid, if the process is this cluster's: pids are given again.
running_pid() {
  local pid
  pid=$(head -n 1 "$base/data/postmaster.pid" 2>/dev/null) || return 1
  grep -qxF "$place/data" <(tr '\0' '\n' 2>/dev/null <"/proc/$pid/cmdline") || return 1
  [ "$(readlink "/proc/$pid/root")" = "$root" ] || return 1
  echo "$pid"
}

make_cluster() {
  local home=$1 owner
  if [ -e "$base/data/PG_VERSION" ]; then
    [ "$(cat "$base/data/PG_VERSION")" = "${home##*/}" ] ||
      die "$base holds data of PostgreSQL $(cat "$base/data/PG_VERSION"), but ${home##*/} is installed: 'make clean-stack' removes it"
    return
  fi
  remove_below "$parent" "$base" # half of an initdb
  mkdir -p "$base"
  if am_root; then
    owner=$(awk -F : '$1 == "postgres" { print $3 ":" $4 }' "$root/etc/passwd")
    chown "$owner" "$base"
  fi
  "${as_postgres[@]}" "$home/bin/initdb" -D "$place/data" -U postgres --auth=trust --encoding=UTF8 --locale=C.UTF-8 \
    >"$base/initdb.log" 2>&1 </dev/null || {
    tail -n 20 "$base/initdb.log" >&2
    die "initdb failed in $base"
  }
  echo "include_if_exists = 'log-writer.conf'" >>"$base/data/postgresql.conf"
}

write_settings() {
  local line
  {
    printf '%s = %s\n' \
      listen_addresses "'127.0.0.1'" port "$port" unix_socket_directories "''" \
      shared_preload_libraries "'timescaledb'" timescaledb.telemetry_level off \
      max_worker_processes 24 shared_buffers 256MB max_wal_size 4GB wal_compression lz4 jit off \
      log_checkpoints off log_line_prefix "'%m [%p] %q%a '"
    for line in "${settings[@]}"; do printf "%s = '%s'\n" "${line%%=*}" "${line#*=}"; done
  } >"$base/data/log-writer.conf"
}

report() {
  printf "%s\n" "pid=$1" "port=$port" "url=postgres://postgres@127.0.0.1:$port/$database" "log=$base/log" "root=$root"
}

start() {
  local pid home
  [ -n "$root" ] || prepare
  locate
  choose_user
  home=$(postgres_home "$root") || die "no PostgreSQL with TimescaleDB in $root"
  if pid=$(running_pid); then
    port=$(sed -n 's/^port = //p' "$base/data/log-writer.conf")
    report "$pid"
    return
  fi
  make_cluster "$home"
  if [ -n "$port" ]; then
    ! port_is_taken "$port" || die "port $port, wanted for PostgreSQL, is taken"
  else
    # The port of the last time, if it is free: clients keep their settings.
    port=$(sed -n 's/^port = //p' "$base/data/log-writer.conf" 2>/dev/null || true)
    if [ -z "$port" ] || port_is_taken "$port"; then port=$(free_port); fi
  fi
  write_settings
  # In a session of its own: a Ctrl-C for its starter is none for the server.
  setsid "${as_postgres[@]}" "$home/bin/pg_ctl" -D "$place/data" -l "$place/log" -t 120 -w start \
    >"$base/start.log" 2>&1 </dev/null 8>&- 9>&- || {
    tail -n 20 "$base/start.log" "$base/log" >&2
    die "PostgreSQL did not start; its log is $base/log"
  }
  make_database "$home"
  report "$(running_pid)"
}

make_database() {
  local psql=("${as_postgres[@]}" "$1/bin/psql" -X -h 127.0.0.1 -p "$port" -U postgres -d postgres -v ON_ERROR_STOP=1 -qAt)
  [ "$database" != postgres ] || return 0
  [ "$("${psql[@]}" -c "select 1 from pg_database where datname = '$database'" </dev/null)" = 1 ] ||
    "${psql[@]}" -c "create database \"$database\"" </dev/null
}

stop() {
  local pid signal=INT
  locate
  [ $now = no ] || signal=QUIT
  if pid=$(running_pid); then
    kill -"$signal" "$pid"
    wait_for_end "$pid" 60 || { kill -QUIT "$pid"; wait_for_end "$pid" 10 || kill -KILL "$pid"; }
  fi
  [ $remove = no ] || remove_below "$parent" "$base"
}

status() {
  local pid
  locate
  pid=$(running_pid) || return 1
  port=$(sed -n 's/^port = //p' "$base/data/log-writer.conf")
  report "$pid"
}

parse_arguments "$@"
case $action in
  prepare) prepare; echo "root=$root" ;;
  start | stop | status) "$action" ;;
  *) die "prepare, start, stop or status" ;;
esac
