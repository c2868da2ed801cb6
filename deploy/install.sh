#!/bin/sh
# Installs parkwatt as a service, upgrades it, or takes it away again; `install.sh --help` says how.
#
# A release is a venv of its own in /opt/parkwatt/releases, and /opt/parkwatt/current a link to the one in use. A release
# is built whole and tried before anything else changes: whatever goes wrong, the old one goes on working.
set -eu
umask 022
unset PYTHONPATH PYTHONHOME # what they name would pass for installed

usage() {
  cat <<'END'
usage: install.sh [--extras LIST] [--from PATH] [--wheels DIR] [--python PROGRAM] [--root DIR] [--dry-run]
       install.sh --uninstall [--purge] [--root DIR] [--dry-run]

  --extras LIST     what it is installed with, comma-separated (default: cpu,can); "" for none
  --from PATH       parkwatt itself: a wheel, or its source tree (default: the tree that this script stands in)
  --wheels DIR      take every other package from this folder, and ask no package index
  --python PROGRAM  the interpreter, 3.11 or newer (default: python3)
  --root DIR        install into an image's root file system instead of this computer
  --uninstall       take it away; configuration, keys, store and user stay
  --purge           take those away, too
  --dry-run         say what would be done, and do nothing

It starts and restarts nothing, and leaves a file that you have edited as it is.
END
}

say() { echo "install.sh: $*"; }
fail() {
  echo "install.sh: $*" >&2
  exit 1
}

# act WORDS COMMAND...: says the words and, unless this is a dry run, runs the command
act() {
  say "${dry:+dry run: }$1"
  shift
  [ -n "$dry" ] || "$@"
}

here=$(cd "$(dirname "$0")" && pwd)
extras=cpu,can from=$here/.. wheels='' python=python3 root='' dry='' uninstall='' purge=''
while [ $# -gt 0 ]; do
  case $1 in
    --extras | --from | --wheels | --python | --root) [ $# -ge 2 ] || fail "$1 needs a value; see --help" ;;
  esac
  case $1 in
    --extras) extras=$2 && shift ;;
    --from) from=$2 && shift ;;
    --wheels) wheels=$2 && shift ;;
    --python) python=$2 && shift ;;
    --root) root=$2 && shift ;;
    --dry-run) dry=yes ;;
    --uninstall) uninstall=yes ;;
    --purge) purge=yes ;;
    -h | --help) usage && exit ;;
    *) fail "unknown option $1; see --help" ;;
  esac
  shift
done
[ -z "$purge" ] || [ -n "$uninstall" ] || fail "--purge goes with --uninstall"
if [ -n "$root" ]; then
  [ -d "$root" ] || fail "--root $root: no such folder"
  root=$(cd "$root" && pwd)
  [ "$root" != / ] || root=''
fi
[ -n "$root$dry" ] || [ "$(id -u)" = 0 ] || fail "must be run as root; or give --root DIR, for an image"

# places as the installed system sees them; here $root stands before them
home=/opt/parkwatt
releases=$home/releases
unit=/etc/systemd/system/parkwatt.service # its drop-ins lie in $unit.d, those that end in .conf count
sysusers=/etc/sysusers.d/parkwatt.conf
tmpfiles=/etc/tmpfiles.d/parkwatt.conf
config=/etc/parkwatt/agent.toml
store=/var/lib/parkwatt/agent.db
program=/usr/local/bin/parkwatt

manager() { [ -z "$root" ] && [ -d /run/systemd/system ]; } # whether there is one to tell

# --- a release ------------------------------------------------------------------------------------------------------

