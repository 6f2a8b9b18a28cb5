"""Drawing splits and folds from a pool of pictures: class by class, and by whole groups where there are groups.

The order of the pictures is decided by the seed and each one's own path, that of the groups by the seed and each one's
own name. Classes that share a group are drawn together; pictures and groups added to other classes move nothing.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from conviction.core.errors import DataError
from conviction.data.pack import Pack

# The test split is drawn first, so that it stays the same when the validation share changes.
DRAWING_ORDER = ("test", "validation")
Quotas = Mapping[str, Mapping[int, int]]


@dataclass(frozen=True)
class _Unit:
    """What is placed as a whole: a group, or a picture that has none. `counts` are its pictures by class."""

    rank: bytes
    rows: list[int]
    counts: Counter[int]


def draw(
    pack: Pack, pool: np.ndarray, quotas: Quotas, seed: int, num_units_kept: int | None = None
) -> dict[str, np.ndarray]:
    """The pool's rows, divided among the splits of `quotas` (pictures of each class) and `train`, which keeps the rest.

    By pictures the quotas are met exactly, by groups as nearly as whole groups allow. `num_units_kept` is how many
    groups of each class stay in `train` at least; None: one.

    Raises: DataError where a class has too few groups to give each split one.
    """
    names = sorted(quotas, key=DRAWING_ORDER.index)
    drawn: dict[str, list[Sequence[int] | np.ndarray]] = {name: [] for name in (*names, "train")}
    for labels, rows in _coupled_classes(pack, pool):
        if not _has_groups(pack, rows):
            left = _ordered(pack, rows, seed)
            for name in names:
                drawn[name].append(left[: quotas[name][labels[0]]])
                left = left[quotas[name][labels[0]] :]
            drawn["train"].append(left)
            continue
        units = sorted(_units(pack, rows, seed), key=lambda unit: unit.rank)
        for number, name in enumerate(names):
            later = names[number + 1 :]
            kept = {label: (num_units_kept or 1) + sum(quotas[other][label] > 0 for other in later) for label in labels}
            taken, units = _taken(pack, units, {label: quotas[name][label] for label in labels}, kept)
            drawn[name] += [unit.rows for unit in taken]
        drawn["train"] += [unit.rows for unit in units]
    return {name: _joined(parts) for name, parts in drawn.items()}


def draw_folds(pack: Pack, pool: np.ndarray, num_folds: int, seed: int) -> list[np.ndarray]:
    """The pool's rows in folds of nearly equal size, class by class.

    By pictures, the folds of a class differ by one picture at most. Groups are placed from the largest to the smallest,
    each where its classes have the fewest pictures.

    Raises: DataError where a class cannot be in every fold.
    """
    folds: list[list[Sequence[int] | np.ndarray]] = [[] for _ in range(num_folds)]
    for labels, rows in _coupled_classes(pack, pool):
        if _has_groups(pack, rows):
            placed = _folded_units(_units(pack, rows, seed), num_folds)
            _check_folds(pack, labels, placed)
            for fold, units in zip(folds, placed, strict=True):
                fold += [unit.rows for unit in units]
            continue
        name = pack.classes[labels[0]]
        if len(rows) < num_folds:
            raise DataError(
                f"The class {name!r} has {len(rows)} pictures to divide into folds, and split.folds={num_folds} needs "
                "one for each. Add pictures, or lower split.folds."
            )
        # The folds that get a picture more are others for each class: else the first folds would be the largest.
        start = int.from_bytes(_rank(f"{seed}\x1ffold\x1f{name}"), "big") % num_folds
        ordered = _ordered(pack, rows, seed)
        for number, fold in enumerate(folds):
            fold.append(ordered[(number + start) % num_folds :: num_folds])
    return [_joined(parts) for parts in folds]


def _coupled_classes(pack: Pack, pool: np.ndarray) -> list[tuple[list[int], np.ndarray]]:
    """The classes that are drawn together because groups have pictures of several of them, with their rows."""
    labels = pack.labels[pool]
    leader = {label: label for label in np.flatnonzero(np.bincount(labels)).tolist()}

    def led(label: int) -> int:
        while leader[label] != label:
            label = leader[label]
        return label

    if pack.groups:
        first: dict[str, int] = {}
        for row, label in zip(pool.tolist(), labels.tolist(), strict=True):
            if (group := pack.groups[row]) is not None:
                leader[led(label)] = led(first.setdefault(group, label))
    together: dict[int, list[int]] = {}
    for label in leader:
        together.setdefault(led(label), []).append(label)
    return [(members, pool[np.isin(labels, members)]) for members in together.values()]


def _has_groups(pack: Pack, rows: np.ndarray) -> bool:
    return bool(pack.groups) and any(pack.groups[row] is not None for row in rows.tolist())


def _units(pack: Pack, rows: np.ndarray, seed: int) -> list[_Unit]:
    by_rank: dict[bytes, list[int]] = {}
    for row in rows.tolist():
        group = pack.groups[row]
        rank = _rank_of_picture(pack, row, seed) if group is None else _rank(f"{seed}\x1fgroup\x1f{group}")
        by_rank.setdefault(rank, []).append(row)
    return [_Unit(rank, found, Counter(pack.labels[found].tolist())) for rank, found in by_rank.items()]


def _taken(
    pack: Pack, units: list[_Unit], quota: Mapping[int, int], kept: Mapping[int, int]
) -> tuple[list[_Unit], list[_Unit]]:
    """The units for one split, and the others in their order: each is taken that brings it nearer to its quota."""
    num_left = Counter(label for unit in units for label in unit.counts)
    count: Counter[int] = Counter()
    taken: list[_Unit] = []

    def growth(unit: _Unit) -> int:
        """By how much the distance from the quota would grow."""
        return sum(
            abs(count[label] + number - quota[label]) - abs(count[label] - quota[label])
            for label, number in unit.counts.items()
        )

    def is_spare(unit: _Unit) -> bool:
        return all(num_left[label] > kept[label] for label in unit.counts)

    def take(unit: _Unit) -> None:
        taken.append(unit)
        count.update(unit.counts)
        num_left.subtract(unit.counts.keys())

    others = []
    for unit in units:
        if is_spare(unit) and growth(unit) < 0:
            take(unit)
        else:
            others.append(unit)
    # A class whose groups are all far larger than its quota is to be seen in the split nevertheless.
    for label in sorted(label for label in quota if quota[label] > 0):
        if count[label] == 0:
            able = [unit for unit in others if label in unit.counts and is_spare(unit)]
            if not able:
                raise _too_few_groups(pack, label, units)
            chosen = min(able, key=lambda unit: (growth(unit), unit.rank))
            take(chosen)
            others.remove(chosen)
    return taken, others


def _too_few_groups(pack: Pack, label: int, units: list[_Unit]) -> DataError:
    number = sum(label in unit.counts for unit in units)
    return DataError(
        f"The class {pack.classes[label]!r} has pictures of {number} group{'s' * (number != 1)} to divide, too few to "
        "give each split a whole one. Add pictures of further groups."
    )


def _folded_units(units: list[_Unit], num_folds: int) -> list[list[_Unit]]:
    totals: Counter[int] = Counter()
    for unit in units:
        totals.update(unit.counts)
    folds: list[list[_Unit]] = [[] for _ in range(num_folds)]
    counts: list[Counter[int]] = [Counter() for _ in range(num_folds)]
    for unit in sorted(units, key=lambda unit: (-len(unit.rows), unit.rank)):
        start = int.from_bytes(unit.rank, "big")
        # What the unit adds to the sum of the squared shares that a fold has of each class.
        burdens = [
            sum(number * held[label] / totals[label] ** 2 for label, number in sorted(unit.counts.items()))
            for held in counts
        ]
        best = min(range(num_folds), key=lambda fold: (burdens[fold], (fold + start) % num_folds))
        folds[best].append(unit)
        counts[best].update(unit.counts)
    return folds


def _check_folds(pack: Pack, labels: list[int], folds: list[list[_Unit]]) -> None:
    for label in labels:
        held = [sum(label in unit.counts for unit in fold) for fold in folds]
        if 0 in held:
            raise DataError(
                f"The class {pack.classes[label]!r} has pictures of {sum(held)} groups to divide into folds, too few "
                f"for split.folds={len(folds)}, as each fold needs one. Lower split.folds, or add groups."
            )


def _ordered(pack: Pack, rows: np.ndarray, seed: int) -> np.ndarray:
    """The rows in an order that the seed and each picture's own path decide."""
    return np.array(sorted(rows.tolist(), key=lambda row: _rank_of_picture(pack, row, seed)), np.int64)


def _rank_of_picture(pack: Pack, row: int, seed: int) -> bytes:
    return _rank(f"{seed}\x1fsplit\x1f{pack.paths[row]}")


def _rank(text: str) -> bytes:
    return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=16).digest()


def _joined(parts: Sequence[Sequence[int] | np.ndarray]) -> np.ndarray:
    return np.concatenate([np.asarray(part, np.int64) for part in parts]) if parts else np.zeros(0, np.int64)
