#!/bin/bash
# A newcomer's first hour in a fresh Debian: the README's commands word by word as an ordinary user
# with an empty home, then the newest release of every dependency.
#
#   tests/fresh/run.sh [PHASE…]      phases: features test odd newest (all by default)
#
# Needs root, debootstrap and unshare, and says so and ends well where one is missing. SUITE is
# Debian's stable release unless set, TESTS the tests of `make test` (all of them); TMPDIR holds the root (6 GB), which is removed at the end.
# Everything is mounted and started in namespaces of its own: however this script ends, the kernel
# unmounts and kills what is left.
set -euo pipefail

suite=${SUITE:-stable}
# This script's second half runs in its background, where a shell would have Ctrl-C ignored: a
# newcomer's terminal does not.
signals=--default-signal=INT,QUIT
source=$(cd "$(dirname "$0")/../.." && pwd)

main() {
  [ $# -gt 0 ] || set -- features test odd newest
  for phase in "$@"; do
    case $phase in features | odd | test | newest) ;; *)
      echo "test-fresh: no phase $phase: use features, test, odd, newest" >&2
      exit 2
    esac
  done
  [ "$(id -u)" = 0 ] || skip "only root can make a Debian root"
  command -v debootstrap >/dev/null || skip "debootstrap is not installed"
  unshare --mount --pid --fork true 2>/dev/null || skip "this system gives no namespaces"

  root=$(mktemp -d "${TMPDIR:-/tmp}/fresh-debian.XXXXXX")
  chmod 755 "$root"
  inside=
  trap clean_up EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child=KILL --propagation private \
    bash "$0" --inside "$root" "$@" &
  inside=$!
  wait "$inside" && inside=
}

clean_up() {
  if [ -n "$inside" ]; then
    kill -KILL "$inside" 2>/dev/null || true
    wait "$inside" 2>/dev/null || true
  fi
  rm -rf --one-file-system "$root"
}

skip() {
  echo "test-fresh: SKIPPED: $1"
  exit 0
}

# Below: in the namespaces.

inside() {
  root=$1
  shift
  step "debootstrap $suite with: $(packages)" make_root
  echo "      $(grep -oP '(?<=PRETTY_NAME=").*(?=")' "$root/etc/os-release"), $(as_user 'python3 --version')"
  for phase in "$@"; do "phase_$phase"; done
  echo "test-fresh: passed"
}

phase_features() {
  step "README: $(readme_command 1)" as_user "$(readme_command 1)"
  step "again: nothing to do" as_user "$(readme_command 1) 2>&1 | tee ~/again.txt && grep -qi 'nothing to do' ~/again.txt"
  all_pinned
  nothing_strange
}

# Machines and places that are not what a developer's are.
phase_odd() {
  as_user '[ -x .venv/bin/python ]' || step "make venv" as_user 'make venv'
  local frames='features --videos "$clips" --store s.zarr --backbone frames'
  local cnn='features --videos "$clips" --store s.zarr --backbone mobilenet --weights random'
  step "clips named with spaces and emoji" as_user '
    [ -d demo-clips ] || .venv/bin/pixels-once features --backbone frames --store frames.zarr
    mkdir -p "$HOME/my clips 😀/a b" && find demo-clips -name "*.mp4" | sort | head -n 6 |
      while read -r f; do cp "$f" "$HOME/my clips 😀/a b/é $(basename "$f")"; done'
  step "a user without a name and a home" in_odd 12345 "" "$cnn"
  mount --bind "$root/home/newcomer" "$root/home/newcomer"
  mount -o remount,ro,bind "$root/home/newcomer"
  step "a home that is read-only" in_odd newcomer "HOME=/home/newcomer" "$cnn"
  umount "$root/home/newcomer"
  step "the C locale" in_odd newcomer "HOME=/home/newcomer LC_ALL=C" "$frames"
  step "the POSIX locale, and Python kept from UTF-8" in_odd newcomer \
    "HOME=/home/newcomer LC_ALL=POSIX PYTHONCOERCECLOCALE=0 PYTHONUTF8=0" "$frames"
  step "one core" in_odd newcomer "HOME=/home/newcomer" "$cnn" "taskset -c 0"
  step "a checkout without git whose path has a space and an emoji" as_user '
    mkdir -p ~/"check out 😀" && cp -r [!.]* .ci .gitignore ~/"check out 😀"/ && cd ~/"check out 😀" &&
    rm -rf *.zarr demo-clips runs build *.egg-info && make features BACKBONE=frames && make show STORE=demo.zarr'
  nothing_strange
}

# in_odd USER VARIABLES COMMAND [PREFIX]: a command in an empty folder, with only these variables.
in_odd() {
  rm -rf "$root/tmp/odd" && mkdir -m 777 "$root/tmp/odd"
  chroot "$root" setpriv --reuid "$1" --regid "$1" --clear-groups \
    env -i $signals PATH=/usr/local/bin:/usr/bin:/bin $2 clips="/home/newcomer/my clips 😀" \
    bash -c "cd /tmp/odd && ${4:-} /home/newcomer/pixels-once/.venv/bin/pixels-once $3" </dev/null
}

phase_test() {
  step "README: $(readme_command 2)${TESTS:+, only $TESTS}" as_user "$(readme_command 2)${TESTS:+ ARGS=\"$TESTS\"}"
  all_pinned
  nothing_strange
}

