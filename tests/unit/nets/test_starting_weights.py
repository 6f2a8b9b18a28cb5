"""Files of weights that fit, and files that do not, are damaged or hostile."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from conviction.core.errors import DataError
from conviction.nets import BlocksConfig, NetworkConfig, TorchvisionConfig, build_network, load_starting_weights
from conviction.nets.starting_weights import weights_digest

SMALL: dict[str, Any] = {"blocks": [{"filters": 4, "normalization": "batch"}]}


def network(num_classes: int = 3, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_network(BlocksConfig.model_validate(SMALL), (3, 8, 8), num_classes)


def config(path: Path | str, **others: Any) -> NetworkConfig:
    return BlocksConfig.model_validate({**SMALL, "weights": str(path), **others})


def saved(path: Path, tensors: Any) -> Path:
    torch.save(tensors, path)
    return path


@pytest.mark.parametrize("form", ["pth", "safetensors", "legacy", "checkpoint", "parallel"])
def test_every_form_is_read(form: str, tmp_path: Path) -> None:
    wanted = network(seed=1).state_dict()
    path = tmp_path / f"weights.{form}"
    if form == "safetensors":
        save_file(wanted, path)
    elif form == "legacy":
        torch.save(wanted, path, _use_new_zipfile_serialization=False)
    elif form == "checkpoint":
        torch.save({"epoch": 3, "state_dict": wanted}, path)
    else:
        torch.save({f"module.{name}": one for name, one in wanted.items()} if form == "parallel" else wanted, path)
    filled = network()
    (note,) = load_starting_weights(config(path), filled)
    assert all(torch.equal(one, wanted[name]) for name, one in filled.state_dict().items())
    assert note == f"All weights come from {path}."


def test_a_head_of_another_number_of_classes_stays_as_drawn(tmp_path: Path) -> None:
    given, filled = network(num_classes=5, seed=1), network()
    drawn = {name: one.clone() for name, one in filled.state_dict().items()}
    (note,) = load_starting_weights(config(saved(tmp_path / "five.pth", given.state_dict())), filled)
    for name, one in filled.state_dict().items():
        assert torch.equal(one, drawn[name] if name.startswith("classifier.") else given.state_dict()[name]), name
    assert "the head, classifier (5 classes there, 3 here), is drawn anew" in note


def test_published_names_of_densenet(tmp_path: Path) -> None:
    model = TorchvisionConfig(model="densenet121", weights=str(tmp_path / "dense.pth"))
    wanted = build_network(model, (3, 32, 32), 4).state_dict()
    # As the published files spell them.
    former = {
        name.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2.") if "denselayer" in name else name: one
        for name, one in wanted.items()
    }
    assert former.keys() != wanted.keys()
    saved(tmp_path / "dense.pth", former)
    filled = build_network(model, (3, 32, 32), 4)
    load_starting_weights(model, filled)
    assert all(torch.equal(one, wanted[name]) for name, one in filled.state_dict().items())


class Hostile:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {os.environ['HOSTILE_TRACE']}",)


def test_code_in_a_file_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTILE_TRACE", str(tmp_path / "trace"))
    torch.save({"blocks.block1.convolution.weight": Hostile()}, tmp_path / "hostile.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Hostile()))
    says = {"hostile.pth": r"holds more than weights: .*Nothing of it was run", "plain.pth": "no file of weights"}
    for name, text in says.items():
        with pytest.raises(DataError, match=text):
            load_starting_weights(config(tmp_path / name), network())
    assert not (tmp_path / "trace").exists()


def test_a_compressed_file_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(1_000_000))
    with pytest.raises(DataError, match="is compressed"):
        load_starting_weights(config(tmp_path / "bomb.pth"), network())


def _changed(change: Callable[[dict[str, Tensor]], None]) -> dict[str, Tensor]:
    tensors = dict(network().state_dict())
    change(tensors)
    return tensors


WEIGHT = "blocks.block1.convolution.weight"


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        (_changed(lambda t: t.update({WEIGHT: torch.zeros(4, 3, 5, 5)})),
         f"{WEIGHT} has 4×3×5×5 numbers in the file and 4×3×3×3 in the network"),
        (_changed(lambda t: t.pop(WEIGHT)), rf"{WEIGHT} \(4×3×3×3 in the network\) is not in the file"),
        (_changed(lambda t: t.update({"layer9.weight": torch.zeros(1)})),
         "layer9.weight is in the file and not in the network"),
        (_changed(lambda t: t.update({WEIGHT: torch.full((4, 3, 3, 3), float("nan"))})), f"{WEIGHT} holds numbers"),
        ({"other": torch.zeros(1)}, "and 6 more do not fit"),
        ({}, "must hold a network's weights by name"),
        ([torch.zeros(1)], "holds list"),
        ({"epoch": 3}, "'epoch': int"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(tensors: Any, says: str, tmp_path: Path) -> None:
    filled = network()
    before = {name: one.clone() for name, one in filled.state_dict().items()}
    with pytest.raises(DataError, match=says):
        load_starting_weights(config(saved(tmp_path / "w.pth", tensors)), filled)
    assert all(torch.equal(one, before[name]) for name, one in filled.state_dict().items())


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("form", ["pth", "safetensors"])
def test_a_truncated_file_is_refused(form: str, share: float, tmp_path: Path) -> None:
    path = tmp_path / f"w.{form}"
    if form == "pth":
        torch.save(network().state_dict(), path)
    else:
        save_file(network().state_dict(), path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DataError, match="is damaged"):
        load_starting_weights(config(path), network())


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"network\.weights: No file or folder 'nowhere\.pth'"):
        load_starting_weights(config("nowhere.pth"), network())
    with pytest.raises(DataError, match="is a folder"):
        load_starting_weights(config(tmp_path), network())


def test_another_file_than_the_recipe_means_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pth", network().state_dict())
    digest = weights_digest(str(path))
    load_starting_weights(config(path, weights_sha256=digest), network())
    saved(path, network(seed=1).state_dict())
    with pytest.raises(DataError, match="is not the file that the recipe means"):
        load_starting_weights(config(path, weights_sha256=digest), network())


def test_the_file_is_found_in_the_data_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights").mkdir()
    saved(tmp_path / "weights" / "w.pth", network(seed=1).state_dict())
    monkeypatch.setenv("CONVICTION_DATA", str(tmp_path))
    filled = network()
    load_starting_weights(config("weights/w.pth"), filled)
    assert torch.equal(filled.state_dict()[WEIGHT], network(seed=1).state_dict()[WEIGHT])


@pytest.mark.parametrize("num_classes", [10, 1000])
def test_the_published_squeezenet(num_classes: int, real_data: Path) -> None:
    path = real_data / "weights" / "squeezenet1_1_imagenet.pth"
    published = torch.load(path, weights_only=True)
    settings = TorchvisionConfig(model="squeezenet1_1", weights=str(path))
    filled = build_network(settings, (3, 64, 64), num_classes)
    (note,) = load_starting_weights(settings, filled)
    state = filled.state_dict()
    assert all(torch.equal(state[name], one) for name, one in published.items() if name.startswith("features."))
    assert torch.equal(state["classifier.1.weight"][:10], published["classifier.1.weight"][:10]) == (
        num_classes == 1000
    )
    assert ("is drawn anew" in note) == (num_classes == 10)
