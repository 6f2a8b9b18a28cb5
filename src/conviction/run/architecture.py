"""A network by name, from wherever one may come, inspected before anything is trained."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from torch import nn

from conviction.augment import augmented_shape
from conviction.core.architecture import Architecture, MemoryEstimate
from conviction.core.device import choose_device, choose_precision
from conviction.core.errors import ConfigError, DataError, UnknownName
from conviction.data.decode import DecodeSettings, UnreadablePicture, as_array, decode
from conviction.data.pack import load_pack
from conviction.data.source.base import MOST_PIXELS, SourceConfig
from conviction.data.source.locate import locate
from conviction.data.split import SplitConfig, divide
from conviction.fit.optimizer import OptimizerConfig, numbers_remembered
from conviction.nets import PRESETS, BlocksConfig, NetworkConfig, build_network
from conviction.nets.inspection import inspect_network
from conviction.nets.memory import Precision
from conviction.nets.named import TORCHVISION, build_from_file, build_torchvision, on_meta
from conviction.recipes import recipe_names
from conviction.run.model import read_file
from conviction.run.recipe import Recipe, load_recipe

if TYPE_CHECKING:
    from conviction.nets.symbolic import SymbolicCounts

DEFAULT_BATCH_SIZE = 128
_USUAL_SIDE_PX = 224
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class NamedNetwork:
    """A network on the meta device, and what goes with its name: the pictures it was made for, and its training."""

    name: str
    network: nn.Module
    planned_for: Shape
    batch_size: int = DEFAULT_BATCH_SIZE
    precision: Precision = "float32"
    optimizer: OptimizerConfig | None = None
    num_training_pictures: int | None = None
    config: NetworkConfig | None = None
    num_classes: int | None = None


def inspect(
    name: str | Path | Recipe | nn.Module,
    *,
    input_shape: Shape | None = None,
    num_classes: int | None = None,
    batch_size: int | None = None,
    precision: Precision | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Architecture:
    """The layers, weights, computations, memory and receptive fields of a network.

    `name` is a recipe (its name, file, or itself), a preset, `torchvision:NAME`, `module.py:function`, or a network.
    `input_shape` (C, H, W) are the pictures that it is given; by default, those that it was made for. The memory is
    told in `precision`; by default in a recipe's own on this machine, and in float32 where there is no recipe.

    Raises: UnknownName; ConfigError where the network does not take such pictures.

    >>> inspect("alexnet-cifar10").parameters
    1191170
    """
    _refuse_senseless(input_shape, num_classes, batch_size)
    named = find_network(name, input_shape, num_classes, overrides or {})
    size = batch_size or named.batch_size
    chosen = precision or named.precision
    found = inspect_network(named.network, input_shape or named.planned_for, named.name, size, chosen)
    memory = found.memory and _with_optimizer(found.memory, named.optimizer)
    return dataclasses.replace(found, memory=memory, num_training_pictures=named.num_training_pictures)


def formulas(
    name: str | Path | Recipe,
    *,
    input_shape: Shape | None = None,
    num_classes: int | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> SymbolicCounts:
    """Weights and MACs of a recipe's or a preset's network as formulas in its sizes.

    Raises: ConfigError where the network is not made of blocks.
    """
    from conviction.nets.symbolic import symbolic_counts

    _refuse_senseless(input_shape, num_classes, None)
    named = find_network(name, input_shape, num_classes, overrides or {})
    if not isinstance(named.config, BlocksConfig) or named.num_classes is None:
        raise ConfigError(f"Formulas are written for recipes and presets, but got {named.name!r}.")
    return symbolic_counts(named.config, input_shape or named.planned_for, named.num_classes)


def _refuse_senseless(input_shape: object, num_classes: object, batch_size: object) -> None:
    """Raises: ConfigError."""
    if input_shape is not None and not (
        isinstance(input_shape, tuple | list) and len(input_shape) == 3 and all(_is_count(side) for side in input_shape)
    ):
        raise ConfigError(f"`input_shape` must be (channels, height, width), all 1 or more, but got {input_shape!r}.")
    if num_classes is not None and not _is_count(num_classes, 2):
        raise ConfigError(f"`num_classes >= 2` must hold, but got {num_classes!r}.")
    if batch_size is not None and not _is_count(batch_size):
        raise ConfigError(f"`batch_size >= 1` must hold, but got {batch_size!r}.")


def _is_count(value: object, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _with_optimizer(memory: MemoryEstimate, optimizer: OptimizerConfig | None) -> MemoryEstimate:
    """With what the recipe's optimiser remembers; SGD with momentum where there is no recipe."""
    if optimizer is None:
        return memory
    num_bytes = round(memory.gradients_bytes * numbers_remembered(optimizer))
    return dataclasses.replace(memory, optimizer_bytes=num_bytes, optimizer=optimizer.name)


def find_network(
    name: str | Path | Recipe | nn.Module,
    input_shape: Shape | None,
    num_classes: int | None,
    overrides: Mapping[str, Any],
) -> NamedNetwork:
    """The network that a name means, built without weights.

    Raises: UnknownName with the nearest of all names; ConfigError where it needs to be told its pictures.
    """
    found = _without_recipe(name, input_shape, num_classes)
    if found is None:
        return _of_recipe(name, input_shape, num_classes, overrides)  # type: ignore[arg-type]
    if overrides:
        raise ConfigError(
            f"--set changes a recipe, and {found.name!r} is a network without one: got {', '.join(overrides)}. Inspect "
            "a recipe, for example: conviction inspect digits --set network=convnet --set data.image_size_px=32"
        )
    return found


