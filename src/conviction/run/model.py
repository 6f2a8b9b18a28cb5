"""A trained network with all that its use needs: its shape, its weights, its class names, its preprocessing."""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from PIL import Image
from pydantic import Field, model_validator
from torch import Tensor, nn

from conviction.core import rng
from conviction.core.config import Config, parse
from conviction.core.errors import ConfigError, DataError, NewerFormat, RunError
from conviction.core.files import read_json, write_json
from conviction.core.registry import OneOf
from conviction.core.run_folder import RunFolder
from conviction.data.decode import DecodeSettings, UnreadablePicture, as_array, decode
from conviction.data.source.base import MOST_PIXELS
from conviction.data.standardize import (
    STANDARDIZATION_RECORDS,
    StandardizationRecord,
    Standardizer,
    restore_standardization,
)
from conviction.data.stream import cut_middle
from conviction.explain.dense_map import DenseMap, dense_map
from conviction.fit.checkpoint import load_tensors, load_weights, save_tensors
from conviction.nets import NETWORKS, NetworkConfig, build_network
from conviction.predict import ONE_VIEW, ViewsConfig, averaged_logits
from conviction.run.prepared import PREDICTION_BATCH, Prepared

MODEL_FORMAT = 3
Side = Annotated[int, Field(ge=1, le=65536)]
Picture = str | Path | Image.Image | np.ndarray | Tensor
_CHANNELS = (1, 3)


class Preprocessing(Config):
    """How a picture becomes what the network was trained on."""

    color: Literal["rgb", "grey"]
    resize: Literal["crop", "squash"]
    max_image_pixels: int = Field(ge=1, le=MOST_PIXELS)
    # Pictures are brought to this size, and the network's input is cut from their middle; null: they are that input.
    picture_size_px: tuple[Side, Side] | None = None
    standardization: Annotated[StandardizationRecord, OneOf(STANDARDIZATION_RECORDS)]

    @model_validator(mode="before")
    @classmethod
    def _read_format_1(cls, value: Any) -> Any:
        """Format 1 knew one mean and one deviation for each channel, and nothing else."""
        if not isinstance(value, dict) or "standardization" in value or not {"mean", "deviation"} & set(value):
            return value
        by_channel = {"name": "channel"} | {key: value[key] for key in ("mean", "deviation") if key in value}
        others = {key: part for key, part in value.items() if key not in by_channel}
        return {**others, "standardization": by_channel}


class ModelDescription(Config):
    """`model.json`."""

    format: int = MODEL_FORMAT
    network: Annotated[NetworkConfig, OneOf(NETWORKS)]
    input_shape: tuple[Side, Side, Side]
    classes: tuple[str, ...] = Field(min_length=2)
    preprocessing: Preprocessing
    test_time: ViewsConfig = ONE_VIEW

    @model_validator(mode="after")
    def _channels_agree(self) -> ModelDescription:
        seen, channels = self.preprocessing, self.input_shape[0]
        expected = 3 if seen.color == "rgb" else 1
        if channels != expected:
            raise ValueError(f"the number of channels must be {expected} throughout, but got {channels=}.")
        whole, cut = seen.picture_size_px, self.input_shape[1:]
        if whole is not None and any(side < wanted for side, wanted in zip(whole, cut, strict=True)):
            raise ValueError(f"the network's input must fit into the pictures, but got {cut} and {whole}.")
        if not seen.standardization.fits(self.input_shape):
            raise ValueError("the standardisation must be one of pictures of `input_shape`, but is of others.")
        if self.test_time.shift_px >= min(cut):
            raise ValueError(f"`test_time.shift_px < {min(cut)}` must hold, but got {self.test_time.shift_px}.")
        return self


@dataclass(frozen=True)
class Prediction:
    """The most likely class, its probability, and the probability of every class."""

    label: str
    probability: float
    probabilities: dict[str, float]


