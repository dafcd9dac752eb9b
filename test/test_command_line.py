"""What is typed wrong is answered with what was meant."""
import os

import pytest

from harness import leafctl, program, run

USAGE = 2

MEANT = [
    (("inof", "x"), 'there is no verb "inof"; did you mean "info"?'),
    (("cache", "inf", "x"), 'there is no verb "cache inf"; did you mean "cache info"?'),
    (("snip",), 'there is no verb "snip"; leafctl help lists them'),
    (("help", "lst"), 'there is no verb "lst"; did you mean "list"?'),
    (("list", "--jsno", "x"), 'option "--jsno" is not known here; did you mean "--json"?'),
    (("list", "--json=1", "x"), 'option "--json" takes no value'),
    (("list", "-x", "x"), 'option "-x" is not known here ('),
]


@pytest.mark.parametrize("words,answer", MEANT)
def test_leafctl_knows_what_was_meant(words, answer):
    result = leafctl(*words, check=False)
    assert result.returncode == USAGE and answer in result.stderr and result.stdout == ""


@pytest.mark.parametrize("words,status,answer", [
    (("-o", "cahce=/ssd/x"), 1, 'unknown mount option "cahce=/ssd/x"; did you mean "cache"?'),
    (("-o", "alow_other"), 1, 'unknown mount option "alow_other"; did you mean "allow_other"?'),
    (("-o", "rootcontxt=x"), 1, 'did you mean "rootcontext="?'),
    (("-o", "quick"), 1, 'unknown mount option "quick"; leafdisk --help lists'),
    (("--cache=/ssd/x",), USAGE, '"--cache=/ssd/x" is a mount option: write -o cache=/ssd/x'),
    (("--mode", "direct"), USAGE, '"--mode" is a mount option: write -o mode=VALUE'),
    (("--ro",), USAGE, '"--ro" is a mount option: write -o ro'),
])
def test_leafdisk_knows_what_was_meant(pool, work, words, status, answer):
    result = run(program("leafdisk"), *words, pool, work, check=False)
    assert result.returncode == status and answer in result.stderr, result


def test_a_key_of_the_configuration(pool, work):
    path = os.path.join(work, "conf")
    with open(path, "w", encoding="ascii") as file:
        file.write("[pool]\nthread = 2\n")
    result = run(program("leafdisk"), pool, work, "-o", f"conf={path}", check=False)
    assert result.returncode == 1 and 'unknown option "thread"; did you mean "threads"?' in result.stderr


def test_help(pool):
    everything = leafctl("help").stdout
    assert leafctl("--help").stdout == everything and "    cache info    " in everything
    of_list = leafctl("list", "--help").stdout
    assert leafctl("help", "list").stdout == leafctl("-h", "list").stdout == of_list
    assert leafctl("help", "cache", "info").stdout == leafctl("cache", "info", "-h").stdout
    group = leafctl("help", "cache").stdout
    assert leafctl("cache", "--help").stdout == group and "cache adopt" in group and "resize" not in group
    alone = leafctl("cache", check=False)
    assert alone.returncode == USAGE and alone.stderr == group
    assert leafctl("--json", "list", pool).stdout == leafctl("list", "--json", pool).stdout
