# shellcheck shell=bash
# Sourced by the scripts of this folder: where things lie, and the few words that all of them use.
umask 022
PATH=$PATH:/usr/sbin:/sbin # debootstrap and chroot, also for a root without a login shell

say() { printf '%s\n' "$*" >&2; }
die() {
  say "error: $*"
  exit 1
}
am_root() { [ "$(id -u)" = 0 ]; }

# Whether the user that servers run as can come to a folder: a checkout below /root or in a `mktemp -d` is closed to it.
open_to_servers() {
  ! am_root || setpriv --reuid=nobody --regid="$(id -gn nobody)" --clear-groups test -x "$1"
}

# Sets $stack_dir. It may be shared by checkouts: downloads lie there once, data once for each checkout.
choose_stack_dir() {
  stack_dir=${LOG_WRITER_STACK_DIR:-$checkout/.stack}
  if [ -z "${LOG_WRITER_STACK_DIR:-}" ] && ! open_to_servers "$checkout"; then
    stack_dir=/var/tmp/log-writer-service
  fi
  [ ! -L "$stack_dir" ] || stack_dir=$(readlink -f "$stack_dir")
  mkdir -p "$stack_dir"
  stack_dir=$(cd "$stack_dir" && pwd -P)
  # Whoever owns the folder decides what runs from it.
  [ -O "$stack_dir" ] || die "$stack_dir belongs to another user: set LOG_WRITER_STACK_DIR to a folder of your own"
  case $stack_dir in / | /home | /root | /usr | /var | /tmp | /var/tmp | "$checkout" | "$HOME")
    die "LOG_WRITER_STACK_DIR must be a folder of its own, not $stack_dir" ;;
  esac
  open_to_servers "$stack_dir" || die "the user nobody cannot come to $stack_dir: set LOG_WRITER_STACK_DIR to a folder that is open to it"
}

# Installs packages of the distribution; only root can.
apt_install() {
  local log=$stack_dir/apt.log install=(apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=300)
  say "installing with apt: $*"
  export DEBIAN_FRONTEND=noninteractive
  "${install[@]}" "$@" >"$log" 2>&1 || { apt-get update && "${install[@]}" "$@"; } >>"$log" 2>&1 || {
    tail -n 20 "$log" >&2
    die "apt could not install $*"
  }
}

# need COMMAND PACKAGE: the command is there, or comes with the package.
need() {
  command -v "$1" >/dev/null && return
  if ! am_root || ! command -v apt-get >/dev/null; then die "the command '$1' is missing: install the package $2"; fi
  apt_install "$2"
}

port_is_taken() { (exec 3<>"/dev/tcp/${2:-127.0.0.1}/$1") 2>/dev/null; }

# Below the ports that the kernel gives to clients, so that none of them takes it before the server does.
free_port() {
  local port
  for _ in $(seq 100); do
    port=$((20000 + RANDOM % 12000))
    port_is_taken "$port" || { echo "$port"; return; }
  done
  die "no free port found"
}

# field NAME FILE: the value of a line `NAME=value`.
field() { sed -n "s/^$1=//p" "$2"; }

# Whether the locked file is held by a process that lives: the kernel gives a lock back however its owner dies.
is_locked() { [ -e "$1" ] && ! flock -n "$1" true; }

# remove_below PARENT PATH: `rm -rf`, but never outside of the parent, through a link, or over something mounted.
remove_below() {
  [ -e "$2" ] || return 0
  local path
  path=$(readlink -f "$2")
  case $path in "$(readlink -f "$1")"/?*) ;; *) die "will not remove $path: it is not below $1" ;; esac
  ! grep -qF " $path/" /proc/mounts || die "will not remove $path: something is mounted below it"
  rm -rf --one-file-system "$path"
}

# wait_for_end PID SECONDS: whether the process ended in that time.
wait_for_end() {
  for _ in $(seq $(($2 * 10))); do
    kill -0 "$1" 2>/dev/null || return 0
    sleep 0.1
  done
  return 1
}

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# shellcheck disable=SC2034  # used by those that source this file
dev=$checkout/dev
# Two checkouts that share a stack folder differ by this name.
# shellcheck disable=SC2034
checkout_name=checkout-$(printf %s "$checkout" | cksum | cut -d ' ' -f 1)
choose_stack_dir
