#!/bin/sh
# Installs what Walkey's own commands need and this machine lacks. Quick and silent when nothing is missing.
#
#   setup.sh servers             a Postgres server and psql, and a Valkey server: for the local stack
#   setup.sh servers compiler    also a C compiler, which Go's race detector needs: for the tests
#   setup.sh … django            also Django with django-redis and psycopg, of the distribution's own Python: for the test beside it
#   setup.sh … bench             also wrk and gunicorn: for the benchmarks, together with django
#   setup.sh container           runc and certificate authorities, to run the image as a cluster confines it
#   setup.sh browser             Chromium, for the tests of the dashboard
#   setup.sh pooler              PgBouncer, for the one test that tells it apart from Postgres
#   setup.sh promtool            promtool, of Debian's package prometheus, for the test of the alerts
#
# It knows Debian 12 and 13, as root or with sudo. On Debian 12 Valkey is in the backports suite only, which is added from the mirror
# that serves the machine's own bookworm. The packages' services are neither started nor enabled, and no cluster is created: Walkey
# starts private servers of its own. What was on the machine before is left as it is.
set -eu

say() { printf 'setup: %s\n' "$*" >&2; }

# give_up REASON: the reason, and the way out.
give_up() {
	say "$1"
	say "way out: install it yourself (${wanted:-see CONTRIBUTING.md}), or name what you have:"
	say "  WALKEY_POSTGRES_BIN=/folder/of/postgres+initdb  WALKEY_VALKEY_BIN=/path/of/valkey-server"
	exit 1
}

# The same places and versions as internal/embedded looks at.
have_postgres() {
	if [ -n "${WALKEY_POSTGRES_BIN:-}" ]; then
		[ -x "$WALKEY_POSTGRES_BIN/postgres" ] && [ -x "$WALKEY_POSTGRES_BIN/initdb" ]
		return
	fi
	for major in 18 17 16 15 14; do
		for dir in "/usr/lib/postgresql/$major/bin" "/usr/pgsql-$major/bin"; do
			[ -x "$dir/postgres" ] && [ -x "$dir/initdb" ] && return 0
		done
	done
	version=$(postgres --version 2>/dev/null) || return 1
	case $version in
	*' 14'* | *' 15'* | *' 16'* | *' 17'* | *' 18'*) return 0 ;;
	esac
	return 1
}

have_psql() {
	command -v psql >/dev/null 2>&1 || [ -x "${WALKEY_POSTGRES_BIN:-/nowhere}/psql" ]
}

# A Redis from version 7 on can stand in for Valkey.
have_valkey() {
	if [ -n "${WALKEY_VALKEY_BIN:-}" ]; then
		command -v "$WALKEY_VALKEY_BIN" >/dev/null 2>&1
		return
	fi
	for dir in '' /usr/bin/ /usr/sbin/ /usr/local/bin/ /usr/local/sbin/; do
		command -v "${dir}valkey-server" >/dev/null 2>&1 && return 0
	done
	case $(redis-server --version 2>/dev/null) in
	*' v='[789].* | *' v='[1-9][0-9].*) return 0 ;;
	esac
	return 1
}

# Not only the program: the C library's headers are a package of their own.
have_compiler() {
	cc=${CC:-gcc}
	command -v "${cc%% *}" >/dev/null 2>&1 &&
		printf '#include <stdlib.h>\nint main(void) { return 0; }\n' | $cc -x c -o /dev/null - 2>/dev/null
}

# The names by which the tests look for it.
have_chromium() {
	if [ -n "${WALKEY_CHROMIUM:-}" ]; then
		command -v "$WALKEY_CHROMIUM" >/dev/null 2>&1
		return
	fi
	command -v chromium >/dev/null 2>&1 || command -v chromium-browser >/dev/null 2>&1 || command -v google-chrome >/dev/null 2>&1
}

# The distribution's Python, whatever other comes first in PATH: the packages are for that one.
have_django() {
	/usr/bin/python3 -c 'import django, django_redis, psycopg2' >/dev/null 2>&1
}

