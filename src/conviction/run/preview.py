"""Training pictures beside what a recipe's augmentations make of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from conviction.augment import AugmentConfig, build_augmentations
from conviction.core.config import read_yaml
from conviction.core.errors import ConfigError
from conviction.core.rng import generator
from conviction.data.pack import Progress, load_pack
from conviction.data.split import divide
from conviction.data.stream import Draw
from conviction.report.preview import PreviewRow, fitting_variants
from conviction.run.described import as_recipe
from conviction.run.recipe import Recipe


@dataclass(frozen=True)
class Preview:
    """Pictures of the training split, and each of them augmented in as many epochs as it has variants."""

    path: str
    num_train: int
    seed: int
    augmentations: tuple[AugmentConfig, ...]
    rows: tuple[PreviewRow, ...]
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What is shown, of which split, from which seed."""
        names = ", ".join(shown_augmentation(config) for config in self.augmentations)
        pictures = "1 picture" if len(self.rows) == 1 else f"{len(self.rows)} pictures"
        return f"{self.path}: {pictures} of the {self.num_train:,} of the training split, seed {self.seed}\n{names}"

    def as_json(self) -> dict[str, Any]:
        """What is shown, without the pixels."""
        (height, width), (new_height, new_width) = self.rows[0].original.shape[:2], self.rows[0].variants.shape[1:3]
        return {
            "path": self.path,
            "split": "train",
            "num_train": self.num_train,
            "seed": self.seed,
            "augment": [config.model_dump(mode="json") for config in self.augmentations],
            "height_px": height,
            "width_px": width,
            "augmented_height_px": new_height,
            "augmented_width_px": new_width,
            "pictures": [{"class": row.label, "shares": list(row.shares)} for row in self.rows],
            "num_variants": len(self.rows[0].variants),
            "notes": list(self.notes),
        }


def shown_augmentation(config: AugmentConfig) -> str:
    """Its name, and what is not left as it is by default: `random_crop (padding_px 8)`."""
    settings = config.model_dump(mode="json", exclude={"name"}, exclude_defaults=True)
    shown = ", ".join(f"{key} {_spelled(value)}" for key, value in settings.items())
    return f"{config.name} ({shown})" if shown else config.name


