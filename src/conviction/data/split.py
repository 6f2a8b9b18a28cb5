"""Training, validation and test: what the source does not place is drawn stratified by class, from the seed.

A picture's place depends on the seed, its class's pictures and its own path alone, so that pictures added to one class
move none of another.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from conviction.core.config import Config
from conviction.core.errors import ConfigError, DataError
from conviction.data.pack import SPLIT_CODES, UNREADABLE_LABEL, Pack

# Strict: 1.0 and true are no numbers of pictures.
Share = Annotated[int, Field(ge=1, strict=True)] | Annotated[float, Field(gt=0, lt=1)]


class SplitConfig(Config):
    """Sizes of the splits that the source does not bring: a share of the pictures to divide, or their number.

    Shares are rounded class by class; a number is spread over the classes in proportion.
    """

    validation: Share = Field(0.1, description="Share in (0, 1) or number of pictures")
    test: Share = Field(
        0.1, description="Share in (0, 1) or number of pictures; unused where the source has a test split"
    )
    seed: int | None = Field(None, ge=0, description="null: the recipe's seed")


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

    def digest(self) -> str:
        """SHA-256 of the division."""
        digest = hashlib.sha256()
        for rows in (self.train, self.validation, self.sealed_test):
            digest.update(len(rows).to_bytes(8, "big") + rows.astype(np.int64).tobytes())
        return digest.hexdigest()


def divide(pack: Pack, config: SplitConfig, seed: int) -> Splits:
    """The three splits of a pack; rows in ascending order.

    Raises: DataError where a class has too few pictures to give each split one, or a split stays empty.
    """
    seed = seed if config.seed is None else config.seed
    readable = pack.labels != UNREADABLE_LABEL
    given = {
        name: np.flatnonzero(readable & (pack.splits == SPLIT_CODES[name])) for name in ("train", "validation", "test")
    }
    pool = np.flatnonzero(readable & (pack.splits == SPLIT_CODES[None]))
    if len(pool) == 0:
        pool = given["train"]
    shares = {name: getattr(config, name) for name in ("validation", "test") if len(given[name]) == 0}
    drawn = _draw(pack, pool, shares, seed)
    splits = Splits(
        train=np.sort(drawn.pop("train")),
        validation=np.sort(drawn.get("validation", given["validation"])),
        sealed_test=np.sort(drawn.get("test", given["test"])),
    )
    for name, rows in (("training", splits.train), ("validation", splits.validation), ("test", splits.sealed_test)):
        if len(rows) == 0:
            raise DataError(f"The {name} split is empty. Add pictures, or change split.validation and split.test.")
    return splits


def _draw(pack: Pack, pool: np.ndarray, shares: dict[str, int | float], seed: int) -> dict[str, np.ndarray]:
    """The pool's rows, divided among `shares` and the training split that keeps the rest."""
    present = np.flatnonzero(np.bincount(pack.labels[pool])).tolist()
    by_class = {label: _ordered(pack, pool[pack.labels[pool] == label], seed) for label in present}
    sizes = {label: len(rows) for label, rows in by_class.items()}
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in (*shares, "train")}
    quotas = {name: _quotas(name, share, sizes) for name, share in shares.items()}
    for label, rows in by_class.items():
        start = 0
        # The test split is drawn first, so that it stays the same when the validation share changes.
        for name in sorted(shares, key=("test", "validation").index):
            drawn[name].append(rows[start : start + quotas[name][label]])
            start += quotas[name][label]
        if start >= len(rows) and shares:
            raise DataError(
                f"The class {pack.classes[label]!r} has {len(rows)} pictures, and {' and '.join(sorted(shares))} take "
                f"{start} of them: none is left to train on. Add pictures, or lower "
                f"split.{max(shares, key=lambda name: quotas[name][label])}."
            )
        drawn["train"].append(rows[start:])
    empty = np.zeros(0, np.int64)
    return {name: np.concatenate(parts) if parts else empty for name, parts in drawn.items()}


def _quotas(name: str, share: int | float, sizes: dict[int, int]) -> dict[int, int]:
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


def _ordered(pack: Pack, rows: np.ndarray, seed: int) -> np.ndarray:
    """The rows in an order that the seed and each picture's own path decide."""

    def rank(row: int) -> bytes:
        return hashlib.blake2b(
            f"{seed}\x1fsplit\x1f{pack.paths[row]}".encode(errors="surrogateescape"), digest_size=16
        ).digest()

    return np.array(sorted(rows.tolist(), key=rank), np.int64)
