import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conviction.core import environment
from conviction.core.environment import check_torch_and_torchvision, describe_environment
from conviction.core.errors import InstallationError


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The installed versions, as the test states them; torchvision needs what `requires` says."""
    versions: dict[str, str] = {}

    def version(package: str) -> str:
        if package not in versions:
            raise importlib.metadata.PackageNotFoundError(package)
        return versions[package]

    def requires(package: str) -> list[str] | None:
        assert package == "torchvision"
        return versions["requires"].split("|") if versions.get("requires") else None

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(importlib.metadata, "requires", requires)
    return versions


FITTING = {
    "torch": "2.11.0+cu128",
    "torchvision": "0.26.0+cu128",
    "requires": "numpy|torch==2.11.0|gdown; extra == 'x'",
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"torch": "2.11.0"},
        {"torchvision": "0.26.0"},
        {"requires": ""},
        {"requires": "torch==2.10; extra == 'old'"},
        {"torch": "2.12.0.dev20260101", "torchvision": "0.27", "requires": "torch>=2.11"},
    ],
)
def test_packages_that_fit_each_other_pass(installed: dict[str, str], changes: dict[str, str]) -> None:
    installed.update({**FITTING, **changes})
    check_torch_and_torchvision()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"torch": "2.12.0"},
            "torchvision 0.26.0+cu128 needs torch==2.11.0, but torch 2.12.0 is installed. Install two that belong "
            "together: pip install --upgrade torch torchvision",
        ),
        (
            {"torch": "2.11.0+cpu"},
            "torch 2.11.0+cpu and torchvision 0.26.0+cu128 are builds for different devices (cpu and cu128). Install "
            "both from the same place: pip install --force-reinstall torch torchvision",
        ),
    ],
)
def test_packages_that_do_not_fit_are_refused(installed: dict[str, str], changes: dict[str, str], message: str) -> None:
    installed.update({**FITTING, **changes})
    with pytest.raises(InstallationError) as caught:
        check_torch_and_torchvision()
    assert caught.value.message == message


@pytest.mark.parametrize("absent", ["torch", "torchvision"])
def test_an_absent_package_is_named(installed: dict[str, str], absent: str) -> None:
    installed.update({name: version for name, version in FITTING.items() if name != absent})
    with pytest.raises(InstallationError, match=f"The package {absent} is not installed. Type: pip install torch"):
        check_torch_and_torchvision()


def test_the_installed_packages_fit_each_other() -> None:
    check_torch_and_torchvision()


def test_the_environment_is_json_and_names_what_the_figures_depend_on() -> None:
    found = describe_environment(threads=2, device="cpu", precision="float32")
    assert json.loads(json.dumps(found)) == found
    assert found["packages"]["torch"] == importlib.metadata.version("torch")
    assert (found["threads"], found["device"], found["precision"]) == (2, "cpu", "float32")
    assert (found["memory_format"], found["processes"], found["compile"]) == ("channels_last", 1, "none")
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert 1 <= found["cores"] <= (os.cpu_count() or 1)
    assert set(found["instruction_sets"]) <= {"avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16"}


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    done = subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a copy of the module, tracked by a repository in which git finds no other one."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    root = tmp_path / "checkout"
    folder = root / "src" / "conviction" / "core"
    folder.mkdir(parents=True)
    shutil.copy(environment.__file__, folder)
    for file in (folder.parent / "__init__.py", root / "figures.json"):
        file.write_text("as it was")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "first")
    return folder


def test_the_commit_is_that_of_the_checkout_marked_where_it_was_changed(checkout: Path) -> None:
    commit = git(checkout, "rev-parse", "--short=12", "HEAD")
    git(checkout, "tag", "-a", "-m", "a tag", "v1")
    assert environment._commit(checkout) == commit
    (checkout / "untracked.txt").write_text("")
    assert environment._commit(checkout) == commit
    # No part of the code.
    (checkout.parents[2] / "figures.json").write_text("changed")
    assert environment._commit(checkout) == commit
    (checkout.parent / "__init__.py").write_text("changed")
    assert environment._commit(checkout) == f"{commit}+"


def test_there_is_no_commit_outside_of_a_checkout(tmp_path: Path) -> None:
    shutil.copy(environment.__file__, tmp_path)
    assert environment._commit(tmp_path) is None
    assert environment._commit(tmp_path / "absent") is None


def test_there_is_no_commit_for_a_package_installed_inside_of_another_repository(checkout: Path) -> None:
    installed = checkout / ".venv" / "lib" / "site-packages" / "conviction" / "core"
    installed.mkdir(parents=True)
    shutil.copy(environment.__file__, installed)
    assert environment._commit(installed) is None


def test_there_is_no_commit_without_git(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert environment._commit(checkout) is None


def test_a_git_hook_of_another_repository_does_not_answer(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = checkout.parent / "other"
    shutil.copytree(checkout, other)
    git(other, "commit", "-q", "--allow-empty", "-m", "second")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    found = environment._commit(checkout)
    monkeypatch.undo()
    assert found == git(checkout, "rev-parse", "--short=12", "HEAD")