def _spelled(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return f"[{','.join(map(_spelled, value))}]"
    # Without spaces, so that no line ends within a value.
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def parse_augmentation(text: str) -> str | dict[str, Any]:
    """What `--augment` was given, as a recipe has it: a name, a name with settings, or a YAML mapping.

    Raises: ConfigError.

    >>> parse_augmentation("random_crop:padding_px=8,outside=reflect")
    {'name': 'random_crop', 'padding_px': 8, 'outside': 'reflect'}
    """
    if text.lstrip().startswith("{"):
        found = read_yaml(text, "The value of --augment")
        assert isinstance(found, dict)
        return found
    name, colon, rest = text.partition(":")
    if not colon:
        return name.strip()
    settings: dict[str, Any] = {"name": name.strip()}
    for part in _separated(rest):
        key, equals, value = part.partition("=")
        key = key.strip()
        if not equals or not key:
            raise ConfigError(
                "An augmentation is written NAME, NAME:KEY=VALUE,KEY=VALUE or {name: NAME, KEY: VALUE}, but got "
                f"{text!r}."
            )
        if key in settings:
            raise ConfigError(
                f"Each setting of an augmentation is written once, and its name before the colon, but got {key!r} "
                f"again in {text!r}."
            )
        settings[key] = read_yaml(value, f"The value of {key}")
    return settings


def _separated(text: str) -> list[str]:
    """What stands between commas, but for those within brackets and quotation marks."""
    parts, depth, quotation = [""], 0, ""
    for letter in text:
        if quotation:
            quotation = "" if letter == quotation else quotation
        elif letter in "'\"":
            quotation = letter
        else:
            depth += (letter in "{[") - (letter in "}]")
        if letter == "," and depth <= 0 and not quotation:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def preview_augmentations(
    source: str | Path | Recipe,
    overrides: Mapping[str, Any] | None = None,
    size: tuple[int, int | None] = (6, None),
    progress: Progress | None = None,
    seed: int | None = None,
) -> Preview:
    """Some pictures of the training split, and variants of each: `size` is their number and that of the variants.

    By default there are eight variants, or fewer of pictures so large that eight do not fit beside each other.
    The first variant is that of the first epoch, and so on. Where images are mixed, they are mixed with one another.
    `seed` decides which pictures and what is drawn, by default the recipe's; the splits are the recipe's in any case.

    Raises: DataError, ConfigError, StorageError.
    """
    recipe = as_recipe(source, overrides or {})
    if not recipe.augment:
        raise ConfigError(
            f"{str(source)!r} has no augmentations to preview. Name one or more, for example: --augment random_crop"
        )
    pack = load_pack(recipe.data, progress)
    train = divide(pack, recipe.split, recipe.seed).train
    seed = recipe.seed if seed is None else seed
    rows = _examples(train, pack.labels[train], size[0], seed)
    pixels, labels = torch.from_numpy(pack.images[rows]), torch.from_numpy(pack.labels[rows])
    channels, height, width = pixels.shape[3], pixels.shape[1], pixels.shape[2]
    augment = build_augmentations(recipe.augment, (channels, height, width), len(pack.classes))
    names = [pack.classes[label] for label in labels.tolist()]
    fitting = fitting_variants(max(height, width, *augment.output_size((height, width))), names)
    num_variants = fitting if size[1] is None else size[1]
    variants, targets = [], []
    for epoch in range(1, num_variants + 1):
        draw = Draw(generator(seed, "preview", epoch), epoch, torch.from_numpy(rows), seed)
        images, mixed = augment(pixels.permute(0, 3, 1, 2), labels, draw)
        variants.append(images.permute(0, 2, 3, 1).numpy())
        targets.append(mixed if augment.mixes_labels else None)
    shown = [
        PreviewRow(
            names[at],
            pixels[at].numpy(),
            np.stack([images[at] for images in variants]),
            tuple(_shares(target[at], pack.classes) for target in targets if target is not None),
        )
        for at in range(len(rows))
    ]
    notes = _notes(shown, fewer=size[1] is None and num_variants < fitting_variants(1, names))
    return Preview(pack.shown_path, len(train), seed, recipe.augment, tuple(shown), notes)


def _notes(rows: Sequence[PreviewRow], fewer: bool) -> tuple[str, ...]:
    """What would be misunderstood without a word."""
    notes = []
    if fewer:
        num = len(rows[0].variants)
        notes.append(f"{num} variants of each, as the pictures are large; ask for others with --variants")
    if len(rows) == 1 and rows[0].shares:
        notes.append("one picture alone cannot be mixed with another; ask for two or more with --pictures")
    return tuple(notes)


def _examples(train: np.ndarray, labels: np.ndarray, num: int, seed: int) -> np.ndarray:
    """So many rows of different classes as far as there are, by the seed, in the order of the classes."""
    order = torch.randperm(len(train), generator=generator(seed, "preview")).numpy()
    # Of each class the first, then of each the second, and so on.
    rank = np.empty(len(train), np.int64)
    for label in np.unique(labels):
        places = order[labels[order] == label]
        rank[places] = np.arange(len(places))
    position = np.empty(len(train), np.int64)
    position[order] = np.arange(len(train))
    first = np.lexsort((position, rank))[:num]
    return train[first[np.argsort(labels[first], kind="stable")]].astype(np.int64)


def _shares(target: torch.Tensor, classes: Sequence[str]) -> dict[str, float]:
    return {name: share for name, share in zip(classes, target.tolist(), strict=True) if share > 0}
