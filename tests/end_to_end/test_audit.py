"""`conviction data audit` as a user meets it, and what training says afterwards."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from command import conviction
from conviction.data.decode import decode
from pictures import jpeg_again, save, scene

TRAIN = ("train", "digits", "--set", "fit.epochs=1", "--set", "network=perceptron", "--set", "standardize=scale")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Class folders with a test split, of which one picture is a training picture too."""
    for number in range(40):
        save(scene(number), tmp_path / "photos" / "train" / ("cat", "dog")[number % 2] / f"{number:02d}.png")
    for number in range(40, 50):
        save(scene(number), tmp_path / "photos" / "test" / ("cat", "dog")[number % 2] / f"{number:02d}.png")
    save(jpeg_again(scene(0)), tmp_path / "photos" / "test" / "dog" / "leaked.png")
    return tmp_path / "photos"


def training_on(photos: Path, *assignments: str) -> tuple[object, ...]:
    settings = ("data.name=folder", f"data.path={photos}", "data.color=rgb", "augment=[]", *assignments)
    return (*TRAIN, *(part for setting in settings for part in ("--set", setting)))


def test_what_is_printed(photos: Path) -> None:
    (photos / "train" / "cat" / "broken.jpg").write_text("hello")
    finished = conviction("data", "audit", photos)
    assert finished.code == 0, finished.err
    lines = [" ".join(line.split()) for line in finished.out.splitlines()]
    assert lines[0] == "photos: 51 pictures of 2 classes (36 training, 4 validation, 11 test)"
    assert "Leaks 1 of 11 test pictures has a copy in another split" in lines
    assert "Labels 1 group of copies with different labels" in lines
    assert "Copies 1 pair in 1 group (2 pictures)" in lines
    assert "Unreadable 1 picture" in lines
    assert "Classes even: 18 training pictures of each class" in lines
    assert "training – test 0 1 0" in lines
    assert "training cat train/cat/00.png" in lines
    assert "test dog test/dog/leaked.png" in lines
    assert any(line.startswith("train/cat/broken.jpg is no picture of a known kind") for line in lines)


def test_json_is_one_document_with_every_pair(photos: Path) -> None:
    found = conviction("data", "audit", photos, "--json").json
    [pair] = found["pairs"]
    assert pair["kind"] == "near"
    assert pair["first"] == {"path": "train/cat/00.png", "label": "cat", "split": "train"}
    assert pair["second"] == {"path": "test/dog/leaked.png", "label": "dog", "split": "test"}
    assert found["leaked"] == {"validation": 0, "test": 1}
    assert found["num_contradicting_groups"] == 1
    assert found["num_pairs"]["train-test"] == {"exact": 0, "near": 1, "mirrored": 0}
    assert found["page"] is None


def test_strict_ends_with_one_where_there_are_leaks_alone(photos: Path) -> None:
    assert conviction("data", "audit", photos, "--strict").code == 1
    assert conviction("data", "audit", photos, "--strict", "--json").json["leaked"]["test"] == 1
    assert conviction("data", "audit", photos, "--strict", "--similarity", "0.9999").code == 0


def test_page(photos: Path, tmp_path: Path) -> None:
    finished = conviction("data", "audit", photos, "--html", tmp_path / "audit.html")
    assert f"Page        {tmp_path / 'audit.html'}" in finished.out
    assert (tmp_path / "audit.html").read_text().count('src="data:image/png') == 2


def test_nothing_is_changed_and_nothing_opened(photos: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in photos.rglob("*.png")}
    assert conviction("data", "audit", photos).code == 0
    assert {path: path.read_bytes() for path in photos.rglob("*.png")} == before
    assert not list((tmp_path / "runs").glob("*"))
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["audits"]


