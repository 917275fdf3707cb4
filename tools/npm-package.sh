# shellcheck shell=sh
# Read by the scripts that get a package from npm: enters a folder beside $place that goes at the end, and leaves the
# package there as the file $tarball. Ends the script if the package cannot be got, or is another one.
#
#   get_from_npm NAME PACKAGE SHA-512 CONSEQUENCE

get_from_npm() {
	mkdir -p "${place%/*}"
	work=$(mktemp -d "$place.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	trap 'exit 1' INT TERM HUP
	cd "$work"
	echo "$1: getting $2 from npm"
	if ! tarball=$(npm pack --silent "$2" 2>npm.log); then
		tail -n 3 npm.log >&2
		echo "$1: npm could not get $2 (see above); $4" >&2
		exit 1
	fi
	if ! echo "$3  $tarball" | sha512sum --check --status; then
		echo "$1: $2 is not the one that was chosen: its SHA-512 differs; $4" >&2
		exit 1
	fi
}
