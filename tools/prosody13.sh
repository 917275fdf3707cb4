#!/bin/sh
# Makes a chroot with Prosody 13.0 from Debian 13 in .cache/prosody13, for the tests; Debian 12 has 0.12 only.
#
# Takes about 40 seconds and 360 MB, once. It is made in a temporary folder and renamed when it is complete, so that an
# interrupted run leaves no incomplete chroot. Needs root. Exits 0 if the chroot is there afterwards.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
place="$root/.cache/prosody13"
mirror=${DEBIAN_MIRROR:-}

if [ -x "$place/usr/bin/prosody" ]; then
	exit 0
fi
if [ "$(id -u)" != 0 ]; then
	echo "prosody13: making a chroot needs root; Prosody 13.0 will not be tested" >&2
	exit 1
fi
if ! command -v debootstrap >/dev/null 2>&1; then
	echo "prosody13: installing debootstrap, which makes the chroot for Prosody 13.0"
	apt-get update -q >/dev/null
	DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -q --no-install-recommends debootstrap >/dev/null
fi

mkdir -p "$root/.cache"
work=$(mktemp -d "$root/.cache/prosody13.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP
chmod 755 "$work"

echo "prosody13: making a chroot of Debian 13 with Prosody 13.0 in .cache/prosody13 (about 40 s, 360 MB)"
log="$root/.cache/prosody13.log"
# shellcheck disable=SC2086  # no mirror means debootstrap's own
if ! debootstrap --variant=minbase trixie "$work" $mirror >"$log" 2>&1; then
	tail -n 5 "$log" >&2
	echo "prosody13: debootstrap failed (see .cache/prosody13.log); Prosody 13.0 will not be tested" >&2
	exit 1
fi

# Packages must not start a daemon in the chroot.
printf '#!/bin/sh\nexit 101\n' >"$work/usr/sbin/policy-rc.d"
chmod 755 "$work/usr/sbin/policy-rc.d"
if ! DEBIAN_FRONTEND=noninteractive chroot "$work" apt-get install -y -q --no-install-recommends prosody lua-unbound >>"$log" 2>&1; then
	tail -n 5 "$log" >&2
	echo "prosody13: installing Prosody 13.0 failed (see .cache/prosody13.log); it will not be tested" >&2
	exit 1
fi
rm -rf "$work"/var/cache/apt/archives/*.deb "$work"/var/lib/apt/lists/*

if [ -e "$place" ]; then # another run was faster, or there is an incomplete one
	[ -x "$place/usr/bin/prosody" ] && exit 0
	rm -rf "$place"
fi
mv -T "$work" "$place"
echo "prosody13: ready"
