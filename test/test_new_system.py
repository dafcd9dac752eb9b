"""The Debian package in a system of its own, made for the test: for make torture, as it takes minutes."""
import contextlib
import glob
import json
import os
import re
import shutil

import pytest

from harness import TORTURE, TREE, run
from test_typed import PATH, blocks_of_page, blocks_of_readme, fstab_lines, groups, systemctl_lines, type_in

TREE_ROOT = "for top in dev proc sys; do mount --rbind /$top $1/$top; done\n"

PAGE = blocks_of_page()
DOCUMENTS = blocks_of_readme() + PAGE


def quoted(text):
    return "'" + text.replace("'", "'\\''") + "'"


def configured():
    """What the documents show as a line of fstab, and as a group of the configuration."""
    yield "mkdir /srv/pool /mnt/pool\nleafctl create /srv/pool/data.raw 1M\n"
    for line in fstab_lines(DOCUMENTS):
        user = "libvirt-qemu" if "uid=libvirt-qemu" in line else "root"
        yield f"""
id {user} || useradd --system --user-group {user}
echo {quoted(line)} >/etc/fstab
mount -a
mount -a
[ "$(stat -c %U:%G /mnt/pool/data.img)" = {user}:{user} ]
findmnt -t fuse.leafdisk /mnt/pool
leafctl umount /mnt/pool
"""
    for group in groups(DOCUMENTS):
        yield f"""
echo {quoted(group)} >/etc/leafdisk.conf
leafdisk /srv/pool
leafctl mode /mnt/pool/data.img | grep -x writeback
leafctl umount /mnt/pool
"""


# Its own processes, mounts and control groups; what it could change of the host's is read-only.
BOOT = """
set -e
mount --bind "$1" "$1"
cd "$1"
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,ro,bind proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty fuse; do
	touch dev/$device
	mount --bind /dev/$device dev/$device
done
ln -s /proc/self/fd dev/fd
mkdir dev/shm dev/pts
mount -t tmpfs tmpfs run
pivot_root . mnt
umount -l /mnt
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd
"""

UNIT = """
[Unit]
SuccessAction=poweroff
FailureAction=poweroff
[Service]
Type=oneshot
ExecStart=/bin/bash -ex /root/session
StandardOutput=append:/root/said
"""

# Nothing is written back before it has to be.
LAZY = "max_dirty_age=86400,migrate_idle_ms=60000"
WRITE = """
dd if=/dev/urandom of=/mnt/pool/web1.img bs=1M count=8 conv=notrunc,fsync
grep -x 'dirty_bytes: 8388608' /mnt/pool/.leafdisk/disks/web1.img/state
"""
# The service: seen by others, stopped when the pool has everything; and it is in use at the shutdown.
SERVICE = f"""
mkdir -p /srv/pool /mnt/pool /ssd
leafctl create /srv/pool/web1.leaf 64M
cat >/etc/leafdisk.conf <<END
{groups(PAGE)[0]}
{LAZY.replace(",", chr(10))}
END
{chr(10).join(systemctl_lines(PAGE, "leafdisk"))}
{WRITE}
journalctl --no-pager -u leafdisk@srv-pool.service | grep mounted
[ -z "$(journalctl --no-pager -u leafdisk@srv-pool.service | grep capabilities)" ]
systemctl stop leafdisk@srv-pool.service
leafctl cache info --json /ssd/pool.cache | grep '"dirty_blocks" : 0'
systemctl start leafdisk@srv-pool.service
{WRITE}
before=$(md5sum </mnt/pool/web1.img)
kill -9 "$(cat /mnt/pool/.leafdisk/pid)"
timeout 60 bash -c 'until [ -f /mnt/pool/web1.img ]; do sleep 0.1; done'
systemctl is-active leafdisk@srv-pool.service
[ "$(md5sum </mnt/pool/web1.img)" = "$before" ]
{WRITE}
echo done
"""
# It is there at the next boot by itself. Then a line of fstab takes its place.
FSTAB = f"""
timeout 60 bash -c 'until [ -f /mnt/pool/web1.img ]; do sleep 0.1; done'
systemctl disable --now leafdisk@srv-pool.service
rm /etc/leafdisk.conf
echo '{fstab_lines(PAGE)[0].replace(",_netdev", "," + LAZY)}' >/etc/fstab
systemctl daemon-reload
{chr(10).join(systemctl_lines(PAGE, "leafdisk-drain"))}
{WRITE}
systemctl stop leafdisk-drain@mnt-pool.service
grep -x 'dirty_bytes: 0' /mnt/pool/.leafdisk/disks/web1.img/state
systemctl start leafdisk-drain@mnt-pool.service
{WRITE}
echo done
"""


