#!/usr/bin/env bash
# Makes a Debian root with PostgreSQL 17 and TimescaleDB (Apache edition) at $stack_dir/trixie, once. Needs root.
#
# For distributions that do not package TimescaleDB, as Debian 12. Nothing is mounted, nothing outside the folder is
# changed but that the package debootstrap is installed.
set -euo pipefail
# shellcheck source=dev/settings.sh
. "$(dirname "${BASH_SOURCE[0]}")/settings.sh"

root=$stack_dir/trixie
partial=$stack_dir/trixie.partial
log=$stack_dir/trixie.log
packages=(postgresql-17 postgresql-17-timescaledb)

in_root() {
  chroot "$partial" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
    http_proxy="${http_proxy:-}" https_proxy="${https_proxy:-}" "$@"
}

# The mirror that this machine's apt uses; empty where it has none of Debian's own, then debootstrap knows a default.
debian_mirror() {
  # shellcheck disable=SC2016  # apt's own variables
  apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
    sed -n 's,^Debian|Debian|\(https\{0\,1\}://.*\)$,\1,p' | head -n 1
}

apt_proxy() {
  local proxy=
  eval "$(apt-config shell proxy Acquire::http::Proxy)"
  [ -z "$proxy" ] || export http_proxy=$proxy
}

make_root() {
  local mirror
  mirror=$(debian_mirror)
  debootstrap --variant=minbase --force-check-gpg trixie "$partial" ${mirror:+"$mirror"}
  # Neither a running server of the package's own nor its data, and no pages to read.
  printf '#!/bin/sh\nexit 101\n' >"$partial/usr/sbin/policy-rc.d"
  chmod 755 "$partial/usr/sbin/policy-rc.d"
  mkdir -p "$partial/etc/postgresql-common"
  echo 'create_main_cluster = false' >"$partial/etc/postgresql-common/createcluster.conf"
  printf 'path-exclude=/usr/share/%s/*\n' doc man locale info >"$partial/etc/dpkg/dpkg.cfg.d/no-documentation"
  cp -L /etc/resolv.conf /etc/hosts "$partial/etc/"
  in_root apt-get update
  in_root apt-get install -y --no-install-recommends "${packages[@]}"
  in_root apt-get clean
  rm -rf "$partial"/var/lib/apt/lists/*
}

prepare() {
  [ ! -d "$root" ] || return 0
  am_root || die "TimescaleDB is not packaged for this distribution, and only root can make a Debian root with it:
  run as root, or give a server by DATABASE_URL (make run) or TEST_DATABASE_URL (make test), or start Docker"
  need debootstrap debootstrap
  apt_proxy
  say "making a Debian root with PostgreSQL 17 and TimescaleDB in $root (about 130 MB to download; log: $log)"
  remove_below "$stack_dir" "$partial"
  trap 'remove_below "$stack_dir" "$partial"' EXIT
  make_root >"$log" 2>&1 </dev/null || {
    tail -n 20 "$log" >&2
    die "the Debian root could not be made; all of it is in $log. Another way: give a server by DATABASE_URL or TEST_DATABASE_URL"
  }
  mv "$partial" "$root"
}

trap 'exit 143' TERM INT HUP
exec 8>"$stack_dir/trixie.lock"
flock 8
prepare 8>&-
