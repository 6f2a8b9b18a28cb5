from __future__ import annotations

import json
import os
import random
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from conviction.core.errors import RunError, StorageError
from conviction.fit.checkpoint import (
    load_checkpoint,
    load_tensors,
    load_weights,
    save_checkpoint,
    save_tensors,
    save_weights,
)

ABOUT = {"epoch": 3, "note": "Grüße", "list": [1, 2.5, None, True]}


def some_tensors() -> dict[str, Tensor]:
    return {
        "blocks.block1.convolution.weight": torch.linspace(-1, 1, 54).reshape(2, 3, 3, 3),
        "half": torch.tensor([1.5, -2.25, 1e30]).bfloat16(),
        "number": torch.tensor(7.5),
        "count": torch.tensor(12, dtype=torch.int64),
        "empty": torch.zeros(0, 4),
        "flags": torch.tensor([True, False]),
    }


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        first[name].dtype == second[name].dtype
        and first[name].shape == second[name].shape
        and torch.equal(first[name], second[name])
        for name in first
    )


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "tensors.safetensors"
    save_tensors(path, some_tensors(), ABOUT)
    return path


class TestTensors:
    def test_what_was_saved_is_loaded(self, saved: Path) -> None:
        tensors, about = load_tensors(saved)
        assert equal(tensors, some_tensors())
        assert about == ABOUT

    def test_saving_twice_gives_the_same_bytes(self, saved: Path, tmp_path: Path) -> None:
        turned = dict(reversed(some_tensors().items()))
        save_tensors(tmp_path / "again.safetensors", turned, ABOUT)
        assert (tmp_path / "again.safetensors").read_bytes() == saved.read_bytes()

    def test_a_file_without_tensors(self, tmp_path: Path) -> None:
        save_tensors(tmp_path / "none.safetensors", {}, {"epoch": 0})
        assert load_tensors(tmp_path / "none.safetensors") == ({}, {"epoch": 0})

    def test_any_memory_layout(self, tmp_path: Path) -> None:
        maps = torch.randn(2, 3, 4, 5)
        given = {
            "last": maps.contiguous(memory_format=torch.channels_last),
            "turned": maps.transpose(0, 1),
            "part": maps[:, 1],
        }
        save_tensors(tmp_path / "layouts.safetensors", given, {})
        assert equal(load_tensors(tmp_path / "layouts.safetensors")[0], given)

    def test_keys_that_json_turns_into_text(self, tmp_path: Path) -> None:
        save_tensors(tmp_path / "keys.safetensors", {}, {"by_epoch": {10: 0.5, 9: (1, 2)}})
        assert load_tensors(tmp_path / "keys.safetensors")[1] == {"by_epoch": {"10": 0.5, "9": [1, 2]}}

    def test_what_was_loaded_does_not_change_the_file(self, saved: Path) -> None:
        before = saved.read_bytes()
        tensors, _ = load_tensors(saved)
        tensors["blocks.block1.convolution.weight"].zero_()
        assert saved.read_bytes() == before

    def test_it_is_no_pickle(self, saved: Path) -> None:
        header_bytes = int.from_bytes(saved.read_bytes()[:8], "little")
        header = json.loads(saved.read_bytes()[8 : 8 + header_bytes])
        assert header.keys() == {"__metadata__", *some_tensors()}
        assert saved.stat().st_size == 8 + header_bytes + 54 * 4 + 3 * 2 + 4 + 8 + 0 + 2

    def test_a_disk_that_takes_no_more(self, saved: Path) -> None:
        before = saved.read_bytes()
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        try:
            with pytest.raises(StorageError, match="the file would pass the size limit"):
                save_tensors(saved, some_tensors(), {"epoch": 4})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert saved.read_bytes() == before
        assert os.listdir(saved.parent) == [saved.name]

    def test_a_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match="its folder does not exist"):
            save_tensors(tmp_path / "missing" / "tensors.safetensors", some_tensors(), ABOUT)
        assert os.listdir(tmp_path) == []


