"""Every way of going wrong that a user is protected from: how it is brought about, and what the message must say."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pictures import write_class_folders, write_picture

Arguments = list[object]


@dataclass(frozen=True)
class Case:
    """`prepare` makes the fault in a folder and returns the command; the message must hold each of `says`."""

    family: str
    title: str
    kind: str
    says: tuple[str, ...]
    prepare: Callable[[Path], Arguments]


CASES: list[Case] = []


def case(
    family: str, title: str, kind: str, *says: str
) -> Callable[[Callable[[Path], Arguments]], Callable[[Path], Arguments]]:
    """Decorator that enters a case."""

    def enter(prepare: Callable[[Path], Arguments]) -> Callable[[Path], Arguments]:
        CASES.append(Case(family, title, kind, says, prepare))
        return prepare

    return enter


def command_case(family: str, title: str, kind: str, says: tuple[str, ...], *arguments: object) -> None:
    """A case that needs no preparation."""
    CASES.append(Case(family, title, kind, says, lambda folder: list(arguments)))


def digits_with(*assignments: str) -> Arguments:
    arguments: Arguments = ["train", "digits"]
    for assignment in assignments:
        arguments += ["--set", assignment]
    return arguments


def recipe_file(folder: Path, text: str) -> Arguments:
    path = folder / "mine.yaml"
    path.write_text(text)
    return ["train", path]


def photos(folder: Path, *assignments: str) -> Arguments:
    """Train on `folder/photos`."""
    arguments: Arguments = ["train", "simplecnn-artists", "--set", f"data.path={folder / 'photos'}"]
    for assignment in assignments:
        arguments += ["--set", assignment]
    return arguments


def two_classes(folder: Path) -> Path:
    return write_class_folders(folder / "photos", {"cat": 12, "dog": 12}, (60, 60))


# Recipes ------------------------------------------------------------------------------------------------------------

command_case("Recipe", "unknown recipe", "unknown_name", ("digts", "Did you mean 'digits'?"), "train", "digts")
command_case("Recipe", "recipe file that is not there", "config", ("Cannot read",), "train", "nowhere/mine.yaml")
command_case("Recipe", "unknown key", "config", ("fit.epoch", "Did you mean 'epochs'?"), *digits_with("fit.epoch=3"))
command_case(
    "Recipe",
    "unknown key inside a choice",
    "config",
    ("optimizer.beta3: unknown key", "Did you mean 'beta"),
    *digits_with("optimizer.beta3=0.9"),
)
command_case("Recipe", "wrong type", "config", ("fit.epochs", "integer", "'many'"), *digits_with("fit.epochs=many"))
command_case("Recipe", "value out of range", "config", ("fit.batch_size", "got 0"), *digits_with("fit.batch_size=0"))
command_case(
    "Recipe",
    "several faults at once",
    "config",
    ("2 faults", "fit.epochs", "seed"),
    *digits_with("fit.epochs=0", "seed=-1"),
)
command_case(
    "Recipe",
    "unknown network",
    "unknown_name",
    ("alexnt", "Did you mean 'alexnet-cifar10'?"),
    *digits_with("network=alexnt"),
)
command_case(
    "Recipe", "unknown optimiser", "config", ("optimizer", "sdg", "Did you mean 'sgd'?"), *digits_with("optimizer=sdg")
)
command_case(
    "Recipe", "unknown schedule", "config", ("schedule", "Did you mean 'cosine'?"), *digits_with("schedule=cosin")
)
command_case(
    "Recipe",
    "unknown augmentation",
    "config",
    ("augment.0", "Did you mean 'horizontal_flip'?"),
    *digits_with("augment=[horizontal_flp]"),
)
command_case("Recipe", "unknown data source", "config", ("data", "Did you mean 'mnist'?"), *digits_with("data=mnst"))
command_case("Recipe", "override without a value", "config", ("KEY=VALUE", "fit.epochs"), *digits_with("fit.epochs"))
command_case(
    "Recipe",
    "override through a number",
    "config",
    ("fit.epochs.x", "a number"),
    *digits_with("fit.epochs=3", "fit.epochs.x=1"),
)
command_case(
    "Recipe",
    "rule between two settings",
    "config",
    ("warmup_epochs < fit.epochs",),
    *digits_with("schedule.warmup_epochs=9", "fit.epochs=5"),
)
command_case(
    "Recipe",
    "Nesterov without momentum",
    "config",
    ("optimizer", "momentum > 0"),
    *digits_with("optimizer={name: sgd, nesterov: true, momentum: 0}"),
)
command_case(
    "Recipe",
    "network too deep for the pictures",
    "config",
    ("network.blocks.3", "does not fit", "data.image_size_px"),
    *digits_with("network=convnet"),
)
command_case(
    "Recipe",
    "more means than channels",
    "config",
    ("standardize", "3 means", "1 channels"),
    *digits_with("standardize=imagenet"),
)


@case("Recipe", "text that is not YAML", "config", "not valid YAML at line 3")
def _not_yaml(folder: Path) -> Arguments:
    return recipe_file(folder, "data: digits\nfit: [1, 2\n")


@case("Recipe", "YAML without keys", "config", "must hold keys and values")
def _no_mapping(folder: Path) -> Arguments:
    return recipe_file(folder, "- digits\n")


@case("Recipe", "key that stands twice", "config", "'seed' stands twice")
def _twice(folder: Path) -> Arguments:
    return recipe_file(folder, "seed: 1\nseed: 2\n")


@case("Recipe", "recipe without a network", "config", "network: this key is needed")
def _no_network(folder: Path) -> Arguments:
    return recipe_file(folder, "data: digits\n")


@case("Recipe", "binary file", "config", "not UTF-8")
def _binary(folder: Path) -> Arguments:
    (folder / "mine.yaml").write_bytes(bytes(range(128, 256)))
    return ["train", folder / "mine.yaml"]


@case("Recipe", "recipe of a newer version", "newer_format", "format 99", "update Conviction")
def _newer_recipe(folder: Path) -> Arguments:
    return recipe_file(folder, "format: 99\nquantum: true\n")


# Pictures -----------------------------------------------------------------------------------------------------------

command_case(
    "Data",
    "no path",
    "config",
    ("data.path",),
    "train",
    "simplecnn-artists",
    "--set",
    "data.path=null",
)


@case("Data", "path that is nearly right", "data", "No file or folder", "Did you mean 'photos'?")
def _nearly(folder: Path) -> Arguments:
    two_classes(folder)
    return ["train", "simplecnn-artists", "--set", f"data.path={folder / 'photoes'}"]


@case("Data", "file that is no archive", "data", "neither a folder nor an archive")
def _text_file(folder: Path) -> Arguments:
    (folder / "photos").write_text("hello")
    return photos(folder)


@case("Data", "folder without classes", "data", "no class folders")
def _no_classes(folder: Path) -> Arguments:
    write_picture(folder / "photos" / "1.png")
    return photos(folder)


@case("Data", "one class", "data", "one class only, 'cat'")
def _one_class(folder: Path) -> Arguments:
    write_class_folders(folder / "photos", {"cat": 5})
    return photos(folder)


@case("Data", "empty class", "data", "no pictures in the class folder 'owl'")
def _empty_class(folder: Path) -> Arguments:
    (two_classes(folder) / "owl").mkdir()
    return photos(folder)


@case("Data", "fewer pictures than the splits need", "data", "'dog' has 2 pictures", "none is left to train on")
def _too_few(folder: Path) -> Arguments:
    write_class_folders(folder / "photos", {"cat": 12, "dog": 2})
    return photos(folder)


@case("Data", "larger validation split than there are pictures", "config", "split.validation: 500", "only 24")
def _greedy_split(folder: Path) -> Arguments:
    two_classes(folder)
    return photos(folder, "split.validation=500")


@case("Data", "class folders beside train/", "data", "'owl' beside 'train'")
def _mixed_layout(folder: Path) -> Arguments:
    write_class_folders(folder / "photos" / "train", {"cat": 3, "dog": 3})
    write_class_folders(folder / "photos", {"owl": 3})
    return photos(folder)


@case("Data", "truncated picture", "data", "1 of 25 pictures", "cat/broken.jpg", "data.unreadable=skip")
def _truncated(folder: Path) -> Arguments:
    content = io.BytesIO()
    Image.new("RGB", (60, 60), "red").save(content, "JPEG")
    (two_classes(folder) / "cat" / "broken.jpg").write_bytes(content.getvalue()[:400])
    return photos(folder)


@case("Data", "picture of zero bytes", "data", "cat/nothing.png is empty (0 bytes)")
def _zero_bytes(folder: Path) -> Arguments:
    (two_classes(folder) / "cat" / "nothing.png").touch()
    return photos(folder)


@case("Data", "web page named .jpg", "data", "dog/page.jpg is no picture of a known kind")
def _web_page(folder: Path) -> Arguments:
    (two_classes(folder) / "dog" / "page.jpg").write_text("<html>404</html>")
    return photos(folder)


@case("Data", "decompression bomb", "data", "dog/bomb.png", "max_image_pixels")
def _bomb(folder: Path) -> Arguments:
    # The header claims what the data do not hold: the size is to be looked at before anything is decoded.
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    content = b"\x89PNG\r\n\x1a\n"
    for name, data in chunks:
        content += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    (two_classes(folder) / "dog" / "bomb.png").write_bytes(content)
    return photos(folder)


@case("Data", "animated picture", "data", "dog/dance.gif is animated (3 frames)")
def _animated(folder: Path) -> Arguments:
    frames = [Image.new("RGB", (60, 60), shade) for shade in ("red", "green", "blue")]
    frames[0].save(two_classes(folder) / "dog" / "dance.gif", save_all=True, append_images=frames[1:])
    return photos(folder)


@case("Data", "no readable picture at all", "data", "2 of 2 pictures")
def _all_bad(folder: Path) -> Arguments:
    for label in ("cat", "dog"):
        (folder / "photos" / label).mkdir(parents=True)
        (folder / "photos" / label / "x.png").write_text("x")
    return photos(folder, "data.unreadable=skip")


@case("Data", "pictures of several sizes", "data", "9×7 pixels where others have 60×60", "data.image_size_px")
def _sizes(folder: Path) -> Arguments:
    write_picture(two_classes(folder) / "dog" / "small.png", (7, 9))
    return photos(folder, "data.image_size_px=null")


def tar_with(folder: Path, *members: tarfile.TarInfo) -> Arguments:
    two_classes(folder)
    with tarfile.open(folder / "photos.tar", "w") as archive:
        archive.add(folder / "photos", "photos")
        for member in members:
            archive.addfile(member)
    return ["train", "simplecnn-artists", "--set", f"data.path={folder / 'photos.tar'}"]


@case("Data", "archive entry that climbs out", "data", "'../../evil.png'", "climbs out")
def _climbing(folder: Path) -> Arguments:
    return tar_with(folder, tarfile.TarInfo("../../evil.png"))


@case("Data", "archive entry with an absolute name", "data", "absolute name '/etc/passwd'")
def _absolute(folder: Path) -> Arguments:
    return tar_with(folder, tarfile.TarInfo("/etc/passwd"))


@case("Data", "archive with a link", "data", "link 'photos/cat/link.png' -> '/etc/passwd'")
def _link(folder: Path) -> Arguments:
    link = tarfile.TarInfo("photos/cat/link.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return tar_with(folder, link)


@case("Data", "truncated archive", "data", "photos.tar.xz", "damaged")
def _truncated_archive(folder: Path) -> Arguments:
    two_classes(folder)
    with tarfile.open(folder / "photos.tar.xz", "w:xz") as archive:
        archive.add(folder / "photos", "photos")
    whole = (folder / "photos.tar.xz").read_bytes()
    (folder / "photos.tar.xz").write_bytes(whole[: len(whole) // 2])
    return ["train", "simplecnn-artists", "--set", f"data.path={folder / 'photos.tar.xz'}"]


@case("Data", "archive that is none", "data", "photos.zip is damaged or no archive")
def _no_archive(folder: Path) -> Arguments:
    (folder / "photos.zip").write_bytes(np.random.default_rng(0).bytes(1000))
    return ["train", "simplecnn-artists", "--set", f"data.path={folder / 'photos.zip'}"]


@case("Data", "zip entry that climbs out", "data", "'../evil.png'", "climbs out")
def _climbing_zip(folder: Path) -> Arguments:
    with zipfile.ZipFile(folder / "photos.zip", "w") as archive:
        archive.writestr("../evil.png", b"x")
    return ["train", "simplecnn-artists", "--set", f"data.path={folder / 'photos.zip'}"]


# Runs ---------------------------------------------------------------------------------------------------------------


def trained(folder: Path, epochs: int = 1) -> Path:
    """A finished run on a few digits-sized pictures, made in this process."""
    from conviction import train

    return train("digits", {"fit.epochs": epochs, "network": "perceptron"}).path


command_case("Run", "no run at all", "run", ("There is no run", "conviction train digits"), "evaluate")


@case("Run", "run that is nearly right", "run", "No run named", "conviction runs")
def _unknown_run(folder: Path) -> Arguments:
    trained(folder)
    return ["evaluate", "2020-01-01-digits"]


@case("Run", "part of a name that means several runs", "run", "means 2 runs")
def _ambiguous(folder: Path) -> Arguments:
    prefix = trained(folder).name[:10]
    trained(folder)
    return ["evaluate", prefix]


def crashed(folder: Path) -> Path:
    path = trained(folder)
    summary = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps({**summary, "status": "running"}))
    return path


@case("Run", "damaged checkpoint", "run", "checkpoint.safetensors is damaged")
def _damaged_checkpoint(folder: Path) -> Arguments:
    path = crashed(folder)
    content = bytearray((path / "checkpoint.safetensors").read_bytes())
    content[-1000] ^= 1
    (path / "checkpoint.safetensors").write_bytes(content)
    return ["resume", path]


@case("Run", "truncated weights", "run", "best.safetensors is damaged")
def _truncated_weights(folder: Path) -> Arguments:
    path = trained(folder)
    content = (path / "best.safetensors").read_bytes()
    (path / "best.safetensors").write_bytes(content[: len(content) // 2])
    return ["evaluate", path]


@case("Run", "weights that are missing", "run", "best.safetensors is missing")
def _missing_weights(folder: Path) -> Arguments:
    path = trained(folder)
    (path / "best.safetensors").unlink()
    return ["evaluate", path]


@case("Run", "damaged run.json", "run", "run.json is damaged")
def _damaged_summary(folder: Path) -> Arguments:
    path = trained(folder)
    (path / "run.json").write_text('{"run": ')
    return ["runs", "show", path]


@case("Run", "damaged model.json", "run", "model.json is damaged", "preprocessing.color", "'rgb' or 'grey'")
def _damaged_model(folder: Path) -> Arguments:
    path = trained(folder)
    (path / "model.json").write_text((path / "model.json").read_text().replace('"grey"', '"gray"'))
    write_picture(folder / "1.png")
    return ["predict", path, folder / "1.png"]


@case("Run", "run of a newer version", "newer_format", "format 99", "update Conviction")
def _newer_run(folder: Path) -> Arguments:
    path = trained(folder)
    summary = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps({**summary, "format": 99}))
    return ["runs", "show", path]


@case("Run", "pictures that changed since the run began", "run", "changed since", "would mix training with test")
def _changed_pictures(folder: Path) -> Arguments:
    from conviction import train

    two_classes(folder)
    path = train("simplecnn-artists", {"data.path": str(folder / "photos"), "fit.epochs": 1}).path
    summary = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps({**summary, "status": "interrupted"}))
    write_picture(folder / "photos" / "cat" / "new.png", (60, 60))
    return ["resume", path]


@case("Run", "unknown split", "unknown_name", "No split named 'tset'", "Did you mean 'test'?")
def _unknown_split(folder: Path) -> Arguments:
    trained(folder)
    return ["evaluate", "--split", "tset"]


@case("Run", "unknown weights", "unknown_name", "No weights named 'bset'", "Did you mean 'best'?")
def _unknown_weights(folder: Path) -> Arguments:
    trained(folder)
    return ["evaluate", "--weights", "bset"]


@case("Run", "picture to predict that is not there", "data", "Cannot read", "nowhere.png")
def _missing_picture(folder: Path) -> Arguments:
    trained(folder)
    return ["predict", "latest", "nowhere.png"]


@case("Run", "comparison of one run", "config", "two runs at least")
def _compare_one(folder: Path) -> Arguments:
    return ["runs", "compare", trained(folder)]


@case("Run", "deletion that nobody can confirm", "config", "--yes")
def _delete_unasked(folder: Path) -> Arguments:
    return ["runs", "delete", trained(folder)]


# Training and machine -----------------------------------------------------------------------------------------------

command_case(
    "Training",
    "loss that becomes NaN",
    "diverged",
    ("epoch 1", "step", "learning rate", "optimizer.learning_rate", "best epoch are kept"),
    *digits_with("optimizer={name: sgd, learning_rate: 1.0e+30}", "fit.epochs=3", "schedule=constant"),
)
command_case(
    "Training",
    "more memory than there is",
    "out_of_memory",
    ("fit.batch_size (now 64", "fit.batch_size=32"),
    *digits_with("network={preset: perceptron, dense: [{units: 1000000}, {units: 1000000}]}"),
)
command_case(
    "Training",
    "batch normalisation of a single value",
    "config",
    ("fit.batch_size >= 2",),
    *digits_with("network={preset: perceptron, dense: [{units: 4, normalization: batch}]}", "fit.batch_size=1"),
)
command_case(
    "Training",
    "GPU that is not there",
    "config",
    ("fit.device: cuda", "Use `auto` or `cpu`"),
    *digits_with("fit.device=cuda"),
)


def mount(place: Path, options: str) -> Path:
    """A small file system of its own in memory; the test's end takes it away again."""
    place.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this user cannot mount a file system: {done.stderr.strip()}")
    return place


