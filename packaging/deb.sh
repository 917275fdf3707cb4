#!/bin/bash
# Makes dist/prosody-sidecar_VERSION_ARCH.deb. It asks nothing and starts nothing: without the address of a meeting
# service there is nothing to start. An upgrade restarts the sidecar if it runs; its sockets stay open meanwhile.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-/usr/bin/python3}
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' sidecar/__init__.py)
arch=$(dpkg --print-architecture)
python=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
next=$("$PYTHON" -c 'import sys; print("%d.%d" % (sys.version_info[0], sys.version_info[1] + 1))')
deb=dist/prosody-sidecar_${version}_${arch}.deb

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
chmod 755 "$stage"
# postinst puts the module into Prosody's plugin folder; the reason is in module.sh.
PREFIX=/usr DESTDIR=$stage PYTHON=$PYTHON MODULES=/usr/share/prosody-sidecar/prosody-plugins packaging/install.sh install

mkdir -p "$stage/DEBIAN" dist
cat >"$stage/DEBIAN/control" <<CONTROL
Package: prosody-sidecar
Version: $version
Architecture: $arch
Maintainer: The prosody-sidecar authors <prosody-sidecar@localhost>
Section: net
Priority: optional
Installed-Size: $(du -sk "$stage" | cut -f 1)
Depends: python3 (>= $python), python3 (<< $next), libc6
Recommends: ca-certificates, prosody, systemd (>= 250)
Description: keeps Jitsi meetings open while the meeting service is away
 A daemon beside Prosody, and the Prosody module that asks it. When somebody
 joins, the module holds the join until the sidecar has an answer: may this
 user come in, and how is the room to be set up? The sidecar asks the meeting
 service, remembers what it said, and goes on answering rightly while the
 meeting service is slow, broken or gone.
CONTROL
echo /etc/prosody-sidecar/sidecar.yaml >"$stage/DEBIAN/conffiles"
for script in preinst postinst prerm postrm; do
    sed -e '/^\. packaging.module\.sh/ { r packaging/module.sh' -e 'd }' packaging/debian/$script >"$stage/DEBIAN/$script"
    chmod 755 "$stage/DEBIAN/$script"
done
(cd "$stage" && find etc usr -type f -print0 | sort -z | xargs -0 md5sum) >"$stage/DEBIAN/md5sums"
dpkg-deb --root-owner-group -Zgzip --build "$stage" "$deb" >/dev/null
echo "$deb"
