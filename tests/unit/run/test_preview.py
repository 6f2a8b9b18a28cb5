"""Which pictures are shown, and what is made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conviction.core.errors import ConfigError
from conviction.data.pack import load_pack
from conviction.data.split import divide
from conviction.run.preview import parse_augmentation, preview_augmentations
from conviction.run.recipe import load_recipe
from pictures import write_class_folders


@pytest.fixture
def by_level(tmp_path: Path) -> Path:
    """Every picture has a grey level of its own; those of the test split are lighter than 200."""
    level = 0
    for split, count in (("train", 9), ("validation", 2), ("test", 2)):
        for name in ("ant", "bee", "cat", "dog"):
            for number in range(count):
                level += 1
                path = tmp_path / "levels" / split / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                shade = level if split == "train" else 255 - level
                Image.fromarray(np.full((6, 6), shade, np.uint8)).save(path)
    return tmp_path / "levels"


def test_originals_are_of_the_training_split_and_of_all_classes_alike(by_level: Path) -> None:
    overrides = {"augment": ["invert"], "data.color": "grey"}
    seen = set()
    for seed in range(20):
        found = preview_augmentations(by_level, overrides, (6, 1), seed=seed)
        labels = [row.label for row in found.rows]
        assert labels == sorted(labels)
        assert {labels.count(name) for name in ("ant", "bee", "cat", "dog")} == {1, 2}
        levels = {int(row.original[0, 0, 0]) for row in found.rows}
        assert len(levels) == 6
        seen |= levels
        for row in found.rows:
            assert (int(row.original[0, 0, 0]) - 1) // 9 == ["ant", "bee", "cat", "dog"].index(row.label)
    # All of the 36 come up sooner or later, and none of another split.
    assert seen == set(range(1, 37))


def test_more_than_there_are_shows_all(by_level: Path) -> None:
    found = preview_augmentations(by_level, {"augment": ["invert"], "data.color": "grey"}, (40, 2))
    assert len(found.rows) == 36
    assert "36 pictures of the 36 of the training split, seed 0" in found.title


def test_variants_are_what_the_augmentation_makes(by_level: Path) -> None:
    settings = [{"name": "invert", "p": 1.0}, {"name": "crop_to", "size_px": 4}]
    found = preview_augmentations(by_level, {"augment": settings, "data.color": "grey"}, (3, 2))
    for row in found.rows:
        assert row.variants.shape == (2, 4, 4, 1)
        assert (row.variants == 255 - row.original[0, 0]).all()
        assert row.shares == ()
    assert found.title.endswith("\ninvert (p 1), crop_to (size_px 4)")
    assert (found.as_json()["augmented_height_px"], found.as_json()["height_px"]) == (4, 6)


def test_each_variant_is_of_another_epoch() -> None:
    found = preview_augmentations("digits", {"augment": ["alternating_flip"]}, (5, 4))
    for row in found.rows:
        first, second, third, fourth = row.variants
        assert np.array_equal(first, second[:, ::-1])
        assert np.array_equal(first, third)
        assert np.array_equal(second, fourth)


def test_the_seed_decides_everything() -> None:
    def shown(seed: int) -> tuple[np.ndarray, np.ndarray]:
        found = preview_augmentations("digits", {"augment": ["randaugment"]}, (4, 3), seed=seed)
        return np.stack([row.original for row in found.rows]), np.stack([row.variants for row in found.rows])

    first, again, other = shown(1), shown(1), shown(2)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])
    assert not np.array_equal(first[1], other[1])


def test_another_seed_shows_no_picture_of_the_test_split() -> None:
    """Where the splits are drawn, they stay those of the recipe's own seed."""
    recipe = load_recipe("digits", {"augment": ["invert"]})
    pack = load_pack(recipe.data)
    splits = divide(pack, recipe.split, recipe.seed)
    training = {pack.images[row].tobytes() for row in splits.train}
    assert len({image.tobytes() for image in pack.images}) > len(training)
    for seed in range(1, 6):
        shown = {row.original.tobytes() for row in preview_augmentations(recipe, None, (40, 1), seed=seed).rows}
        assert shown <= training


def test_mixed_pictures_say_their_shares() -> None:
    found = preview_augmentations("digits", {"augment": [{"name": "mixup", "alpha": 1.0}]}, (6, 5))
    for row in found.rows:
        assert len(row.shares) == 5
        for shares in row.shares:
            assert sum(shares.values()) == pytest.approx(1)
            assert row.label in shares