@case("Storage", "disk that is full of runs", "storage", "Cannot write", "the disk is full")
def _full_runs(folder: Path) -> Arguments:
    mount(folder / "runs", "size=600k")
    return digits_with("network=perceptron", "fit.epochs=2")


@case("Storage", "no room for the packed pictures", "storage", "bytes are needed", "CONVICTION_CACHE")
def _full_cache(folder: Path) -> Arguments:
    two_classes(folder)
    mount(folder / "cache", "size=40k")
    return photos(folder)


@case("Storage", "read-only runs folder", "storage", "Cannot write", "read-only")
def _read_only_runs(folder: Path) -> Arguments:
    subprocess.run(["mount", "-o", "remount,ro", str(mount(folder / "runs", "size=1m"))], check=True)
    return ["train", "digits"]


@case("Storage", "runs folder that is a file", "storage", "Cannot write", "a file stands where a folder is needed")
def _home_is_a_file(folder: Path) -> Arguments:
    (folder / "runs").write_text("")
    return ["train", "digits"]


# Ledger and usage ---------------------------------------------------------------------------------------------------

command_case("Ledger", "address that is none", "ledger", ("is no ledger address",), "runs", "--ledger", "my ledger")
command_case(
    "Ledger", "unknown database", "ledger", ("none of the ledger's drivers",), "runs", "--ledger", "mysql://x/y"
)
command_case(
    "Ledger",
    "server that does not answer",
    "ledger",
    ("cannot be used", "port 9"),
    "runs",
    "--ledger",
    "postgresql+psycopg://me:secret@127.0.0.1:9/runs",
)


@case("Ledger", "damaged file", "ledger", "cannot be used", "not a database")
def _damaged_ledger(folder: Path) -> Arguments:
    (folder / "ledger.db").write_bytes(b"no database at all" * 100)
    return ["runs", "--ledger", f"sqlite:///{folder / 'ledger.db'}"]


command_case("Usage", "unknown command", "usage", ("No such command 'trian'",), "trian", "digits")
command_case("Usage", "unknown option", "usage", ("No such option: --epochs",), "train", "digits", "--epochs", "3")
command_case("Usage", "missing argument", "usage", ("Missing argument 'RECIPE'",), "train")
command_case("Usage", "unknown order", "unknown_name", ("No order named 'bst'", "'best'"), "runs", "--sort", "bst")
