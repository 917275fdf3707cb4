#!/bin/bash
# Makes this machine ready for a purpose: tools/setup.sh unit|run|demo|browser|test|lint|crash|bench|boot|container ...
#
#   1. missing Debian packages are printed, with the reason, and installed; no service is started
#   2. the project and its tools are installed into .venv; again only when setup.cfg or the lock file changes
#   3. for `test` and `bench`, a second Prosody (13) in its own folder; for `test` and `browser`, lib-jitsi-meet;
#      for `test`, jitsi-meet's own sources
#
# If everything is installed, it prints nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin

# package | needed for | is it there? | why
PACKAGES='
python3          | unit run demo test lint crash bench | command -v python3            | runs the sidecar
python3-venv     | unit run demo test lint crash bench | python3 -c "import ensurepip, venv" | keeps the Python packages of this project to itself
ca-certificates  | unit run demo test lint crash bench | test -s /etc/ssl/certs/ca-certificates.crt | lets pip check the servers that it downloads from
curl             | run test                 | command -v curl                     | runs the commands in README.md
prosody          | demo test crash bench    | command -v prosody                  | the XMPP server for the module; comes with the Lua libraries that the module needs
lua-unbound      | demo test crash bench    | lua5.4 -l lunbound -v               | DNS for Prosody, which logs a warning without it
strace           | test                     | command -v strace                   | shows that an event is synced before it is acknowledged; simulates a slow disk
faketime         | test                     | ls /usr/lib/*/faketime/libfaketimeMT.so.1 | sets the wall clock of one process
lua-check        | test lint                | command -v luacheck                 | checks the module for mistakes
openssl          | unit test                | command -v openssl                  | makes certificates for the tests; comes with ca-certificates
systemd          | test                     | command -v systemd-analyze          | checks the systemd units
redis-server     | test                     | command -v redis-server             | the memory that several sidecars share
chromium         | test                     | command -v chromium                 | a real browser for the pages of the tests, without a window
nodejs           | test lint                | command -v node                     | runs the tests of the script in the page of Jitsi
node-typescript  | test lint                | command -v tsc                      | checks the types in that script
eslint           | test lint                | command -v eslint                   | checks that script for mistakes
libjs-jquery     | test browser             | test -e /usr/share/javascript/jquery/jquery.min.js | what lib-jitsi-meet needs in a page
npm              | test browser             | command -v npm                      | gets lib-jitsi-meet
prometheus       | test                     | command -v promtool                 | checks alerts and metrics; no Prometheus is started
wrk              | bench                    | command -v wrk                      | sends requests as fast as possible
nginx            | bench                    | command -v nginx                    | a caching proxy, compared with the sidecar
libnginx-mod-http-lua | bench               | test -e /usr/lib/nginx/modules/ngx_http_lua_module.so | reads the room and the user from a body in nginx
lua-cjson        | bench                    | ls /usr/lib/*/lua/5.1/cjson.so      | reads JSON in nginx
varnish          | bench                    | command -v varnishd                 | another caching proxy, compared with the sidecar
varnish-modules  | bench                    | ls /usr/lib/*/varnish/vmods/libvmod_bodyaccess.so | hashes request bodies in Varnish
systemd-container | boot                    | command -v systemd-nspawn           | boots a Debian to test the package
debootstrap      | boot container           | command -v debootstrap              | creates that Debian, and a base for the image
podman           | container                | command -v podman                   | builds the container image and runs it
runc             | container                | command -v runc                     | starts containers, also on machines with both kinds of cgroups
lintian          | boot                     | command -v lintian                  | checks the package
util-linux       | boot                     | command -v nsenter                  | runs commands in that Debian
'
debootstrap_line='
debootstrap      | test bench               | command -v debootstrap              | installs Prosody 13 into a folder, so that the module is tested on both versions
'
[ -f tools/prosody13.sh ] && PACKAGES+=$debootstrap_line

# The services that these packages would start, now and at every boot.
SERVICES=(prosody nginx varnish varnishncsa redis-server)

STATE=.cache/setup
LOG=$STATE/last.log
POLICY=/usr/sbin/policy-rc.d
SAVED_POLICY=$POLICY.before-prosody-sidecar
POLICY_MARK='# prosody-sidecar: nothing is started while its packages are installed'

say() { printf 'setup: %s\n' "$*"; }

fail() {
    printf 'setup: %s\n' "$@" >&2
    exit 1
}

usage() { fail "give a purpose: tools/setup.sh unit|run|demo|browser|test|lint|crash|bench|boot|container"; }

# Runs a command without its output. Prints a line every 10 seconds, and the output if the command fails.
quietly() {
    local what=$1 begun=$SECONDS pid rc=0
    shift
    say "$what ..."
    "$@" >"$LOG" 2>&1 </dev/null &
    pid=$!
    child=$pid
    while kill -0 "$pid" 2>/dev/null; do
        sleep 0.2
        if ((SECONDS - begun >= 10 && (SECONDS - begun) % 10 == 0 && SECONDS != ${last_line:-0})); then
            last_line=$SECONDS
            say "  running for $((SECONDS - begun)) s: $(tail -n 1 "$LOG" | tr '\r' '\n' | tail -n 1 | cut -c 1-80)"
        fi
    done
    wait "$pid" || rc=$?
    child=
    if ((rc)); then
        tail -n 25 "$LOG" | sed 's/^/    /' >&2
        return "$rc"
    fi
    say "  done in $((SECONDS - begun)) s"
}

# Ctrl-C ends pip. apt-get is not interrupted: packages would be half installed, and Prosody would be started.
child=
child_finishes=no
interrupted() {
    trap '' INT TERM HUP
    if [ -n "$child" ]; then
        if [ $child_finishes = yes ]; then
            say "interrupted; waiting until apt-get has finished"
        else
            kill "$child" 2>/dev/null || true
        fi
        wait "$child" || true
    fi
    exit 130
}
trap interrupted INT TERM HUP

trim() {
    local text=$1
    text=${text#"${text%%[![:space:]]*}"}
    printf '%s' "${text%"${text##*[![:space:]]}"}"
}

# Fills `missing` and prints each missing package with its reason.
find_missing() {
    local package purposes probe why purpose
    missing=()
    while IFS='|' read -r package purposes probe why; do
        package=$(trim "$package")
        [ -n "$package" ] || continue
        for purpose in "$@"; do
            [[ " $purposes " == *" $purpose "* ]] || continue
            if ! bash -c "$probe" >/dev/null 2>&1; then
                missing+=("$package")
                say "Debian package $package is missing: $(trim "$why")"
            fi
            break
        done
    done <<<"$PACKAGES"
}

become_root() {
    if [ "$(id -u)" = 0 ]; then
        as_root=(env)
    elif command -v sudo >/dev/null; then
        as_root=(sudo)
        sudo true || fail "sudo refused. As root, run:" "  apt-get install --no-install-recommends ${missing[*]}"
    else
        fail "Installing needs root, and sudo is not installed. As root, run:" \
            "  apt-get update && apt-get install --no-install-recommends ${missing[*]}" "then run this again."
    fi
}

# Debian starts a service when it is installed, unless this file forbids it.
forbid_starting() {
    if [ -e "$POLICY" ] && ! grep -qsF "$POLICY_MARK" "$POLICY"; then
        "${as_root[@]}" mv "$POLICY" "$SAVED_POLICY"
    fi
    printf '#!/bin/sh\n%s\nexit 101\n' "$POLICY_MARK" | "${as_root[@]}" tee "$POLICY" >/dev/null
    "${as_root[@]}" chmod 755 "$POLICY"
}

allow_starting() {
    if [ -e "$SAVED_POLICY" ]; then
        "${as_root[@]}" mv "$SAVED_POLICY" "$POLICY"
    elif grep -qsF "$POLICY_MARK" "$POLICY"; then
        "${as_root[@]}" rm -f "$POLICY"
    fi
}

apt() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 "$@"
}

known_to_apt() {
    local package
    for package in "$@"; do
        apt-cache show --no-all-versions "$package" >/dev/null 2>&1 || return 1
    done
}

# A service that is enabled would start at the next boot.
after_installing() {
    local service
    allow_starting
    for service in "${SERVICES[@]}"; do
        if [[ " $had " != *" $service "* ]] && [ -e "/etc/init.d/$service" ]; then
            "${as_root[@]}" update-rc.d "$service" disable >/dev/null 2>&1 || true
            say "$service is installed, but not started and not enabled; the tests start their own."
        fi
    done
}

install_missing() {
    local service
    had=
    command -v apt-get >/dev/null || fail "This is not a Debian machine. Install the packages above, then run this again."
    become_root
    for service in "${SERVICES[@]}"; do
        [ -e "/etc/init.d/$service" ] && had+=" $service"
    done
    trap after_installing EXIT
    child_finishes=yes
    forbid_starting
    if ! known_to_apt "${missing[@]}"; then
        quietly "apt-get update" apt update || fail "apt-get update failed (see above). Check that this machine is online."
    fi
    if ! quietly "apt-get install ${missing[*]}" apt install -y --no-install-recommends "${missing[@]}"; then
        say "trying again with new package lists"
        quietly "apt-get update" apt update || fail "apt-get update failed (see above). Check that this machine is online."
        quietly "apt-get install ${missing[*]}" apt install -y --no-install-recommends "${missing[@]}" ||
            fail "apt-get could not install ${missing[*]}; its last lines are above, its whole output is in $LOG."
    fi
    after_installing
    trap - EXIT
    child_finishes=no
}

make_venv() {
    local stamp=.venv/made-from made_from
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "Python 3.11 or later is needed, but this is $(python3 --version). Debian 12 has Python 3.11."
    made_from="$PWD $(python3 -c 'import sys; print(sys.executable, sys.version)') $(cat setup.cfg pyproject.toml packaging/requirements.lock | sha256sum)"
    [ -f $stamp ] && [ "$(cat $stamp)" = "$made_from" ] && return
    rm -f $stamp
    if ! .venv/bin/python -c 'import pip' 2>/dev/null || [ "$(cat .venv/home 2>/dev/null)" != "$PWD" ]; then
        rm -rf .venv
        quietly "making the virtual environment .venv" python3 -m venv .venv ||
            fail "python3 -m venv failed (see above). Remove .venv, then run this again."
        printf '%s' "$PWD" >.venv/home
    fi
    # The versions that the package contains, so that these are tested.
    sed -n 's/^\([a-z0-9-]*==[^ ]*\) .*/\1/p' packaging/requirements.lock >$STATE/versions
    quietly "pip install -e .[dev]: the project and its tools, into .venv" \
        .venv/bin/python -m pip install --disable-pip-version-check --progress-bar off \
        --constraint $STATE/versions -e '.[dev]' ||
        fail "pip failed (see above; whole output in $LOG). Check that this machine is online."
    printf '%s' "$made_from" >$stamp
    give_back .venv ./*.egg-info
}

# Files that were made with sudo belong to the user who ran sudo.
give_back() {
    if [ -n "${SUDO_UID:-}" ] && [ "$(id -u)" = 0 ]; then
        chown "$SUDO_UID:${SUDO_GID:-$SUDO_UID}" .cache
        chown -R "$SUDO_UID:${SUDO_GID:-$SUDO_UID}" "$@"
    fi
}

[ $# -gt 0 ] || usage
for purpose in "$@"; do
    case $purpose in
        unit | run | demo | browser | test | lint | crash | bench | boot | container) ;;
        *) usage ;;
    esac
done

mkdir -p $STATE
find_missing "$@"
if ((${#missing[@]})); then
    install_missing
    find_missing "$@" >/dev/null
    ((${#missing[@]} == 0)) || fail "${missing[*]}: installed, but not usable. Run 'apt-get check'."
fi
make_venv
if [[ " $* " =~ \ (test|bench)\  ]] && [ -f tools/prosody13.sh ]; then
    bash tools/prosody13.sh || say "Prosody 13 could not be installed (see above); its tests are skipped, with a message."
fi
if [[ " $* " =~ \ (test|browser)\  ]] && [ -f tools/lib-jitsi-meet.sh ]; then
    sh tools/lib-jitsi-meet.sh || say "lib-jitsi-meet could not be got (see above); the browser is not tested, and the tests say so."
fi
if [[ " $* " =~ \ test\  ]] && [ -f tools/jitsi-meet.sh ]; then
    sh tools/jitsi-meet.sh || say "jitsi-meet could not be got (see above); the script in its page is not tested with it."
fi
give_back $STATE
