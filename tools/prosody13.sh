#!/bin/sh
# Makes a chroot with Prosody 13.0 from Debian 13 in .cache/prosody13, for the tests; Debian 12 has 0.12 only.
exec "$(dirname "$0")/debian13.sh" prosody13 prosody prosody lua-unbound
