"""The manual pages and the sample configuration say what the programs do."""
import json
import os
import re
import shutil

import pytest

from harness import TREE, make_image, program, run, unmount, write_conf

PAGES = ("leafdisk.7", "leafdisk.8", "leafctl.1", "leafdisk.conf.5", "leafdisk-layer.5", "leafdisk-cache.5")
SAMPLE = os.path.join(TREE, "etc", "leafdisk.conf")


def page_text(name):
    with open(os.path.join(TREE, "man", name), encoding="utf-8") as file:
        return file.read()


def header_of(name):
    with open(os.path.join(TREE, "include", name), encoding="utf-8") as file:
        return file.read()


def section(text, kind, title):
    """The lines of a section (Sh) or subsection (Ss) of a page."""
    ends = r"\.Sh " if kind == "Sh" else r"\.S[hs] "
    found = re.search(rf"^\.{kind} {re.escape(title)}\n(.*?)(?=^{ends}|\Z)", text, re.M | re.S)
    assert found, f"the page has no .{kind} {title}"
    return found.group(1)


def listed_words(text):
    """What the .It Cm lines of a section explain."""
    return set(re.findall(r"^\.It Cm (\w+)", text, re.M))


def long_options(text):
    """Every --name that the macros of a section name."""
    lines = [line for line in text.splitlines() if line.startswith(".") and "Fl" in line]
    return {name for line in lines for name in re.findall(r"(?<!\S)-([a-z][a-z-]+)", line)}


def letters(text):
    return set(re.findall(r"Fl ([a-zA-Z])\b", text))


def help_of(*words):
    result = run(program(words[0]), *words[1:], "--help")
    assert result.stderr == ""
    return result.stdout


def mount_keys():
    return set(re.findall(r"^    (?:\[no\])?([a-z_]+)(?:=\S+)?  ", help_of("leafdisk"), re.M))


def verbs():
    listed = help_of("leafctl").split("Verbs:\n")[1].split("\n\n")[0]
    return re.findall(r"^    ([\w-]+(?: \w+)?)  ", listed, re.M)


def documented_verbs():
    return re.findall(r"^\.Ss (.+)", section(page_text("leafctl.1"), "Sh", "VERBS"), re.M)


def verb_options(verb):
    """(letter or "", long name) of each option in the verb's --help."""
    return re.findall(r"^    (?:-(\w), |    )--([\w-]+)", help_of("leafctl", *verb.split()), re.M)


def test_mount_options_are_documented():
    keys = mount_keys()
    assert {"mode", "threads", "ro"} <= keys
    assert listed_words(section(page_text("leafdisk.8"), "Sh", "OPTIONS")) == keys


def test_flags_of_leafdisk_are_documented():
    text = help_of("leafdisk")
    options = section(page_text("leafdisk.8"), "Sh", "OPTIONS")
    items = "\n".join(line for line in options.splitlines() if line.startswith(".It Fl"))
    assert long_options(items) == set(re.findall(r"^    --([\w-]+)", text, re.M))
    assert letters(items) - {"o"} == set(re.findall(r"^    -(\w)\b", text, re.M)) - {"o"}


def test_options_of_libfuse_are_documented():
    passed = help_of("leafdisk").split("libfuse (-o only):")[1]
    names = set(re.findall(r"[a-z_]+", passed))
    options = section(page_text("leafdisk.8"), "Sh", "OPTIONS").split("handed on to libfuse")[1]
    documented = set(re.findall(r"[a-z_]+", " ".join(re.findall(r"^\.Cm (.*)$", options, re.M))))
    assert "default_permissions" in names
    assert names <= documented, names - documented


def test_verbs_are_documented():
    listed = verbs()
    assert "create" in listed
    assert documented_verbs() == listed
    synopsis = section(page_text("leafctl.1"), "Sh", "SYNOPSIS")
    assert re.findall(r"^\.Cm (.+)", synopsis, re.M) == listed


def test_global_options_of_leafctl_are_documented():
    found = re.findall(r"^    -(\w), --([\w-]+)", help_of("leafctl"), re.M)
    options = section(page_text("leafctl.1"), "Sh", "OPTIONS").split("Every verb has")[0]
    assert {name for _, name in found} == long_options(options)
    assert {letter for letter, _ in found} == letters(options)


@pytest.mark.parametrize("verb", documented_verbs())
def test_options_of_a_verb_are_documented(verb):
    options = verb_options(verb)
    text = page_text("leafctl.1")
    part = section(text, "Ss", verb)
    assert long_options(part) | {"help"} == {name for _, name in options}
    synopsis = section(text, "Sh", "SYNOPSIS").split(f".Cm {verb}\n")[1].split("\n.Nm")[0]
    assert letters(synopsis) <= {letter for letter, _ in options if letter}
    assert long_options(synopsis) <= {name for _, name in options}
    assert letters(part) <= {letter for letter, _ in options if letter}
    for letter, name in options:
        assert not letter or re.search(rf"Fl {letter} , Fl -{name}\b", text), f"-{letter}, --{name}"


