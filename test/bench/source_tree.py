"""A git repository of made-up C files, the same in every run: the seed, the
dates and the names are fixed."""
import os
import random
import tarfile

from programs import run

NAME = "project"
SEED = 20
FILES_IN_DIRECTORY = 16
TIME = 1_700_000_000    # long before the index is written: git trusts the times
GIT_SECONDS = 300
DIGEST_SECONDS = 300
WORDS = ("static", "int", "struct", "layer", "chain", "block", "return", "if", "for", "while", "offset", "length",
         "request", "queue", "(", ")", "{", "}", ";", "=", "+", "->", "NULL", "0", "1", "4096")
GIT_ENVIRONMENT = {
    "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "GIT_OPTIONAL_LOCKS": "0",
    "GIT_AUTHOR_NAME": "bench", "GIT_AUTHOR_EMAIL": "bench@localhost", "GIT_AUTHOR_DATE": f"{TIME} +0000",
    "GIT_COMMITTER_NAME": "bench", "GIT_COMMITTER_EMAIL": "bench@localhost", "GIT_COMMITTER_DATE": f"{TIME} +0000"}


def git(repository, *words):
    return run("git", "-C", repository, *words, env=GIT_ENVIRONMENT, timeout=GIT_SECONDS)


def make(repository, files):
    """The index looks at sizes and times only, as inode numbers and change times
    differ between a file system and an overlay on it."""
    chance = random.Random(SEED)
    for number in range(files):
        directory = os.path.join(repository, f"part{number // FILES_IN_DIRECTORY:03d}")
        os.makedirs(directory, exist_ok=True)
        write_file(os.path.join(directory, f"file{number:05d}.c"), chance)
    git(repository, "init", "--quiet", "--initial-branch=main")
    for key, value in (("core.checkStat", "minimal"), ("core.trustctime", "false"), ("gc.auto", "0")):
        git(repository, "config", key, value)
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message=All of it")


def write_file(path, chance):
    """Sizes as in a source tree: many of a few KiB, some of a hundred."""
    lines = max(1, min(4000, int(chance.lognormvariate(5, 1))))
    with open(path, "w", encoding="ascii") as file:
        for _ in range(lines):
            file.write(" ".join(chance.choices(WORDS, k=8)) + "\n")
    os.utime(path, (TIME, TIME))


def archive(repository, path):
    """The working files without the repository's own."""
    with tarfile.open(path, "w") as tar:
        for name in sorted(os.listdir(repository)):
            if name != ".git":
                tar.add(os.path.join(repository, name), os.path.join(NAME, name))


def digest(repository):
    """Of the names and the content of what an archive of it holds."""
    command = "find . -path ./.git -prune -o -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum"
    return run("sh", "-c", command, cwd=repository, timeout=DIGEST_SECONDS).split()[0]
