"""Training, validation and test: what the source does not place is drawn stratified by class, from the seed.

A picture's place depends on the seed, its class's pictures and its own path alone (with groups: on the classes that
share groups with its own, and its group's name), so that pictures added to one class move none of another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from conviction.core.config import Config
from conviction.core.errors import ConfigError, DataError
from conviction.core.records import SplitName
from conviction.data.draw import DRAWING_ORDER, draw, draw_folds
from conviction.data.pack import SPLIT_CODES, UNREADABLE_LABEL, Pack
from conviction.data.source.base import listed
from conviction.data.split_file import read_places

_ORDER: tuple[SplitName, ...] = ("train", "validation", "test")

# Strict: 1.0 and true are no numbers of pictures.
Share = Annotated[int, Field(ge=1, strict=True)] | Annotated[float, Field(gt=0, lt=1)]


class SplitConfig(Config):
    """How the pictures that the source does not place are divided.

    Shares are rounded class by class; a number is spread over the classes in proportion. Whole groups come as near to
    either as they can.
    """

    validation: Share = Field(
        0.1, description="Share in (0, 1) or number of pictures; unused with train_per_class, folds or file"
    )
    test: Share = Field(
        0.1,
        description="Share in (0, 1) or number of pictures; unused where the source has a test split, and with "
        "train_per_class or file",
    )
    train_per_class: int | None = Field(
        None, ge=1, description="Pictures of each class to train on; the rest is halved between validation and test"
    )
    folds: int | None = Field(
        None, ge=2, le=1000, description="What is left of the test split is divided into so many folds"
    )
    fold: int | None = Field(None, ge=1, description="The fold that validates, from 1; the others train")
    file: str | None = Field(
        None, min_length=1, description="CSV or JSON lines with the columns file and split, which place every picture"
    )
    seed: int | None = Field(None, ge=0, description="null: the recipe's seed")

    @model_validator(mode="after")
    def _one_way_to_divide(self) -> SplitConfig:
        ways = [name for name in ("train_per_class", "folds", "file") if getattr(self, name) is not None]
        if len(ways) > 1:
            raise ValueError(f"{ways[0]} and {ways[1]} are two ways to divide the pictures: leave one out.")
        if self.folds is not None and self.fold is None:
            raise ValueError(
                f"folds={self.folds} needs `fold`, the one that validates: a number from 1 to {self.folds}."
            )
        if self.fold is not None and self.folds is None:
            raise ValueError(f"fold={self.fold} needs `folds`, the number of folds, for example 5.")
        if self.folds is not None and self.fold is not None and self.fold > self.folds:
            raise ValueError(f"`fold <= folds` must hold, but got {self.fold} and {self.folds}.")
        return self


@dataclass(frozen=True)
class Splits:
    """Row numbers into a pack. The test rows are for `evaluate.holdout` alone."""

    train: np.ndarray
    validation: np.ndarray
    sealed_test: np.ndarray

    @property
    def num_test(self) -> int:
        """The number of sealed pictures, which is no secret."""
        return len(self.sealed_test)

    def by_path(self, paths: Sequence[str]) -> list[tuple[str, SplitName]]:
        """Path and split of each picture, in the order of the rows."""
        parts = zip(_ORDER, (self.train, self.validation, self.sealed_test), strict=True)
        placed = {row: name for name, rows in parts for row in rows.tolist()}
        return [(paths[row], placed[row]) for row in sorted(placed)]

    def count_by_class(self, pack: Pack) -> dict[SplitName, dict[str, int]]:
        """The number of pictures of each class in each split; of the test split, this is no secret either."""
        num_classes = len(pack.classes)
        parts = zip(_ORDER, (self.train, self.validation, self.sealed_test), strict=True)
        return {
            split: dict(zip(pack.classes, np.bincount(pack.labels[rows], minlength=num_classes).tolist(), strict=True))
            for split, rows in parts
        }

    def absent_classes(self, pack: Pack) -> dict[SplitName, list[str]]:
        """For each split, the classes that have pictures, but none there."""
        counts = self.count_by_class(pack)
        used = [name for name in pack.classes if any(by_class[name] for by_class in counts.values())]
        return {split: [name for name in used if not by_class[name]] for split, by_class in counts.items()}

    def notes(self, pack: Pack) -> tuple[str, ...]:
        """The pack's notes, and a sentence for each split that lacks pictures of a class."""
        absent = self.absent_classes(pack).items()
        found = [f"The {split} split has no pictures of {listed(names)}." for split, names in absent if names]
        return tuple(dict.fromkeys([*pack.notes, *found]))

    def digest(self) -> str:
        """SHA-256 of the division."""
        digest = hashlib.sha256()
        for rows in (self.train, self.validation, self.sealed_test):
            digest.update(len(rows).to_bytes(8, "big") + rows.astype(np.int64).tobytes())
        return digest.hexdigest()


