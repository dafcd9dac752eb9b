#!/bin/bash
# Installs the packages of test/deps/LIST.txt that are missing, through apt-get.
# usage: test/deps.sh LIST...
set -euo pipefail
cd "$(dirname "$0")/deps"

installed() {
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

wanted=$(for list in "$@"; do cat "$list.txt"; done | sort -u)

if ! command -v apt-get >/dev/null; then
	echo "deps: no apt-get here; what is needed, by its Debian names:" $wanted >&2
	exit 0
fi

missing=()
for package in $wanted; do
	installed "$package" || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
	if ! command -v sudo >/dev/null; then
		echo "deps: these packages are missing; as root, type:" >&2
		echo "    apt-get update && apt-get install --no-install-recommends ${missing[*]}" >&2
		exit 1
	fi
	as_root=(sudo)
fi

echo "deps: installing ${missing[*]}"
apt() {
	${as_root[@]+"${as_root[@]}"} env DEBIAN_FRONTEND=noninteractive apt-get -qq "$@"
}
apt update
apt install --yes --no-install-recommends "${missing[@]}" >/dev/null
