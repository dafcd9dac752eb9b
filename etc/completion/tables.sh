#!/bin/bash
# Prints the tables of the bash completion, as the programs tell them in --help.
# usage: etc/completion/tables.sh BUILD_DIR
set -euo pipefail
build=$1

# The indented lines of a --help below the line that begins with HEAD.
listed() { awk -v head="$1" '/^ / { if (inside) print; next } { inside = index($0, head) == 1 }'; }

verbs() { "$build/leafctl" --help | listed Verbs: | sed -E 's/^ +([a-z-]+( [a-z-]+)?)  .*/\1/'; }

# "-b=PARENT --parent=PARENT --json" of "    -b, --parent=PARENT   text" and "        --json   text".
options() {
	"$build/leafctl" $1 --help | listed Options: |
		sed -nE 's/^ +(-[a-zA-Z]), --([^ =]+)(=[^ ]+)?.*/\1\3 --\2\3/p; t; s/^ +(--[^ ]+).*/\1/p' | xargs
}

# mode=direct|persistent, cache=TEXT, ro and noro.
keys() {
	"$build/leafdisk" --help | listed Options | sed -nE 's/^    (\[no\])?([a-z_]+(=[^ ]+)?)  .*/\1\2/p' |
		sed -E 's/^\[no\](.*)/\1 no\1/' | xargs
}

# As a wrong one is refused.
formats() { "$build/leafctl" info --format= - 2>&1 | sed -nE 's/.* is not one of: ([a-z, ]*[a-z]).*/\1/p' | tr -d ,; }

echo '# The tables are made of what the programs say of themselves.'
echo 'declare -gA _leafctl_options=('
verbs | while read -r verb; do printf "\t['%s']='%s'\n" "$verb" "$(options "$verb")"; done
echo ')'
printf "_leafctl_formats='%s'\n_leafdisk_keys='%s'\n" "$(formats)" "$(keys)"
