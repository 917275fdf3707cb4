#!/bin/bash
# Puts the sidecar and its module on a machine, or takes them off: packaging/install.sh install|module|uninstall
#
#   PREFIX   where programs go (/usr/local)        DESTDIR  a folder that stands for / (none)
#   MODULES  Prosody's plugin folder, as Jitsi has it by default; `module` touches nothing but that
#   PYTHON   the interpreter it will run with (Debian's own, as it must be there on the machine that it is for)
#
# It gets a virtual environment of its own, so it shares no Python package with anything else. What is in /etc is
# never overwritten and never taken away. Each file is put in place by rename, so that an interruption leaves the old
# file or the new one.
set -euo pipefail
cd "$(dirname "$0")/.."
umask 022

PREFIX=${PREFIX:-/usr/local}
DESTDIR=${DESTDIR:-}
PYTHON=${PYTHON:-/usr/bin/python3}
HOME_IN=$PREFIX/lib/prosody-sidecar
MODULES=${MODULES:-/usr/share/jitsi-meet/prosody-plugins}
DOC=$PREFIX/share/doc/prosody-sidecar
SHARE=$PREFIX/share/prosody-sidecar
case $PREFIX in
    /usr) UNITS=/usr/lib/systemd/system ;;
    *) UNITS=/usr/local/lib/systemd/system ;; # systemd looks nowhere below another prefix
esac
GROUPS_IN=${UNITS%/systemd/system}/sysusers.d
declare -A COMPLETIONS=(
    [bash]=$PREFIX/share/bash-completion/completions/prosody-sidecar
    [zsh]=$PREFIX/share/zsh/vendor-completions/_prosody-sidecar
    [fish]=$PREFIX/share/fish/vendor_completions.d/prosody-sidecar.fish
)
case $PREFIX in /usr) ;; *) COMPLETIONS[zsh]=$PREFIX/share/zsh/site-functions/_prosody-sidecar ;; esac
root=$DESTDIR
modules=$DESTDIR$MODULES
. packaging/module.sh

say() { printf '%s\n' "$*"; }

make_environment() {
    "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || {
        say "$PYTHON cannot make virtual environments; type: apt-get install python3-venv" >&2
        exit 1
    }
    # Made beside its place: the sidecar that runs needs the old one until the new one is whole.
    local home=$DESTDIR$HOME_IN.new
    rm -rf "$home" "$DESTDIR$HOME_IN.old"
    mkdir -p "$home"
    "$PYTHON" -m venv "$home"
    copy_sources
    install_packages "$home/bin/python3" --require-hashes --requirement packaging/requirements.lock
    install_packages "$home/bin/python3" --no-deps --no-build-isolation "$sources"
    "$home/bin/python3" -m pip uninstall --quiet --yes pip setuptools
    put_documents "$home/bin/python3"
    find "$home/bin" -type f ! -name prosody-sidecar -delete
    # These name the folders of this build, and nothing reads them.
    find "$home/lib" \( -name RECORD -o -name direct_url.json \) -path '*.dist-info/*' -delete
    rm -rf "$home/include" "$home/.gitignore"
    sed -i "1s|.*|#!$HOME_IN/bin/python3|" "$home/bin/prosody-sidecar"
    sed -i "/^command/d" "$home/pyvenv.cfg"
    # With the hash of the source and not its date, which would differ in each build.
    PYTHONHASHSEED=0 "$home/bin/python3" -m compileall -q -f --invalidation-mode checked-hash \
        -s "$home" -p "$HOME_IN" "$home/lib"
    if [ -e "$DESTDIR$HOME_IN" ]; then
        mv -T "$DESTDIR$HOME_IN" "$DESTDIR$HOME_IN.old"
    fi
    mv -T "$home" "$DESTDIR$HOME_IN"
    rm -rf "$DESTDIR$HOME_IN.old"
}

install_packages() { # PYTHON OPTIONS
    "$1" -m pip install --disable-pip-version-check -qq --no-compile "${@:2}"
}

# The man pages, the completion of the command in shells, and the licences, made by what they describe.
put_documents() { # PYTHON
    local made=$sources/made page
    mkdir -p "$made"
    "$1" -B -m tools.man "$made"
    for page in 1 5; do
        gzip -9n "$made/prosody-sidecar.$page"
        put "$made/prosody-sidecar.$page.gz" "$PREFIX/share/man/man$page/prosody-sidecar.$page.gz"
    done
    for shell in "${!COMPLETIONS[@]}"; do
        _PROSODY_SIDECAR_COMPLETE=${shell}_source "$1" -B "${1%/*}/prosody-sidecar" >"$made/completion"
        put "$made/completion" "${COMPLETIONS[$shell]}"
    done
    "$1" -B packaging/debian/copyright.py "$HOME_IN" >"$made/copyright"
    put "$made/copyright" "$DOC/copyright"
}

