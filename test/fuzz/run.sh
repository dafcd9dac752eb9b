#!/bin/bash
# Runs a fuzz target on a corpus of small images or caches made here.
# usage: test/fuzz/run.sh TARGET SECONDS
set -euo pipefail
target=$1
seconds=$2
corpus=build/fuzz/corpus/$(basename "$target")
work=$(mktemp -d /dev/shm/leafdisk-fuzz.XXXXXX)
trap 'rm -rf "$work"' EXIT
mkdir -p "$corpus" build/fuzz/findings

make_images() {
	head -c 300001 /dev/urandom >"$work/data.raw"
	build/leafctl create -c 64K "$work/empty.leaf" 1M
	build/leafctl create -c 64K "$work/large.leaf" 4T
	build/leafctl create -c 64K -b "$work/empty.leaf" "$work/child.leaf"
	build/leafctl convert "$work/data.raw" "$work/data.leaf"
	for name in batch far drops owed; do
		build/leafctl create -c 64K "$work/$name.leaf" 1M
		"${PYTHON:-/usr/bin/python3}" test/fuzz/seed_leaf.py "$work/$name.leaf" "$name"
	done
	rm "$work/data.raw"
}

case $(basename "$target") in
fuzz_leaf) make_images ;;
fuzz_cache) "${PYTHON:-/usr/bin/python3}" test/fuzz/seed_cache.py "$work" ;;
esac
for seed in "$work"/*; do
	"${PYTHON:-/usr/bin/python3}" test/fuzz/pack.py "$seed" "$corpus/$(basename "$seed")"
done

LEAFDISK_FUZZ_DIR=$work "$target" -max_total_time="$seconds" -max_len=65536 -timeout=100 -rss_limit_mb=4096 \
	-print_final_stats=1 -artifact_prefix=build/fuzz/findings/ "$corpus"