def divide(pack: Pack, config: SplitConfig, seed: int) -> Splits:
    """The three splits of a pack; rows in ascending order. No group is ever divided.

    Raises: DataError where a class has too few pictures or groups to give each split one, a split stays empty, or a
    group is placed in two splits; ConfigError where more is asked for than there is.
    """
    seed = seed if config.seed is None else config.seed
    places = _drawn_places(pack, config, seed) if config.file is None else read_places(config.file, pack)
    places[pack.labels == UNREADABLE_LABEL] = SPLIT_CODES[None]
    _refuse_divided_groups(pack, places)
    splits = Splits(*(np.flatnonzero(places == SPLIT_CODES[name]) for name in _ORDER))
    for name, rows in (("training", splits.train), ("validation", splits.validation), ("test", splits.sealed_test)):
        if len(rows) == 0:
            raise DataError(f"The {name} split is empty. Add pictures, or change split.validation and split.test.")
    taught = {pack.classes[label] for label in np.unique(pack.labels[splits.train]).tolist()}
    if len(taught) == 1 < len(pack.classes):
        raise DataError(
            f"The training split holds one class only, {taught.pop()!r}; a classifier needs at least two. Place "
            "pictures of the others there."
        )
    return splits


def as_placed(pack: Pack) -> Splits:
    """What the source places, and all other pictures for training: no division to train with."""
    places = np.where(pack.splits == SPLIT_CODES[None], SPLIT_CODES["train"], pack.splits)
    places = np.where(pack.labels == UNREADABLE_LABEL, SPLIT_CODES[None], places)
    return Splits(*(np.flatnonzero(places == SPLIT_CODES[name]) for name in _ORDER))


def _drawn_places(pack: Pack, config: SplitConfig, seed: int) -> np.ndarray:
    """`SPLIT_CODES` of each picture: those that the source gives, and the rest as the seed draws it."""
    places = _followed(pack)
    readable = pack.labels != UNREADABLE_LABEL
    given = {name for name in _ORDER if (readable & (places == SPLIT_CODES[name])).any()}
    pool = np.flatnonzero(readable & (places == SPLIT_CODES[None]))
    if len(pool) == 0:
        pool = np.flatnonzero(readable & (places == SPLIT_CODES["train"]))
        places[pool] = SPLIT_CODES[None]
    kept = np.bincount(pack.labels[readable & (places == SPLIT_CODES["train"])], minlength=len(pack.classes))
    wanted = [name for name in DRAWING_ORDER if name not in given]
    if config.folds is not None:
        if "validation" in given:
            raise ConfigError(
                f"split.folds={config.folds}: the source places a validation split already. Leave it out."
            )
        wanted.remove("validation")
    quotas = _quotas(pack, pool, config, wanted, kept)
    _check_rest(pack, pool, quotas, kept)
    drawn = draw(pack, pool, quotas, seed, config.folds)
    if config.folds is not None and config.fold is not None:
        folds = draw_folds(pack, drawn["train"], config.folds, seed)
        drawn["validation"] = folds.pop(config.fold - 1)
        drawn["train"] = np.concatenate(folds)
    for name in _ORDER:
        if name in drawn:
            places[drawn[name]] = SPLIT_CODES[name]
    return places


