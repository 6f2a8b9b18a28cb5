"""`conviction data audit` as a user meets it, and what training says afterwards."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from command import conviction, start
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


def test_an_interruption_leaves_nothing_behind(photos: Path, tmp_path: Path) -> None:
    for number in range(60):
        save(scene(1000 + number, (900, 900)), photos / "train" / "cat" / f"large-{number}.png")
    process = start("data", "audit", str(photos), "--html", str(tmp_path / "audit.html"))
    maps = Path(f"/proc/{process.pid}/maps")
    # Pillow's library is loaded once the command is under way; before Python is, SIGINT is the system's.
    while process.poll() is None and "_imaging" not in maps.read_text():
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert not (tmp_path / "audit.html").exists()
    assert not (tmp_path / "cache" / "audits").exists()