def test_usage_line_names_every_option():
    for verb in verbs():
        usage = help_of("leafctl", *verb.split()).splitlines()[0]
        for letter, name in verb_options(verb):
            assert name == "help" or f"--{name}" in usage or f"-{letter} " in usage, f"{verb}: --{name}"


def test_configuration_keys_are_documented():
    page = page_text("leafdisk.conf.5")
    assert listed_words(section(page, "Ss", "Group [pool]")) == mount_keys() - {"conf"}
    assert listed_words(section(page, "Ss", "Groups [pool PATH]")) == {"mountpoint"}


def items_of(text):
    return {re.sub(r" Ns | ", "", item) for item in re.findall(r"^\.It Pa (.*)", text, re.M)}


def below(directory):
    for parent, directories, files in os.walk(directory):
        for name in directories + files:
            yield os.path.relpath(os.path.join(parent, name), directory)


def test_control_tree_is_documented(mount, pool):
    """All of it is in the page; the page has besides what this mount lacks."""
    make_image(os.path.join(pool, "web1.leaf"), "1M")
    with mount() as live:
        there = set(below(live.control())) - {"disks/web1.img"}
    there = {path.replace("web1.img", "NAME") for path in there}
    assert {"stats", "disks", "disks/NAME/info"} <= there
    documented = items_of(section(page_text("leafdisk.8"), "Sh", "THE CONTROL TREE"))
    assert there <= documented, there - documented
    assert documented - there <= {"cache", "cache/info"}


def listed_entries():
    """symbol -> path of what include/control/tree.h lists; the tunables stand for themselves."""
    rows = re.findall(r'ENTRY\((\w+), (\w+), (?:"([^"]+)"|NULL)\)', header_of("control/tree.h"))
    paths = {"TOP": ""}
    for symbol, directory, name in rows:
        name = name or {"DISK": "NAME", "TUNABLE": "*"}[symbol]
        paths[symbol] = os.path.join(paths[directory], name)
    return paths


def test_control_tree_is_the_listed_one():
    documented = items_of(section(page_text("leafdisk.8"), "Sh", "THE CONTROL TREE"))
    tunables = {path for path in documented if path.startswith("tunables/")}
    listed = set(listed_entries().values()) - {"", "disks/NAME", "tunables/*"}
    assert tunables
    assert documented - tunables == listed


def item_of(path):
    """What the page says of an entry of the tree."""
    text = section(page_text("leafdisk.8"), "Sh", "THE CONTROL TREE").split(f"\n.It Pa {path}\n")[1]
    return re.split(r"\n\.(?:It|El)\b", text)[0]


def listed_of(kind):
    """symbol of the entry -> what the header lists for it."""
    lists = {}
    for entry, name in re.findall(rf'{kind}\(\w+, (\w+), "([^"]+)"\)', header_of("control/tree.h")):
        lists.setdefault(entry, set()).add(name)
    assert lists
    return lists


def test_keys_of_the_control_tree_are_the_listed_ones():
    for entry, keys in listed_of("KEY").items():
        assert set(re.findall(r"^\.Li (\w+)", item_of(listed_entries()[entry]), re.M)) == keys


def test_words_of_the_control_tree_are_documented():
    for entry, words in listed_of("WORD").items():
        assert words <= set(re.findall(r"^\.Cm (\w+)", item_of(listed_entries()[entry]), re.M))


def test_states_of_a_disk_are_documented():
    """Each word that the disk gives as its state is in the page's item, and nothing else but modes is."""
    states = set()
    for directory, _, names in os.walk(os.path.join(TREE, "src", "disk")):
        for name in names:
            with open(os.path.join(directory, name), encoding="utf-8") as file:
                for line in re.findall(r"\bstate = (.*\".*);", file.read()):
                    states |= set(re.findall(r'"(\w+)"', line))
    assert {"active", "waiting", "failed"} <= states
    documented = set(re.findall(r"^\.Cm (\w+)", item_of("disks/NAME/state").split(".Li reason ,")[0], re.M))
    assert documented - {"writeback"} == states


def test_keys_of_the_control_tree_are_told(mount, pool):
    """A mount tells the keys that are listed; state tells the reason and since when, if there is one, and no request
    is told of a disk that has none."""
    make_image(os.path.join(pool, "web1.leaf"), "1M")
    told = {}
    with mount() as live:
        for entry in listed_of("KEY"):
            path = listed_entries()[entry].replace("NAME", "web1.img")
            with open(live.control(*path.split("/")), encoding="utf-8") as file:
                told[entry] = {line.split(": ")[0] for line in file}
    for entry, keys in listed_of("KEY").items():
        assert keys - told[entry] <= {"reason", "since", "request"}
        assert told[entry] <= keys


def test_counters_are_documented(mount, pool):
    with mount() as live, open(live.control("stats"), encoding="ascii") as file:
        counters = set(json.load(file))
    assert "read_bytes" in counters
    assert listed_words(section(page_text("leafdisk.8"), "Ss", "Counters")) == counters