# find_missing sets wanted to the packages that are missing.
find_missing() {
	wanted=
	for part in "$@"; do
		case $part in
		servers)
			have_postgres || wanted="$wanted postgresql"
			have_psql || wanted="$wanted postgresql-client"
			have_valkey || wanted="$wanted valkey-server"
			;;
		container)
			[ -x /usr/sbin/runc ] || command -v runc >/dev/null 2>&1 || wanted="$wanted runc"
			[ -r /etc/ssl/certs/ca-certificates.crt ] || wanted="$wanted ca-certificates"
			;;
		pooler) [ -x /usr/sbin/pgbouncer ] || command -v pgbouncer >/dev/null 2>&1 || wanted="$wanted pgbouncer" ;;
		browser) have_chromium || wanted="$wanted chromium" ;;
		compiler) have_compiler || wanted="$wanted gcc libc6-dev" ;;
		bench)
			command -v wrk >/dev/null 2>&1 || wanted="$wanted wrk"
			/usr/bin/python3 -c 'import gunicorn' >/dev/null 2>&1 || wanted="$wanted gunicorn"
			;;
		django) have_django || wanted="$wanted python3-django python3-django-redis python3-psycopg2" ;;
		promtool) command -v promtool >/dev/null 2>&1 || wanted="$wanted prometheus" ;;
		*)
			say "unknown part: $part (servers, browser, compiler, django, bench, pooler, promtool)"
			exit 2
			;;
		esac
	done
	wanted=${wanted# }
}

# as_root COMMAND…: runs it as root.
as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	else
		sudo -- "$@"
	fi
}

# quietly COMMAND…: runs it as root and keeps its output for the case that it fails.
quietly() {
	as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 "$@" >>"$log" 2>&1 </dev/null
}

apt() { quietly apt-get -q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@"; }

show_log() { tail -n 15 "$log" | sed 's/^/    /' >&2; }

# The mirror that serves a suite's component main: "URI|file:place" of the first one that apt itself knows, wherever it is configured.
mirror_of() {
	# shellcheck disable=SC2016 # apt's own placeholders
	apt-get indextargets --format '$(REPO_URI)|$(SOURCESENTRY)|$(RELEASE)|$(CODENAME)|$(COMPONENT)' 'Identifier: Packages' 2>/dev/null |
		awk -F '|' -v suite="$1" '$5 == "main" && ($3 == suite || $4 == suite) { print $1 "|" $2; exit }'
}

# signed_by ENTRY URI: what the source at file:place that has this URI is signed by, as the rest of a Signed-By field: a path, or a key
# in the lines that follow. Empty when the source does not say.
signed_by() {
	file=${1%:*}
	case $file in
	*.sources)
		awk -v uri="${2%/}" '
			# exit runs END, which must not print it again.
			function done() { if (here && key != "" && !off && !printed) { printed = 1; printf "%s", key; exit } here = off = lines = 0; key = name = "" }
			/^#/ { next }
			/^[ \t]*$/ { done(); next }
			/^[^ \t]/ { name = tolower($0); sub(/[ \t]*:.*/, "", name) }
			{
				value = $0
				if (value !~ /^[ \t]/) sub(/^[^:]*:[ \t]*/, "", value)
				if (name == "uris") {
					n = split(value, list, /[ \t]+/)
					for (i = 1; i <= n; i++) { sub(/\/$/, "", list[i]); if (list[i] == uri) here = 1 }
				}
				if (name == "enabled" && tolower(value) ~ /^no/) off = 1
				if (name == "signed-by") key = (++lines == 1 ? "" : key "\n") value
			}
			END { done() }' "$file"
		;;
	*)
		sed -n "${1##*:}s/.*\\[[^]]*signed-by=\\([^] ]*\\).*/\\1/p" "$file" | tr ',' ' '
		;;
	esac
}

# add_backports adds the backports suite of this release to apt's sources, unless it is there.
add_backports() {
	suite=$1-backports
	[ -z "$(mirror_of "$suite")" ] || return 0
	source=$(mirror_of "$1")
	[ -n "$source" ] || give_up "apt's sources name no mirror that serves $1 main, so there is none to take $suite from"
	uri=${source%%|*}
	key=$(signed_by "${source#*|}" "$uri")
	eval "$(apt-config shell parts Dir::Etc::sourceparts/d)"
	# shellcheck disable=SC2154 # apt-config sets parts
	backports=${parts%/}/walkey-backports.sources
	say "adding $suite from $uri to apt's sources ($backports)"
	{
		printf '# Added by Walkey (deploy/local/setup.sh) for valkey-server, which %s itself does not have.\n' "$1"
		printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\n' "$uri" "$suite"
		[ -z "$key" ] || printf 'Signed-By: %s\n' "$key"
	} >"$scratch/backports"
	as_root install -m 644 "$scratch/backports" "$backports"
	# With a pinned priority of 100, apt's own for this suite, nothing else on the machine is taken from it.
	if ! apt update || ! apt-cache policy valkey-server 2>/dev/null | grep -q "$suite"; then
		show_log
		as_root rm -f "$backports"
		give_up "$uri does not serve $suite with valkey-server"
	fi
}

