"""Each C unit test is a program; its exit status says whether it passed."""
import os

import pytest

from harness import BUILD, SANITIZED, TREE, run

# These measure time and idleness; those take longest.
ALONE = dict.fromkeys(("test_aio_queue", "test_loop"), pytest.mark.alone)
SLOW = dict.fromkeys(("test_cache", "test_cache_crash", "test_cache_dirty", "test_cache_moves", "test_cache_recover",
                      "test_cache_reserve", "test_cache_sweep", "test_leaf"), pytest.mark.slow)
NAMES = sorted(name[:-2] for name in os.listdir(os.path.join(TREE, "test", "unit"))
               if name.startswith("test_") and name.endswith(".c"))


@pytest.mark.parametrize("name", [pytest.param(name, marks={**ALONE, **SLOW}.get(name, ())) for name in NAMES])
def test_unit(name, work):
    run(os.path.join(BUILD, "unit", name), cwd=work, env={"TMPDIR": work}, timeout=1200 if SANITIZED else 600)
