"""Fixtures: a directory per run and per test, a deadline per test, seeds."""
import os
import random
import shutil
import tempfile
import zlib

import pytest

import cleanup
import harness

TEST_TIMEOUT = 300
TORTURE_TIMEOUT = 3600


@pytest.fixture(scope="session")
def run_directory():
    """Everything that the run makes is below this directory."""
    given = os.environ.get("LEAFDISK_TEST_DIR")
    path = os.path.realpath(given or tempfile.mkdtemp(prefix="leafdisk-test.", dir="/var/tmp"))
    os.makedirs(path, exist_ok=True)
    os.environ[cleanup.RUN_VARIABLE] = path
    yield path
    left = cleanup.clean(path)
    if not given:
        shutil.rmtree(path, ignore_errors=True)
    assert left == [], "the run left something behind"


@pytest.fixture(scope="session", autouse=True)
def programs():
    """The programs under test must be there: nothing is skipped for want of them."""
    for name in ("leafdisk", "leafctl"):
        assert os.access(harness.program(name), os.X_OK), f"{harness.program(name)} is not built"


def pytest_addoption(parser):
    parser.addoption("--keep", action="store_true", help="keep the tests' directories")


@pytest.fixture
def work(run_directory, request):
    """The test's own directory."""
    path = tempfile.mkdtemp(prefix=request.node.originalname + ".", dir=run_directory)
    yield path
    harness.finalise_all()
    if not request.config.getoption("--keep"):
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def pool(work):
    path = os.path.join(work, "pool")
    os.mkdir(path)
    return path


@pytest.fixture
def mount(pool, work):
    """mount(...) starts a daemon on the test's pool; every one is ended."""

    def start(*options, **settings):
        return harness.Mount(settings.pop("pool", pool), work, options, **settings).start()

    yield start
    harness.finalise_all()


@pytest.fixture
def seed(request):
    """Printed with a failure; LEAFDISK_SEED runs the same numbers again."""
    value = int(os.environ.get("LEAFDISK_SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"LEAFDISK_SEED={value}")
    return value ^ zlib.crc32(request.node.nodeid.encode())


@pytest.fixture
def rng(seed):
    return random.Random(seed)


@pytest.fixture(autouse=True)
def deadline(request):
    """A test that hangs fails: its daemons are killed, which frees the caller."""
    marker = request.node.get_closest_marker("timeout")
    seconds = marker.args[0] if marker else TEST_TIMEOUT
    with harness.Deadline(max(seconds, TORTURE_TIMEOUT) if harness.TORTURE else seconds):
        yield


def pytest_configure(config):
    config.addinivalue_line("markers", "timeout(seconds): the test's own deadline")