@dataclass(frozen=True)
class Model:
    """A network in evaluation mode on the CPU."""

    network: nn.Module
    classes: tuple[str, ...]
    input_shape: tuple[int, int, int]
    decode_settings: DecodeSettings
    crop_px: tuple[int, int] | None
    standardization: Standardizer
    epoch: int
    views: ViewsConfig = ONE_VIEW

    def predict(self, pictures: Picture | Sequence[Picture]) -> list[Prediction]:
        """One prediction for each picture.

        A picture is a file's path, a Pillow image, or `uint8` values: numpy (H, W, C) or (B, H, W, C), torch
        (C, H, W) or (B, C, H, W) with 1 or 3 channels, or grey without channels, (H, W) or (B, H, W). It is brought
        to the size and the colours that the network was trained on.

        Raises: DataError where a picture cannot be read, ConfigError where it is something else.
        """
        listed = _listed(pictures)
        found = []
        for start in range(0, len(listed), PREDICTION_BATCH["cpu"]):
            arrays = np.stack([self._prepared(picture) for picture in listed[start : start + PREDICTION_BATCH["cpu"]]])
            seen = arrays if self.crop_px is None else cut_middle(arrays, self.crop_px)
            images = torch.from_numpy(seen).permute(0, 3, 1, 2)
            with torch.inference_mode():
                logits, _ = averaged_logits(self.network, self.standardization(images), self.views)
                probabilities = logits.softmax(dim=1)
            found += [self._named(row.tolist()) for row in probabilities]
        return found

    def dense_map(self, picture: Picture, scale: float = 1.0) -> tuple[DenseMap, np.ndarray]:
        """What the network says at each place of a picture in its own size, and that picture as `uint8` (H, W, C).

        `scale` changes the picture's size first. The fully connected layers become convolutions for this.

        Raises: DataError where the picture cannot be read; ConfigError where it is smaller than those that the network
        was trained on, or the network cannot slide.
        """
        seen = self.decode_settings
        whole = dataclasses.replace(self, decode_settings=dataclasses.replace(seen, image_size_px=None))
        array = whole._prepared(picture)
        if scale != 1.0:
            size = (max(1, round(array.shape[0] * scale)), max(1, round(array.shape[1] * scale)))
            if size[0] * size[1] > seen.max_image_pixels:
                raise ConfigError(f"A scale of {scale:g} would give {size[0]}×{size[1]} pixels: too many.")
            image = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
            array = as_array(image, dataclasses.replace(seen, image_size_px=size, resize="squash"))
        images = self.standardization(torch.from_numpy(np.array(array)).permute(2, 0, 1)[None])
        return dense_map(self.network, self.input_shape, self.classes, images), array

    def _named(self, probabilities: list[float]) -> Prediction:
        best = max(range(len(probabilities)), key=probabilities.__getitem__)
        named = dict(zip(self.classes, probabilities, strict=True))
        return Prediction(self.classes[best], probabilities[best], named)

    def _prepared(self, picture: Picture) -> np.ndarray:
        try:
            if isinstance(picture, str | Path):
                return decode(read_file(Path(picture)), self.decode_settings)
            if isinstance(picture, Image.Image):
                return as_array(picture, self.decode_settings)
            return as_array(Image.fromarray(_pixels(picture)), self.decode_settings)
        except UnreadablePicture as fault:
            name = picture if isinstance(picture, str | Path) else "The picture"
            raise DataError(f"{name} {fault}.") from fault


def _listed(pictures: Picture | Sequence[Picture]) -> list[Picture]:
    if isinstance(pictures, np.ndarray | Tensor):
        return [pictures] if _is_one_picture(pictures) else list(pictures)
    if isinstance(pictures, str | Path | Image.Image):
        return [pictures]
    if not isinstance(pictures, Iterable):
        raise _no_picture(pictures)
    return list(pictures)


def _is_one_picture(array: np.ndarray | Tensor) -> bool:
    return array.ndim == 2 or (array.ndim == 3 and array.shape[_channel_axis(array)] in _CHANNELS)