@pytest.mark.parametrize(
    ("size_px", "asked", "expected", "noted"),
    [(8, None, 8, False), (512, None, 3, True), (512, 5, 5, False), (8, 2, 2, False)],
)
def test_of_large_pictures_fewer_variants_are_shown_unless_asked_for(
    size_px: int, asked: int | None, expected: int, noted: bool, by_level: Path
) -> None:
    overrides = {"augment": ["invert"], "data.image_size_px": size_px}
    found = preview_augmentations(by_level, overrides, (1, asked))
    assert len(found.rows[0].variants) == expected
    assert any("3 variants of each, as the pictures are large" in note for note in found.notes) == noted


@pytest.mark.parametrize("num_pictures", [1, 2])
def test_one_picture_alone_is_not_mixed_and_that_is_said(num_pictures: int) -> None:
    found = preview_augmentations("digits", {"augment": ["mixup"]}, (num_pictures, 3))
    assert any("cannot be mixed" in note for note in found.notes) == (num_pictures == 1)
    assert found.as_json()["notes"] == list(found.notes)
    assert preview_augmentations("digits", {"augment": ["rotate"]}, (1, 3)).notes == ()


@pytest.mark.parametrize(
    ("entry", "shown"),
    [
        ("augmix", "augmix"),
        (
            {"name": "augmix", "chain_depth": 2, "severity": 3, "all_ops": False},
            "augmix (chain_depth 2, all_ops false)",
        ),
        ({"name": "gaussian_noise", "p": 1, "deviation": 0.1}, "gaussian_noise (p 1, deviation 0.1)"),
        (
            {"name": "torchvision", "transform": "RandomRotation", "options": {"degrees": [0, 9]}},
            'torchvision (transform RandomRotation, options {"degrees":[0,9]})',
        ),
    ],
)
def test_only_what_is_not_as_by_default_is_shown(entry: Any, shown: str) -> None:
    found = preview_augmentations("digits", {"augment": [entry]}, (1, 1))
    assert found.title.split("\n")[1] == shown


def test_a_recipe_without_augmentations_has_none_to_show(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "photos", {"cat": 8, "dog": 8})
    with pytest.raises(ConfigError, match=r"has no augmentations.*--augment random_crop"):
        preview_augmentations(root)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("randaugment", "randaugment"),
        ("random_crop:padding_px=8,outside=reflect", {"name": "random_crop", "padding_px": 8, "outside": "reflect"}),
        ("rotate: degrees=1e1 , p=0.5", {"name": "rotate", "degrees": 10.0, "p": 0.5}),
        ("augmix:all_ops=false,chain_depth=null", {"name": "augmix", "all_ops": False, "chain_depth": None}),
        (
            "{name: torchvision, transform: RandomPosterize, options: {bits: 3}}",
            {"name": "torchvision", "transform": "RandomPosterize", "options": {"bits": 3}},
        ),
        (
            "torchvision:transform=ElasticTransform,options={alpha: 30, sigma: [3, 4]}",
            {"name": "torchvision", "transform": "ElasticTransform", "options": {"alpha": 30, "sigma": [3, 4]}},
        ),
        (
            "torchvision:options={interpolation: 'a, b', fill: 0},transform=\"x,y\"",
            {"name": "torchvision", "options": {"interpolation": "a, b", "fill": 0}, "transform": "x,y"},
        ),
    ],
)
def test_augmentations_on_the_command_line(text: str, expected: Any) -> None:
    assert parse_augmentation(text) == expected


@pytest.mark.parametrize(
    "text", ["rotate:", "rotate:degrees", "rotate:=5", "rotate:p=0.5,", "rotate:p=[1", "{name: x", "rotate:}{,p=1"]
)
def test_what_is_no_augmentation_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_augmentation(text)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("random_crop:padding_px=2,padding_px=1", "padding_px"),
        ("rotate:p=0.5, p =0.5", "p"),
        ("rotate:name=scale", "name"),
    ],
)
def test_a_setting_that_is_given_twice_is_refused(text: str, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"written once.*but got '{key}' again in '{text}'"):
        parse_augmentation(text)


def test_a_key_that_stands_twice_in_a_mapping_is_refused() -> None:
    with pytest.raises(ConfigError):
        parse_augmentation("{name: rotate, p: 0.5, p: 0.6}")