refuse_interpreter() {
  command -v "$python" >/dev/null || fail "--python $python: no such program"
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "--python $python is $("$python" --version); 3.11 or newer is needed"
  real=$("$python" -c 'import os, sys; print(os.path.realpath(sys.executable))')
  case $real in
    /root/* | /home/*) problem="$real lies in a home folder, which the service cannot see" ;;
    *) return 0 ;;
  esac
  [ -n "$root" ] || fail "--python $python: $problem; name one of the system's"
  say "warning: $problem, and the image needs an interpreter at that place; --python names another"
}

# sets $installer, an interpreter with pip: the given one, or a passing venv's; a release has no pip in it
find_installer() {
  installer=$python
  "$python" -I -m pip --version >/dev/null 2>&1 && return
  installer=$work/tools/bin/python
  "$python" -m venv "$work/tools" || fail "--python $python makes no venv; Debian: apt-get install python3-venv"
}

pip() { "$installer" -I -m pip --disable-pip-version-check --quiet "$@"; }
install_wheels() { pip "$@" ${wheels:+--no-index --find-links "$wheels"}; }

# sets $wheel, the file that is installed
find_wheel() {
  case $from in
    *.whl) wheel=$from ;;
    *)
      say "building a wheel from $from"
      pip wheel --no-deps --wheel-dir "$work" "$from"
      wheel=$(echo "$work"/parkwatt-*.whl)
      ;;
  esac
}

# its name says what is in it: the same wheel, versions, extras and interpreter are the same release
name_release() {
  digest=$({ cat "$wheel" "$constraints" && echo "$extras" && "$python" -VV && echo "$real"; } | sha256sum | cut -c1-12)
  release=$(basename "$wheel" | cut -d- -f2)-$digest
}

build_release() {
  say "building the release $release, with the extras: ${extras:-none}"
  building=$root$releases/.$release.building
  rm -rf "$building"
  mkdir -p "$root$releases"
  "$python" -m venv --without-pip "$building"
  install_wheels --python "$building/bin/python" install --no-compile --constraint "$constraints" \
    "$wheel${extras:+[$extras]}"
  move_names "$building" "$releases/$release"
  "$building/bin/python" -m compileall -q -s "$building" -p "$releases/$release" "$building/lib"
}

# a venv's programs hold the place that it was made in: they get the one that it will have
move_names() {
  "$python" - "$@" <<'END'
import pathlib
import sys

old, new = sys.argv[1:]
folder = pathlib.Path(old)
for file in (folder / "pyvenv.cfg", *(folder / "bin").iterdir()):
    if not file.is_symlink():
        file.write_bytes(file.read_bytes().replace(old.encode(), new.encode()))
END
}

# it must start, and go on with the configuration and the store that are there; an image has at most a store to look at
try_release() {
  if [ -n "$building" ]; then interpreter=$building/bin/python; else interpreter=$root$releases/$release/bin/python; fi
  if [ -z "$root" ] && [ -f "$config" ]; then set -- --config "$config"; else set -- --store "$root$store"; fi
  env -i PATH="$PATH" "$interpreter" -I -c 'import agent.serve'
  env -i PATH="$PATH" "$interpreter" -I -m agent.succession "$@" || fail "the release $release cannot go on with that"
}

keep_release() {
  [ -n "$building" ] || return 0
  mv -T "$building" "$root$releases/$release"
  building=''
}

# the old releases go, but for the one before and those whose agent still runs: it starts its workers from there
prune_releases() {
  for old in "$root$releases"/*; do
    [ -d "$old" ] || continue
    case releases/${old##*/} in "releases/$release" | "$(readlink "$root$home/previous")") continue ;; esac
    if grep -qsF "$old/" /proc/[0-9]*/maps; then
      say "kept: the release ${old##*/}, whose agent still runs"
    else
      act "removed: the release ${old##*/}" rm -rf "$old"
    fi
  done
}

# --- files ----------------------------------------------------------------------------------------------------------

# lay SOURCE TARGET MODE: one that somebody has edited stays, and a new one lies beside it as TARGET.new
lay() {
  target=$root$2 laid=$root$home/laid/$(basename "$1")
  if [ ! -e "$target" ]; then
    act "new: $2" install -D -m "$3" "$1" "$target"
  elif cmp -s "$1" "$target"; then
    say "unchanged: $2"
  elif cmp -s "$laid" "$target"; then
    act "replaced: $2" install -m "$3" "$1" "$target"
  elif cmp -s "$laid" "$1"; then
    say "kept: $2, which you have edited"
  else
    act "kept: $2, which you have edited; the new one is $2.new" install -m "$3" "$1" "$target.new"
  fi
  [ -n "$dry" ] || install -D -m 644 "$1" "$laid"
}

switch() {
  mkdir -p "${1%/*}"
  ln -sfn "$2" "$1.new"
  mv -T "$1.new" "$1"
}