class TestTraining:
    def notes(self, *arguments: object) -> list[str]:
        """The notes of a training, in its output and in its record alike."""
        finished = conviction(*arguments, "--json")
        assert finished.code == 0, finished.err
        run = json.loads((Path(finished.json["path"]) / "run.json").read_text())
        notes = [note for note in run["data"]["notes"] if "audit" in note]
        assert all(f"note: {note}" in finished.err for note in notes)
        return notes

    def test_it_warns_where_an_audit_found_leaks(self, photos: Path) -> None:
        assert self.notes(*training_on(photos)) == []
        assert conviction("data", "audit", photos).code == 0
        warning = (
            "an audit found copies of 1 of the 11 test pictures in another split: accuracy on these looks better than "
            f"it is. See the copies: conviction data audit {photos}"
        )
        assert self.notes(*training_on(photos)) == [warning]
        # Pictures in another size or another division are the same pictures.
        assert self.notes(*training_on(photos, "data.image_size_px=8", "split.validation=0.3")) == [warning]

    def test_it_warns_before_anything_else_and_when_it_goes_on_too(self, photos: Path, tmp_path: Path) -> None:
        """An audit that was made after the training had begun counts as well."""
        frozen = ("network={blocks: [{filters: 4}], freeze: 1}", "fit.epochs=1")
        begun = conviction(*training_on(photos, *frozen), "--json")
        assert begun.code == 0, begun.err
        folder = Path(begun.json["path"])
        summary = json.loads((folder / "run.json").read_text())
        (folder / "run.json").write_text(json.dumps({**summary, "status": "interrupted"}))
        (folder / "recipe.yaml").write_text((folder / "recipe.yaml").read_text().replace("epochs: 1", "epochs: 2"))
        shutil.rmtree(tmp_path / "cache" / "frozen")
        assert conviction("data", "audit", photos).code == 0
        resumed = conviction("resume", folder, "--json")
        assert resumed.code == 0, resumed.err
        lines = resumed.err.splitlines()
        told = ("note: an audit found copies of 1 ", "note: Computing once", summary["run"], "going on after epoch 1")
        places = [next(number for number, line in enumerate(lines) if line.startswith(part)) for part in told]
        assert places == sorted(places)
        assert sum("an audit found" in line for line in lines) == 1
        assert "an audit found" in resumed.json["notes"][-1]

    def test_other_pictures_are_not_warned_of(self, photos: Path) -> None:
        assert conviction("data", "audit", photos).code == 0
        (photos / "test" / "dog" / "leaked.png").unlink()
        assert self.notes(*training_on(photos)) == []
        assert conviction("data", "audit", photos).code == 0
        assert self.notes(*training_on(photos)) == []

    def test_a_page_among_the_pictures_does_not_silence_it(self, photos: Path) -> None:
        assert conviction("data", "audit", photos, "--html", photos / "audit.html").code == 0
        assert len(self.notes(*training_on(photos))) == 1

    def test_a_stricter_look_does_not_take_it_back(self, photos: Path) -> None:
        assert conviction("data", "audit", photos).code == 0
        assert conviction("data", "audit", photos, "--similarity", "0.9999").code == 0
        assert len(self.notes(*training_on(photos))) == 1

    def test_unreadable_pictures_left_out_are_the_same_pictures(self, photos: Path) -> None:
        (photos / "train" / "cat" / "broken.jpg").write_text("hello")
        assert conviction("data", "audit", photos).code == 0
        assert conviction(*training_on(photos)).code == 2
        [warning] = self.notes(*training_on(photos, "data.unreadable=skip"))
        assert "1 of the 11 test pictures" in warning