def test_counters_of_a_disk_are_documented(mount, pool):
    make_image(os.path.join(pool, "web1.leaf"), "1M")
    with mount() as live, open(live.control("disks", "web1.img", "stats"), encoding="ascii") as file:
        counters = set(json.load(file))
    assert "read_misses" in counters
    assert listed_words(section(page_text("leafdisk.8"), "Ss", "Counters of a disk")) == counters


def test_disk_keys_are_documented(work, pool):
    """A key that is not known is refused with a list of those that are."""
    point = os.path.join(work, "mnt")
    os.mkdir(point)
    conf = write_conf(work, "[disk a.img]\nsurely_unknown = 1\n")
    result = run(program("leafdisk"), pool, point, "-o", f"conf={conf}", check=False)
    if result.returncode == 0:
        unmount(point)
    assert result.returncode == 1
    known = re.search(r"surely_unknown\"; known are: (.*)", result.stderr)
    assert known, result.stderr
    documented = listed_words(section(page_text("leafdisk.conf.5"), "Ss", "Groups [disk NAME]"))
    assert documented == set(re.findall(r"\w+", known.group(1)))


def assert_valid(conf, work):
    """With a pool that is not there, that is all leafdisk has to say."""
    missing = os.path.join(work, "no-such-pool")
    result = run(program("leafdisk"), missing, work, "-o", f"conf={conf}", check=False)
    assert result.returncode == 1
    assert missing in result.stderr, result.stderr


def test_sample_configuration_is_valid(work):
    assert_valid(SAMPLE, work)


def test_sample_configuration_is_valid_without_its_comment_signs(work):
    with open(SAMPLE, encoding="utf-8") as file:
        text = re.sub(r"^#(?=\[|\w+ = )", "", file.read(), flags=re.M)
    assert_valid(write_conf(work, text), work)


def test_sample_configuration_shows_every_key():
    with open(SAMPLE, encoding="utf-8") as file:
        pool = file.read().split("[pool /")[0]
    assert set(re.findall(r"^#?(\w+) = ", pool, re.M)) == mount_keys() - {"conf"}


def sentences():
    """The strings of the source, each as a whole."""
    for directory, _, names in os.walk(os.path.join(TREE, "src")):
        for name in names:
            if name.endswith(".c"):
                with open(os.path.join(directory, name), encoding="utf-8") as file:
                    text = re.sub(r'"\s+"', "", file.read())
                yield from re.findall(r'"((?:[^"\\\n]|\\.)*)"', text)


def explained_messages():
    return re.findall(r'^\.It "(.*)"$', section(page_text("leafdisk.7"), "Sh", "MESSAGES"), re.M)


def test_explained_messages_are_the_programs():
    """Three dots stand for what differs from one to the next."""
    said = list(sentences())
    assert explained_messages()
    for message in explained_messages():
        parts = ".*".join(re.escape(part.strip(" ,;")) for part in message.split("..."))
        assert any(re.search(parts, sentence) for sentence in said), message


@pytest.mark.parametrize("name", PAGES)
def test_page_is_clean(name):
    if not shutil.which("mandoc"):
        pytest.skip("mandoc is not installed")
    result = run("mandoc", "-Tlint", "-W", "warning", os.path.join(TREE, "man", name), check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_pages_are_all_here():
    assert sorted(os.listdir(os.path.join(TREE, "man"))) == sorted(PAGES)


# ---- For who works on it ----------------------------------------------------------

GUIDES = ("src/README", "CONTRIBUTING.md", "NEWS")


def text_of(name):
    with open(os.path.join(TREE, name), encoding="utf-8") as file:
        return file.read()


@pytest.mark.parametrize("guide", GUIDES)
def test_guides_name_files_that_exist(guide):
    """A path in a guide begins at the top of the tree, in src/ or in include/."""
    named = set(re.findall(r"(?<![\w/.$-])((?:[a-z_]+/)*[a-z_-]+\.(?:c|h|py|md|conf)|(?:[a-z_]+/)+(?:[a-z]+|README))"
                           r"(?![\w/])", text_of(guide)))
    named -= {"build/leafdisk", "build/leafctl", "build/check", "build/check/leafdisk", "build/check/leafctl", "build/deb"}
    missing = [path for path in sorted(named)
               if not any(os.path.exists(os.path.join(TREE, top, path)) for top in ("", "src", "include"))]
    assert not missing
    assert named or guide == "NEWS"


def headers():
    for top in ("src", "include"):
        for directory, _, names in os.walk(os.path.join(TREE, top)):
            yield from (os.path.join(directory, name) for name in names if name.endswith(".h"))


def glossary():
    words = text_of("src/README").split("## Words\n")[1].split("\n## ")[0]
    return re.findall(r"^    (\w+) ", words, re.M)


@pytest.mark.parametrize("word", glossary())
def test_words_are_the_headers_words(word):
    found = [path for path in headers() if re.search(rf"\b{word}s?\b", text_of(os.path.relpath(path, TREE)))]
    assert found


def test_folders_are_in_the_picture():
    picture = text_of("src/README").split("## The way of a write")[0]
    folders = {name for name in os.listdir(os.path.join(TREE, "src")) if os.path.isdir(os.path.join(TREE, "src", name))}
    assert {folder for folder in folders if f"{folder}/" not in picture} == set()
