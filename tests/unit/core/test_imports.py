import subprocess
import sys
from pathlib import Path

import pytest

import conviction.core

MODULES = sorted(path.stem for path in Path(conviction.core.__file__).parent.glob("*.py") if path.stem != "__init__")


def test_the_modules_are_found() -> None:
    assert {"config", "environment", "ledger", "records", "rng", "run_folder"} <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_importing_a_module_loads_neither_torch_nor_matplotlib(name: str) -> None:
    code = (
        f"import sys, conviction.core.{name}; print([name for name in ('torch', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
