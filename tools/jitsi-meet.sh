#!/bin/sh
# Gets jitsi-meet's own sources for tests/frontend, from npm's package for mobile apps: react/features of 13.2.0, into
# .cache/jitsi-meet-13.2.0 (10 MB). Exits 0 if they are there afterwards, with the expected content.
set -eu
tools=$(cd "$(dirname "$0")" && pwd)
. "$tools/npm-package.sh"

place="${tools%/*}/.cache/jitsi-meet-13.2.0"
package=@jitsi/react-native-sdk@13.2.0
digest=27b8ad4a8cbce4849cc5e0b895eb4eb684b7dd2a74b47e612d814762d1febf7590c0b8e06a7b969450a39436cbe64b3d79b1a154db02c8205d30bf6a0be4805b # SHA-512

[ ! -d "$place" ] || exit 0
get_from_npm jitsi-meet "$package" "$digest" "the script is not tested with it"
tar --extract --gzip --file "$tarball" package/react/features
mv package/react/features "$place"