def _without_recipe(
    name: str | Path | Recipe | nn.Module, input_shape: Shape | None, num_classes: int | None
) -> NamedNetwork | None:
    """A network that is named itself; None where the name is a recipe's, or nobody's."""
    if isinstance(name, nn.Module):
        if input_shape is None:
            raise ConfigError("A network of your own does not say what pictures it takes: give `input_shape`.")
        return NamedNetwork(type(name).__name__, name, input_shape)
    if isinstance(name, str) and name.startswith(TORCHVISION):
        network, side_px = build_torchvision(name.removeprefix(TORCHVISION), num_classes)
        return NamedNetwork(name, network, (3, side_px, side_px))
    if isinstance(name, str) and re.search(r"\.py:\w+$|^[\w.]+:\w+$", name):
        network = build_from_file(name, num_classes)
        return NamedNetwork(name, network, input_shape or (3, _USUAL_SIDE_PX, _USUAL_SIDE_PX))
    if isinstance(name, str) and name in PRESETS and name not in recipe_names():
        preset = PRESETS[name]
        shape, classes = preset.input_shape, num_classes or preset.num_classes
        network = _built(preset.config, shape, classes)
        return NamedNetwork(name, network, shape, config=preset.config, num_classes=classes)
    if isinstance(name, str) and name.endswith(".py"):
        raise ConfigError(f"{name} is a Python file: name its function that returns the network, {name}:FUNCTION.")
    return None


def _of_recipe(
    name: str | Path | Recipe, input_shape: Shape | None, num_classes: int | None, overrides: Mapping[str, Any]
) -> NamedNetwork:
    try:
        recipe = load_recipe(name, overrides)
    except UnknownName as error:
        if error.what != "recipe":
            raise
        every = {*error.known, *PRESETS, f"{TORCHVISION}resnet50", "module.py:function"}
        raise UnknownName("network", str(name), every) from error
    shape, classes, num_training = pictures_of(recipe)
    if shape is None and input_shape is None:
        raise ConfigError(
            f"The recipe {recipe.name!r} does not say how large its pictures are. Give --input, for example "
            "--input 3x64x64, set data.image_size_px, or name the pictures: --set data.path=…"
        )
    if shape is not None:
        shape = augmented_shape(recipe.augment, shape)
    planned = shape or input_shape
    assert planned is not None
    classes = num_classes or classes
    if classes is None:
        raise ConfigError(
            f"The recipe {recipe.name!r} does not say how many classes its pictures have. Give --classes, or name the "
            "pictures: --set data.path=…"
        )
    network = _built(recipe.network, planned, classes)
    return NamedNetwork(
        recipe.name,
        network,
        planned,
        recipe.fit.batch_size,
        choose_precision(recipe.fit.precision, choose_device("auto")),
        recipe.optimizer,
        num_training,
        recipe.network,
        classes,
    )


def _built(config: NetworkConfig, shape: Shape, num_classes: int) -> nn.Module:
    network: nn.Module = on_meta(lambda: build_network(config, shape, num_classes))
    return network


def pictures_of(recipe: Recipe) -> tuple[Shape | None, int | None, int | None]:
    """Shape, classes and number of training pictures: as published, or counted where `data.path` names some."""
    data = recipe.data
    channels = 3 if data.color == "rgb" else 1
    if data.known is not None and data.path is None:
        height, width = data.image_size_px or data.known.size_px
        return (channels, height, width), data.known.num_classes, _num_training(data, recipe.split)
    if data.path is not None and _is_there(data.path):
        pack = load_pack(data)
        _, height, width, channels = pack.images.shape
        return (channels, height, width), len(pack.classes), len(divide(pack, recipe.split, recipe.seed).train)
    if data.image_size_px is None:
        return None, None, None
    return (channels, *data.image_size_px), None, None


def _is_there(path: str) -> bool:
    try:
        locate(path)
    except DataError:
        return False
    return True


def _num_training(data: SourceConfig, split: SplitConfig) -> int | None:
    """What is left of a published set to train on, where the recipe says so; classes of equal size are assumed."""
    known = data.known
    assert known is not None
    if split.file is not None:
        return None
    if split.train_per_class is not None:
        return split.train_per_class * known.num_classes

    def number(share: int | float) -> int:
        return share if isinstance(share, int) else round(share * known.num_training)

    rest = known.num_training - (0 if known.has_test else number(split.test))
    return rest - (number(split.validation) if split.folds is None else round(rest / split.folds))


def example_picture(shape: Shape, path: str | None = None) -> np.ndarray:
    """A photograph in the size of a network's pictures, `uint8` (H, W, 3); without `path`, one of scikit-learn's.

    Raises: DataError where the file cannot be read.
    """
    if path is None:
        from sklearn.datasets import load_sample_image

        content: np.ndarray = load_sample_image("china.jpg")
        settings = DecodeSettings("rgb", shape[1:], "crop", MOST_PIXELS)
        return as_array(Image.fromarray(content), settings)
    try:
        return decode(read_file(Path(path)), DecodeSettings("rgb", shape[1:], "crop", MOST_PIXELS))
    except UnreadablePicture as fault:
        raise DataError(f"{path} {fault}.") from fault


def parse_shape(text: str) -> Shape:
    """`3x32x32` to (3, 32, 32). Raises: ConfigError."""
    parts = re.split(r"[x×,]", text.strip().lower())
    if len(parts) != 3 or not all(part.isdecimal() and 0 < int(part) <= 65536 for part in parts):
        raise ConfigError(f"Pictures are written CHANNELSxHEIGHTxWIDTH, for example 3x32x32, but got {text!r}.")
    channels, height, width = map(int, parts)
    return channels, height, width
