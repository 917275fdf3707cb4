#!/bin/sh
# Makes a chroot of Debian 13 with some packages: tools/debian13.sh FOLDER PROGRAM PACKAGE...
#
# FOLDER is below .cache, and complete if it has /usr/bin/PROGRAM. Takes about 40 seconds and 360 MB, once. It is made
# in a temporary folder and renamed when it is complete, so that an interrupted run leaves no incomplete chroot. Needs
# root. Exits 0 if the chroot is there afterwards.
set -eu

name=$1 program=usr/bin/$2
shift 2
root=$(cd "$(dirname "$0")/.." && pwd)
place="$root/.cache/$name"
mirror=${DEBIAN_MIRROR:-}

if [ -x "$place/$program" ]; then
	exit 0
fi
if [ "$(id -u)" != 0 ]; then
	echo "$name: making a chroot needs root; $1 of Debian 13 will not be tested" >&2
	exit 1
fi
if ! command -v debootstrap >/dev/null 2>&1; then
	echo "$name: installing debootstrap, which makes the chroot"
	apt-get update -q >/dev/null
	DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -q --no-install-recommends debootstrap >/dev/null
fi

mkdir -p "$root/.cache"
work=$(mktemp -d "$root/.cache/$name.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP
chmod 755 "$work"

echo "$name: making a chroot of Debian 13 with $1 in .cache/$name (about 40 s, 360 MB)"
log="$root/.cache/$name.log"
# shellcheck disable=SC2086  # no mirror means debootstrap's own
if ! debootstrap --variant=minbase trixie "$work" $mirror >"$log" 2>&1; then
	tail -n 5 "$log" >&2
	echo "$name: debootstrap failed (see .cache/$name.log); $1 of Debian 13 will not be tested" >&2
	exit 1
fi

# Packages must not start a daemon in the chroot.
printf '#!/bin/sh\nexit 101\n' >"$work/usr/sbin/policy-rc.d"
chmod 755 "$work/usr/sbin/policy-rc.d"
if ! DEBIAN_FRONTEND=noninteractive chroot "$work" apt-get install -y -q --no-install-recommends "$@" >>"$log" 2>&1; then
	tail -n 5 "$log" >&2
	echo "$name: installing $1 failed (see .cache/$name.log); it will not be tested" >&2
	exit 1
fi
rm -rf "$work"/var/cache/apt/archives/*.deb "$work"/var/lib/apt/lists/*

if [ -e "$place" ]; then # another run was faster, or there is an incomplete one
	[ -x "$place/$program" ] && exit 0
	rm -rf "$place"
fi
mv -T "$work" "$place"
echo "$name: ready"
