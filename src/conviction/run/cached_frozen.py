"""Frozen layers are computed once: what they make of each picture is kept in the cache folder, and training runs on it.

That holds where the pictures are not augmented, or a fixed number of views of each is drawn once. What is kept is
exactly what the frozen layers pass on, in the run's precision.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from conviction.core import rng
from conviction.core.device import sent
from conviction.core.errors import ConfigError, StorageError
from conviction.data.activations import BFLOAT16_BITS, MAP_DIMENSIONS, Activations, ActivationStream, as_rows
from conviction.data.resident import read_rows
from conviction.data.stream import Draw, Stream, in_memory_format
from conviction.fit.loop import Trainer
from conviction.fit.watcher import Watcher
from conviction.nets.cut import cut_behind_frozen
from conviction.predict import autocast
from conviction.run.activation_store import ActivationStore, Wanted
from conviction.run.prepared import Prepared

# Counted up whenever activations are computed or kept in another way.
CACHING_FORMAT = 2
# What stays free on the disk, beside what is kept.
_SPARED_SHARE = 0.05


def with_cached_frozen(trainer: Trainer, prepared: Prepared, watcher: Watcher) -> Trainer:
    """A trainer of what lies behind the frozen layers, fed with their kept activations.

    It takes the same steps as the given trainer, which is returned as it is where the recipe freezes nothing, or where
    that is not possible; then a note says why.

    Raises: ConfigError, StorageError where a fixed number of views was asked for and is not possible.
    """
    if not _is_asked_for(prepared):
        return trainer
    if obstacle := _obstacle(prepared):
        watcher.note(f"The frozen layers are computed in each epoch, {obstacle}")
        return trainer
    prepared.machine.engage()
    try:
        return _Caching(trainer, prepared, watcher).trainer_of_the_rest()
    except (ConfigError, StorageError) as error:
        if prepared.recipe.fit.fixed_views is not None:
            raise
        watcher.note(f"{error} So the frozen layers are computed in each epoch.")
        return trainer


def sampled_rest(trainer: Trainer, prepared: Prepared, num_pictures: int) -> tuple[Trainer, float | None]:
    """What a training would train, to be timed, and the seconds that the frozen layers would take before it.

    Where they would be computed once, so many pictures stand for all, and nothing is kept; the streams are as long as
    a training's, and the seconds are 0 where all is kept already. Else these are the given trainer and None.

    Raises: ConfigError, StorageError as `with_cached_frozen`.
    """
    if not will_cache(prepared):
        return trainer, None
    prepared.machine.engage()
    try:
        return _Caching(trainer, prepared, Watcher()).sampled(num_pictures)
    except (ConfigError, StorageError):
        if prepared.recipe.fit.fixed_views is not None:
            raise
        return trainer, None


def will_cache(prepared: Prepared) -> bool:
    """Whether a training computes its frozen layers once, if its network can be cut and the disk has room."""
    return _is_asked_for(prepared) and _obstacle(prepared) is None


def _is_asked_for(prepared: Prepared) -> bool:
    return prepared.recipe.network.freeze is not None and prepared.recipe.fit.cache_frozen


def _obstacle(prepared: Prepared) -> str | None:
    """Why the frozen layers have to be computed in each epoch, as the end of a sentence."""
    recipe = prepared.recipe
    if prepared.machine.num_processes > 1:
        return "as several processes keep nothing."
    if recipe.augment and recipe.fit.fixed_views is None:
        return (
            "as each shows other views of the pictures. fit.fixed_views=4 would draw four views of each picture, and "
            "compute them once."
        )
    return "as the pictures' size changes." if recipe.fit.progressive_sizes else None


@dataclass(frozen=True)
class _Part:
    """Some pictures, as they are or as one view of each: `view` is 0 for the pictures as they are."""

    rows: np.ndarray
    view: int = 0


class _Progress:
    """What is computed of several sets, those that are found damaged counted in."""

    def __init__(self, watcher: Watcher, total: int) -> None:
        self._watcher = watcher
        self._total = total
        self._num_before = self._num_done = 0

    def of_a_set(self, num_done: int, size: int) -> None:
        self._num_done = num_done
        self._total = max(self._total, self._num_before + size)
        self._watcher.stage("frozen layers, pictures", self._num_before + num_done, self._total)

    def set_done(self) -> None:
        self._num_before += self._num_done
        self._num_done = 0


class _Caching:
    def __init__(self, trainer: Trainer, prepared: Prepared, watcher: Watcher) -> None:
        self._trainer = trainer
        self._prepared = prepared
        self._watcher = watcher
        self._store = ActivationStore()
        self._num_views = prepared.recipe.fit.fixed_views or 0
        try:
            self._cut = cut_behind_frozen(trainer.network, prepared.input_shape)
        except ConfigError as error:
            raise ConfigError(f"The network cannot be cut behind its frozen layers: {error}.") from error
        self._identity = self._identified()
        self._dtype = self._kept_dtype()

    def trainer_of_the_rest(self) -> Trainer:
        """Raises: ConfigError, StorageError."""
        plain, *views = self._all_kept(self._parts())
        return self._fed_with(plain, tuple(views), self._prepared.splits.train, self._prepared.splits.validation)

    def sampled(self, num_pictures: int) -> tuple[Trainer, float]:
        """The rest on the activations of a few pictures, and the seconds that computing all of them would take.

        Raises: ConfigError, StorageError.
        """
        missing = self._missing(self._parts())
        if not missing:
            return self.trainer_of_the_rest(), 0.0
        self._refuse_without_room(missing)
        splits, num_views = self._prepared.splits, self._num_views
        rows = np.sort(splits.train[:num_pictures])
        values, plain_s = self._timed(_Part(rows))
        view_s = self._timed(_Part(rows, 1))[1] if num_views else 0.0
        seconds = sum(len(part.rows) * (view_s if part.view else plain_s) for part in missing)
        few = Activations(values, rows)
        train, validation = (np.resize(rows, len(split)) for split in (splits.train, splits.validation))
        return self._fed_with(few, (few,) * num_views, train, validation), seconds

    def _timed(self, part: _Part) -> tuple[np.ndarray, float]:
        """The activations, and the seconds that one of them takes."""
        # The first time finds memory and kernels.
        for _ in self._computed(part):
            pass
        start = time.perf_counter()
        values = np.concatenate(list(self._computed(part)))
        return values, (time.perf_counter() - start) / len(values)

    def _parts(self) -> list[_Part]:
        """All that the trainer will ask for: the pictures as they are, then each view. Raises: ConfigError."""
        trainer, splits = self._trainer, self._prepared.splits
        if self._num_views and getattr(trainer.train.augment, "mixes_labels", False):
            raise ConfigError(
                "fit.fixed_views keeps views of single pictures, and augment mixes pictures of two classes. Leave the "
                "mixing out, or set fit.fixed_views=null."
            )
        seen_plainly = [splits.validation]
        if not self._num_views or trainer.measure_train_fixed:
            seen_plainly.append(splits.train)
        plain = _Part(np.sort(np.concatenate(seen_plainly)))
        return [plain, *(_Part(np.sort(splits.train), view) for view in range(1, self._num_views + 1))]

    def _fed_with(
        self, plain: Activations, views: tuple[Activations, ...], train: np.ndarray, validation: np.ndarray
    ) -> Trainer:
        """The trainer of the rest, on the activations of given rows."""
        trainer = self._trainer
        generator = np.random.default_rng(rng.derive(self._prepared.recipe.seed, "views"))
        first = generator.integers(0, max(1, len(views)), len(train))
        return replace(
            trainer,
            network=self._cut.rest,
            train=_stream(replace(trainer.train, rows=train), plain=plain, views=views, first_views=first),
            validation=_stream(replace(trainer.validation, rows=validation), plain=plain),
        )

    def _missing(self, parts: list[_Part]) -> list[_Part]:
        return [part for part in parts if not self._store.has(self._wanted(part))]

    def _all_kept(self, parts: list[_Part]) -> list[Activations]:
        """Raises: StorageError."""
        every = [self._wanted(part) for part in parts]
        # More sets than are kept of other trainings: none of them makes room for another.
        self._store.reserve(wanted.key for wanted in every)
        missing = self._missing(parts)
        if missing:
            self._refuse_without_room(missing)
            self._announce(missing)
        progress = _Progress(self._watcher, sum(len(part.rows) for part in missing))
        found = []
        for part, wanted in zip(parts, every, strict=True):
            values = self._store.kept(wanted, partial(self._computed, part), progress.of_a_set)
            progress.set_done()
            found.append(Activations(values, part.rows))
        return found

    def _refuse_without_room(self, missing: list[_Part]) -> None:
        """Raises: StorageError where the disk has no room for what is to be computed."""
        num_bytes = self._num_bytes(missing)
        free = shutil.disk_usage(self._store.folder).free * (1 - _SPARED_SHARE)
        if num_bytes > free:
            raise StorageError(
                f"The cache folder, {self._store.folder}, has {free / 1e6:,.0f} MB to spare, and "
                f"{self._described(missing)} takes {num_bytes / 1e6:,.0f} MB (CONVICTION_CACHE names the folder)."
            )

    def _announce(self, missing: list[_Part]) -> None:
        sizes = "×".join(map(str, self._cut.shape))
        self._watcher.note(
            f"Computing once, and keeping in the cache folder: {self._described(missing)}, {sizes} numbers each, "
            f"{self._num_bytes(missing) / 1e6:,.0f} MB."
        )

    def _num_bytes(self, parts: list[_Part]) -> int:
        return sum(self._wanted(part).num_bytes for part in parts)

    def _described(self, parts: list[_Part]) -> str:
        count = sum(len(part.rows) for part in parts)
        return f"what the frozen layers make of {count:,} pictures" + (" and views" if self._num_views else "")

    def _wanted(self, part: _Part) -> Wanted:
        digest = hashlib.sha256(self._identity.encode())
        digest.update(part.rows.astype(np.int64).tobytes())
        if part.view:
            recipe = self._prepared.recipe
            augment = [config.model_dump(mode="json") for config in recipe.augment]
            digest.update(json.dumps([augment, recipe.seed, part.view]).encode())
        shape = self._cut.shape
        if len(shape) == MAP_DIMENSIONS - 1:
            shape = (shape[1], shape[2], shape[0])
        return Wanted(digest.hexdigest()[:32], (len(part.rows), *shape), self._dtype)

    def _identified(self) -> str:
        """All that decides what the frozen layers make of a picture."""
        prepared = self._prepared
        parts = {
            "format": CACHING_FORMAT,
            "torch": torch.__version__,
            "torchvision": version("torchvision"),
            "layers": _described_function(self._cut.frozen),
            "weights": _digest_of(self._cut.frozen),
            "pack": prepared.pack.digest,
            "standardization": prepared.standardization.record().model_dump(mode="json"),
            "input_shape": prepared.input_shape,
            "precision": prepared.machine.precision,
            "memory_format": prepared.machine.memory_format,
            "device": prepared.machine.device.type,
            # They decide on the last bits.
            "threads": prepared.machine.threads,
            "batch_size": prepared.stream(prepared.splits.train).batch_size,
        }
        return json.dumps(parts, sort_keys=True)

    def _kept_dtype(self) -> type[np.generic]:
        """Seen by trying a picture: in bfloat16 some operations give float32 nevertheless."""
        stream = self._prepared.stream(self._prepared.splits.train[:1])
        return BFLOAT16_BITS if self._frozen(next(stream.in_order()).images).dtype == torch.bfloat16 else np.float32

    def _computed(self, part: _Part) -> Iterator[np.ndarray]:
        """Batches of rows, in the order of `part.rows`."""
        if not part.view:
            for batch in self._prepared.stream(part.rows).in_order():
                yield as_rows(self._frozen(batch.images))
            return
        for images in self._augmented(part):
            yield as_rows(self._frozen(images))

    def _frozen(self, images: Tensor) -> Tensor:
        machine = self._prepared.machine
        with torch.inference_mode(), autocast(machine.device, machine.precision):
            return self._cut.frozen(images)  # type: ignore[no-any-return]

    def _augmented(self, part: _Part) -> Iterator[Tensor]:
        """One view of each picture, drawn by the recipe's seed and the view's number alone. Raises: ConfigError."""
        prepared = self._prepared
        augment = prepared.training_stream().augment
        assert augment is not None
        draw = Draw(rng.generator(prepared.recipe.seed, "fixed view", part.view), part.view, seed=prepared.recipe.seed)
        size = prepared.stream(part.rows).batch_size
        for start in range(0, len(part.rows), size):
            rows = part.rows[start : start + size]
            pixels = sent(torch.from_numpy(read_rows(prepared.pack.images, rows)), prepared.machine.device)
            labels = sent(torch.from_numpy(prepared.pack.labels[rows]), prepared.machine.device)
            here = replace(draw, rows=torch.from_numpy(rows.astype(np.int64)))
            images, targets = augment(pixels.permute(0, 3, 1, 2), labels, here)
            assert not targets.is_floating_point()
            yield in_memory_format(prepared.standardization(images), prepared.machine.torch_memory_format)


def _stream(stream: Stream, **activations: Any) -> ActivationStream:
    """The same rows in the same batches, of activations."""
    pictures = replace(stream, on_device=None)
    return ActivationStream(**{part.name: getattr(pictures, part.name) for part in fields(Stream)}, **activations)


def _described_function(frozen: nn.Module) -> list[str]:
    """What the layers compute, weights apart: their operations in turn, and all settings of each layer.

    A layer's `repr` leaves some settings out, `ceil_mode` of an average pooling for example.
    """
    found = [str(getattr(frozen, "code", ""))]
    for name, layer in frozen.named_modules():
        settings = {
            key: value
            for key, value in vars(layer).items()
            if not key.startswith("_") and isinstance(value, bool | int | float | str | tuple | list | None)
        }
        found.append(f"{name} {type(layer).__module__}.{type(layer).__qualname__} {sorted(settings.items())!r}")
    return found


def _digest_of(layers: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in layers.state_dict().items():
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
