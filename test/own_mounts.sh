#!/bin/sh
# own_mounts.sh DIRECTORY COMMAND...
# Runs COMMAND, in a mount namespace that was just made, without the FUSE mounts and loop devices that
# are not below DIRECTORY: those of tests that run beside could not end while it lasts.
directory=$1
shift
awk '{ for (i = 7; $i != "-"; i++); if ($(i + 1) ~ /^fuse/ || $(i + 2) ~ /^\/dev\/loop/) print $5 }' /proc/self/mountinfo |
	tac | while read -r point; do
	point=$(printf '%b' "$point")
	case $point in
	/ | "$directory"/*) ;;
	*) mount --make-private "$point" && umount -l "$point" ;;
	esac
done 2>/dev/null
exec "$@"
