"""What is known of a source of pictures, as plain records: counts, sizes, statistics of the channels."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from conviction.core.records import SplitName

WHY_TWO_DEVIATIONS = (
    "The deviation over all pixels, by which standardize: channel divides, also holds how pictures differ from one "
    "another in brightness; the average of the pictures' own deviations does not, and is therefore never larger."
)


@dataclass(frozen=True)
class ChannelFigures:
    """Figures of each channel on the scale [0, 1], over `count` pictures of `split`.

    `deviation` is over all pixels; `mean_picture_deviation` is the average of each picture's own.
    """

    split: SplitName
    count: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    mean_picture_deviation: tuple[float, ...]


@dataclass(frozen=True)
class StoredSize:
    """How many training pictures are stored in one size, before any resizing."""

    height_px: int
    width_px: int
    count: int


@dataclass(frozen=True)
class DataSummary:
    """A source as a recipe divides it.

    The counts cover all splits; everything else comes from the training split alone. `drawn` names the splits that the
    source does not bring, which come from `seed`. `stored_sizes` are the most frequent first.
    """

    source: str
    path: str
    classes: tuple[str, ...]
    channels: int
    height_px: int
    width_px: int
    stored_sizes: tuple[StoredSize, ...]
    counts: dict[SplitName, dict[str, int]]
    drawn: tuple[SplitName, ...]
    seed: int
    statistics: ChannelFigures
    num_skipped: int
    notes: tuple[str, ...]

    @property
    def totals(self) -> dict[SplitName, int]:
        """The number of pictures in each split."""
        return {split: sum(by_class.values()) for split, by_class in self.counts.items()}

    def as_json(self) -> dict[str, Any]:
        """Every field, and why the two deviations differ."""
        return {**asdict(self), "why_two_deviations": WHY_TWO_DEVIATIONS}