@pytest.mark.parametrize(
    ("arguments", "kind", "part"),
    [
        ((), "usage", "SOURCE"),
        (("digts",), "data", "Did you mean 'digits'?"),
        (("digits", "--similarity", "85"), "config", "but got 85"),
        (("digits", "--similarity", "much"), "usage", "--similarity"),
        (("digits", "--html", "audit.pdf"), "config", "written as .html, but got 'audit.pdf'"),
        (("digits", "--html", "nowhere/audit.html"), "storage", "its folder does not exist"),
        (("digits", "--set", "split.test=5000"), "config", "only 1797 are there"),
    ],
)
def test_wrong_arguments(
    arguments: tuple[str, ...], kind: str, part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    finished = conviction("data", "audit", *arguments, "--json")
    assert finished.code == 2
    assert finished.json["error"]["kind"] == kind
    assert part in finished.json["error"]["message"]
    assert not list(tmp_path.glob("*.html"))


def test_help_loads_neither_torch_nor_the_drawing_library() -> None:
    code = (
        "import sys\nfrom conviction.cli.main import main\n"
        "try: main(['data', 'audit', '--help'])\nexcept SystemExit as end: assert end.code == 0, end.code\n"
        "print(sorted({'torch', 'matplotlib', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_an_interruption_leaves_nothing_behind(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, at the twentieth picture: from outside one never knows how far a command is."""
    read = iter(range(50))

    def interrupting(*given: Any) -> Any:
        if next(read) == 20:
            os.kill(os.getpid(), signal.SIGINT)
        return decode(*given)

    monkeypatch.setattr("conviction.data.audit.gather.decode", interrupting)
    finished = conviction("data", "audit", photos, "--html", tmp_path / "audit.html")
    assert finished.code == 130, finished.err
    assert "Traceback" not in finished.err
    assert "Interrupted" in finished.err
    assert not (tmp_path / "audit.html").exists()
    assert not (tmp_path / "cache" / "audits").exists()


def test_an_interruption_while_modules_are_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch imports `logging`: what is half imported then has no functions yet."""

    def importing(*given: Any) -> Any:
        monkeypatch.setitem(sys.modules, "logging", ModuleType("logging"))
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("conviction.run.audited.gather", importing)
    finished = conviction("data", "audit", "digits")
    assert (finished.code, finished.out) == (130, "")
    assert "Interrupted" in finished.err
    assert "Traceback" not in finished.err


ODD = {
    "newline": "a\nLeaks       none.png",
    "escape": "a\x1b[2J\x1b[31m.png",
    "control": "a\x9b31m\x7f.png",
    "turned round": "a\u202egnp.exe.png",
    "no text": os.fsdecode(b"a\xff.png"),
    "markup": "<script>alert(1)<\u2028script>.png",
}


@pytest.fixture
def odd_photos(photos: Path) -> Path:
    """As `photos`, with good pictures under names that a terminal or a page must not get as they are."""
    for number, name in enumerate(ODD.values()):
        save(scene(500 + number), photos / "train" / "cat" / "new.png").rename(photos / "train" / "cat" / name)
    save(scene(600), photos / "train" / "ca\tt" / "1.png")
    (photos / "train" / "dog" / "link.png").symlink_to("no\nwhere\x1b[1m")
    # Such names are names: printable, whatever they would do as markup.
    for name in ("[red]bold[/red].png", "<img src=x onerror=alert(1)>.png", "&amp;'\".png"):
        save(np.full((9, 9, 3), 40, np.uint8), photos / "train" / "cat" / name)
    return photos


class TestOddNames:
    def test_they_are_told_and_steer_no_terminal(self, odd_photos: Path) -> None:
        finished = conviction("data", "audit", odd_photos)
        assert finished.code == 0, finished.err
        written = finished.out + finished.err
        assert {letter for letter in written if not letter.isprintable()} == {"\n"}
        assert "Unreadable  8 pictures" in finished.out
        lines = finished.out.splitlines()
        assert "'train/cat/a\\x1b[2J\\x1b[31m.png' has unprintable characters in its name: rename it" in lines
        assert "… and 3 more" in lines
        # The rest is examined as ever, and names that are only odd are shown as they are.
        assert "training – test             0      1          0" in finished.out
        assert "exact: 3 pictures within training" in lines
        assert "  training    cat  train/cat/[red]bold[/red].png" in lines

    def test_json_holds_the_names_themselves(self, odd_photos: Path) -> None:
        finished = conviction("data", "audit", odd_photos, "--json")
        assert {letter for letter in finished.out if not letter.isprintable()} == {"\n"}
        finished.out.encode()
        named = {one["picture"]["path"]: one for one in finished.json["unreadable"]}
        assert set(named) == {
            *(f"train/cat/{name}" for name in ODD.values()),
            "train/ca\tt/1.png",
            "train/dog/link.png",
        }
        assert named["train/ca\tt/1.png"]["picture"] == {"path": "train/ca\tt/1.png", "label": "ca\tt", "split": None}
        assert named["train/dog/link.png"]["reason"] == r"is a link to 'no\nwhere\x1b[1m', which is not there"

    def test_the_page_holds_no_markup_of_theirs(self, odd_photos: Path, tmp_path: Path) -> None:
        assert conviction("data", "audit", odd_photos, "--html", tmp_path / "audit.html").code == 0
        page = (tmp_path / "audit.html").read_text(encoding="utf-8")
        assert {letter for letter in page if not letter.isprintable()} == {"\n"}
        assert "<script" not in page
        assert "<img src=x" not in page
        assert "&#x27;train/cat/&lt;script&gt;alert(1)&lt;\\u2028script&gt;.png&#x27;" in page
        assert "train/cat/&lt;img src=x onerror=alert(1)&gt;.png" in page

    def test_a_training_names_one_and_stops(self, odd_photos: Path) -> None:
        finished = conviction(*training_on(odd_photos, "data.unreadable=skip"))
        assert finished.code == 2
        assert finished.err.startswith(
            r"Error: photos holds 'train/ca\tt/1.png', which has unprintable characters in its"
        )
        assert finished.err.count("\n") == 1


class TestAnotherDivision:
    SENTENCE = "The test split was drawn (seed 3) and is sealed in this division alone"

    def test_a_drawn_test_split_comes_with_a_warning_where_pictures_are_named(self, tmp_path: Path) -> None:
        for number in range(40):
            save(scene(number), tmp_path / "photos" / ("cat", "dog")[number % 2] / f"{number:02d}.png")
        audit = ("data", "audit", tmp_path / "photos", "--set", "seed=3", "--html", tmp_path / "audit.html")
        finished = conviction(*audit)
        assert self.SENTENCE not in finished.err
        assert self.SENTENCE not in (tmp_path / "audit.html").read_text()
        save(scene(0), tmp_path / "photos" / "cat" / "again.png")
        finished = conviction(*audit)
        assert f"note: {self.SENTENCE}" in finished.err
        page = (tmp_path / "audit.html").read_text()
        assert page.index(self.SENTENCE) < page.index("<img")

    def test_one_that_the_source_places_does_not(self, photos: Path, tmp_path: Path) -> None:
        finished = conviction("data", "audit", photos, "--html", tmp_path / "audit.html")
        assert "sealed in this division" not in finished.err + (tmp_path / "audit.html").read_text()
