#!/bin/sh
# Gets lib-jitsi-meet for tests/browser from npm: 2.1.5 of 2020, into .cache/lib-jitsi-meet-2.1.5.js. Jitsi publishes
# newer ones only with its packages. Exits 0 if it is there afterwards, with the expected content.
set -eu
tools=$(cd "$(dirname "$0")" && pwd)
. "$tools/npm-package.sh"

place="${tools%/*}/.cache/lib-jitsi-meet-2.1.5.js"
package=lib-jitsi-meet-dist@2.1.5
file=package/dist/lib-jitsi-meet.min.js
digest=ed558180ed54206cb88d2065a92e1272221e9f406abce0b1282e62fefc70befbb3973625a419b79db343bb1973ca43842385099c4180060cdb1bff204bb857de # SHA-512

[ ! -s "$place" ] || exit 0
get_from_npm lib-jitsi-meet "$package" "$digest" "the browser will not be tested"
tar --extract --gzip --to-stdout --file "$tarball" "$file" >found.js
mv found.js "$place"