def _followed(pack: Pack) -> np.ndarray:
    """The source's places; a picture that it does not place follows one of its group that it does."""
    places = pack.splits.copy()
    placed = {
        group: code
        for group, code in zip(pack.groups, places.tolist(), strict=False)
        if group is not None and code != SPLIT_CODES[None]
    }
    for row, group in enumerate(pack.groups):
        if group is not None and places[row] == SPLIT_CODES[None]:
            places[row] = placed.get(group, SPLIT_CODES[None])
    return places


def _quotas(
    pack: Pack, pool: np.ndarray, config: SplitConfig, wanted: list[str], kept: np.ndarray
) -> dict[str, dict[int, int]]:
    """How many of the pool's pictures of each class each wanted split gets; `kept` train already, class by class."""
    counts = np.bincount(pack.labels[pool], minlength=len(pack.classes))
    sizes = {label: int(counts[label]) for label in np.flatnonzero(counts).tolist()}
    if config.train_per_class is None:
        return {name: _shared(name, getattr(config, name), sizes) for name in wanted}
    if not wanted:
        raise ConfigError(
            f"split.train_per_class={config.train_per_class}: the source places validation and test already, so that "
            "the other pictures have no place. Leave it out."
        )
    quotas: dict[str, dict[int, int]] = {name: {} for name in wanted}
    for label, size in sizes.items():
        rest = size + int(kept[label]) - config.train_per_class
        if not len(wanted) <= rest <= size:
            raise DataError(
                f"The class {pack.classes[label]!r} has {size + kept[label]} pictures, {kept[label]} of them placed in "
                f"training: split.train_per_class={config.train_per_class} cannot be met with one left for "
                f"{' and '.join(sorted(wanted))} each. Add pictures, or change it."
            )
        for number, name in enumerate(wanted):
            quotas[name][label] = (rest + number) // len(wanted)
    return quotas


def _shared(name: str, share: int | float, sizes: dict[int, int]) -> dict[int, int]:
    """How many pictures of each class a split gets; a share gives every class at least one."""
    if isinstance(share, float):
        return {label: max(1, int(share * size + 0.5)) for label, size in sizes.items()}
    total = sum(sizes.values())
    if share >= total:
        raise ConfigError(f"split.{name}: {share} pictures are asked for, but only {total} are there to divide.")
    exact = {label: share * size / total for label, size in sizes.items()}
    quotas = {label: int(part) for label, part in exact.items()}
    by_remainder = sorted(exact, key=lambda label: (quotas[label] - exact[label], label))
    for label in by_remainder[: share - sum(quotas.values())]:
        quotas[label] += 1
    return quotas


def _check_rest(pack: Pack, pool: np.ndarray, quotas: dict[str, dict[int, int]], kept: np.ndarray) -> None:
    """Raises: DataError where the splits take all pictures of a class, or more."""
    sizes = np.bincount(pack.labels[pool], minlength=len(pack.classes))
    for label in np.flatnonzero(sizes).tolist() if quotas else ():
        taken = sum(quota[label] for quota in quotas.values())
        if taken + (kept[label] == 0) > sizes[label]:
            pictures = "1 picture" if sizes[label] == 1 else f"{sizes[label]} pictures"
            raise DataError(
                f"The class {pack.classes[label]!r} has {pictures}, and {' and '.join(sorted(quotas))} take {taken} of "
                f"them: none is left to train on. Add pictures, or lower "
                f"split.{max(sorted(quotas, reverse=True), key=lambda name: quotas[name][label])}."
            )


def _refuse_divided_groups(pack: Pack, places: np.ndarray) -> None:
    first: dict[str, int] = {}
    names = {SPLIT_CODES[name]: name for name in _ORDER}
    for row, group in enumerate(pack.groups):
        if group is None or places[row] == SPLIT_CODES[None]:
            continue
        former = first.setdefault(group, row)
        if places[former] != places[row]:
            one, other = names[int(places[former])], names[int(places[row])]
            raise DataError(
                f"The group {group!r} is divided: {pack.paths[former]!r} is placed in {one}, and {pack.paths[row]!r} "
                f"in {other}. A group belongs to one split."
            )
