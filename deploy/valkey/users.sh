#!/bin/sh
# Prints the ACL file that users.acl is a template of:
#
#   API_PASSWORD=… INVALIDATOR_PASSWORD=… sh users.sh > /etc/valkey/users.acl
#
# Each may be given as X_FILE, a file that holds it. Only hashes are printed. OPERATOR_PASSWORD is optional: without it, or when its file is
# not there, there is no walkey_operator.
set -eu

# hash NAME: the SHA-256 of the password in the variable NAME, or in the file that NAME_FILE names.
hash() {
	eval "value=\${$1:-} file=\${$1_FILE:-}"
	[ -z "$file" ] || value=$(cat "$file")
	if [ -z "$value" ]; then
		echo "users.sh: $1 is not set, and neither is $1_FILE" >&2
		exit 1
	fi
	printf %s "$value" | sha256sum | cut -d ' ' -f 1
}

api=$(hash API_PASSWORD)
invalidator=$(hash INVALIDATOR_PASSWORD)
operator=
if [ -n "${OPERATOR_PASSWORD:-}" ] || [ -e "${OPERATOR_PASSWORD_FILE:-}" ]; then
	operator=$(hash OPERATOR_PASSWORD)
fi
sed -e '/^#/d' -e '/^$/d' ${operator:+-e "s/@OPERATOR_PASSWORD_SHA256@/$operator/"} -e '/@OPERATOR_PASSWORD_SHA256@/d' \
	-e "s/@API_PASSWORD_SHA256@/$api/" -e "s/@INVALIDATOR_PASSWORD_SHA256@/$invalidator/" "$(dirname "$0")/users.acl"
