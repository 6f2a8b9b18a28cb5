import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from conviction.core import device
from conviction.core.device import (
    choose_compile,
    choose_device,
    choose_precision,
    compute_float32_in_full,
    num_cores,
    peak_memory_bytes,
    processor_flags,
    sent,
)
from conviction.core.errors import ConfigError

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def fresh_processor_flags() -> None:
    processor_flags.cache_clear()


@pytest.mark.parametrize(("found", "chosen"), [(True, GPU), (False, CPU)])
def test_auto_takes_the_gpu_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, found: bool, chosen: torch.device
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: found)
    assert choose_device("auto") == chosen
    assert choose_device("cpu") == CPU


def test_a_gpu_that_is_asked_for_and_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"torch finds no CUDA device\. Use `auto` or `cpu`"):
        choose_device("cuda")


@pytest.mark.parametrize(
    ("cpuinfo", "precision"),
    [
        ("flags\t\t: sse avx2 avx512_bf16 fma", "bfloat16"),
        ("flags\t\t: sse amx_bf16", "bfloat16"),
        ("Features\t: fp asimd bf16", "bfloat16"),
        ("flags\t\t: sse avx2 avx512f", "float32"),
        ("bugs\t\t: bf16", "float32"),
        ("", "float32"),
    ],
)
def test_auto_takes_bfloat16_where_the_processor_computes_in_it(
    monkeypatch: pytest.MonkeyPatch, cpuinfo: str, precision: str
) -> None:
    monkeypatch.setattr(device, "_cpuinfo", cpuinfo.splitlines)
    assert choose_precision("auto", CPU) == precision
    assert choose_precision("bfloat16", CPU) == "bfloat16"
    assert choose_precision("float32", CPU) == "float32"


@pytest.mark.parametrize(("supported", "precision"), [(True, "bfloat16"), (False, "float32")])
def test_auto_takes_bfloat16_where_the_gpu_computes_in_it_itself(
    monkeypatch: pytest.MonkeyPatch, supported: bool, precision: str
) -> None:
    def is_bf16_supported(including_emulation: bool = True) -> bool:
        return including_emulation or supported

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_bf16_supported)
    assert choose_precision("auto", GPU) == precision


def test_the_processor_bears_its_model_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_cpuinfo", lambda: ["model\t: 1", "model name\t: Chip: 3 GHz"])
    assert device.processor_name() == "Chip: 3 GHz"
    monkeypatch.setattr(device, "_cpuinfo", list)
    assert device.processor_name() != ""


def test_the_cores_are_those_that_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device.os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    assert num_cores() == 3
    monkeypatch.delattr(device.os, "sched_getaffinity")
    monkeypatch.setattr(device.os, "cpu_count", lambda: None)
    assert num_cores() == 1


