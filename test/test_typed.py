"""What README.md and leafdisk(7) tell people to type works as it stands, in a tree where nothing is."""
import os
import re
import shutil

import pytest

import cleanup
from harness import MOUNT_VARIABLE, TREE, apart, program, run, wait_until

# What needs a booted system, a guest, or all of the build.
NOT_TYPED = ("make", "qemu-system-x86_64", "systemctl", "virsh")
# A configuration file, a line of fstab, XML.
NO_COMMANDS = "[/<"

WRITTEN = ("srv", "mnt", "ssd", "backup", "root")
# The directories of this system, but for these.
OWN_ROOT = """
for top in /*; do
	case $top in
	/@WRITTEN@|/lost+found) ;;
	*)
		if [ -L "$top" ]; then
			cp -P "$top" "$1"
		elif [ -d "$top" ]; then
			mkdir -p "$1$top"
			mount --rbind "$top" "$1$top"
		fi ;;
	esac
done
""".replace("@WRITTEN@", "|/".join(WRITTEN))

PATH = "/programs:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# When a line fails nothing stays of what it held.
SHELL = """
cd /root
export HOME=/root
failed() {
	umount /mnt/web1 2>/dev/null
	[ "$(losetup -n -O BACK-FILE "${loop-}" 2>/dev/null)" != /mnt/pool/web1.img ] || losetup -d "$loop"
}
trap failed ERR
set -exo pipefail
"""


def text_of(*names):
    with open(os.path.join(TREE, *names), encoding="utf-8") as file:
        return file.read()


def blocks_of_readme():
    text = text_of("README.md").split("## Try it")[1]
    return [re.sub("^    ", "", block, flags=re.M) for block in re.findall(r"(?:(?:^    .*)?\n)+", text, re.M)]


def blocks_of_page():
    return re.findall(r"^\.Bd -literal[^\n]*\n(.*?)^\.Ed", text_of("man", "leafdisk.7"), re.M | re.S)


def fstab_lines(blocks):
    return [block.strip("\n") for block in blocks if re.match(r"\n*/\S+  /", block)]


def groups(blocks):
    """Of the configuration file."""
    return [block.strip("\n") for block in blocks if re.match(r"\n*\[pool ", block)]


def systemctl_lines(blocks, unit):
    return [line for block in blocks for line in block.splitlines() if re.match(rf"systemctl .* {unit}@", line)]


def typed(blocks):
    commands = [block.strip("\n") for block in blocks if block.strip() and block.strip()[0] not in NO_COMMANDS]
    lines = "\n".join(commands).splitlines()
    return "".join(f"{line}\n" for line in lines if not line.startswith(NOT_TYPED))


def type_in(root, prepare, blocks):
    """All blocks, in one shell, in ROOT, in mounts that nobody else sees."""
    for name in WRITTEN:
        shutil.rmtree(os.path.join(root, name), ignore_errors=True)
    for name in ("srv", "mnt", "ssd", "root"):
        os.mkdir(os.path.join(root, name))
    script = f"set -e\n{prepare}exec chroot $1 /bin/bash -c \"$2\"\n"
    env = {MOUNT_VARIABLE: root, "PATH": PATH}
    result = run(*apart(root), "bash", "-c", script, "bash", root, SHELL + typed(blocks), env=env, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    # A mount that was not taken down is seen by its daemon alone now.
    for pid in cleanup.processes_with(MOUNT_VARIABLE, root):
        cleanup.quietly("kill", "-TERM", str(pid))
    wait_until(lambda: not cleanup.processes_with(MOUNT_VARIABLE, root), "the daemons to end")


DOCUMENTS = pytest.mark.parametrize("blocks", [blocks_of_readme, blocks_of_page])


@DOCUMENTS
def test_what_is_typed_works(work, blocks):
    root = os.path.join(work, "root")
    os.makedirs(os.path.join(root, "programs"))
    for name in ("leafdisk", "leafctl"):
        shutil.copy(program(name), os.path.join(root, "programs"))
    type_in(root, OWN_ROOT, blocks())


def test_blocks_are_found():
    readme, page = typed(blocks_of_readme()), typed(blocks_of_page())
    assert "losetup -d $loop" in readme and "mode=writeback" in readme and "/srv/pool  " not in readme
    assert "leafctl convert" in page and "[pool" not in page and "systemctl" not in page
    documents = blocks_of_readme() + blocks_of_page()
    assert len(fstab_lines(documents)) == 3 and len(groups(documents)) == 2
    assert len(systemctl_lines(documents, "leafdisk")) == 2 and len(systemctl_lines(documents, "leafdisk-drain")) == 1