def _pixels(picture: object) -> np.ndarray:
    """(H, W) or (H, W, 3) as Pillow takes it. Raises: ConfigError."""
    if not isinstance(picture, np.ndarray | Tensor):
        raise _no_picture(picture)
    kind = str(picture.dtype).removeprefix("torch.")
    if not _is_one_picture(picture) or kind != "uint8" or 0 in picture.shape:
        raise ConfigError(
            "A picture as an array has `uint8` values (0 to 255) and 1 or 3 channels, (H, W, C) in numpy and (C, H, W) "
            f"in torch, or none at all, (H, W), but got {kind} of shape {tuple(picture.shape)}."
        )
    if isinstance(picture, Tensor):
        picture = (picture.permute(1, 2, 0) if picture.ndim == 3 else picture).cpu().numpy()
    return picture[:, :, 0] if picture.ndim == 3 and picture.shape[2] == 1 else picture


def _channel_axis(array: np.ndarray | Tensor) -> int:
    return 0 if isinstance(array, Tensor) else 2


def _no_picture(value: object) -> ConfigError:
    return ConfigError(
        f"A picture is a file's path, a Pillow image, or an array of numpy or torch, but got {type(value).__name__} "
        f"({reprlib.repr(value)})."
    )


def read_file(path: Path) -> bytes:
    """A picture file's bytes. Raises: DataError."""
    try:
        return path.expanduser().read_bytes()
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}.") from error


def write_model(folder: RunFolder, prepared: Prepared) -> None:
    """Write `model.json` and its tensors: what turns the weights' files into a classifier. Raises: StorageError."""
    data, fitted = prepared.recipe.data, prepared.standardization
    description = ModelDescription(
        network=prepared.recipe.network,
        input_shape=prepared.input_shape,
        classes=prepared.pack.classes,
        preprocessing=Preprocessing(
            color=data.color,
            resize=data.resize,
            max_image_pixels=data.max_image_pixels,
            picture_size_px=whole if (whole := prepared.picture_shape[1:]) != prepared.input_shape[1:] else None,
            standardization=fitted.record(),
        ),
        test_time=prepared.recipe.test_time,
    )
    if tensors := fitted.tensors():
        save_tensors(folder.preprocessing, tensors, {})
    write_json(folder.model, description.model_dump(mode="json"))


def load_model(folder: RunFolder, weights: str = "best") -> Model:
    """The saved network of a run; `weights` is `best` or `last`.

    Raises: RunError where a file is missing or damaged, NewerFormat where a later version wrote it.
    """
    description = _read_description(folder)
    seen = description.preprocessing
    input_size = description.input_shape[1:]
    with rng.torch_default(0, "model"):
        network = build_network(description.network, description.input_shape, len(description.classes))
    saved = load_weights(folder.weights(weights), network)
    return Model(
        network.eval(),
        description.classes,
        description.input_shape,
        DecodeSettings(seen.color, seen.picture_size_px or input_size, seen.resize, seen.max_image_pixels),
        input_size if seen.picture_size_px else None,
        _restored(folder, seen.standardization),
        saved.get("epoch", 0),
        description.test_time,
    )


def load_standardization(folder: RunFolder) -> Standardizer:
    """The standardisation that a run began with.

    Raises: RunError where a file is missing or damaged, NewerFormat where a later version wrote it.
    """
    return _restored(folder, _read_description(folder).preprocessing.standardization)


def _restored(folder: RunFolder, record: StandardizationRecord) -> Standardizer:
    tensors = load_tensors(folder.preprocessing)[0] if record.has_tensors else {}
    try:
        return restore_standardization(record, tensors)
    except DataError as error:
        raise RunError(f"{folder.preprocessing} does not belong to model.json: {error}") from error


def _read_description(folder: RunFolder) -> ModelDescription:
    about = read_json(folder.model)
    if not isinstance(about, dict):
        raise RunError(f"{folder.model} is damaged: it holds no mapping.")
    found = about.get("format")
    if isinstance(found, int) and found > MODEL_FORMAT:
        raise NewerFormat(
            f"{folder.model} has format {found}, and this version of Conviction reads up to {MODEL_FORMAT}: "
            "update Conviction."
        )
    try:
        return parse(ModelDescription, about, str(folder.model))
    except ConfigError as error:
        raise RunError(f"{folder.model} is damaged: {error}") from error