def archive():
    """The distribution's own name and the address of its packages, as this system has them."""
    with open("/etc/os-release", encoding="utf-8") as file:
        name = re.search(r"^VERSION_CODENAME=(\w+)", file.read(), re.M).group(1)
    targets = run("apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI)", "Created-By: Packages").stdout
    return name, next(line.split()[1] for line in targets.splitlines() if line.split()[0] == name)


def make_system(root):
    name, mirror = archive()
    run("debootstrap", "--variant=minbase", "--include=e2fsprogs,mount,systemd-sysv", name, root, mirror, timeout=3600)
    shutil.copy("/etc/resolv.conf", os.path.join(root, "etc", "resolv.conf"))


def in_system(root, *command):
    return run("chroot", root, *command, timeout=3600, env={"DEBIAN_FRONTEND": "noninteractive", "PATH": PATH})


def install_package(root):
    run("make", "-C", TREE, "deb", env={"MAKEFLAGS": ""}, timeout=3600)
    package = glob.glob(os.path.join(TREE, "build", "deb", "leafdisk_*.deb"))[0]
    shutil.copy(package, os.path.join(root, "leafdisk.deb"))
    in_system(root, "apt-get", "install", "--yes", "--no-install-recommends", "/leafdisk.deb")


@contextlib.contextmanager
def control_group(name):
    with open("/proc/mounts", encoding="ascii") as file:
        top = next(line.split()[1] for line in file if line.split()[2] == "cgroup2")
    path = os.path.join(top, name)
    os.mkdir(path)
    try:
        yield path
    finally:
        for directory, _, _ in os.walk(path, topdown=False):
            os.rmdir(directory)


def boot(root, work, session):
    """Starts the system, which types SESSION and shuts down; what is only in the cache is in the pool then."""
    units = os.path.join(root, "etc", "systemd", "system")
    for path, text in ((os.path.join(root, "root", "session"), session), (os.path.join(units, "try.service"), UNIT)):
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    said_path = os.path.join(root, "root", "said")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(said_path)
    wanted = os.path.join(units, "multi-user.target.wants")
    os.makedirs(wanted, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.symlink("../try.service", os.path.join(wanted, "try.service"))
    with control_group(os.path.basename(work)) as group:
        run("bash", "-c", 'echo $$ >"$1/cgroup.procs"; exec unshare --fork --pid --mount --uts --ipc --cgroup '
            '--propagation private --kill-child bash -c "$2" bash "$3"', "bash", group, BOOT, root, check=False)
    with open(said_path, encoding="utf-8") as file:
        said = file.read()
    assert said.endswith("done\n"), said
    cache = json.loads(in_system(root, "leafctl", "cache", "info", "--json", "/ssd/pool.cache").stdout)
    assert [layer["dirty_blocks"] for layer in cache["layers"]] == [0]


@pytest.mark.skipif(not TORTURE, reason="builds a package and a system: make torture")
def test_package_in_a_new_system(work):
    """It is installed, does what the documents say, starts with the system, and loses nothing at its end."""
    root = os.path.join(work, "root")
    make_system(root)
    install_package(root)
    for blocks in (blocks_of_readme(), PAGE, configured()):
        type_in(root, TREE_ROOT, blocks)
    for name in ("etc/fstab", "etc/leafdisk.conf", "srv/pool/data.raw", "ssd/pool.cache"):
        os.unlink(os.path.join(root, name))
    for session in (SERVICE, FSTAB):
        boot(root, work, session)
    in_system(root, "dpkg", "--purge", "leafdisk")