policy=/usr/sbin/policy-rc.d
no_cluster=/etc/postgresql-common/createcluster.d/walkey-setup.conf

# hold_services keeps the packages from starting their services on the default ports, and from creating a cluster that would be
# started with the machine.
hold_services() {
	"$policy" valkey-server start >/dev/null 2>&1 && status=0 || status=$?
	if [ "$status" != 101 ]; then
		[ ! -e "$policy" ] || as_root mv "$policy" "$policy.walkey-setup"
		printf '#!/bin/sh\nexit 101\n' >"$scratch/policy"
		as_root install -m 755 "$scratch/policy" "$policy"
		own_policy=1
	fi
	if [ ! -e "${no_cluster%/*}" ]; then
		as_root mkdir -p "${no_cluster%/*}"
	fi
	printf 'create_main_cluster = false\n' >"$scratch/cluster"
	as_root install -m 644 "$scratch/cluster" "$no_cluster"
}

# tidy undoes hold_services. It runs on every way out.
tidy() {
	if [ -n "${own_policy:-}" ]; then
		as_root rm -f "$policy"
		[ ! -e "$policy.walkey-setup" ] || as_root mv "$policy.walkey-setup" "$policy"
	fi
	[ ! -e "$no_cluster" ] || as_root rm -f "$no_cluster"
	rm -rf "$scratch"
}

# install_missing installs the packages in $wanted.
install_missing() {
	# shellcheck disable=SC1091
	[ -r /etc/os-release ] && . /etc/os-release
	case "${ID:-unknown} ${VERSION_ID:-}" in
	'debian 12' | 'debian 13') ;;
	*) give_up "missing: $wanted. This script can install it on Debian 12 and 13, not on ${PRETTY_NAME:-this system}" ;;
	esac
	[ "$(id -u)" = 0 ] || command -v sudo >/dev/null 2>&1 || give_up "missing: $wanted. Installing it takes root, and there is no sudo"

	scratch=$(mktemp -d)
	log=$scratch/log
	: >"$log"
	trap tidy EXIT
	trap 'exit 129' HUP
	trap 'exit 130' INT
	trap 'exit 143' TERM
	if [ "$(id -u)" != 0 ]; then
		sudo -v || give_up "missing: $wanted. sudo did not let this user install it"
	fi
	say "installing $wanted"
	packages=$wanted
	# A list of packages that can't be brought up to date may still be good enough.
	apt update || say "apt-get update failed; trying with the lists that are here"
	enabled=
	case " $wanted " in
	*' valkey-server '*)
		enabled=1
		if [ "$VERSION_ID" = 12 ]; then
			add_backports "$VERSION_CODENAME"
			suite=$VERSION_CODENAME-backports
			packages=$(printf '%s' " $wanted " | sed "s, valkey-server , valkey-server/$suite valkey-tools/$suite ,")
		fi
		;;
	esac
	hold_services
	# shellcheck disable=SC2086 # a list of words
	if ! apt install --no-install-recommends $packages; then
		show_log
		give_up "apt-get could not install $wanted"
	fi
	if [ -n "$enabled" ]; then
		quietly update-rc.d valkey-server disable || say "valkey-server is installed; its service could not be disabled"
	fi
	case " $wanted " in
	*' pgbouncer '*) quietly update-rc.d pgbouncer disable || say "pgbouncer is installed; its service could not be disabled" ;;
	esac
	case " $wanted " in
	*' prometheus '*) quietly update-rc.d prometheus disable || say "prometheus is installed; its service could not be disabled" ;;
	esac
	what="$*"
	find_missing "$@"
	[ -z "$wanted" ] || give_up "installed, but still not found: $wanted (for: $what)"
}

find_missing "$@"
[ -z "$wanted" ] || install_missing "$@"
