"""`conviction inspect` as a user meets it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import conviction as package
from command import conviction
from conviction.nets import PRESETS
from pictures import write_class_folders


def test_every_layer_has_the_fixed_fields() -> None:
    found = conviction("inspect", "alexnet-cifar10", "--json").json
    assert found["input"] == [3, 32, 32]
    assert (found["parameters"], found["trainable_parameters"], found["macs"]) == (1_191_170, 1_191_170, 23_152_400)
    first = found["layers"][0]
    assert (first["name"], first["kind"], first["output"]) == ("blocks.block1.convolution", "Conv2d", [32, 32, 32])
    assert (first["parameters"], first["macs"]) == (2_432, 2_457_600)
    assert first["receptive_field"] == {"size": 5, "stride": 1, "start": 0.5, "status": "EXACT"}
    assert sum(layer["parameters"] for layer in found["layers"]) == found["parameters"]
    assert sum(layer["macs"] for layer in found["layers"]) == found["macs"]
    # 50,000 published training pictures, a tenth of them for validation.
    assert found["num_training_pictures"] == 45_000
    assert found["parameters_per_training_picture"] == pytest.approx(1_191_170 / 45_000)


@pytest.mark.parametrize(
    ("assignments", "expected"),
    [
        (("split.folds=5", "split.fold=1"), 40_000),
        (("split.train_per_class=70",), 700),
        (("split.file=gone.csv",), None),
    ],
)
def test_training_pictures_are_counted_as_they_are_divided(assignments: tuple[str, ...], expected: int | None) -> None:
    options = [part for assignment in assignments for part in ("--set", assignment)]
    finished = conviction("inspect", "alexnet-cifar10", *options, "--json")
    assert finished.code == 0, finished.err
    assert finished.json["num_training_pictures"] == expected


@pytest.mark.parametrize("name", PRESETS)
def test_presets_need_no_further_word(name: str) -> None:
    finished = conviction("inspect", name)
    assert finished.code == 0, finished.err
    assert "Weights     " in finished.out
    assert "multiply-accumulate" in finished.out


def test_memory_follows_the_batch_and_the_optimizer() -> None:
    def memory(*options: str) -> dict[str, int]:
        found: dict[str, int] = conviction("inspect", "alexnet-cifar10", "--json", *options).json["memory"]
        return found

    small, large = memory("--batch", "64"), memory("--batch", "128")
    assert large["inference_bytes"] - large["weights_bytes"] == 2 * (small["inference_bytes"] - small["weights_bytes"])
    assert large["optimizer_bytes"] == large["weights_bytes"]
    assert memory("--set", "optimizer=adam")["optimizer_bytes"] == 2 * large["weights_bytes"]
    assert memory("--set", "optimizer={name: sgd, momentum: 0}")["optimizer_bytes"] == 0
    assert memory("--set", "fit.batch_size=7")["batch_size"] == 7


def test_a_recipe_with_pictures_counts_them(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "photos", {"cat": 12, "dog": 12, "owl": 12}, (60, 60))
    asked = conviction("inspect", "simplecnn-artists", "--set", "data.path=nowhere", "--json")
    assert asked.code == 2, asked.out
    assert "--classes" in asked.json["error"]["message"]
    found = conviction("inspect", "simplecnn-artists", "--set", f"data.path={tmp_path / 'photos'}", "--json").json
    assert found["layers"][-1]["output"] == [3]
    # A fifth of each class of 12, rounded, for validation and for the test.
    assert found["num_training_pictures"] == 24
    assert conviction(*("inspect", "simplecnn-artists", "--set", "data.path=null", "--classes", "5", "--json")).json[
        "layers"
    ][-1]["output"] == [5]


def test_networks_side_by_side() -> None:
    found = conviction("inspect", "--compare", "convnet", "convnet-bn", "--json").json["networks"]
    assert [network["parameters"] for network in found] == [7_678_474, 7_682_826]
    shown = conviction("inspect", "--compare", "convnet", "torchvision:resnet18").out
    assert "7,678,474" in shown
    assert "11,689,512" in shown
    assert conviction("inspect", "convnet", "lenet5", "--json").json["error"]["kind"] == "config"


def test_the_largest_field_is_compared_and_not_the_last(tmp_path: Path) -> None:
    (tmp_path / "branches.py").write_text(
        "import torch\nfrom torch import nn\n\nclass Branches(nn.Module):\n    def __init__(self):\n"
        "        super().__init__()\n        self.wide = nn.Conv2d(3, 4, 13, padding=6)\n"
        "        self.point = nn.Conv2d(3, 4, 1)\n"
        "    def forward(self, x):\n        return self.wide(x), self.point(x)\n\ndef build():\n    return Branches()\n"
    )
    shown = conviction("inspect", "--compare", f"{tmp_path}/branches.py:build", "lenet5", "--input", "3x32x32")
    assert shown.code == 2
    shown = conviction("inspect", "--compare", f"{tmp_path}/branches.py:build", "convnet", "--input", "3x32x32").out
    assert re.search(r"largest field in a map +13 ", shown)


def test_a_network_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch.nn import *\n\ndef build(num_classes=2):\n"
        "    return Sequential(Conv2d(1, 4, 3), AdaptiveAvgPool2d(1), Flatten(), Linear(4, num_classes))\n"
    )
    found = conviction("inspect", f"{tmp_path}/mine.py:build", "--input", "1x9x9", "--classes", "6", "--json").json
    assert found["parameters"] == 40 + 30
    assert found["layers"][-1]["output"] == [6]


@pytest.mark.parametrize(
    ("arguments", "kind", "part"),
    [
        (("alexnet-cifra10",), "unknown_name", "Did you mean 'alexnet-cifar10'"),
        (("torchvision:resnet500",), "unknown_name", "Did you mean 'resnet50'"),
        (("alexnet-cifar10", "--input", "3x64x64"), "config", "does not go through dense.dense1.linear"),
        (("torchvision:alexnet", "--input", "3x20x20"), "config", "smallest square input that goes through is 63×63"),
        (("lenet5", "--input", "28x28"), "config", "3x32x32"),
        (("lenet5", "--input", "1x28x-3"), "config", "3x32x32"),
        (("nowhere.py:build",), "config", "No file"),
        (("lenet5", "--batch", "0"), "usage", "batch"),
        (("--compare", "lenet5", "convnet", "--time"), "config", "ask for --time of one network"),
        (("lenet5", "--picture", "cat.png"), "config", "--picture is the picture for --save-fields"),
        (("torvision:resnet50",), "config", "Did you mean torchvision:NAME?"),
        (("mynet.py",), "config", "name its function that returns the network, mynet.py:FUNCTION"),
        (
            ("convnet", "--set", "network.dense.0.units=5"),
            "config",
            "--set changes a recipe, and 'convnet' is a network",
        ),
        (("torchvision:alexnet", "--set", "bogus=5"), "config", "'torchvision:alexnet' is a network without one"),
        (("convnet", "--time"), "config", "takes a recipe, and 'convnet' is a network without one"),
        (("lenet5", "--save-fields", "fields.txt"), "config", "written as .png or .svg, but got 'fields.txt'"),
        (("lenet5", "--save-diagram", "diagram.jpg"), "config", "written as .png or .svg, but got 'diagram.jpg'"),
        (("lenet5", "--precision", "bf16"), "unknown_name", "Did you mean 'bfloat16'"),
        (("--compare", "convnet", "torchvision:alexnet", "--input", "3x32x32"), "config", "torchvision:alexnet: Input"),
    ],
)
def test_what_cannot_be_inspected_says_why(arguments: tuple[str, ...], kind: str, part: str) -> None:
    finished = conviction("inspect", *arguments, "--json")
    assert finished.code == 2
    assert finished.json["error"]["kind"] == kind
    assert part in finished.json["error"]["message"]


def test_from_python() -> None:
    import torch

    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 5, padding=2), torch.nn.MaxPool2d(2))
    found = package.inspect(network, input_shape=(3, 16, 16))
    assert found.layers[-1].output == (8, 8, 8)
    assert found.layers[-1].receptive_field.size_px == (6, 6)
    assert package.inspect("lenet5-mnist").parameters == 61_706
    with pytest.raises(package.ConvictionError, match="give `input_shape`"):
        package.inspect(network)


def test_wrong_types_are_refused_in_a_sentence() -> None:
    code = (
        "import conviction\n"
        "for options in ({'input_shape': (3, 32)}, {'input_shape': '3x32x32'}, {'batch_size': 1.5}):\n"
        "    try: conviction.inspect('lenet5', **options)\n"
        "    except conviction.ConvictionError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.splitlines() == [
        "`input_shape` must be (channels, height, width), all 1 or more, but got (3, 32).",
        "`input_shape` must be (channels, height, width), all 1 or more, but got '3x32x32'.",
        "`batch_size >= 1` must hold, but got 1.5.",
    ]


def test_no_memory_is_taken_for_large_models() -> None:
    """Regnet-Y 128GF has 645 million weights, 2,579 MB; torch itself takes 700 to 1,800, by its version."""
    code = (
        "from conviction import inspect; from conviction.core.device import peak_memory_bytes\n"
        "assert inspect('torchvision:regnet_y_128gf').parameters == 644_812_894\n"
        "print(peak_memory_bytes())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert int(done.stdout) < 2_300_000_000


def test_the_compiler_stays_out() -> None:
    """torch's compiler takes two seconds to import, and nothing is compiled here."""
    code = "import sys; from conviction import inspect; inspect('lenet5'); assert 'torch._dynamo' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_formulas_stand_beside_the_numbers() -> None:
    shown = conviction("inspect", "alexnet-cifar10", "--symbolic").out
    assert "weights = D·k^2·m + 2·H_3·W_3·m·n + K·n + K + 6·k^2·m^2 + 5·m + n" in shown
    assert "1,191,170 weights and 23,152,400 MACs, as counted above" in shown
    found = conviction("inspect", "convnet", "--symbolic", "--json").json["symbolic"]
    assert found["symbols"]["m"] == {"meaning": "filters of the first block", "value": 128}
    refused = conviction("inspect", "torchvision:alexnet", "--symbolic", "--json")
    assert "written for recipes and presets" in refused.json["error"]["message"]