@pytest.mark.parametrize(
    ("siblings", "physical"),
    [
        (["0-1\n", "0-1\n", "2-3\n", "2-3\n"], 2),
        (["0,2\n", "1,3\n", "0,2\n", "1,3\n"], 2),
        (["0\n", "1\n", "2\n", "3\n"], 4),
        (["0-1\n", "0-1\n", "2\n", "3\n"], 3),
        (["0-1\n", "0-1\n", None, "2-3\n"], 4),
    ],
)
def test_cores_that_share_their_units_count_once(
    siblings: list[str | None], physical: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for core, text in enumerate(siblings):
        if text is not None:
            folder = tmp_path / f"cpu{core}" / "topology"
            folder.mkdir(parents=True)
            (folder / "thread_siblings_list").write_text(text)
    monkeypatch.setattr(device, "_CORES", tmp_path)
    monkeypatch.setattr(device.os, "sched_getaffinity", lambda process: set(range(4)), raising=False)
    assert device.num_physical_cores() == physical
    monkeypatch.delattr(device.os, "sched_getaffinity")
    monkeypatch.setattr(device.os, "cpu_count", lambda: 4)
    assert device.num_physical_cores() == 4


@pytest.mark.parametrize(("text", "number"), [("3", 3), ("", None), ("0", None), ("two", None), ("-1", None)])
def test_threads_are_those_asked_for(text: str, number: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    monkeypatch.setattr(device, "num_cores", lambda: 7)
    assert device.threads_asked_for() == number
    assert device.num_threads() == (number or 7)


def test_the_peak_of_memory_is_in_bytes() -> None:
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("only Linux tells the peak a second way")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
    assert found is not None
    assert peak_memory_bytes() == pytest.approx(int(found[1]) * 1024, rel=0.1)


def number_from(code: str, *arguments: str) -> int:
    """What the code prints in a process of its own."""
    command = [sys.executable, "-c", code, *arguments]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator is that of Linux")
def test_memory_that_a_step_frees_is_there_for_the_next() -> None:
    code = (
        "import resource, sys, torch\n"
        "from conviction.core.device import keep_freed_memory\n"
        "if 'keep' in sys.argv: assert keep_freed_memory()\n"
        "def step(): x = torch.ones(8 * 2**20); y = x + 1\n"
        "for _ in range(20): step()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(5): step()\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
    )

    # 64 MiB in pages of 4 KiB, five times over, where they are given back.
    assert number_from(code) > 16384
    assert number_from(code, "keep") < 1000


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator is that of Linux")
def test_kept_memory_is_given_back_when_told() -> None:
    code = (
        "import torch\n"
        "from conviction.core.device import give_back_freed_memory, keep_freed_memory\n"
        "def resident(): return int(open('/proc/self/statm').read().split()[1]) * 4096\n"
        "assert keep_freed_memory()\n"
        "pieces, behind = [torch.ones(2**20) for _ in range(64)], torch.ones(2**18)\n"
        "del pieces\n"
        "kept = resident()\n"
        "assert give_back_freed_memory()\n"
        "print(kept - resident())\n"
    )
    # 64 pieces of 4 MiB, though one behind them is in use.
    assert number_from(code) > 60 * 4 * 2**20


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device.ctypes, "CDLL", lambda name: object())
    assert device.keep_freed_memory() is False
    assert device.give_back_freed_memory() is False


def test_the_peak_is_this_processs_own() -> None:
    """A process started by a large one would be told that one's peak by `getrusage`."""
    code = "from conviction.core.device import peak_memory_bytes; print(peak_memory_bytes())"
    large = bytearray(500_000_000)
    large[::4096] = b"x" * len(large[::4096])
    assert number_from(code) < 200_000_000
    assert peak_memory_bytes() > len(large)


def test_compiling_is_what_was_asked_for() -> None:
    assert choose_compile("auto", CPU) == choose_compile("none", CPU) == choose_compile("auto", GPU) == "none"
    assert choose_compile("fused", CPU) == choose_compile("fused", GPU) == "fused"
    assert choose_compile("cuda_graphs", GPU) == "cuda_graphs"
    with pytest.raises(ConfigError, match=r"on a processor\. Use `auto`, `fused` or `none`"):
        choose_compile("cuda_graphs", CPU)


def test_a_gpu_computes_float32_in_full() -> None:
    places = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [place.allow_tf32 for place in places]
    try:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
        compute_float32_in_full()
        assert [place.allow_tf32 for place in places] == [False, False]
        # As the ceilings of a machine set it.
        assert torch.backends.cudnn.conv.fp32_precision != "tf32"
    finally:
        for place, value in zip(places, before, strict=True):
            place.allow_tf32 = value


def test_what_is_there_already_is_not_copied() -> None:
    tensor = torch.arange(3)
    assert sent(tensor, CPU) is tensor


def test_nothing_waits_for_what_is_sent_to_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor, pinned, arrived = torch.arange(3), torch.arange(3), torch.arange(3)
    calls: list[tuple[object, ...]] = []

    def to(self: torch.Tensor, *place: object, **how: object) -> torch.Tensor:
        calls.append((self is pinned, *place, how))
        return arrived

    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned)
    monkeypatch.setattr(torch.Tensor, "to", to)
    assert sent(tensor, GPU) is arrived
    assert calls == [(True, GPU, {"non_blocking": True})]