class TestDamage:
    def test_a_changed_byte_is_found_or_changes_nothing(self, saved: Path) -> None:
        whole = saved.read_bytes()
        drawn = random.Random(0)
        harmless = 0
        for position in range(len(whole)):
            damaged = bytearray(whole)
            damaged[position] ^= drawn.randint(1, 255)
            saved.write_bytes(damaged)
            try:
                tensors, about = load_tensors(saved)
            except RunError:
                continue
            harmless += 1
            assert equal(tensors, some_tensors()), position
            assert about == ABOUT, position
        assert harmless < len(whole) / 50

    @pytest.mark.parametrize("bit", range(8))
    def test_a_flipped_bit_is_found_or_changes_nothing(self, saved: Path, bit: int) -> None:
        whole = saved.read_bytes()
        for position in range(bit, len(whole), 5):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << bit
            saved.write_bytes(damaged)
            try:
                tensors, about = load_tensors(saved)
            except RunError:
                continue
            assert equal(tensors, some_tensors()), position
            assert about == ABOUT, position

    def test_a_flipped_bit_of_a_weight_is_named_damage(self, saved: Path) -> None:
        damaged = bytearray(saved.read_bytes())
        damaged[-30] ^= 1
        saved.write_bytes(damaged)
        with pytest.raises(RunError, match=r"tensors\.safetensors is damaged: its checksum does not match"):
            load_tensors(saved)

    def test_every_truncation_is_found(self, saved: Path) -> None:
        whole = saved.read_bytes()
        for length in range(0, len(whole), 7):
            saved.write_bytes(whole[:length])
            with pytest.raises(RunError, match="is damaged"):
                load_tensors(saved)

    def test_bytes_behind_the_end_are_found(self, saved: Path) -> None:
        saved.write_bytes(saved.read_bytes() + b"\0")
        with pytest.raises(RunError, match="is damaged"):
            load_tensors(saved)

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(RunError, match=r"best\.safetensors is missing"):
            load_tensors(tmp_path / "best.safetensors")

    def test_a_folder_in_the_files_place(self, tmp_path: Path) -> None:
        with pytest.raises(RunError):
            load_tensors(tmp_path)

    @pytest.mark.parametrize(
        ("metadata", "expected"),
        [
            (None, "was not written by Conviction"),
            ({"format": "pt"}, "was not written by Conviction"),
            ({"conviction": "no JSON"}, "is damaged"),
            ({"conviction": "[1, 2]"}, "is damaged"),
            ({"conviction": '{"about": {}}'}, "is damaged"),
            ({"conviction": '{"about": {}, "sha256": "0"}'}, "its checksum does not match"),
        ],
    )
    def test_a_foreign_file(self, tmp_path: Path, metadata: dict[str, str] | None, expected: str) -> None:
        path = tmp_path / "foreign.safetensors"
        save_file({"weight": torch.zeros(2)}, path, metadata=metadata)
        with pytest.raises(RunError, match=expected):
            load_tensors(path)


class TestWeights:
    def test_weights_of_another_network_are_refused(self, tmp_path: Path) -> None:
        save_weights(tmp_path / "weights.safetensors", nn.Linear(3, 2), {})
        for other in (nn.Linear(2, 2), nn.Linear(3, 2, bias=False), nn.Sequential(nn.Linear(3, 2))):
            with pytest.raises(RunError, match=r"weights\.safetensors does not fit this network: ."):
                load_weights(tmp_path / "weights.safetensors", other)

    def test_buffers_are_weights_too(self, tmp_path: Path) -> None:
        saved, loaded = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
        saved(torch.randn(4, 3))
        save_weights(tmp_path / "weights.safetensors", saved, {})
        load_weights(tmp_path / "weights.safetensors", loaded)
        assert equal(dict(loaded.state_dict()), dict(saved.state_dict()))

    def test_names_with_dots_and_with_our_own_prefixes(self, tmp_path: Path) -> None:
        def network() -> nn.Module:
            inner = nn.ModuleDict({"network": nn.Linear(2, 2), "optimizer": nn.Linear(2, 2)})
            return nn.ModuleDict({"network": inner, "optimizer": nn.Linear(2, 2)})

        saved, loaded = network(), network()
        optimizer = torch.optim.SGD(saved.parameters(), lr=0.1)
        save_checkpoint(tmp_path / "checkpoint.safetensors", saved, optimizer, {})
        load_checkpoint(tmp_path / "checkpoint.safetensors", loaded, torch.optim.SGD(loaded.parameters(), lr=0.1))
        assert equal(dict(loaded.state_dict()), dict(saved.state_dict()))


