"""How the source is kept: format, headers on their own, dependencies, errors."""
import os
import re
import shutil

import pytest

from harness import BUILD, TREE, run

CHECK_DEPS = os.path.join(TREE, "test", "check-deps.py")


def c_files(*tops, suffixes=(".c", ".h")):
    for top in tops:
        for directory, _, names in os.walk(os.path.join(TREE, top)):
            for name in sorted(names):
                if name.endswith(suffixes):
                    yield os.path.relpath(os.path.join(directory, name), TREE)


def compile_flags():
    packages = run("pkg-config", "--cflags", "fuse3", "glib-2.0", "json-glib-1.0", "libxxhash", "blkid",
                   "libseccomp").stdout.split()
    return ["-std=gnu11", "-D_GNU_SOURCE", "-Iinclude", "-Isrc", "-Wall", "-Wextra", "-Werror", *packages]


def test_format():
    files = list(c_files("include", "src", "test"))
    assert files
    result = run("clang-format", "--dry-run", "--Werror", *files, cwd=TREE, check=False)
    assert result.returncode == 0, result.stderr


def first_included(source):
    """The header of the tree that a source file includes before all else, so that whoever
    compiles the file compiles the header alone; None when it begins otherwise."""
    with open(os.path.join(TREE, source), encoding="utf-8") as file:
        found = re.search(r"^#include (.*)$", file.read(), re.MULTILINE)
    name = found.group(1).strip('"') if found else ""
    for folder in (os.path.dirname(source), "include", "src"):
        header = os.path.normpath(os.path.join(folder, name))
        if header.endswith(".h") and os.path.exists(os.path.join(TREE, header)):
            return header
    return None


def compile_includes(work, headers):
    source = os.path.join(work, "includes.c")
    with open(source, "w", encoding="ascii") as file:
        file.writelines(f'#include "{os.path.join(TREE, header)}"\n' for header in headers)
    run("cc", *compile_flags(), "-fsyntax-only", source, cwd=TREE)


HEADERS = sorted(c_files("include", "src", suffixes=".h"))
COMPILED_ALONE = {first_included(source) for source in c_files("src", suffixes=".c")}


@pytest.mark.parametrize("header", [header for header in HEADERS if header not in COMPILED_ALONE])
def test_header_compiles_alone(header, work):
    """Those that the build does not compile alone."""
    compile_includes(work, [header])


def test_headers_can_be_included_again(work):
    compile_includes(work, [*HEADERS, *HEADERS])


@pytest.fixture
def copy(work):
    """A copy of the tree to break."""
    for top in ("include", "src"):
        shutil.copytree(os.path.join(TREE, top), os.path.join(work, "tree", top))
    return os.path.join(work, "tree")


def test_dependencies_point_downward():
    run(CHECK_DEPS, TREE)


def test_no_files_call_each_other_in_a_circle():
    run(CHECK_DEPS, TREE, os.path.join(BUILD, "obj", "src"))


@pytest.mark.parametrize("third", ["one", "nothing"])
def test_a_circle_of_files_is_found(work, third):
    """One uses two, that uses three, and three uses one, or nothing."""
    folder = os.path.join(work, "tree", "src", "core")
    os.makedirs(folder)
    os.makedirs(os.path.join(work, "obj", "core"))
    for name, used in (("one", "two"), ("two", "three"), ("three", third), ("nothing", "printf")):
        source = os.path.join(folder, f"{name}.c")
        with open(source, "w", encoding="ascii") as file:
            file.write(f"extern int {used}();\nint {name}(void)\n{{\n\treturn {used}(0);\n}}\n")
        run("cc", "-fno-builtin", "-c", "-o", os.path.join(work, "obj", "core", f"{name}.o"), source)
    result = run(CHECK_DEPS, os.path.join(work, "tree"), os.path.join(work, "obj"), check=False)
    found = [line.split(":")[0] for line in result.stdout.splitlines()]
    assert result.returncode == (third == "one")
    assert found == (["src/core/one.c", "src/core/three.c", "src/core/two.c"] if third == "one" else [])