@pytest.mark.parametrize("name", [*PRESETS, "torchvision:resnet50"])
def test_a_network_is_drawn(name: str, tmp_path: Path) -> None:
    saved = conviction("inspect", name, "--save-diagram", tmp_path / "net.svg", "--json").json["diagram"]
    drawn = Path(saved).read_text()
    assert drawn.startswith("<?xml")
    conviction("inspect", name, "--save-diagram", tmp_path / "net.png")
    with Image.open(tmp_path / "net.png") as picture:
        assert picture.size[0] > 500
        # Something blue, green or grey is drawn.
        assert len(picture.convert("RGB").resize((200, 100)).getcolors(20_000)) > 20


def test_fields_are_drawn_over_a_picture(tmp_path: Path) -> None:
    finished = conviction("inspect", "alexnet-cifar10", "--save-fields", tmp_path / "fields.png")
    assert f"Fields      {tmp_path / 'fields.png'}" in finished.out
    Image.new("RGB", (90, 60), (200, 30, 30)).save(tmp_path / "red.png")
    options = ("--save-fields", tmp_path / "red-fields.png", "--picture", tmp_path / "red.png")
    assert conviction("inspect", "alexnet-cifar10", *options).code == 0
    with Image.open(tmp_path / "red-fields.png") as picture:
        colours = picture.convert("RGB").getcolors(1_000_000)
        assert (200, 30, 30) in {colour for _, colour in colours}
    for arguments, part in (
        (("--save-diagram", tmp_path / "net.pdf"), "written as .png or .svg"),
        (("--save-fields", tmp_path / "f.png", "--picture", tmp_path / "none.png"), "Cannot read"),
    ):
        refused = conviction("inspect", "alexnet-cifar10", *arguments, "--json")
        assert part in refused.json["error"]["message"]
    assert (
        "part of the picture only"
        in conviction("inspect", "perceptron", "--save-fields", tmp_path / "f.png", "--json").json["error"]["message"]
    )