phase_newest() {
  as_user '[ -x .venv/bin/python ]' || step "make venv" as_user 'make venv'
  as_user '.venv/bin/python -m pip freeze --exclude-editable | sort -f > ~/pinned.txt; rm -rf ~/.cache ~/.keras ~/.prefect'
  step "pip install --upgrade --upgrade-strategy eager" as_user \
    '.venv/bin/python -m pip install -q --upgrade --upgrade-strategy eager -e ".[cpu,s3]"'
  as_user '.venv/bin/python -m pip freeze --exclude-editable | sort -f > ~/newest.txt; diff ~/pinned.txt ~/newest.txt | grep "^[<>]" | sed "s/^/      /" || true'
  if as_user '[ -d demo.zarr ]'; then
    step "a store made with the pins is read, and has nothing to do" as_user \
      '.venv/bin/pixels-once verify --store demo.zarr && .venv/bin/pixels-once features 2>&1 | tee ~/again.txt && grep -qi "nothing to do" ~/again.txt'
  fi
  step "features" as_user '.venv/bin/pixels-once features --store newest.zarr'
  step "train" as_user '.venv/bin/pixels-once train --store newest.zarr --head gru --units 16 --epochs 2 --name newest'
  step "predict" as_user '.venv/bin/pixels-once predict --run runs/newest --video "$(find . -name "*.mp4" -path "*demo*" | sort | head -n 1)"'
  step "report" as_user '.venv/bin/pixels-once report --store newest.zarr --runs runs --out newest.html'
  step "verify" as_user '.venv/bin/pixels-once verify --store newest.zarr --sample 4'
  step "doctor" as_user '.venv/bin/pixels-once doctor --weights random'
  nothing_strange
}

# The README's own words: Debian's packages, and the commands of its first section.
packages() { grep -oP '(?<=apt install )[a-z0-9. -]+' "$source/README.md" | head -n 1; }
readme_command() {
  awk '/^## Two commands/ {here = 1} here && /^make / {sub(/ *#.*/, ""); print} /^## What/ {exit}' \
    "$source/README.md" | sed -n "${1}p"
}

make_root() {
  local mirror include
  # The mirror, name servers, certificates and package index that work here work there.
  mirror=$(grep -rhoP '^(URIs:|deb)\s+(\[.*\]\s+)?\Khttps?://\S+/debian/?(?=\s|$)' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null | head -n 1 || true)
  include=$(packages | tr ' ' ',')
  debootstrap --variant=minbase --include="ca-certificates,$include" "$suite" "$root" ${mirror:+"$mirror"} >"$root.log" 2>&1 ||
    { tail -n 20 "$root.log"; return 1; }
  rm -f "$root.log"
  cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
  [ ! -f /etc/ssl/certs/ca-certificates.crt ] || cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
  [ ! -f /etc/pip.conf ] || cp /etc/pip.conf "$root/etc/"
  mount -t proc proc "$root/proc"
  mount -t sysfs -o ro sysfs "$root/sys"
  mount --rbind /dev "$root/dev"
  # Its own, as a machine has: who uses what lies in it can only be told of processes that are seen here.
  mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
  chroot "$root" useradd --create-home --shell /bin/bash newcomer
  mkdir "$root/home/newcomer/pixels-once"
  # What git would give a newcomer: no caches, no environment, no store.
  git -C "$source" ls-files -z --cached --others --exclude-standard |
    tar -C "$source" --null --files-from=- --ignore-failed-read -c | tar -C "$root/home/newcomer/pixels-once" -x --no-same-owner
  chroot "$root" chown -R newcomer:newcomer /home/newcomer
  chmod 755 "$root/home/newcomer"
}

as_user() {
  local keep=() name certificates=/etc/ssl/certs/ca-certificates.crt
  for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY \
    PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST PIP_DEFAULT_TIMEOUT; do
    [ -z "${!name:-}" ] || keep+=("$name=${!name}")
  done
  for name in PIP_CERT SSL_CERT_FILE REQUESTS_CA_BUNDLE; do
    [ -z "${!name:-}" ] || keep+=("$name=$certificates")
  done
  chroot "$root" setpriv --reuid newcomer --regid newcomer --init-groups \
    env -i $signals HOME=/home/newcomer USER=newcomer PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8 "${keep[@]}" \
    bash -c "cd ~/pixels-once && $1" </dev/null
}

# What a run leaves in a home: caches that the docs name, and nothing that reports.
nothing_strange() {
  local found
  found=$(as_user 'ls -A ~ | grep -vxE "\.bash(_logout|rc)|\.profile|pixels-once|\.cache|\.keras|\.prefect|\.config|again\.txt|my clips 😀|check out 😀|(pinned|newest)\.txt"' || true)
  [ -z "$found" ] || { echo "test-fresh: FAILED: a run left in the home folder: $found" >&2; exit 1; }
}

# A package that constraints.txt does not name is another one tomorrow.
all_pinned() {
  local found
  found=$(as_user '
    names() { grep -o "^[A-Za-z0-9._-]*" | tr "_.A-Z" "--a-z" | sort -u; }
    comm -13 <(names < constraints.txt) <(.venv/bin/python -m pip freeze --exclude-editable | names)')
  [ -z "$found" ] || { echo "test-fresh: FAILED: not in constraints.txt:" $found >&2; exit 1; }
}

step() {
  local words=$1 begun=$SECONDS status=0
  shift
  echo "----- $words"
  "$@" || status=$?
  [ "$status" = 0 ] || { echo "test-fresh: FAILED (status $status) after $((SECONDS - begun)) s: $words" >&2; exit 1; }
  echo "----- done in $((SECONDS - begun)) s: $words"
}

if [ "${1:-}" = --inside ]; then
  shift
  trap 'exit 130' INT TERM
  inside "$@"
else
  main "$@"
fi
