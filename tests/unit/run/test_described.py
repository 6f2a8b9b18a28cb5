"""What is said of pictures before anything is trained on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conviction import describe_data
from conviction.core.errors import ConfigError, DataError
from conviction.data.pack import load_pack
from conviction.data.split import divide
from conviction.run.described import load_described
from conviction.run.recipe import load_recipe
from pictures import write_class_folders


def write_flat(path: Path, *levels: int) -> None:
    """A picture of one row of grey pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array([levels], np.uint8)).save(path)


@pytest.fixture
def two_grey_levels(tmp_path: Path) -> Path:
    """Training pictures (0, 102) and (153, 255); validation and test pictures are white."""
    root = tmp_path / "levels"
    write_flat(root / "train" / "dark" / "1.png", 0, 102)
    write_flat(root / "train" / "light" / "1.png", 153, 255)
    for split in ("validation", "test"):
        for name in ("dark", "light"):
            write_flat(root / split / name / "1.png", 255, 255)
    return root


def test_statistics_by_hand(two_grey_levels: Path) -> None:
    found = describe_data(two_grey_levels, {"data.color": "grey"})
    figures = found.statistics
    assert (figures.split, figures.count) == ("train", 2)
    # 0, 0.4, 0.6 and 1: mean 0.5, squared distances 0.25, 0.01, 0.01, 0.25 with the mean 0.13.
    assert figures.mean == pytest.approx((0.5,))
    assert figures.deviation == pytest.approx((0.13**0.5,))
    # Each picture's own: 0.2.
    assert figures.mean_picture_deviation == pytest.approx((0.2,))
    assert (found.channels, found.height_px, found.width_px, found.drawn) == (1, 1, 2, ())
    one_each = {"dark": 1, "light": 1}
    assert found.counts == {"train": one_each, "validation": one_each, "test": one_each}
    assert found.totals == {"train": 2, "validation": 2, "test": 2}


def test_what_the_test_split_shows_changes_nothing_but_the_counts(tmp_path: Path) -> None:
    for name, shade in (("first", 30), ("second", 220)):
        for split in ("train", "validation"):
            write_class_folders(tmp_path / name / split, {"cat": 4, "dog": 4})
        for label in ("cat", "dog"):
            write_flat(tmp_path / name / "test" / label / "1.png", *[shade] * 8)
    settings = {"data.image_size_px": 8}
    first, second = (describe_data(tmp_path / name, settings) for name in ("first", "second"))
    assert (first.statistics, first.stored_sizes, first.counts) == (
        second.statistics,
        second.stored_sizes,
        second.counts,
    )
    # Test pictures are 1×8: they are not among the sizes.
    assert [(size.height_px, size.width_px, size.count) for size in first.stored_sizes] == [(8, 8, 8)]


def test_examples_are_training_pictures_spread_over_the_class(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "photos", {"cat": 30, "dog": 12, "owl": 3})
    recipe = load_recipe({"data": {"name": "folder", "path": str(root)}, "network": "perceptron"})
    pack = load_pack(recipe.data)
    train = divide(pack, recipe.split, recipe.seed).train
    examples = load_described(recipe).examples(10)
    assert {name: len(pictures) for name, pictures in examples.items()} == {"cat": 10, "dog": 10, "owl": 1}
    for label, name in enumerate(pack.classes):
        own = pack.images[train[pack.labels[train] == label]]
        assert np.array_equal(examples[name][0], own[0])
        assert np.array_equal(examples[name][-1], own[-1]) or name == "owl"
        assert all(any(np.array_equal(shown, picture) for picture in own) for shown in examples[name])


def test_stored_sizes_are_counted_upright(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "photos", {"cat": 10, "dog": 10}, (6, 9))
    turned = Image.fromarray(np.zeros((9, 6, 3), np.uint8))
    exif = turned.getexif()
    exif[0x0112] = 6
    for path in sorted(root.rglob("*.png"))[:3]:
        path.unlink()
        turned.save(path.with_suffix(".jpg"), exif=exif)
    found = describe_data(root, {"data.image_size_px": 8, "split.validation": 2, "split.test": 2})
    assert [(size.height_px, size.width_px, size.count) for size in found.stored_sizes] == [(6, 9, 16)]
    assert found.drawn == ("validation", "test")


def test_several_sizes_are_told_with_the_way_out(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "photos", {"cat": 10, "dog": 10})
    write_class_folders(root, {"wide": 10}, (8, 20))
    with pytest.raises(DataError, match=r"--set data\.image_size_px=64"):
        describe_data(root)
    sizes = describe_data(root, {"data.image_size_px": 8}).stored_sizes
    assert {(size.height_px, size.width_px): size.count for size in sizes} == {(8, 8): 16, (8, 20): 8}


def test_a_recipe_a_file_a_source_and_a_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("data: digits\nsplit: {validation: 100, test: 100}\nnetwork: perceptron\n")
    assert describe_data("digits").totals == {"train": 1079, "validation": 359, "test": 359}
    assert describe_data(tmp_path / "mine.yaml").totals == {"train": 1597, "validation": 100, "test": 100}
    assert describe_data("digits", {"split.test": 100}).totals["test"] == 100
    root = write_class_folders(tmp_path / "photos", {"cat": 10, "dog": 10})
    assert describe_data(str(root)).totals == {"train": 16, "validation": 2, "test": 2}


def test_what_is_nothing_of_these() -> None:
    with pytest.raises(DataError, match=r"'digts' is no recipe and no data source\. Did you mean 'digits'"):
        describe_data("digts")
    with pytest.raises(ConfigError, match="unknown key"):
        describe_data("digits", {"data.pth": "x"})


@pytest.mark.slow
def test_both_deviations_of_cifar10_are_numpys(real_data: Path) -> None:
    recipe = load_recipe("convnet-cifar10", {"data.path": "cifar10-jpeg75"})
    found = describe_data(recipe).statistics
    pack = load_pack(recipe.data)
    values = pack.images[divide(pack, recipe.split, recipe.seed).train] / np.float32(255)
    assert found.count == len(values) == 45_000
    over_all = values.std(axis=(0, 1, 2), dtype=np.float64)
    own = values.std(axis=(1, 2), dtype=np.float64).mean(axis=0)
    np.testing.assert_allclose(found.mean, values.mean(axis=(0, 1, 2), dtype=np.float64), atol=1e-6)
    np.testing.assert_allclose(found.deviation, over_all, atol=1e-6)
    np.testing.assert_allclose(found.mean_picture_deviation, own, atol=1e-6)
    # The originals have (0.247, 0.243, 0.262) and (0.202, 0.199, 0.201); JPEG takes a little of both.
    assert found.deviation == pytest.approx((0.247, 0.243, 0.262), abs=0.003)
    assert found.mean_picture_deviation == pytest.approx((0.202, 0.199, 0.201), abs=0.003)