def test_an_epoch_is_estimated_and_checked() -> None:
    """The figures hang together; how good they are is measured, not asserted, on a machine that others use too."""
    options = ("--check-time", "--set", "fit.batch_size=32", "--json")
    timed = conviction("inspect", "digits", *options).json["epoch_time"]
    assert timed["num_steps"] == 34
    assert timed["measured_steps"] >= 8
    assert timed["seconds"] == pytest.approx(timed["train_s"] + timed["validation_s"])
    assert timed["error"] == pytest.approx((timed["seconds"] - timed["real_s"]) / timed["real_s"])
    shown = conviction("inspect", "digits", "--time", "--set", "fit.batch_size=32").out
    assert "Epoch       about" in shown
    assert conviction("inspect", "torchvision:resnet18", "--time", "--json").code == 2
    assert "too short" in conviction("inspect", "digits", "--time", "--set", "fit.batch_size=2000").err


def test_inspecting_leaves_no_run(tmp_path: Path) -> None:
    conviction("inspect", "digits", "--check-time")
    assert not (tmp_path / "runs").exists()


def test_frozen_layers_are_estimated_apart() -> None:
    """Once, and not in each epoch; nothing where they are kept already, as they are after a real epoch."""
    options = ("--set", "network.freeze=1", "--set", "augment=[]", "--set", "fit.batch_size=32")
    first = conviction("inspect", "digits", "--check-time", *options, "--json").json["epoch_time"]
    assert first["frozen_s"] > 0
    assert first["real_frozen_s"] > 0
    assert first["seconds"] == pytest.approx(first["train_s"] + first["validation_s"])
    second = conviction("inspect", "digits", "--time", *options)
    assert "Frozen      kept already: what the frozen layers make of the pictures" in second.out
    other = conviction("inspect", "digits", "--time", *options, "--set", "seed=1").out
    assert "once, before the first epoch: what the frozen layers make of the pictures" in other
    plain = conviction("inspect", "digits", "--time", *options, "--set", "fit.cache_frozen=false", "--json")
    assert plain.json["epoch_time"]["frozen_s"] is None
