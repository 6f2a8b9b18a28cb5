"""What every test stands on: shapes are checked, and nothing is written outside the test's own folder."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from jaxtyping import install_import_hook

pytest_plugins = ["postgresql_server"]

# Tests run side by side: two threads each on two cores would wait for one another most of the time.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# What a script starts in the background ignores Ctrl-C, and so would the commands that the tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says something of the machine, and nothing of the code.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# Shape annotations are executed: a function that gets or gives another shape than it says raises in any test.
CHECKED = ("augment", "data", "evaluate", "fit", "metrics", "nets", "predict", "run")
install_import_hook([f"conviction.{name}" for name in CHECKED], "beartype.beartype")


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs, ledger and cache lie in the test's temporary folder."""
    monkeypatch.setenv("CONVICTION_HOME", str(tmp_path / "runs"))
    monkeypatch.setenv("CONVICTION_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CONVICTION_LEDGER", raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    # Whatever compiles sets it for the whole process, and for those that it starts. Set first, it is unset afterwards.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")


@pytest.fixture
def two_threads() -> Iterator[None]:
    """As on a machine with two cores; elsewhere tests compute in one thread."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def real_data() -> Iterator[Path]:
    """The folder of real data sets, from CONVICTION_DATA."""
    for part in os.environ.get("CONVICTION_DATA", "").split(os.pathsep):
        if part and (Path(part) / "cifar10-jpeg75.tar.xz").is_file():
            yield Path(part)
            return
    pytest.skip("CONVICTION_DATA names no folder with the real data sets")
