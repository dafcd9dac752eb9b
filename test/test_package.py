"""What is installed beside the programs: units, completion; what a service manager is told."""
import contextlib
import os
import re
import socket

import pytest

from harness import BUILD, MIB, PATIENCE, TREE, make_image, opened, program, run, write_all

SYSTEMD = os.path.join(TREE, "etc", "systemd")
# In tenths, of 10.0.
EXPOSURE_MAX = 29


# ---- Units ---------------------------------------------------------------------------

@pytest.mark.parametrize("name,instance", [("leafdisk@", "srv-pool"), ("leafdisk-drain@", "mnt-pool")])
def test_unit_is_right(work, name, instance):
    with open(os.path.join(SYSTEMD, f"{name}.service.in"), encoding="utf-8") as file:
        text = file.read()
    unit = os.path.join(work, f"{name}{instance}.service")
    with open(unit, "w", encoding="utf-8") as file:
        file.write(text.replace("@BINDIR@", BUILD))
    said = run("systemd-analyze", "verify", "--man=no", unit)
    assert said.stdout + said.stderr == ""
    if "[Service]\nType=notify" in text:
        run("systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_MAX}", unit)


CHOSEN = """
our %nrconf = (override_rc => {});
my $file = shift;
defined(do $file) or die $@ || $!;
for my $unit (@ARGV) {
	print map { "$nrconf{override_rc}{$_}\\n" } grep { $unit =~ /$_/ } keys %{$nrconf{override_rc}};
}
"""


def test_a_library_that_is_replaced_restarts_no_mount():
    """What needrestart reads, in the way that it does."""
    path = os.path.join(TREE, "etc", "needrestart.conf")
    with open(os.path.join(TREE, "debian", "rules"), encoding="utf-8") as file:
        assert "etc/needrestart.conf debian/leafdisk/etc/needrestart/conf.d/" in file.read()
    assert run("perl", "-we", CHOSEN, path, "leafdisk@srv-pool.service").stdout == "0\n"
    assert run("perl", "-we", CHOSEN, path, "leafdisk.service", "other-leafdisk@srv-pool.service").stdout == ""


def told(manager):
    with contextlib.suppress(BlockingIOError):
        while True:
            yield manager.recv(4096).decode()


@pytest.mark.parametrize("abstract", [False, True])
def test_the_service_manager_is_told(mount, work, pool, cache, abstract):
    """READY when the pool is mounted, STOPPING when it is not any more, and what goes on then."""
    name = "\0leafdisk-test-" + os.path.basename(work) if abstract else os.path.join(work, "notify")
    make_image(os.path.join(pool, "web1.leaf"), MIB)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name)
        manager.settimeout(PATIENCE)
        live = mount(f"cache={cache}", "mode=writeback", "migrate_idle_ms=60000",
                     env={"NOTIFY_SOCKET": name.replace("\0", "@")})
        assert manager.recv(4096) == b"READY=1"
        with opened(live.file("web1.img")) as fd:
            write_all(fd, b"dirty", 0)
        manager.setblocking(False)
        assert list(told(manager)) == []
        live.stop()
        stopping, *rest = told(manager)
        assert stopping == "STOPPING=1"
        assert rest and all(line.startswith("STATUS=") for line in rest)


# ---- Completion ------------------------------------------------------------------------

COMPLETE = """
compopt() { :; }
source "$1"
shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_$1
echo "${COMPREPLY[*]}"
"""


@pytest.fixture(scope="module")
def completed(run_directory):
    """What bash offers for the last word; it takes KEY=VALUE for three."""
    files = os.path.join(TREE, "etc", "completion")
    path = os.path.join(run_directory, "completion")
    with open(os.path.join(files, "leafdisk.bash"), encoding="utf-8") as file:
        text = run(os.path.join(files, "tables.sh"), BUILD).stdout + file.read()
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)

    def complete(*words):
        said = run("bash", "-c", COMPLETE, "bash", path, *words)
        assert said.stderr == ""
        return said.stdout.split()

    return complete


def test_completion_of_leafctl(completed, work):
    help_text = run(program("leafctl"), "--help").stdout
    assert set(completed("leafctl", "")) >= set(re.findall(r"^    ([a-z-]+) ", help_text, re.M))
    assert set(completed("leafctl", "cache", "")) >= {"create", "info", "drain"}
    assert completed("leafctl", "cache", "du") == ["dump"]
    assert completed("leafctl", "help", "umo") == ["umount"]
    assert "-b" in completed("leafctl", "create", "-")
    assert completed("leafctl", "create", "--pa") == ["--parent=", "--parent-format="]
    assert completed("leafctl", "create", "--parent-format", "=", "l") == ["leaf"]
    assert completed("leafctl", "convert", "-O", "") == ["raw", "leaf"]
    assert completed("leafctl", "mode", "x.img", "w") == ["writeback"]
    assert completed("leafctl", "create", "-c", "") == []
    assert "fusermount3" in completed("leafctl", "pause", "x.img", "fuserm")
    assert completed("leafctl", "pause", "x.img", "--h") == ["--help"]
    assert completed("leafctl", "pause", "x.img", "ls", work[:-1]) == [work]
    assert completed("leafctl", "info", work[:-1]) == [work]


def test_completion_of_leafdisk(completed, work):
    assert {"mode=", "ro", "noro"} <= set(completed("leafdisk", "pool", "mnt", "-o", ""))
    assert completed("leafdisk", "pool", "mnt", "-o", "mode", "=", "e") == ["ephemeral"]
    assert completed("leafdisk", "pool", "mnt", "-o", "cache", "=", "/x,mode", "=", "p") == ["persistent"]
    assert completed("leafdisk", "pool", "mnt", "-o", "cache", "=", "/x,cache_s") == ["/x,cache_size="]
    assert completed("leafdisk", "pool", "mnt", "-o", "cache", "=", work[:-1]) == [work]
    assert completed("leafdisk", work[:-1]) == [work]
