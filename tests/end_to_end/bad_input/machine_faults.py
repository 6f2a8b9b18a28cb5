"""Machines, disks, ledgers and command lines that do not play along."""

from __future__ import annotations

from pathlib import Path

from bad_input.case import Arguments, case, command_case, digits_with, photos, two_classes
from small_disk import make_read_only, mount

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


command_case(
    "Training",
    "no process",
    "config",
    ("`processes >= 1` must hold", "but got 0"),
    *digits_with("fit.epochs=1"),
    "--processes",
    "0",
)
command_case(
    "Training",
    "number of processes that is none",
    "config",
    ("`processes >= 1` must hold", "'auto'", "but got 'two'"),
    *digits_with("fit.epochs=1"),
    "--processes",
    "two",
)
command_case(
    "Training",
    "more processes than images in a batch",
    "config",
    ("`processes <= fit.batch_size` must hold", "processes=4", "fit.batch_size=3"),
    *digits_with("fit.epochs=1", "fit.batch_size=3"),
    "--processes",
    "4",
)
command_case(
    "Training",
    "graphs of a GPU on the processor",
    "config",
    ("fit.compile: cuda_graphs", "Use `auto`, `fused` or `none`"),
    *digits_with("fit.compile=cuda_graphs", "fit.device=cpu"),
)
command_case(
    "Training",
    "compiled step on several processes",
    "config",
    ("cannot compile the training step", "processes=2", "fit.compile=fused", "fit.compile=none"),
    *digits_with("fit.compile=fused"),
    "--processes",
    "2",
)


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
    make_read_only(mount(folder / "runs", "size=1m"))
    return ["train", "digits"]


@case("Storage", "runs folder that is a file", "storage", "Cannot write", "a file stands where a folder is needed")
def _home_is_a_file(folder: Path) -> Arguments:
    (folder / "runs").write_text("")
    return ["train", "digits"]


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


command_case(
    "Measuring",
    "no time at all",
    "config",
    ("1 <= seconds <= 3600", "got 0"),
    *("bench", "--seconds", "0"),
)
command_case(
    "Measuring",
    "pictures of no size",
    "config",
    ("simplecnn-artists", "Give --input"),
    *("bench", "simplecnn-artists", "--set", "data.image_size_px=null", "--set", "data.path=null"),
)
command_case(
    "Measuring", "no such recipe", "unknown_name", ("Did you mean 'convnet-cifar10'",), "bench", "convnet-cifar01"
)
command_case("Usage", "unknown command", "usage", ("No such command 'trian'",), "trian", "digits")
command_case("Usage", "unknown option", "usage", ("No such option: --epochs",), "train", "digits", "--epochs", "3")
command_case("Usage", "missing argument", "usage", ("Missing argument 'RECIPE'",), "train")
command_case("Usage", "unknown order", "unknown_name", ("No order named 'bst'", "'best'"), "runs", "--sort", "bst")