@pytest.mark.parametrize("file,line", [
    ("src/core/log.c", '#include "aio/queue.h"'),
    ("src/aio/queue.c", '#include "image/image.h"'),
    ("src/image/image.c", '#include "disk/disk.h"'),
    ("src/image/image.c", '#include "cache/log.h"'),
    ("src/fuse/broken.c", '#include "image/image.h"'),
    ("src/ctl/main.c", '#include "image/image.h"'),
    ("src/ctl/main.c", '#include "../fuse/options.h"'),
    ("src/disk/broken.c", "#include <fuse_lowlevel.h>"),
    ("src/image/image.c", "  #  include <libaio.h>"),
    ("include/aio/queue.h", '#include "disk/disk.h"'),
    ("include/format/leaf.h", '#include "image/image.h"'),
    ("src/other/thing.c", '#include "core/log.h"'),
])
def test_a_wrong_dependency_is_found(copy, file, line):
    os.makedirs(os.path.join(copy, "include", "cache"), exist_ok=True)
    with open(os.path.join(copy, "include", "cache", "log.h"), "a", encoding="ascii"):
        pass
    os.makedirs(os.path.dirname(os.path.join(copy, file)), exist_ok=True)
    with open(os.path.join(copy, file), "a", encoding="utf-8") as source:
        source.write(line + "\n")
    result = run(CHECK_DEPS, copy, check=False)
    assert result.returncode == 1
    assert result.stdout.startswith(file), result.stdout


# A comparison with an errno that says how a store is doing.
DECISION = re.compile(r"(?:[=!]= *-?|case +-?)E(?:NOSPC|DQUOT|FBIG|BUSY|MFILE|NFILE|NOMEM|IO|TIMEDOUT|STALE|NOTCONN|"
                      r"OPNOTSUPP|NOTSUP|NOSYS|PERM|ROFS|ACCES)\b")
# What an error of a store means stands in one table; these compare errnos that say something else.
COMPARES_ERRNOS = {
    "src/core/verdict.c": "the table",
    "src/core/place.c": "openat2: the kernel has none, or asks to try again; a directory to enter only",
    "src/aio/file.c": "fcntl: somebody else has the lock",
    "src/cache/content/read.c": "its own: the block is dirty and cannot be read",
    "src/disk/mode/writeback.c": "the cache's: no room ever, or suspended",
    "src/migrate/apply.c": "the image's: a batch is too large for it, or it takes none",
    "src/image/leaf/apply.c": "its own: the journal is too small",
    "src/image/leaf/commit.c": "its own: the journal is too small",
    "src/image/leaf/plan.c": "its own: the journal is too small",
    "src/image/leaf/room.c": "ftruncate: longer than a file can be",
    "src/layer/share.c": "the cache's: no room to record a claim",
    "src/layer/overflow.c": "its own: the directory is another user's",
    "src/layer/roots.c": "its own: a file brought from elsewhere",
    "src/pool/succession.c": "its own: a file that is no leaf",
    "src/pool/succession_left.c": "its own: the image is another mount's, which runs",
    "src/offline/info.c": "its own: what is wrong with a chain",
    "src/owner/owner.c": "locks: there is such a holder",
    "src/owner/self.c": "kill: there is such a process",
    "src/owner/record.c": "its own: the record is too long",
    "src/fuse/mountpoint.c": "statx of a mount: it has no server",
    "src/fuse/reply.c": "what the kernel takes for something else",
    "src/ctl/events.c": "a mount with ro takes no commands",
    "src/ctl/client.c": "the control tree is the owner's only",
    "src/ctl/resize.c": "the mount's own: it is open",
    "src/ctl/snapshot.c": "the mount's own: it is open",
}


def test_errors_are_decided_in_one_place():
    compare = set()
    for path in c_files("src", suffixes=(".c",)):
        with open(os.path.join(TREE, path), encoding="utf-8") as file:
            if DECISION.search(file.read()):
                compare.add(path)
    assert compare - COMPARES_ERRNOS.keys() == set(), "ask core/verdict.h what the error of a store means"


LOCKED_FUNCTION = re.compile(r"^\w[^;{}]*?\b(\w+_(locked|relock))\([^;{}]*\)\n\{\n(.*?)^\}", re.MULTILINE | re.DOTALL)


def without_declarations(body):
    """They come first, and a blank line ends them."""
    return body.split("\n\n", 1)[1] if "\n\n" in body and "assert_" not in body.split("\n", 1)[0] else body


