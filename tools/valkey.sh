#!/bin/sh
# Makes a chroot with Valkey from Debian 13 in .cache/valkey, for the tests; Debian 12 has Redis only.
exec "$(dirname "$0")/debian13.sh" valkey valkey-server valkey-server
