"""Each C unit test is a program; its exit status says whether it passed."""
import os

import pytest

from harness import BUILD, TREE, run

NAMES = sorted(name[:-2] for name in os.listdir(os.path.join(TREE, "test", "unit"))
               if name.startswith("test_") and name.endswith(".c"))


@pytest.mark.parametrize("name", NAMES)
def test_unit(name, work):
    run(os.path.join(BUILD, "unit", name), cwd=work, env={"TMPDIR": work})
