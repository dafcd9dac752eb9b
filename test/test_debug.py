"""debug=: what each module tells, at which level, and what is refused."""
import os
import re

import pytest

from harness import TREE, MountError, make_image, program, run

BLOCK = 4096
WRITES = 20


def modules():
    """Those that --help lists."""
    line = next(line for line in run(program("leafdisk"), "--help").stdout.splitlines() if "debug=" in line)
    *names, everything = line.split("modules: ")[1].split(", ")
    assert everything == "all"
    return names


def told(live):
    """module -> its debug messages so far"""
    lines = {}
    for module, text in re.findall(r"^leafdisk: debug: (\w+): (.*)$", live.messages(), re.M):
        lines.setdefault(module, []).append(text)
    return lines


def write_blocks(live):
    """Each is a request of its own; how many messages of each module that brings."""
    fd = os.open(live.file("web1.img"), os.O_RDWR)
    before = told(live)
    for i in range(WRITES):
        assert os.pwrite(fd, bytes([i + 1]) * BLOCK, 2 * i * BLOCK) == BLOCK
    after = told(live)
    os.close(fd)
    return {module: len(lines) - len(before.get(module, [])) for module, lines in after.items()}


@pytest.fixture
def debug_mount(mount, pool, work):
    make_image(os.path.join(pool, "web1.leaf"), "1M")

    def start(spec):
        return mount(f"debug={spec}", f"cache={os.path.join(work, 'cache')}", "cache_size=16M")

    return start


@pytest.mark.parametrize("module", modules())
def test_each_module_tells_what_happens(debug_mount, module):
    with debug_mount(module) as live:
        brought = write_blocks(live)
    assert set(told(live)) == {module}
    assert brought.get(module, 0) < WRITES / 2, "the level is for what happens now and then"


@pytest.mark.parametrize("module", modules())
def test_each_module_tells_of_requests(debug_mount, module):
    with debug_mount(f"{module}=2") as live:
        brought = write_blocks(live)
    assert set(brought) == {module}
    assert brought[module] >= WRITES


def test_levels_of_several_modules(debug_mount):
    with debug_mount("all:disk=2:cache=1") as live:
        brought = write_blocks(live)
        assert set(told(live)) == set(modules())
        with open(live.control("config"), encoding="utf-8") as file:
            assert "debug: all:disk=2:cache=1\n" in file.read()
    assert brought["disk"] >= WRITES
    assert max(count for module, count in brought.items() if module != "disk") < WRITES / 2


@pytest.mark.parametrize("spec,word", [
    ("disc", "disc"), ("disk:nonsense", "nonsense"), ("disk=3", "disk=3"), ("layer", "layer"), ("ctl", "ctl")])
def test_what_is_no_module_is_refused(debug_mount, spec, word):
    with pytest.raises(MountError) as caught:
        debug_mount(spec)
    known = ", ".join(modules())
    assert f'option "debug": "{word}" is no module of debug messages; expected one of {known}, or all' in str(caught.value)


def test_the_page_lists_the_modules():
    with open(os.path.join(TREE, "man", "leafdisk.8"), encoding="utf-8") as file:
        listed = file.read().split("Debug messages of these modules:\n.Cm ")[1].split("\n")[0]
    assert re.findall(r"\w+", listed) == modules()
