"""A source of pictures, described before anything is trained on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from conviction.core.data_summary import ChannelFigures, DataSummary, StoredSize
from conviction.core.errors import DataError, did_you_mean
from conviction.core.records import SplitName
from conviction.data.decode import UnreadablePicture, stored_size
from conviction.data.pack import SPLIT_CODES, Pack, Progress, load_pack
from conviction.data.source import SOURCES, source_name
from conviction.data.source.base import SourceConfig, open_source
from conviction.data.source.locate import locate
from conviction.data.split import Splits, divide
from conviction.data.standardize import channel_statistics, mean_picture_deviation
from conviction.recipes import recipe_names
from conviction.run.recipe import Recipe, load_recipe

DRAWABLE: tuple[SplitName, ...] = ("validation", "test")


def describe_data(
    source: str | Path | Recipe, overrides: Mapping[str, Any] | None = None, progress: Progress | None = None
) -> DataSummary:
    """Counts, sizes and statistics of a recipe's pictures, or of class folders by their path.

    Of the test split only counts are taken.

    Raises: DataError, ConfigError, StorageError.
    """
    return load_described(source, overrides, progress).summary()


class Described:
    """Pictures, divided, of which a summary is made and examples are shown."""

    def __init__(self, recipe: Recipe, pack: Pack, splits: Splits) -> None:
        self._recipe, self._pack, self._splits = recipe, pack, splits

    def summary(self) -> DataSummary:
        """Counts of every split; all else from the training split alone."""
        pack, splits = self._pack, self._splits
        _, height, width, channels = pack.images.shape
        counts = splits.count_by_class(pack)
        return DataSummary(
            source=self._recipe.data.name,
            path=pack.shown_path,
            classes=pack.classes,
            channels=channels,
            height_px=height,
            width_px=width,
            stored_sizes=_stored_sizes(self._recipe.data, pack, splits.train),
            counts=counts,
            drawn=tuple(name for name in DRAWABLE if not (pack.splits == SPLIT_CODES[name]).any()),
            seed=self._recipe.seed if self._recipe.split.seed is None else self._recipe.split.seed,
            statistics=_figures(pack, splits.train),
            num_skipped=len(pack.skipped),
            notes=splits.notes(pack),
        )

    def examples(self, most: int) -> dict[str, np.ndarray]:
        """At most so many training pictures of each class (B, H, W, C), spread evenly over the class."""
        train, labels = self._splits.train, self._pack.labels[self._splits.train]
        found = {}
        for label, name in enumerate(self._pack.classes):
            rows = train[labels == label]
            # Neighbours in a folder are often frames of one scene.
            places = np.linspace(0, max(0, len(rows) - 1), min(most, len(rows))).round().astype(np.int64)
            found[name] = self._pack.images[rows[places]]
        return found


def load_described(
    source: str | Path | Recipe, overrides: Mapping[str, Any] | None = None, progress: Progress | None = None
) -> Described:
    """The pictures that `source` means, packed and divided. Raises: DataError, ConfigError, StorageError."""
    recipe = as_recipe(source, overrides or {})
    pack = load_pack(recipe.data, progress)
    return Described(recipe, pack, divide(pack, recipe.split, recipe.seed))


def as_recipe(source: str | Path | Recipe, overrides: Mapping[str, Any]) -> Recipe:
    """A recipe as it is; for a data source's name or a path one that trains on that. Raises: ConfigError, DataError."""
    named = str(source)
    if isinstance(source, Recipe) or named in recipe_names() or named.endswith((".yaml", ".yml")):
        return load_recipe(source, overrides)
    data: str | dict[str, str] = named
    if named not in SOURCES.names():
        try:
            data = {"name": source_name(locate(named)), "path": named}
        except DataError as error:
            known = sorted({*recipe_names(), *SOURCES.names()})
            raise DataError(
                f"{named!r} is no recipe and no data source. {did_you_mean(named, known)} {error}"
            ) from None
    # A recipe names a network; this one is never built.
    return load_recipe({"data": data, "network": "perceptron"}, overrides)


def _figures(pack: Pack, rows: np.ndarray) -> ChannelFigures:
    mean, deviation = channel_statistics(pack.images, rows)
    own = mean_picture_deviation(pack.images, rows)
    return ChannelFigures("train", len(rows), tuple(mean.tolist()), tuple(deviation.tolist()), tuple(own.tolist()))


def _stored_sizes(config: SourceConfig, pack: Pack, rows: np.ndarray) -> tuple[StoredSize, ...]:
    """The sizes in which training pictures are stored; read from the files only where they are brought to one size."""
    height, width = pack.images.shape[1:3]
    if config.image_size_px is None:
        return (StoredSize(height, width, len(rows)),)
    wanted = {pack.paths[row] for row in rows}
    sizes: Counter[tuple[int, int]] = Counter()
    for path, content in open_source(config).read():
        if path in wanted and not isinstance(content, UnreadablePicture):
            sizes[stored_size(content)] += 1
    return tuple(StoredSize(*size, count) for size, count in sorted(sizes.items(), key=lambda one: (-one[1], one[0])))