# Not in place, or setuptools would leave its folders in the sources.
copy_sources() {
    cp -r sidecar setup.cfg pyproject.toml README.md LICENSE "$sources"
    find "$sources" -name __pycache__ -prune -exec rm -rf {} +
}

put() { # FROM TO
    mkdir -p "$DESTDIR${2%/*}"
    put_whole "$1" "$DESTDIR$2"
}

# Those of a package name /usr/bin and /usr/share/doc.
put_units() {
    local unit
    for unit in systemd/*; do
        sed "s|/usr/bin/prosody-sidecar|$PREFIX/bin/prosody-sidecar|; s|/usr/share/doc|$PREFIX/share/doc|" \
            "$unit" >"$sources/unit"
        put "$sources/unit" "$UNITS/${unit##*/}"
    done
}

put_config() {
    local file=/etc/prosody-sidecar/sidecar.yaml
    [ -e "$DESTDIR$file" ] && return
    sed "1s|schema=.*|schema=$SHARE/sidecar.schema.json|; s|see sidecar.yaml|see $DOC/examples/sidecar.yaml|" \
        config/minimal.yaml >"$sources/config"
    put "$sources/config" $file
}

do_install() {
    local file
    make_environment
    mkdir -p "$DESTDIR$PREFIX/bin"
    ln -sfT ../lib/prosody-sidecar/bin/prosody-sidecar "$DESTDIR$PREFIX/bin/prosody-sidecar"
    put_units
    for file in config/*; do
        put "$file" "$DOC/examples/${file##*/}"
    done
    for file in README.md CHANGELOG.md docs/*.md; do
        put "$file" "$DOC/${file##*/}"
    done
    for file in docs/images/*.png docs/runbooks/*.md; do
        put "$file" "$DOC/${file#docs/}"
    done
    put config/sidecar.schema.json "$SHARE/sidecar.schema.json"
    put frontend/room-config.js "$SHARE/frontend/room-config.js"
    put packaging/prosody-sidecar.sysusers "$GROUPS_IN/prosody-sidecar.conf"
    if on_this_machine; then
        systemd-sysusers "$GROUPS_IN/prosody-sidecar.conf" || true # the group of the admin socket
    fi
    put_config
    put_module lua
}

do_uninstall() {
    local unit
    if on_this_machine; then
        (cd systemd && systemctl --quiet disable --now -- *) || true
    fi
    rm -rf "$DESTDIR$HOME_IN" "$DESTDIR$HOME_IN".{new,old} "$DESTDIR$DOC" "$DESTDIR$SHARE"
    rm -f "$DESTDIR$PREFIX/bin/prosody-sidecar" "$DESTDIR$GROUPS_IN/prosody-sidecar.conf" \
        "${COMPLETIONS[@]/#/$DESTDIR}" "$DESTDIR$PREFIX"/share/man/man[15]/prosody-sidecar.[15].gz
    for unit in systemd/*; do
        rm -f "$DESTDIR$UNITS/${unit##*/}"
    done
    if on_this_machine; then
        systemctl daemon-reload || true
    fi
    say "Taken away. What is yours stays: /etc/prosody-sidecar and /var/lib/private/prosody-sidecar."
    take_module
}

on_this_machine() { [ -z "$DESTDIR" ] && [ -d /run/systemd/system ]; }

sources=$(mktemp -d)
trap 'rm -rf "$sources"' EXIT
case ${1:-} in
    install)
        do_install
        [ -n "$DESTDIR" ] || say "Installed. Next: the meeting service's address in /etc/prosody-sidecar/sidecar.yaml," \
            "the secret in /etc/prosody-sidecar/webhook-secret, then: systemctl enable --now prosody-sidecar." \
            "If it runs already: systemctl daemon-reload && systemctl restart prosody-sidecar"
        say_how_to_load
        ;;
    module)
        put_module lua
        say_how_to_load
        ;;
    uninstall) do_uninstall ;;
    *)
        say "packaging/install.sh install|module|uninstall" >&2
        exit 2
        ;;
esac
