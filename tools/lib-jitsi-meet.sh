#!/bin/sh
# Gets lib-jitsi-meet for tests/browser from npm: 2.1.5 of 2020, into .cache/lib-jitsi-meet-2.1.5.js. Jitsi publishes
# newer ones only with its packages. Exits 0 if it is there afterwards, with the expected content.
set -eu

place="$(cd "$(dirname "$0")/.." && pwd)/.cache/lib-jitsi-meet-2.1.5.js"
package=lib-jitsi-meet-dist@2.1.5
file=package/dist/lib-jitsi-meet.min.js
digest=ed558180ed54206cb88d2065a92e1272221e9f406abce0b1282e62fefc70befbb3973625a419b79db343bb1973ca43842385099c4180060cdb1bff204bb857de # SHA-512

[ ! -s "$place" ] || exit 0
mkdir -p "${place%/*}"
work=$(mktemp -d "$place.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP
cd "$work"
echo "lib-jitsi-meet: getting $package from npm"
if ! tarball=$(npm pack --silent "$package" 2>npm.log); then
	tail -n 3 npm.log >&2
	echo "lib-jitsi-meet: npm could not get $package (see above); the browser will not be tested" >&2
	exit 1
fi
if ! echo "$digest  $tarball" | sha512sum --check --status; then
	echo "lib-jitsi-meet: $package is not the one that was chosen: its SHA-512 differs. The browser will not be tested" >&2
	exit 1
fi
tar --extract --gzip --to-stdout --file "$tarball" "$file" >found.js
mv found.js "$place"
