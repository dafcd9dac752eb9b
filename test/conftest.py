"""Fixtures: a directory per run and per test, a deadline per test, seeds.

`make check` runs the tests side by side, in the workers of pytest-xdist. Each
worker has a directory of its own in the run's, and ends only what is below that.
"""
import fcntl
import os
import random
import shutil
import tempfile
import zlib

import pytest

import cleanup
import harness
import store

# Only what hangs takes as long: the slowest tests need a tenth of it on a machine of their own.
TEST_TIMEOUT = 900
TORTURE_TIMEOUT = 7200
GIVEN_DIRECTORY = os.environ.get("LEAFDISK_TEST_DIR")
RUN_DIRECTORY = pytest.StashKey()


# ---- The run and its workers ---------------------------------------------------

def is_worker(config):
    return hasattr(config, "workerinput")


def shared_directory(config):
    """The run's, made by the process that the others are workers of."""
    if is_worker(config):
        return config.workerinput["run_directory"]
    if RUN_DIRECTORY not in config.stash:
        path = GIVEN_DIRECTORY or tempfile.mkdtemp(prefix="leafdisk-test.", dir="/var/tmp")
        config.stash[RUN_DIRECTORY] = os.path.realpath(path)
    return config.stash[RUN_DIRECTORY]


def pytest_addoption(parser):
    parser.addoption("--keep", action="store_true", help="keep the tests' directories")


def pytest_configure(config):
    config.addinivalue_line("markers", "timeout(seconds): the test's own deadline")
    config.addinivalue_line("markers", "slow: begins before the others, so that nobody waits for it in the end")
    config.addinivalue_line("markers", "alone: measures, or looks at what all share; no test runs beside it")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    """In the process that starts the workers: what a worker is told."""
    node.workerinput["run_directory"] = shared_directory(node.config)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    """The workers have ended; one that died has left behind what it ran."""
    path = session.config.stash.get(RUN_DIRECTORY, None)
    if not path:
        return
    if cleanup.clean(path) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    if not GIVEN_DIRECTORY:
        shutil.rmtree(path, ignore_errors=True)


def rank(item):
    if item.get_closest_marker("alone"):
        return 2
    return 0 if item.get_closest_marker("slow") else 1


def pytest_collection_modifyitems(config, items):
    """The workers take the tests in this order; one process keeps the files'."""
    if is_worker(config):
        items.sort(key=rank)


@pytest.fixture(scope="session")
def run_directory(pytestconfig):
    """Everything that this process makes is below this directory."""
    path = shared_directory(pytestconfig)
    os.makedirs(path, exist_ok=True)
    if is_worker(pytestconfig):
        # Whoever lets other users in to a test's directory need not change this one.
        os.chmod(path, 0o711)
        path = os.path.join(path, pytestconfig.workerinput["workerid"])
        os.makedirs(path, 0o700, exist_ok=True)
    os.environ[cleanup.RUN_VARIABLE] = path
    yield path
    left = cleanup.clean(path)
    assert left == [], "the run left something behind"


@pytest.fixture(autouse=True)
def turn(run_directory, request):
    """A test that is marked alone begins when those of the other workers have ended."""
    alone = request.node.get_closest_marker("alone")
    with open(os.path.join(shared_directory(request.config), "turn"), "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield


# ---- Each test -----------------------------------------------------------------

@pytest.fixture(scope="session", autouse=True)
def programs():
    """The programs under test must be there: nothing is skipped for want of them."""
    for name in ("leafdisk", "leafctl"):
        assert os.access(harness.program(name), os.X_OK), f"{harness.program(name)} is not built"


@pytest.fixture(scope="session")
def other_store(run_directory):
    """A store to put a pool on that is slow or gives errors."""
    return store.Store(run_directory)


@pytest.fixture
def work(run_directory, request):
    """The test's own directory."""
    path = tempfile.mkdtemp(prefix=request.node.originalname + ".", dir=run_directory)
    yield path
    harness.finalise_all()
    if not request.config.getoption("--keep"):
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(autouse=True)
def no_reports(request):
    """What a sanitizer reports fails the test, also of a program that is killed or is
    expected to fail."""
    harness.reports.clear()
    if "work" in request.fixturenames:
        request.getfixturevalue("work")
    yield
    harness.finalise_all()
    reports = list(harness.reports)
    assert not reports, "\n".join(reports)


@pytest.fixture
def pool(work):
    path = os.path.join(work, "pool")
    os.mkdir(path)
    return path


@pytest.fixture
def cache(work):
    return os.path.join(work, "leaf.cache")


@pytest.fixture
def gate(work):
    return harness.Gate(work)


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
def deadline(turn, request):
    """A test that hangs fails: its daemons are killed, which frees the caller."""
    marker = request.node.get_closest_marker("timeout")
    seconds = marker.args[0] if marker else TEST_TIMEOUT
    with harness.Deadline(max(seconds, TORTURE_TIMEOUT) if harness.TORTURE else seconds):
        yield
