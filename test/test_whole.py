"""What a tool makes has its name once it is whole, whatever ends the tool."""
import fcntl
import os

import pytest

import cache_format as form
from harness import BLOCK, CRASH_STATUS, MIB, Loop, faults, file_bytes, leafctl, make_image, make_raw, run

COMMANDS = ["create", "create raw", "clone", "convert", "cache create", "cache dump"]


@pytest.fixture
def made(work):
    """A pool with nothing in it, where things are to be made."""
    path = os.path.join(work, "made")
    os.mkdir(path)
    return path


@pytest.fixture
def commands(work, made):
    base, cache = make_image(os.path.join(work, "base.leaf"), "8M"), os.path.join(work, "full.cache")
    full = form.Cache()
    full.append(form.layer_entry(1, b"i" * 16, 1, MIB, "web1.leaf"))
    full.append(form.data_entry(1, form.CLEAN, 3, [b"3" * BLOCK]))
    full.write(cache)
    new = os.path.join(made, "new.leaf")
    return {
        "create": ("create", new, "8M"),
        "create raw": ("create", os.path.join(made, "new.raw"), "8M"),
        "clone": ("clone", "--layers", work, base, new),
        "convert": ("convert", base, new),
        "cache create": ("cache", "create", "--size", "8M", "--pool", work, os.path.join(made, "new")),
        "cache dump": ("cache", "dump", "-d", made, cache),
    }


@pytest.mark.parametrize("verb", COMMANDS)
def test_one_that_is_killed(commands, made, verb):
    """It leaves what no pool shows, which goes when it is run again: unless another is at work there."""
    for _ in range(2):
        result = leafctl(*commands[verb], check=False, env=faults("place.rename:crash"))
        assert result.returncode == CRASH_STATUS, result
        (left,) = os.listdir(made)
        assert left.startswith(".") and f"{made}/{left}: was left by" in leafctl("list", made).stderr
    directory = os.open(made, os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_SH)
    assert "was left by" not in leafctl("list", made).stderr
    leafctl(*commands[verb])
    assert left in os.listdir(made) and len(os.listdir(made)) == 2
    os.close(directory)
    (new,) = set(os.listdir(made)) - {left}
    os.unlink(os.path.join(made, new))
    leafctl(*commands[verb])
    assert os.listdir(made) == [new]


@pytest.mark.parametrize("verb", COMMANDS)
def test_one_that_fails(commands, made, verb):
    """It leaves nothing, and speaks of what it was to make."""
    result = leafctl(*commands[verb], check=False, env=faults("place.rename:EIO"))
    assert result.returncode == 1 and f"leafctl: {made}/" in result.stderr and f"{made}/." not in result.stderr, result
    assert os.listdir(made) == []


@pytest.mark.parametrize("verb", COMMANDS)
def test_one_whose_hidden_name_stays(commands, made, verb):
    """It is made: the store has given its name, and does not take the other away."""
    result = leafctl(*commands[verb], env=faults("place.rename:EINVAL; place.unlink:EIO"))
    hidden, new = sorted(os.listdir(made))
    assert hidden.startswith(".") and f"{hidden}: is called {new} now" in result.stderr
    assert os.path.samefile(os.path.join(made, hidden), os.path.join(made, new))


def test_a_dump_beside_another(commands, made):
    for expected in (["web1.leaf"], ["web1.leaf", "web1.leaf.1"]):
        leafctl(*commands["cache dump"])
        assert sorted(os.listdir(made)) == expected
    result = leafctl(*commands["cache dump"], check=False)
    assert result.returncode == 1 and "File exists" in result.stderr


@pytest.mark.parametrize("to", ["raw", "leaf"])
def test_convert_onto_a_device(work, rng, to):
    """All of it is what the source shows; one that fails leaves no image there."""
    content = rng.randbytes(MIB) + bytes(2 * MIB) + rng.randbytes(MIB)
    source, path = make_raw(os.path.join(work, "source.raw"), content), os.path.join(work, "device.bin")
    run("truncate", "-s", "12M", path)
    with Loop(path) as loop:
        run("mke2fs", "-q", "-t", "ext4", "-F", loop.device)
        words = ("convert", "-O", to, source, loop.device)
        refused = leafctl(*words, check=False)
        assert refused.returncode == 1 and "has a file system (ext4); it is overwritten only with --force" in refused.stderr
        run("e2fsck", "-fn", loop.device)
        if to == "leaf":
            failed = leafctl(*words, "--force", check=False, env=faults("aio.write:EIO"))
            assert failed.returncode == 1 and os.path.exists(loop.device)
            assert leafctl("info", loop.device, check=False).returncode == 1
        with open(loop.device, "r+b") as file:
            file.write(b"x" * 8 * MIB)
        leafctl(*words, "--force")
        copy = os.path.join(work, "copy.raw")
        leafctl("convert", "-f", to, loop.device, copy)
        assert file_bytes(copy)[:len(content)] == content