# point LINK TO: in one step, so that there is always one that leads somewhere
point() {
  if [ "$(readlink "$root$1")" = "$2" ]; then
    say "unchanged: $1"
  elif [ -e "$root$1" ] && [ ! -L "$root$1" ]; then
    say "kept: $1, which is not ours"
  else
    act "link: $1 to $2" switch "$root$1" "$2"
  fi
}

lay_files() {
  lay "$here/parkwatt.service" $unit 644
  for example in "$here"/parkwatt.service.d/*.example; do
    [ ! -f "$example" ] || lay "$example" "$unit.d/${example##*/}" 644
  done
  lay "$here/parkwatt.sysusers.conf" $sysusers 644
  lay "$here/parkwatt.tmpfiles.conf" $tmpfiles 644
  lay "$here/agent.toml" $config 640
  if [ "$(id -u)" = 0 ]; then
    act "user: parkwatt" systemd-sysusers ${root:+--root="$root"} "$root$sysusers"
    act "folders: /etc/parkwatt, /var/lib/parkwatt, /var/cache/parkwatt" \
      systemd-tmpfiles --create ${root:+--root="$root"} "$root$tmpfiles"
  else
    say "not root: the image makes user and folders at its first boot (systemd-sysusers, systemd-tmpfiles)"
  fi
}

# --- what it is called for ------------------------------------------------------------------------------------------

finish() {
  status=$?
  rm -rf "$work" ${building:+"$building"}
  [ $status = 0 ] || echo "install.sh: failed; what was installed before works as before" >&2
}

set_up() {
  [ -e "$from" ] || fail "--from $from: no such file or folder"
  [ -z "$wheels" ] || [ -d "$wheels" ] || fail "--wheels $wheels: no such folder"
  refuse_interpreter
  work=$(mktemp -d) building=''
  trap finish EXIT
  trap 'exit 1' INT TERM
  constraints=$work/constraints.txt
  if [ -f "$here/../constraints.txt" ]; then cp "$here/../constraints.txt" "$constraints"; else : >"$constraints"; fi
  find_installer
  find_wheel
  name_release
  before=$(readlink "$root$home/current" || true)
  if [ -d "$root$releases/$release" ]; then
    say "unchanged: the release $release"
  elif [ -n "$dry" ]; then
    say "would build the release $release, with the extras: ${extras:-none}"
  else
    build_release
  fi
  [ -n "$dry" ] || try_release
  [ -n "$dry" ] || keep_release
  lay_files
  case $before in '' | "releases/$release") ;; *) point $home/previous "$before" ;; esac
  point $home/current "releases/$release"
  point $program $home/current/bin/parkwatt
  prune_releases
  tell_next_steps
}

tell_next_steps() {
  ! manager || act "systemctl daemon-reload" systemctl daemon-reload
  if manager && systemctl --quiet is-active parkwatt.service; then
    say "the agent that runs goes on with the release before, until: systemctl restart parkwatt"
  else
    say "next: edit $config, put public keys into ${config%/*}/keys, run"
    say "  parkwatt check --config $config"
    say "  systemctl enable --now parkwatt"
  fi
}

take_away() {
  if manager && [ -e $unit ]; then
    act "systemctl disable --now parkwatt" systemctl disable --now --quiet parkwatt.service
  fi
  for path in $unit $sysusers $tmpfiles $program $home /var/cache/parkwatt; do
    if [ -e "$root$path" ] || [ -L "$root$path" ]; then act "removed: $path" rm -rf "$root$path"; fi
  done
  if [ -d "$root$unit.d" ]; then
    act "removed: the examples in $unit.d" find "$root$unit.d" -name '*.example' -delete
    [ -n "$dry" ] || rmdir --ignore-fail-on-non-empty "$root$unit.d"
  fi
  if [ -z "$purge" ]; then
    say "kept: ${config%/*}, ${store%/*} and the user; --purge takes them away, with results that the fleet has not got"
  else
    act "removed: ${config%/*}, ${store%/*}" rm -rf "$root${config%/*}" "$root${store%/*}" "$root$unit.d"
    ! id_of_user || act "removed: the user parkwatt" userdel ${root:+--prefix "$root"} parkwatt
  fi
  ! manager || act "systemctl daemon-reload" systemctl daemon-reload
}

id_of_user() { [ "$(id -u)" = 0 ] && grep -q '^parkwatt:' "$root/etc/passwd"; }

if [ -n "$uninstall" ]; then take_away; else set_up; fi
