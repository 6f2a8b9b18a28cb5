"""Pictures and machine, made ready for a recipe: what training and evaluation both begin with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from conviction.augment import augmented_shape, build_augmentations
from conviction.core.device import (
    CompileMode,
    MemoryFormat,
    choose_compile,
    choose_device,
    choose_precision,
    compute_float32_in_full,
    keep_freed_memory,
    num_threads,
)
from conviction.core.errors import ConfigError, RunError
from conviction.core.files import read_json
from conviction.core.records import DataRecord
from conviction.core.run_folder import RunFolder
from conviction.data.audit.kept import leak_warning
from conviction.data.on_device import on_device
from conviction.data.pack import Pack, Progress, load_pack
from conviction.data.split import Splits, divide
from conviction.data.standardize import Standardizer
from conviction.data.stream import Stream
from conviction.run.fitted_once import fit_once
from conviction.run.recipe import Recipe, load_recipe

# Measured: on a processor, batches of 128 predict a quarter faster than of 256, whose maps no cache holds.
PREDICTION_BATCH = {"cpu": 128, "cuda": 1024}
# Predicting keeps no gradients; but who lowered fit.batch_size for lack of memory means it here too.
_MOST_TIMES_LARGER = 4
# As many as the published recipe whitens by.
_SAMPLE_SIZE = 5000


@dataclass(frozen=True)
class Machine:
    """Where and how the run computes; recorded, so that resuming computes the same.

    The threads are divided among the processes.
    """

    device: torch.device
    precision: Literal["float32", "bfloat16"]
    threads: int
    memory_format: MemoryFormat = "channels_last"
    num_processes: int = 1
    compile: CompileMode = "none"

    @classmethod
    def recorded(cls, folder: RunFolder, recipe: Recipe, num_processes: int = 1) -> Machine:
        """What the run began with, so that it computes the same bits. Raises: RunError, ConfigError."""
        recorded = _recorded(folder, "device", "precision", "threads", "compile")
        if recorded["fit.device"] == "cuda" and not torch.cuda.is_available():
            raise RunError(
                f"{folder.id} began on a GPU and goes on only there, and torch finds no CUDA device here. What it has "
                "reached can be evaluated on this machine."
            )
        return replace(cls._as_recorded(folder, recipe, recorded), num_processes=num_processes)

    @classmethod
    def for_evaluation(cls, folder: RunFolder, recipe: Recipe) -> Machine:
        """The run's precision, on whatever device there is. Raises: RunError."""
        here = {"fit.device": "auto", "fit.compile": "none"}
        return cls._as_recorded(folder, recipe, {**here, **_recorded(folder, "precision")})

    @classmethod
    def _as_recorded(cls, folder: RunFolder, recipe: Recipe, settings: dict[str, Any]) -> Machine:
        try:
            return cls.for_recipe(load_recipe(recipe, settings))
        except ConfigError as error:
            raise RunError(f"{folder.environment} is damaged: {error}") from error

    @classmethod
    def for_recipe(cls, recipe: Recipe) -> Machine:
        """What the recipe's `fit` means here; of what it leaves to measuring, the usual way. Raises: ConfigError."""
        device = choose_device(recipe.fit.device)
        precision = choose_precision(recipe.fit.precision, device)
        wanted = recipe.fit.memory_format
        usual: MemoryFormat = "channels_last" if wanted == "auto" else wanted
        compiled = choose_compile(recipe.fit.compile, device)
        return cls(device, precision, recipe.fit.threads or num_threads(), usual, compile=compiled)

    @property
    def torch_memory_format(self) -> torch.memory_format:
        """As torch names it."""
        return torch.channels_last if self.memory_format == "channels_last" else torch.contiguous_format

    def of_rank(self, rank: int) -> Machine:
        """The same for one of the processes: each has a GPU of its own."""
        return replace(self, device=torch.device("cuda", rank)) if self.device.type == "cuda" else self

    def engage(self) -> None:
        """Set this process up to compute so."""
        torch.set_num_threads(max(1, self.threads // self.num_processes))
        keep_freed_memory()
        if self.device.type == "cuda":
            compute_float32_in_full()


def _recorded(folder: RunFolder, *keys: str) -> dict[str, Any]:
    # Runs that began before there was a choice.
    recorded = {"memory_format": "channels_last", "compile": "none", **read_json(folder.environment)}
    try:
        return {f"fit.{key}": recorded[key] for key in (*keys, "memory_format")}
    except (KeyError, TypeError) as error:
        raise RunError(f"{folder.environment} is damaged: {error}.") from error


@dataclass(frozen=True)
class Prepared:
    """The pictures of a recipe, divided and standardised."""

    recipe: Recipe
    pack: Pack
    splits: Splits
    standardization: Standardizer
    machine: Machine

    @property
    def picture_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the pictures as they were decoded."""
        _, height, width, channels = self.pack.images.shape
        return channels, height, width

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what the network gets, which an augmentation may have cut from the pictures."""
        return augmented_shape(self.recipe.augment, self.picture_shape)

    def training_stream(self) -> Stream:
        """The training split, to be shuffled and augmented."""
        augment = build_augmentations(self.recipe.augment, self.picture_shape, len(self.pack.classes))
        return replace(
            self.stream(self.splits.train),
            batch_size=self.recipe.fit.batch_size,
            augment=augment if self.recipe.augment else None,
        )

    def sample_of_training(self) -> Iterator[Tensor]:
        """At most 5,000 training images (B, C, H, W) as the network sees them, in batches: the same each time.

        Spread evenly over the split, since a folder's first pictures are of one class.
        """
        rows = self.splits.train
        places = np.linspace(0, len(rows) - 1, min(_SAMPLE_SIZE, len(rows))).round().astype(np.int64)
        return (batch.images for batch in self.stream(rows[places]).in_order())

    def stream(self, rows: np.ndarray) -> Stream:
        """The given rows, for prediction."""
        batch_size = min(PREDICTION_BATCH[self.machine.device.type], _MOST_TIMES_LARGER * self.recipe.fit.batch_size)
        size_px = self.input_shape[1:]
        return Stream(
            self.pack.images,
            self.pack.labels,
            rows,
            self.standardization,
            batch_size,
            crop_px=size_px if size_px != self.picture_shape[1:] else None,
            device=self.machine.device,
            memory_format=self.machine.torch_memory_format,
        )

    def on_device(self, stream: Stream) -> Stream:
        """The stream, its pictures copied to the GPU once where they fit there; on a processor as it is."""
        device = self.machine.device
        if device.type != "cuda":
            return stream
        # What networks that are gone have left behind is free too.
        torch.cuda.empty_cache()
        free_bytes, _ = torch.cuda.mem_get_info(device)
        return replace(stream, on_device=on_device(stream.images, stream.rows, device, free_bytes))

    def data_record(self) -> DataRecord:
        """What `run.json` says of the pictures."""
        channels, height, width = self.picture_shape
        notes = self.splits.notes(self.pack)
        if self.pack.skipped:
            notes = (*notes, _describe_skipped(len(self.pack.skipped)))
        if warning := leak_warning(self.pack, self.splits):
            notes = (*notes, warning)
        return DataRecord(
            source=self.recipe.data.name,
            path=self.pack.shown_path,
            digest=self.pack.digest,
            split_digest=self.splits.digest(),
            classes=self.pack.classes,
            channels=channels,
            height_px=height,
            width_px=width,
            num_train=len(self.splits.train),
            num_validation=len(self.splits.validation),
            num_test=self.splits.num_test,
            num_skipped=len(self.pack.skipped),
            notes=notes,
        )


def describe_change(former: DataRecord, now: DataRecord) -> str | None:
    """What changed between two looks at a recipe's data, as the beginning of a sentence; None where nothing did."""
    if now.digest != former.digest:
        return f"The pictures of {former.path} changed"
    if now.split_digest != former.split_digest:
        return f"The division of {former.path} into splits changed (the run's split.csv holds the former one)"
    return None


def _describe_skipped(count: int) -> str:
    if count == 1:
        return "1 unreadable picture was left out; skipped.txt names it."
    return f"{count:,} unreadable pictures were left out; skipped.txt names them."


def prepare(
    recipe: Recipe,
    machine: Machine,
    progress: Progress | None = None,
    standardization: Standardizer | None = None,
) -> Prepared:
    """Load, divide and standardise the pictures; a given standardisation is used as it is.

    Raises: DataError, ConfigError, StorageError.
    """
    pack = load_pack(recipe.data, progress)
    splits = divide(pack, recipe.split, recipe.seed)
    fitted = standardization or fit_once(recipe.standardize, pack, splits.train)
    prepared = Prepared(recipe, pack, splits, fitted, machine)
    if not fitted.record().fits(prepared.input_shape):
        raise ConfigError(
            f"standardize: {recipe.standardize.name!r} is fitted to whole pictures of "
            f"{'×'.join(map(str, prepared.picture_shape[1:]))}, and augment cuts them to "
            f"{'×'.join(map(str, prepared.input_shape[1:]))}. Choose one of the two."
        )
    if (shift_px := recipe.test_time.shift_px) >= (shorter := min(prepared.input_shape[1:])):
        raise ConfigError(
            f"`test_time.shift_px < {shorter}`, the shorter side of what the network sees, must hold, but got "
            f"{shift_px}."
        )
    return prepared
