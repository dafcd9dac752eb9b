#!/usr/bin/env python3
"""Checks the direction of dependencies: who may include what.

Each folder of src/, and each of include/, may include the headers of the
folders named for it in ALLOWED, and a library's headers only where LIBRARIES
says so. With OBJECTS, the objects of src/: no files call each other in a circle,
so that each can be understood from those below it. Prints each breach and exits
with 1 when there is one.

usage: test/check-deps.py [TREE [OBJECTS]]
"""
import os
import re
import subprocess
import sys

BELOW_IMAGE = {"core", "aio"}
ALLOWED = {
    "core": set(),
    "control": set(),
    "aio": {"core"},
    "image": BELOW_IMAGE | {"format"},
    "cache": BELOW_IMAGE | {"format"},
    "owner": {"core"},
    "layer": BELOW_IMAGE | {"image", "cache", "owner"},
    "disk": BELOW_IMAGE | {"image", "cache", "owner", "layer"},
    "migrate": BELOW_IMAGE | {"image", "cache", "owner", "layer", "disk"},
    "pool": BELOW_IMAGE | {"image", "cache", "owner", "layer", "disk", "migrate"},
    "offline": BELOW_IMAGE | {"image", "cache", "owner", "layer", "disk", "migrate", "pool"},
    "fuse": BELOW_IMAGE | {"disk", "pool", "control"},
    "ctl": BELOW_IMAGE | {"disk", "pool", "offline", "control"},
    "format": {"core"},
}
# Headers of a library: the folders that may include them.
LIBRARIES = {
    re.compile(r"fuse(_.*)?\.h$|fuse3?/"): {"fuse"},
    re.compile(r"libaio\.h$"): {"aio"},
    re.compile(r"json-glib/"): {"ctl", "disk", "fuse"},
    re.compile(r"blkid/"): {"aio"},
    re.compile(r"seccomp\.h$"): {"fuse"},
    re.compile(r"xxhash\.h$"): {"image", "cache", "layer", "pool"},
}

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def sources(tree):
    """(folder, path) of each C file below src/ and include/."""
    for top in ("src", "include"):
        for directory, _, names in os.walk(os.path.join(tree, top)):
            relative = os.path.relpath(directory, os.path.join(tree, top))
            folder = relative.split(os.sep)[0]
            for name in sorted(names):
                if name.endswith((".c", ".h")):
                    yield folder, os.path.join(directory, name)


def includes(path):
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            match = INCLUDE.match(line)
            if match:
                yield number, match.group(1) == "<", match.group(2)


def library_breach(folder, header):
    for pattern, folders in LIBRARIES.items():
        if pattern.match(header) and folder not in folders:
            return f"only {', '.join(sorted(folders))} may include <{header}>"
    return None


def project_breach(tree, folder, path, header):
    """HEADER is resolved as the compiler does: beside PATH, in include/, then in src/.
    What is in src/ belongs to its folder."""
    beside = os.path.normpath(os.path.join(os.path.dirname(path), header))
    for place in (beside, os.path.join(tree, "include", header), os.path.join(tree, "src", header)):
        if os.path.exists(place):
            top, target = os.path.relpath(place, tree).split(os.sep)[:2]
            break
    else:
        return f'"{header}" is neither beside the file nor in include/ or src/'
    if target == folder:
        return None
    if top == "src":
        return f"reaches into {top}/{target}"
    return None if target in ALLOWED[folder] else f"{folder} may not include {target}/"


def breaches(tree):
    for folder, path in sources(tree):
        where = os.path.relpath(path, tree)
        if folder not in ALLOWED:
            yield f"{where}: {folder}/ has no place in the order of folders"
            continue
        for number, is_system, header in includes(path):
            breach = library_breach(folder, header)
            if not breach and not is_system:
                breach = project_breach(tree, folder, path, header)
            if breach:
                yield f"{where}:{number}: {breach}"


def objects_of(tree, objects):
    """Source file: its object; what is left of a file that is gone does not count."""
    found = {}
    for folder, path in sources(tree):
        relative = os.path.relpath(path, tree)
        built = os.path.join(objects, os.path.relpath(relative, "src"))[:-1] + "o"
        if folder and relative.startswith("src" + os.sep) and path.endswith(".c") and os.path.exists(built):
            found[relative] = built
    return found


def symbols(objects):
    """What each object defines, and what it wants of others: {path: (defined, wanted)}."""
    tables = {built: (set(), set()) for built in objects}
    listing = subprocess.run(["nm", "-A", *tables], check=True, capture_output=True, text=True).stdout
    for line in listing.splitlines():
        built, symbol = line.split(":", 1)
        kind, name = symbol.split()[-2:]
        defined, wanted = tables[built]
        if kind == "U":
            wanted.add(name)
        elif kind in "TDBR":
            defined.add(name)
    return tables


def calls(tree, objects):
    """Source file: those that it uses."""
    found = objects_of(tree, objects)
    of_object = symbols(found.values()) if found else {}
    tables = {source: of_object[built] for source, built in found.items()}
    home = {name: source for source, (defined, _) in tables.items() for name in defined if name != "main"}
    return {source: {home[name] for name in wanted if home.get(name, source) != source}
            for source, (_, wanted) in tables.items()}


def reachable(graph, start):
    seen, left = set(), list(graph[start])
    while left:
        source = left.pop()
        if source not in seen:
            seen.add(source)
            left.extend(graph[source])
    return seen


def circles(tree, objects):
    graph = calls(tree, objects)
    if not graph:
        yield f"{objects}: there are no objects of src/"
    below = {source: reachable(graph, source) for source in graph}
    for source in sorted(graph):
        others = sorted(other for other in graph[source] if source in below[other])
        if others:
            yield f"{source}: calls and is called by {', '.join(others)}"


def main():
    tree = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
    tree = os.path.realpath(tree)
    found = list(breaches(tree))
    if len(sys.argv) > 2:
        found += circles(tree, os.path.realpath(sys.argv[2]))
    for breach in found:
        print(breach)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
