#!/bin/sh
# own_mounts.sh DIRECTORY COMMAND...
# Runs COMMAND, in a mount namespace that was just made, without the FUSE mounts and loop devices that
# are not below DIRECTORY: those of tests that run beside could not end while it lasts. They go here alone: what
# is mounted elsewhere is made private first, with what it is mounted on.
directory=$1
shift

# Points that are neither below DIRECTORY nor on the way to it, the last one first.
others() {
	tac | while read -r point; do
		point=$(printf '%b' "$point")
		case $point/ in
		"$directory"/*) continue ;;
		esac
		case $directory/ in
		"$point"/* | /) continue ;;
		esac
		[ "$point" = / ] || printf '%s\n' "$point"
	done
}

awk '{ print $5 }' /proc/self/mountinfo | others | while read -r point; do
	mount --make-private "$point"
done 2>/dev/null
awk '{ for (i = 7; $i != "-"; i++); if ($(i + 1) ~ /^fuse/ || $(i + 2) ~ /^\/dev\/loop/) print $5 }' /proc/self/mountinfo |
	others | while read -r point; do
	umount -l "$point"
done 2>/dev/null
exec "$@"
