"""What the README and the guide show really works."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from command import conviction
from conviction.core.config import read_yaml
from conviction.run.recipe import load_recipe
from pictures import write_class_folders, write_picture

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "guide").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the pictures that the pages speak of: class folders, and a small stand-in for CIFAR-10."""
    write_class_folders(tmp_path / "photos", {"cat": 12, "dog": 12}, (60, 60))
    write_picture(tmp_path / "photos" / "cat" / "1.jpg", (60, 60))
    for split in ("train", "test"):
        write_class_folders(tmp_path / "data" / "cifar10" / split, {"airplane": 20, "bird": 20}, (32, 32))
    monkeypatch.setenv("CONVICTION_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_run(page: Path, prepared: Path) -> None:
    (prepared / "my-first.yaml").write_text("".join(blocks(page, "yaml")[:1]) or "network: lenet5\n")
    if page.stem in ("runs", "inspect"):
        assert conviction("train", "digits", "--set", "fit.epochs=1").code == 0
    ran = 0
    for line in "".join(blocks(page, "sh")).splitlines():
        words = shlex.split(line, comments=True)
        if not words or words[0] != "conviction":
            continue
        target = words.index(">") if ">" in words else None
        arguments = words[1:target]
        if arguments[0] == "train":
            # One epoch of a few pictures stands for the real thing.
            arguments += ["--set", "fit.epochs=1", "--set", "split.validation=0.2"]
            arguments += ["--set", "fit.progressive_sizes=[]"]
        finished = conviction(*arguments)
        assert finished.code == 0, f"{line}\n{finished.err}"
        if target is not None:
            Path(words[target + 1]).write_text(finished.out)
        ran += 1
    assert ran or page.stem in ("recipes", "data", "augmentation", "facescrub", "transfer")


def test_python_of_the_readme_runs(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks(ROOT / "README.md", "python")
    exec(compile(code, "README.md", "exec"), {})
    assert "0." in capsys.readouterr().out


def test_recipe_of_the_guide_is_valid(prepared: Path) -> None:
    text, *_ = blocks(ROOT / "docs" / "guide" / "recipes.md", "yaml")
    (prepared / "my-first.yaml").write_text(text)
    assert conviction("train", "my-first.yaml", "--set", "fit.epochs=2").code == 0


@pytest.mark.parametrize(
    ("name", "text"), [(page.name, text) for page in PAGES for text in blocks(page, "yaml")], ids=lambda part: part[:9]
)
def test_every_recipe_of_the_pages_is_valid(name: str, text: str) -> None:
    settings = read_yaml(text, name)
    recipe = load_recipe(settings)
    for stage in ("data", "standardize"):
        named = settings.get(stage, getattr(recipe, stage).name)
        assert getattr(recipe, stage).name == (named if isinstance(named, str) else named["name"])
    assert len(recipe.augment) == len(settings.get("augment", ()))


def test_links_lead_somewhere() -> None:
    for page in [*PAGES, *sorted((ROOT / "docs").rglob("*.md"))]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_readme_opens_with_the_two_commands() -> None:
    first_lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:6]
    assert [line.split("#")[0].strip() for line in first_lines if line.startswith("make")] == ["make demo", "make test"]
