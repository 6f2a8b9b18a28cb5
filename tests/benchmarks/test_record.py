"""What figures depend on: the machine that their file is named after, and the programs beside a measurement."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import record
from frozen_head import ratios

GENERIC = {"processor": "AMD EPYC", "threads": 2, "instruction_sets": ["avx2"], "device": "cpu"}
BUSY_S = 0.5
BUSY = f"import time; end = time.process_time() + {BUSY_S}\nwhile time.process_time() < end: pass"


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ({}, "amd-epyc-2-threads"),
        ({"instruction_sets": ["avx2", "avx512_bf16"]}, "amd-epyc-2-threads-bfloat16"),
        ({"threads": 4, "instruction_sets": ["amx_bf16"]}, "amd-epyc-4-threads-bfloat16"),
        ({"device": "cuda", "device_name": "NVIDIA H200"}, "amd-epyc-2-threads-nvidia-h200"),
        ({"processor": "Intel(R) Xeon(R) Processor"}, "intel-r-xeon-r-processor-2-threads"),
    ],
)
def test_machines_of_one_name_have_files_of_their_own(
    more: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(record, "FOLDER", tmp_path)
    assert record.machine_path({**GENERIC, **more}, ".json") == tmp_path / f"{name}.json"


def test_this_machine_has_a_file() -> None:
    assert record.machine_path(record.this_environment("digits"), ".md").suffix == ".md"


@pytest.mark.skipif(sys.platform != "linux", reason="Only Linux tells what all programs take.")
def test_bystanders_are_those_that_we_did_not_start() -> None:
    with record.bystanders() as alone:
        subprocess.run([sys.executable, "-c", BUSY], check=True)
    # Not waited for, so that it counts as another program.
    other = subprocess.Popen([sys.executable, "-c", BUSY])
    with record.bystanders() as beside:
        while Path(f"/proc/{other.pid}/stat").read_text().rpartition(") ")[2][0] != "Z":
            time.sleep(0.02)
    other.wait()
    assert set(alone) == set(beside) == {"others", "host"}
    assert 0 <= alone["others"] <= 1
    assert 0 < beside["others"] <= 1


def test_without_a_kernel_that_tells_nothing_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(record, "_KERNEL", tmp_path / "stat")
    with record.bystanders() as found:
        pass
    assert found == {}


def test_shares_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of 100 s of all cores: 60 of programs, 5 kept by the host; 45 of the programs' are our own.
    told = iter([(1000.0, 200.0, 10.0, 3.0), (1100.0, 260.0, 15.0, 48.0)])
    monkeypatch.setattr(record, "_processor_seconds", lambda: next(told))
    with record.bystanders() as found:
        assert found == {}
    assert found == {"others": pytest.approx(0.15), "host": 0.05}


def test_ratios_of_the_frozen_head_count_all_epochs() -> None:
    # Two of twenty epochs are measured of the tutorial; seconds of the clock, then of the processor.
    ours, theirs = [(20.0, 40.0), (25.0, 45.0)], [(50.0, 90.0), (50.0, 90.0)]
    assert ratios(ours, theirs, 0) == [25.0, 20.0]
    assert ratios(ours, theirs, 1) == [22.5, 20.0]
