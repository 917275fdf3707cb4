#!/bin/bash
# Puts the sidecar on a machine, or takes it off: packaging/install.sh install|uninstall
#
#   PREFIX   where programs go (/usr/local)        DESTDIR  a folder that stands for / (none)
#   PYTHON   the interpreter it will run with (Debian's own, as it must be there on the machine that it is for)
#
# It gets a virtual environment of its own, so it shares no Python package with anything else. What is in /etc is
# never overwritten and never taken away.
set -euo pipefail
cd "$(dirname "$0")/.."
umask 022

PREFIX=${PREFIX:-/usr/local}
DESTDIR=${DESTDIR:-}
PYTHON=${PYTHON:-/usr/bin/python3}
HOME_IN=$PREFIX/lib/prosody-sidecar
UNITS=$PREFIX/lib/systemd/system
MODULES=${MODULES:-/usr/share/jitsi-meet/prosody-plugins}
DOC=$PREFIX/share/doc/prosody-sidecar
SHARE=$PREFIX/share/prosody-sidecar

say() { printf '%s\n' "$*"; }

make_environment() {
    "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || {
        say "$PYTHON cannot make virtual environments; type: apt-get install python3-venv" >&2
        exit 1
    }
    local home=$DESTDIR$HOME_IN
    rm -rf "$home"
    mkdir -p "$home"
    "$PYTHON" -m venv "$home"
    # Not in place, or setuptools would leave its folders in the sources.
    "$home/bin/python3" -m pip install --disable-pip-version-check -qq --no-compile "$(sources_apart)"
    "$home/bin/python3" -m pip uninstall --quiet --yes pip setuptools
    find "$home/bin" -type f ! -name prosody-sidecar -delete
    rm -rf "$home/include"
    sed -i "1s|.*|#!$HOME_IN/bin/python3|" "$home/bin/prosody-sidecar"
    sed -i "/^command/d" "$home/pyvenv.cfg"
    "$home/bin/python3" -m compileall -q -s "$DESTDIR" "$home/lib"
}

sources_apart() {
    sources=$(mktemp -d)
    cp -r sidecar setup.cfg pyproject.toml README.md LICENSE "$sources"
    find "$sources" -name __pycache__ -prune -exec rm -rf {} +
    printf '%s' "$sources"
}

put() { install -D -m 644 "$1" "$DESTDIR$2"; }

put_config() {
    local file=$DESTDIR/etc/prosody-sidecar/sidecar.yaml
    [ -e "$file" ] && return
    put config/minimal.yaml /etc/prosody-sidecar/sidecar.yaml
    sed -i "1s|schema=.*|schema=$SHARE/sidecar.schema.json|" "$file"
}

do_install() {
    make_environment
    mkdir -p "$DESTDIR$PREFIX/bin"
    ln -sf ../lib/prosody-sidecar/bin/prosody-sidecar "$DESTDIR$PREFIX/bin/prosody-sidecar"
    for unit in systemd/*; do
        put "$unit" "$UNITS/${unit##*/}"
    done
    sed -i -e "s|/usr/bin/prosody-sidecar|$PREFIX/bin/prosody-sidecar|; s|/usr/share/doc|$PREFIX/share/doc|" \
        "$DESTDIR$UNITS"/prosody-sidecar*.{service,socket}
    for file in lua/muc_webhook/*.lib.lua lua/mod_muc_webhook.lua; do
        put "$file" "$MODULES/${file#lua/}"
    done
    for file in config/*; do
        put "$file" "$DOC/examples/${file##*/}"
    done
    for file in README.md CHANGELOG.md LICENSE docs/*.md; do
        put "$file" "$DOC/${file##*/}"
    done
    put config/sidecar.schema.json "$SHARE/sidecar.schema.json"
    put_config
}

do_uninstall() {
    rm -rf "$DESTDIR$HOME_IN" "$DESTDIR$DOC" "$DESTDIR$SHARE"
    rm -f "$DESTDIR$PREFIX/bin/prosody-sidecar" "$DESTDIR$MODULES/mod_muc_webhook.lua"
    for unit in systemd/*; do
        rm -f "$DESTDIR$UNITS/${unit##*/}"
    done
    say "Taken away. What is yours stays: /etc/prosody-sidecar and /var/lib/private/prosody-sidecar."
}

sources=
trap 'rm -rf "$sources"' EXIT
case ${1:-} in
    install)
        do_install
        [ -n "$DESTDIR" ] || say "Installed. Next: the meeting service's address in /etc/prosody-sidecar/sidecar.yaml," \
            "the secret in /etc/prosody-sidecar/webhook-secret, then: systemctl enable --now prosody-sidecar"
        ;;
    uninstall) do_uninstall ;;
    *)
        say "packaging/install.sh install|uninstall" >&2
        exit 2
        ;;
esac