def test_what_needs_a_lock_asserts_it():
    """In its first line; and what lets it go has another name."""
    found = 0
    for path in c_files("src", suffixes=(".c",)):
        with open(os.path.join(TREE, path), encoding="utf-8") as file:
            for name, suffix, body in LOCKED_FUNCTION.findall(file.read()):
                found += 1
                assert re.match(r"\t(assert_locked|\w+_assert_locked|lock_assert_mine)\(", without_declarations(body)), f"{path}: {name}"
                assert suffix == "relock" or not re.search(r"_unlock\(|lock_let_go\(|_relock\(|lock_wait", body), f"{path}: {name}"
    assert found > 50


OTHER_LOCKS = re.compile(r"\bG(?:Mutex|RecMutex|RWLock|Cond|StaticMutex)\b|\bg_(?:mutex|cond|rw_lock|rec_mutex)_\w+|"
                         r"\bpthread_(?:mutex|cond|rwlock|spin)\w*")


def test_there_is_one_kind_of_lock():
    for path in c_files("include", "src", "test/unit"):
        with open(os.path.join(TREE, path), encoding="utf-8") as file:
            assert path == "include/core/lock.h" or OTHER_LOCKS.findall(file.read()) == [], f"{path}: core/lock.h has locks that are checked"


def test_the_order_of_locks_is_described():
    """src/README has the names of core/lock.h in that order, and says which are held across I/O."""
    with open(os.path.join(TREE, "include", "core", "lock.h"), encoding="utf-8") as file:
        ranks = re.findall(r"^\tX\((\w+), (SHORT|LONG)\)", file.read(), re.MULTILINE)
    with open(os.path.join(TREE, "src", "README"), encoding="utf-8") as file:
        section = file.read().split("\n## Locks\n")[1].split("\n## ")[0]
    described = re.findall(r"^    (\w+) {2,}(.*)$", section, re.MULTILINE)
    assert len(ranks) > 20
    assert [name for name, _ in described] == [rank.lower() for rank, _ in ranks]
    for (rank, length), (_, text) in zip(ranks, described):
        assert ("across I/O" in text) == (length == "LONG"), rank


FUNCTIONS_MAX = 15
# Headers with more, and why that is one thing.
MANY_FUNCTIONS = {
    "include/cache/layer.h": "a layer's life in the cache, and what is known of those that are closed",
    "include/core/lock.h": "locks and conditions, and six functions of the tests' build",
    "include/disk/disk.h": "a disk as front ends see it: they need no other header of it",
    "include/disk/object.h": "the object, its chain, and the pools of a context",
    "include/image/image.h": "one function for each operation of an image",
    "include/layer/claim.h": "one claim, and what is asked and said of it",
    "include/layer/share.h": "one share, and what is asked of it",
    "include/layer/backlog.h": "one list, and what requests, opens and drains say of it",
    "include/layer/chain.h": "links, and the headers that were read to find them",
    "include/pool/pool.h": "a pool as front ends see it; what changes one is in pool/change.h",
    "src/aio/call.h": "what the files of one queue call of each other",
    "src/cache/format/format.h": "one function for each question to a block of the log",
    "src/cache/index/epochs.h": "one list and what is asked of it",
    "src/cache/index/index.h": "one table and what is asked of it",
    "src/cache/index/layers.h": "one table and what is asked of it",
    "src/cache/log/space.h": "one function for each question about room",
    "src/ctl/verbs.h": "one function for each verb",
    "src/fuse/node.h": "one table and what is asked of it",
    "src/fuse/ops.h": "one function for each of libfuse's operations",
    "src/image/file.h": "one function for each call on a file",
    "src/image/leaf/slots.h": "every change of a slot's owner, so that its states are in one place",
}


def declared_functions(text):
    """How many a header has: declared, or defined in it."""
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    text = re.sub(r"^ *#(?:[^\n]*\\\n)*[^\n]*$", "", text, flags=re.MULTILINE)
    while "{" in text:
        text = re.sub(r"\{[^{}]*\}", ";", text)
    return len(re.findall(r"^(?!typedef|\s)[^;()]*\b\w+\((?:[^;()]|\([^()]*\))*\)[^;]*;", text, re.MULTILINE))


def test_headers_are_of_one_thing():
    many = {}
    for path in c_files("include", "src", suffixes=(".h",)):
        with open(os.path.join(TREE, path), encoding="utf-8") as file:
            count = declared_functions(file.read())
        if count > FUNCTIONS_MAX:
            many[path] = count
    assert many.keys() == MANY_FUNCTIONS.keys(), many