def trained(network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    network(torch.ones(2, 3)).sum().backward()
    optimizer.step()


class TestCheckpoint:
    @pytest.fixture
    def checkpoint(self, tmp_path: Path) -> Path:
        network = nn.Linear(3, 2)
        optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
        trained(network, optimizer)
        save_checkpoint(tmp_path / "checkpoint.safetensors", network, optimizer, {"epoch": 1})
        return tmp_path / "checkpoint.safetensors"

    def test_another_network_is_refused(self, checkpoint: Path) -> None:
        network = nn.Linear(4, 2)
        with pytest.raises(RunError, match="does not fit this network"):
            load_checkpoint(checkpoint, network, torch.optim.Adam(network.parameters()))

    @pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW, torch.optim.Adagrad])
    def test_another_optimiser_is_refused(self, checkpoint: Path, kind: Any) -> None:
        network = nn.Linear(3, 2)
        with pytest.raises(
            RunError, match=f"does not fit this optimiser: it was written by Adam, not by {kind.__name__}"
        ):
            load_checkpoint(checkpoint, network, kind(network.parameters(), lr=0.1))

    def test_other_groups_are_refused(self, checkpoint: Path) -> None:
        network = nn.Linear(3, 2)
        groups = [{"params": [network.weight]}, {"params": [network.bias]}]
        with pytest.raises(RunError, match="does not fit this optimiser"):
            load_checkpoint(checkpoint, network, torch.optim.Adam(groups))

    def test_weights_alone_are_no_checkpoint(self, tmp_path: Path) -> None:
        network = nn.Linear(3, 2)
        save_weights(tmp_path / "weights.safetensors", network, {"epoch": 1})
        with pytest.raises(RunError, match="does not fit this network"):
            load_checkpoint(tmp_path / "weights.safetensors", network, torch.optim.Adam(network.parameters()))

    def test_before_the_first_step(self, tmp_path: Path) -> None:
        network = nn.Linear(3, 2)
        optimizer = torch.optim.Adam(network.parameters())
        save_checkpoint(tmp_path / "checkpoint.safetensors", network, optimizer, {"epoch": 0})
        assert load_checkpoint(tmp_path / "checkpoint.safetensors", network, optimizer) == {"epoch": 0}
        trained(network, optimizer)

    def test_groups_keep_their_settings_and_their_types(self, checkpoint: Path) -> None:
        network = nn.Linear(3, 2)
        optimizer = torch.optim.Adam(network.parameters(), lr=0.7)
        load_checkpoint(checkpoint, network, optimizer)
        group = optimizer.param_groups[0]
        assert (group["lr"], group["betas"], group["amsgrad"]) == (0.1, (0.9, 0.999), False)
        assert group["params"][0] is network.weight

    def test_state_lies_as_its_weights_do(self, tmp_path: Path) -> None:
        def convolution() -> nn.Module:
            return nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)

        network, loaded = convolution(), convolution()
        optimizer = torch.optim.Adam(network.parameters())
        network(torch.ones(1, 3, 3, 3)).sum().backward()
        optimizer.step()
        save_checkpoint(tmp_path / "checkpoint.safetensors", network, optimizer, {})
        restored = torch.optim.Adam(loaded.parameters())
        load_checkpoint(tmp_path / "checkpoint.safetensors", loaded, restored)
        assert restored.state[loaded.weight]["exp_avg"].stride() == loaded.weight.stride()
        assert torch.equal(restored.state[loaded.weight]["exp_avg"], optimizer.state[network.weight]["exp_avg"])
