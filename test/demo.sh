#!/bin/bash
# make demo, make demo-stop: a small pool with two clones of one base, mounted,
# and an ext4 file system on one of them, written through a loop device.
set -euo pipefail
cd "$(dirname "$0")/.."

top=$PWD
demo=${LEAFDISK_DEMO:-$top/build/demo}
pool=$demo/pool
mnt=$demo/mnt
guest=$demo/guest
cache=$demo/leaf.cache

say() { printf '\n# %s\n' "$*"; }
run() {
	printf '+ %s\n' "${*//"$top/"/}"
	"$@"
}

# Prints the devices whose file is in the mount.
loops() {
	losetup -l -n -O NAME,BACK-FILE 2>/dev/null | awk -v below="$mnt/" 'index($2, below) == 1 { print $1 }'
}

is_mounted() { awk -v path="$1" '$5 == path { found = 1 } END { exit !found }' /proc/self/mountinfo; }

daemon_runs() {
	local file

	for file in /proc/[0-9]*/cmdline; do
		if [ "$(tr '\0' ' ' 2>/dev/null <"$file")" = "build/leafdisk $pool $mnt -o cache=$cache,cache_size=256M " ]; then
			return 0
		fi
	done 2>/dev/null
	return 1
}

stop() {
	local device

	if is_mounted "$guest"; then
		run umount "$guest"
	fi
	for device in $(loops); do
		run losetup -d "$device"
		until [ -z "$(losetup -n -O BACK-FILE "$device" 2>/dev/null)" ]; do sleep 0.05; done
	done
	if is_mounted "$mnt"; then
		run fusermount3 -u "$mnt"
		while daemon_runs; do sleep 0.05; done
	fi
	if [ -d "$demo" ]; then
		run rm -rf --one-file-system "$demo"
	fi
}

make_pool() {
	say "A base image with a small file system, made from this project's headers"
	run mkdir -p "$pool" "$mnt" "$guest"
	run mke2fs -q -t ext4 -d "$top/include" "$pool/base.raw" 256M
	say "Two thin clones of it"
	run build/leafctl clone "$pool/base.raw" "$pool/web1.leaf" "$pool/web2.leaf"
	run ls -ls "$pool"
	say "The pool, mounted with a cache: every image is a raw disk"
	run build/leafdisk "$pool" "$mnt" -o "cache=$cache,cache_size=256M"
	run ls -l "$mnt"
}

use_loop() {
	local device

	say "A loop device on a clone, and its file system"
	run losetup --direct-io=on --show -f "$mnt/web1.img"
	device=$(loops | tail -n 1)
	run mount "$device" "$guest"
	run cp -r "$top/src" "$guest/src"
	run sync -f "$guest"
	run rm -r "$guest/src"
	run cp -r "$top/test" "$guest/test"
	run sync -f "$guest"
	say "What the guest has freed goes back to the pool"
	run fstrim -v "$guest"
	run sync -f "$guest"
	run df -h "$guest"
}

show() {
	say "The clone holds what was written and nothing else; the base is untouched"
	run ls -ls "$pool"
	run build/leafctl info "$pool/web1.leaf"
	run build/leafctl map --summary "$pool/web1.leaf"
	say "A snapshot of the disk while it runs, and a new disk on what it is now"
	run build/leafctl snapshot "$mnt/web1.img" installed
	run build/leafctl fork "$mnt/web1.img" web3
	run build/leafctl snapshots "$mnt"
	say "How the mount fares"
	run build/leafctl status "$mnt"
}

start() {
	if [ -e "$demo" ]; then
		say "What an earlier demo left is taken down first"
		stop
	fi
	make_pool
	if [ "$(id -u)" -eq 0 ]; then
		use_loop
	else
		say "Loop devices and mounting ext4 need root; as root, type:"
		echo "    losetup --direct-io=on --show -f $mnt/web1.img"
		echo "    mount /dev/loopN $guest"
		say "Without root a disk is written as a file"
		run dd if=/dev/urandom of="$mnt/web1.img" bs=4k count=16 seek=1000 conv=notrunc,fsync status=none
	fi
	show
	say "The pool stays mounted at ${mnt#"$top/"}"
	if is_mounted "$guest"; then
		echo "  the clone's file system is at ${guest#"$top/"}: write to it"
	fi
	echo "  the second clone is ${mnt#"$top/"}/web2.img"
	echo "  make demo-stop takes all of it down"
}

case "${1:-}" in
start) start ;;
stop) stop ;;
*)
	echo "usage: test/demo.sh start|stop" >&2
	exit 2
	;;
esac
