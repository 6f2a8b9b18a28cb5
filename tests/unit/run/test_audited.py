from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conviction import audit_data
from conviction.core.audit_record import AuditRecord
from conviction.core.errors import ConfigError
from conviction.data.audit.kept import leak_warning
from conviction.data.audit.pairing import find_pairs
from conviction.data.pack import load_pack
from conviction.data.source.base import SourceConfig
from conviction.data.source.folder import FolderConfig
from conviction.data.source.table import TableConfig
from conviction.data.split import SplitConfig, divide
from conviction.run.audited import Audited
from conviction.run.recipe import load_recipe
from pictures import brightened, jpeg_again, save, scene

SPLITS = ("train", "validation", "test")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten pictures of each of two classes in each split."""
    for place, split in enumerate(SPLITS):
        for number in range(20):
            label = ("cat", "dog")[number % 2]
            save(scene(100 * place + number), tmp_path / "photos" / split / label / f"{split}-{number:02d}.png")
    return tmp_path / "photos"


def shown(record: AuditRecord) -> list[tuple[str, str, str]]:
    return [(pair.kind, pair.first.path, pair.second.path) for pair in record.pairs]


def test_pictures_that_are_all_different(photos: Path) -> None:
    record = audit_data(photos)
    assert (record.pairs, record.groups, record.findings, record.unreadable) == ((), (), (), ())
    assert record.totals == {"train": 20, "validation": 20, "test": 20}
    assert record.drawn == ()
    assert record.command == f"conviction data audit {photos}"


def test_leaks_and_contradictions_with_their_splits_and_labels(photos: Path) -> None:
    save(scene(0), photos / "test" / "cat" / "leaked.png")
    save(jpeg_again(scene(1)), photos / "validation" / "dog" / "near.png")
    save(scene(2), photos / "train" / "dog" / "called-otherwise.png")
    save(brightened(scene(200)), photos / "test" / "dog" / "within.png")
    record = audit_data(photos)
    assert shown(record) == [
        ("exact", "train/cat/train-00.png", "test/cat/leaked.png"),
        ("exact", "train/cat/train-02.png", "train/dog/called-otherwise.png"),
        ("near", "train/dog/train-01.png", "validation/dog/near.png"),
        ("near", "test/cat/test-00.png", "test/dog/within.png"),
    ]
    assert record.leaked == {"validation": 1, "test": 1}
    assert [group.is_contradicting for group in record.groups] == [False, False, True, True]


def test_drawn_splits_count_as_well(tmp_path: Path) -> None:
    """Every picture is there twice: which copies are divided is for the seed to say, and the audit follows it."""
    for number in range(60):
        for name in ("a", "b"):
            save(scene(number), tmp_path / "photos" / ("cat", "dog")[number % 2] / f"{number:02d}-{name}.png")
    counts = []
    for seed in (0, 1):
        record = audit_data(tmp_path / "photos", {"seed": seed})
        assert record.drawn == ("validation", "test")
        assert len(record.pairs) == 60
        counts.append(Counter(pair.between for pair in record.pairs))
    assert counts[0] != counts[1]
    assert all(sum(count[between] for between in count if len(set(between)) == 2) > 5 for count in counts)


def test_groups_of_a_list_are_never_leaks(tmp_path: Path) -> None:
    lines = ["file,label,subject"]
    for number in range(40):
        for name in ("a", "b"):
            save(scene(number), tmp_path / "photos" / f"{number:02d}-{name}.png")
            lines.append(f"{number:02d}-{name}.png,{('cat', 'dog')[number % 2]},subject-{number}")
    (tmp_path / "photos" / "list.csv").write_text("\n".join(lines) + "\n")
    data = {"data.name": "table", "data.path": str(tmp_path / "photos" / "list.csv")}
    assert any(audit_data("digits", {**data}).leaked.values())
    grouped = audit_data("digits", {**data, "data.group_column": "subject"})
    assert grouped.leaked == {"validation": 0, "test": 0}
    assert len(grouped.pairs) == 40


def test_unreadable_files_stop_nothing_and_have_no_split(photos: Path) -> None:
    (photos / "train" / "cat" / "broken.png").write_bytes(
        (photos / "train" / "cat" / "train-00.png").read_bytes()[:500]
    )
    (photos / "test" / "dog" / "empty.jpg").write_bytes(b"")
    record = audit_data(photos)
    assert [one.picture.path for one in record.unreadable] == ["test/dog/empty.jpg", "train/cat/broken.png"]
    assert [one.picture.split for one in record.unreadable] == [None, None]
    assert record.totals == {"train": 20, "validation": 20, "test": 20}


def plain(level: int) -> np.ndarray:
    return np.full((48, 48, 3), level, np.uint8)


def test_pictures_of_one_colour_are_empty_and_exact_copies_where_equal(photos: Path) -> None:
    for split in SPLITS:
        save(plain(200), photos / split / "cat" / "empty.png")
    # Brighter by one level of 255, or of another size: no copies.
    save(plain(201), photos / "train" / "dog" / "brighter.png")
    save(plain(200)[:, :40], photos / "test" / "dog" / "narrower.png")
    # The same pixels in another kind of file.
    save(plain(200), photos / "train" / "dog" / "other.bmp")
    record = audit_data(photos)
    first = "train/cat/empty.png"
    assert shown(record) == [
        ("exact", first, "train/dog/other.bmp"),
        ("exact", first, "validation/cat/empty.png"),
        ("exact", first, "test/cat/empty.png"),
    ]
    [group] = record.groups
    assert (len(group.pictures), group.is_leak, group.is_contradicting) == (4, True, True)
    assert record.leaked == {"validation": 1, "test": 1}
    assert Counter(one.kind for one in record.findings) == {"empty": 6}
    assert record.num_plain == 0


def test_thousands_of_black_pictures_do_not_stop_it(photos: Path) -> None:
    """1,500 equal pictures would be 1,124,250 pairs of two, more than an audit lists."""
    black = save(plain(0)[:4, :4], photos / "test" / "cat" / "black.png").read_bytes()
    for number in range(1499):
        (photos / "train" / ("cat", "dog")[number % 2] / f"black-{number:04d}.png").write_bytes(black)
    record = audit_data(photos)
    assert [len(group.pictures) for group in record.groups] == [1500]
    assert len(record.pairs) == 1499
    assert record.leaked == {"validation": 0, "test": 1}


def test_equal_pictures_of_one_colour_are_leaks_in_other_divisions_too(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for number in range(40):
        save(scene(number), root / ("cat", "dog")[number % 2] / f"{number:02d}.png")
    for number in range(6):
        save(plain(7), root / "cat" / f"black-{number}.png")
    audit_data(root)
    pack = load_pack(FolderConfig(path=str(root)))
    black = {path for path in pack.paths if "black" in path}
    splits = divide(pack, SplitConfig(test=0.4), 1)
    places = Counter(split for path, split in splits.by_path(pack.paths) if path in black)
    assert places == {"train": 4, "validation": 1, "test": 1}
    warning = leak_warning(pack, splits) or ""
    assert "copies of 1 of the" in warning
    assert "and 1 of the 18 test pictures" in warning


def test_nothing_else_follows_from_the_test_pictures(photos: Path, tmp_path: Path) -> None:
    """Other test pictures, dark, bright, blurred and large ones among them: the same record."""
    first = audit_data(photos)
    for number in range(20):
        label, name = ("cat", "dog")[number % 2], f"test-{number:02d}.png"
        pixels = scene(5000 + number)
        changed = (pixels // 12, 255 - pixels // 20, scene(6000 + number, (200, 300)), pixels)[number % 4]
        save(changed, photos / "test" / label / name)
    second = audit_data(photos)
    assert second == first
    # The same things in training are found.
    for number, pixels in enumerate((scene(7000) // 12, 255 - scene(7000) // 20, scene(7001, (200, 300)))):
        save(pixels, photos / f"train/cat/{number}.png")
    assert {"bright", "dark", "odd_size"} <= {finding.kind for finding in audit_data(photos).findings}
    assert {finding.picture.split for finding in audit_data(photos).findings} == {"train"}


def test_pictures_that_cannot_be_divided_are_audited_all_the_same(tmp_path: Path) -> None:
    """Two equal pictures, one in each class: no split has room for them, and they contradict each other."""
    for label in ("cat", "dog"):
        save(scene(0), tmp_path / "photos" / label / "a.png")
    record = audit_data(tmp_path / "photos")
    assert shown(record) == [("exact", "cat/a.png", "dog/a.png")]
    assert record.groups[0].is_contradicting
    assert record.totals == {"train": 2, "validation": 0, "test": 0}
    assert record.notes[-1].startswith("A training would stop: The class 'cat' has 1 picture")
    assert "The class 'cat' has 1 picture" in record.notes[-1]


def test_unreadable_files_are_named_where_too_few_pictures_are_left(photos: Path) -> None:
    for path in sorted((photos / "train" / "dog").iterdir()):
        path.write_bytes(b"damaged")
    record = audit_data(photos)
    assert len(record.unreadable) == 10
    assert record.totals == {"train": 10, "validation": 20, "test": 20}
    assert "The training split holds one class only, 'cat'" in record.notes[-1]


def test_pictures_of_one_colour_alone(tmp_path: Path) -> None:
    for number in range(12):
        shade = np.full((1, 1, 3), 20 * number, np.uint8)
        save(shade, tmp_path / "photos" / ("cat", "dog")[number % 2] / f"{number}.png")
    record = audit_data(tmp_path / "photos")
    assert record.pairs == ()
    assert {finding.kind for finding in record.findings} == {"empty"}


def test_notes_on_the_division_are_there(photos: Path) -> None:
    for path in (photos / "validation" / "dog").iterdir():
        path.unlink()
    (photos / "validation" / "dog").rmdir()
    assert "The validation split has no pictures of 'dog'." in audit_data(photos).notes


def test_pictures_that_change_while_they_are_compared_are_not_warned_of(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaked = save(scene(0), photos / "test" / "cat" / "leaked.png")

    def changing(*arguments: Any) -> Any:
        save(scene(999), leaked)
        return find_pairs(*arguments)

    monkeypatch.setattr("conviction.run.audited.find_pairs", changing)
    assert audit_data(photos).leaked["test"] == 1
    assert leak_warning_of(FolderConfig(path=str(photos))) is None
    save(scene(0), leaked)
    assert "1 of the 21 test pictures" in (leak_warning_of(FolderConfig(path=str(photos))) or "")


def leak_warning_of(config: SourceConfig) -> str | None:
    pack = load_pack(config)
    return leak_warning(pack, divide(pack, SplitConfig(), 0))


def test_whatever_is_said_of_the_pictures_the_audit_is_theirs(tmp_path: Path) -> None:
    """A list read with groups, which copies are not in: the advice that an audit gives must not silence it."""
    lines = ["file,label,subject"]
    for number in range(40):
        save(scene(number % 20), tmp_path / "photos" / f"{number:02d}.png")
        lines.append(f"{number:02d}.png,{('cat', 'dog')[number % 2]},subject-{number}")
    path = tmp_path / "photos" / "list.csv"
    path.write_text("\n".join(lines) + "\n")
    audit_data("digits", {"data.name": "table", "data.path": str(path)})
    for columns in ({}, {"group_column": "subject"}):
        assert leak_warning_of(TableConfig(path=str(path), **columns)) is not None


def test_similarity_decides(photos: Path) -> None:
    save(jpeg_again(scene(0), 12), photos / "train" / "cat" / "coarse.png")
    [pair] = audit_data(photos).pairs
    assert 0.85 < pair.similarity < 0.999
    assert audit_data(photos, similarity=0.999).pairs == ()


@pytest.mark.parametrize("similarity", [0.0, 0.49, 1.0, 85.0, float("nan")])
def test_a_senseless_similarity_is_refused(similarity: float) -> None:
    with pytest.raises(ConfigError, match=r"0\.5 <= similarity < 1"):
        audit_data("digits", similarity=similarity)


def test_a_recipe_and_a_name_give_the_same(photos: Path) -> None:
    recipe = load_recipe("digits", {"split.test": 0.1, "split.validation": 0.1})
    assert audit_data(recipe).counts == audit_data("digits", {"split.test": 0.1, "split.validation": 0.1}).counts
    found = audit_data("digits", {"seed": 3, "data.image_size_px": None}, similarity=0.9)
    assert found.command == "conviction data audit digits --set seed=3 --set data.image_size_px=null --similarity 0.9"


def test_the_page_shows_what_was_found(photos: Path, tmp_path: Path) -> None:
    save(scene(0), photos / "test" / "cat" / "leaked.png")
    audited = Audited(photos)
    audited.save_page(tmp_path / "audit.html")
    page = (tmp_path / "audit.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "test/cat/leaked.png" in page
