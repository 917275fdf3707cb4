#!/bin/bash
# Makes dist/prosody-sidecar_VERSION+pyX.Y_ARCH.deb, for the Debian whose Python is X.Y. It asks nothing and starts
# nothing: without the address of a meeting service there is nothing to start.
#
# Two builds of a commit, with the same Debian, are the same bytes. SOURCE_DATE_EPOCH, by default the date of the
# commit, is the date of all files.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-/usr/bin/python3}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
MAINTAINER=${MAINTAINER:-The prosody-sidecar authors <prosody-sidecar@localhost>}
export PYTHON SOURCE_DATE_EPOCH
arch=$(dpkg --print-architecture)
python=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
next=$("$PYTHON" -c 'import sys; print("%d.%d" % (sys.version_info[0], sys.version_info[1] + 1))')
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' sidecar/__init__.py)+py$python
deb=dist/prosody-sidecar_${version}_${arch}.deb

stage=$(mktemp -d)
mkdir -p dist
made=$(mktemp -d -p dist) # of this build alone, and on the same file system as the package
trap 'rm -rf "$stage" "$made"' EXIT
chmod 755 "$stage"
# postinst puts the module into Prosody's plugin folder; the reason is in module.sh. It writes the config too, if there
# is none: dpkg owns no file that an administrator edits, and so it never asks about one.
PREFIX=/usr DESTDIR=$stage MODULES=/usr/share/prosody-sidecar/prosody-plugins packaging/install.sh install
mv -T "$stage/etc/prosody-sidecar/sidecar.yaml" "$stage/usr/share/prosody-sidecar/sidecar.yaml"
rm -r "$stage/etc"
"$PYTHON" -B packaging/debian/changelog.py "$version" "$SOURCE_DATE_EPOCH" "$MAINTAINER" |
    gzip -9n >"$stage/usr/share/doc/prosody-sidecar/changelog.gz"
install -Dm 644 packaging/debian/lintian-overrides "$stage/usr/share/lintian/overrides/prosody-sidecar"

mkdir -p "$stage/DEBIAN"
cat >"$stage/DEBIAN/control" <<CONTROL
Package: prosody-sidecar
Version: $version
Architecture: $arch
Maintainer: $MAINTAINER
Section: net
Priority: optional
Installed-Size: $(find "$stage/usr" -printf '%y %s\n' | awk '{ n += $1 == "f" ? int(($2 + 1023) / 1024) : 1 } END { print n }')
Depends: python3 (>= $python~), python3 (<< $next~), libc6
Recommends: ca-certificates, prosody, systemd (>= 250)
Description: keeps Jitsi meetings open while the meeting service is away
 A daemon beside Prosody, and the Prosody module that asks it. When somebody
 joins, the module holds the join until the sidecar has an answer: may this
 user come in, and how is the room to be set up? The sidecar asks the meeting
 service, caches the answers, and continues to answer while the meeting
 service is slow or down.
CONTROL
for script in preinst postinst prerm postrm; do
    sed -e '/^\. packaging.module\.sh/ { r packaging/module.sh' -e 'd }' packaging/debian/$script >"$stage/DEBIAN/$script"
    chmod 755 "$stage/DEBIAN/$script"
done
(cd "$stage" && find usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum) >"$stage/DEBIAN/md5sums"
find "$stage" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
dpkg-deb --root-owner-group -Zgzip --build "$stage" "$made/deb" >/dev/null
mv -f "$made/deb" "$deb"
echo "$deb"
