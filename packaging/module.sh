# shellcheck shell=sh
# Puts the module into Prosody's plugin folder, and takes it out again.
#
#   put_module    libraries first, the guard last, each by rename: an interruption leaves the old file or the new one
#   take_module   the guard stays while Prosody's configuration names the module, and then refuses every join
#
# Prosody goes on without a module whose file is missing, and its rooms are then open to all. This is why dpkg must not
# own the guard: it removes the files of a package that is not configured yet without asking any script first.
#
# install.sh reads this file, and deb.sh copies it into postinst and postrm, which cannot rely on files of the package.
# Whoever includes it sets `root` (empty, or a folder that stands for /) and `modules` (the plugin folder).

: "${root?}" "${modules?}"
guard=$modules/mod_muc_webhook.lua
kept=$guard.before-prosody-sidecar
configs=$root/etc/prosody
reload="prosodyctl shell \"module:reload('muc_webhook')\""

put_whole() { # FROM TO
    install -m 644 "$1" "$2.new"
    sync "$2.new"
    mv -fT "$2.new" "$2"
}

# The text that only 0.1.0's module has, or only later ones.
is_ours() { grep -qsE 'prosody-sidecar|^-- Asks a meeting service, over webhooks, who may join' "$guard"; }

# The public module has the same name.
keep_foreign() {
    if [ ! -e "$guard" ] || is_ours; then return 0; fi
    cmp -s "$guard" "$kept" || ln --backup=numbered -T "$guard" "$kept"
    was_foreign=yes
    echo "$guard was not this project's. It is kept as ${kept##*/}."
}

put_module() { # FROM
    mkdir -p "$modules/muc_webhook"
    keep_foreign
    for file in "$1"/muc_webhook/*.lib.lua; do
        put_whole "$file" "$modules/muc_webhook/${file##*/}"
    done
    put_whole "$1/mod_muc_webhook.lua" "$guard"
    for file in "$modules"/muc_webhook/*.lib.lua; do
        [ -e "$1/muc_webhook/${file##*/}" ] || rm -f "$file"
    done
    [ -n "$root" ] || echo "The module for Prosody is in $modules."
}

# What these files include, seen from their folder; a pattern stays a pattern.
included() { # FILES
    awk -v root="$root" '/Include|File(Line|Content)s?|dofile|loadfile/ {
        folder = FILENAME
        sub("/[^/]*$", "", folder)
        while (match($0, /"[^"]+"|\047[^\047]+\047|\[\[[^]]+]]/)) {
            name = substr($0, RSTART, RLENGTH)
            $0 = substr($0, RSTART + RLENGTH)
            gsub(/^(\[\[|.)|(]]|.)$/, "", name)
            print (name ~ "^/" ? root : folder "/") name
        }
    }' "$@"
}

# All files below Prosody's folder, whatever their names, and those that they include from elsewhere, one a line.
config_files() (
    IFS='
'
    found=$(find -L "$configs" -type f 2>/dev/null | sort)
    seen=
    while [ "$found" != "$seen" ]; do
        seen=$found
        # shellcheck disable=SC2046,SC2086  # patterns, to be expanded
        found=$(find -L $seen $(included $seen) -maxdepth 0 -type f 2>/dev/null | sort -u)
    done
    printf '%s\n' "$found"
)

# Where Prosody's configuration names the module. Only a line that is nothing but a comment does not count: it is
# better to keep a guard that nobody needs than to open the rooms.
naming_lines() (
    IFS='
'
    # shellcheck disable=SC2046
    grep -Hnaws muc_webhook $(config_files) /dev/null | grep -avE '^[^:]*:[0-9]+:[[:space:]]*--[^]]*$' || true
)

say_how_to_load() {
    [ -n "$(naming_lines)" ] || return 0
    if [ -n "${was_foreign:-}" ]; then
        echo "To load the module, set its options, then run: systemctl restart prosody"
    else
        echo "Prosody still runs the module that it has. To load this one, run: $reload"
        echo "To see whether it is in order:  prosodyctl shell \"muc_webhook:status()\""
    fi
}

take_module() {
    rm -f "$modules"/muc_webhook/*.lib.lua "$modules"/muc_webhook/*.lib.lua.new "$guard.new"
    named=$(naming_lines)
    if is_ours && [ -n "$named" ]; then
        cat <<STAYS
$guard stays and refuses every join,
because Prosody's configuration names muc_webhook. Without the file, Prosody would open all rooms to everybody.
To take it out, in this order:
  1. take muc_webhook, and muc_room_default_members_only if it is set, out of Prosody's configuration:
$(echo "$named" | sed 's/^/       /')
  2. run: systemctl restart prosody
  3. run: rm $guard
STAYS
    elif is_ours; then
        rm -f "$guard"
    fi
    for folder in "$modules/muc_webhook" "$modules" "${modules%/*}"; do
        [ ! -d "$folder" ] || [ -L "$folder" ] || rmdir --ignore-fail-on-non-empty "$folder"
    done
}
