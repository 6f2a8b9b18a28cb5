"""The run folder: the truth about one run, in files that can be copied anywhere.

recipe.yaml              the resolved recipe
environment.json         versions, processor, threads, commit
run.json                 the state: status, counts, best and last epoch
history.jsonl            one line an epoch; the same bytes whenever the same recipe runs on the same machine
timings.jsonl            one line an epoch: what differs between two such runs
model.json               the network, its class names and its preprocessing
preprocessing.safetensors what of the preprocessing is too large for that, such as a whitening
best.safetensors         weights of the best epoch
last.safetensors         weights of the last epoch
checkpoint.safetensors   all that resuming needs
filters.safetensors      the first layer's weights before and after
split.csv                path and split of each picture, as training began
skipped.txt              pictures that were left out, where data.unreadable says so
evaluations.jsonl        what `conviction evaluate` found
figures/                 curves, learning rate, filters
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from conviction.core.errors import NewerFormat, RunError, UnknownName, nearest, storage_faults
from conviction.core.files import (
    is_locked,
    locked,
    make_folder,
    read_json,
    remove_leftovers,
    write_json,
    write_text,
)
from conviction.core.records import EpochRecord, Evaluation, RunSummary, SplitName, Timing, from_json, to_json

FORMAT = 1
_NAME = re.compile(r"\d{4}-\d\d-\d\d-[a-z0-9-]+-[0-9a-f]{6}")
RecordT = TypeVar("RecordT")


def runs_home() -> Path:
    """Where runs lie: `CONVICTION_HOME`, or `runs` in the current folder."""
    return Path(os.environ.get("CONVICTION_HOME") or "runs").expanduser()


@dataclass(frozen=True)
class RunFolder:
    """Names, reads and writes the files of one run."""

    path: Path

    @property
    def id(self) -> str:
        """The run's id: the folder's own name."""
        return self.path.resolve().name

    recipe = property(lambda self: self.path / "recipe.yaml")
    environment = property(lambda self: self.path / "environment.json")
    summary_file = property(lambda self: self.path / "run.json")
    history_file = property(lambda self: self.path / "history.jsonl")
    timings_file = property(lambda self: self.path / "timings.jsonl")
    model = property(lambda self: self.path / "model.json")
    preprocessing = property(lambda self: self.path / "preprocessing.safetensors")
    checkpoint = property(lambda self: self.path / "checkpoint.safetensors")
    filters = property(lambda self: self.path / "filters.safetensors")
    split = property(lambda self: self.path / "split.csv")
    skipped = property(lambda self: self.path / "skipped.txt")
    evaluations_file = property(lambda self: self.path / "evaluations.jsonl")
    figures = property(lambda self: self.path / "figures")

    def weights(self, which: str) -> Path:
        """The weights' file; `which` is `best` or `last`."""
        if which not in ("best", "last"):
            raise UnknownName("weights", which, ("best", "last"))
        return self.path / f"{which}.safetensors"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from training this run at the same time.

        Raises: RunError where one does.
        """
        with locked(self.path / ".lock", wait=False) as free:
            if not free:
                raise RunError(f"The run {self.id} is being trained by another process right now.")
            for folder in (self.path, self.figures):
                remove_leftovers(folder)
            yield

    def read_summary(self) -> RunSummary:
        """The state; a run that says it runs, while no process trains it, has crashed.

        Raises: RunError where it is missing or damaged, NewerFormat where a later version wrote it.
        """
        summary = self._read_summary_file()
        if summary.status != "running" or is_locked(self.path / ".lock"):
            return summary
        # Read again: a training that ended between the two looks has written its end before it let go of the lock.
        summary = self._read_summary_file()
        return dataclasses.replace(summary, status="crashed") if summary.status == "running" else summary

    def _read_summary_file(self) -> RunSummary:
        value = read_json(self.summary_file)
        if not isinstance(value, dict):
            raise RunError(f"{self.summary_file} is damaged: it holds no mapping.")
        found = value.get("format", 0)
        if isinstance(found, int) and found > FORMAT:
            raise NewerFormat(
                f"{self.summary_file} has format {found}, and this version of Conviction reads up to {FORMAT}: "
                "update Conviction."
            )
        try:
            return from_json(RunSummary, value)
        except ValueError as error:
            raise RunError(f"{self.summary_file} is damaged: {error}.") from error

    def write_summary(self, summary: RunSummary) -> None:
        """Replace `run.json`. Raises: StorageError."""
        write_json(self.summary_file, to_json(summary))

    def read_history(self) -> list[EpochRecord]:
        """A record for each epoch; none where none has ended. Raises: RunError where the file is damaged."""
        return self._read_lines(self.history_file, EpochRecord)

    def write_history(self, history: Iterable[EpochRecord]) -> None:
        """Replace `history.jsonl`. Raises: StorageError."""
        _write_lines(self.history_file, history)

    def read_timings(self) -> list[Timing]:
        """What each epoch took. Raises: RunError where the file is damaged."""
        return self._read_lines(self.timings_file, Timing)

    def write_timings(self, timings: Iterable[Timing]) -> None:
        """Replace `timings.jsonl`. Raises: StorageError."""
        _write_lines(self.timings_file, timings)

    def read_evaluations(self) -> list[Evaluation]:
        """What `evaluate` found, oldest first. Raises: RunError where the file is damaged."""
        return self._read_lines(self.evaluations_file, Evaluation)

    def add_evaluation(self, evaluation: Evaluation) -> None:
        """Append one line; two processes that evaluate at once both keep theirs."""
        with locked(self.path / ".evaluations-lock"):
            _write_lines(self.evaluations_file, [*self.read_evaluations(), evaluation])

    def write_split(self, division: Iterable[tuple[str, SplitName]]) -> None:
        """Write `split.csv`: path and split of each picture. Raises: StorageError."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([("path", "split"), *division])
        write_text(self.split, text.getvalue())

    def delete(self) -> None:
        """Remove the folder with all its files.

        Raises: RunError while a process trains it, StorageError where it cannot be removed.
        """
        with self.held(), storage_faults(self.path):
            shutil.rmtree(self.path.resolve())
            if self.path.is_symlink():
                self.path.unlink()

    def _read_lines(self, path: Path, kind: type[RecordT]) -> list[RecordT]:
        try:
            # Not splitlines(): it also breaks at U+2028 and its like, which JSON leaves inside of class names.
            lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError) as error:
            raise RunError(f"{path} is damaged: {error}.") from error
        if lines == [""]:
            return []
        records = []
        for number, line in enumerate(lines, start=1):
            try:
                records.append(from_json(kind, json.loads(line)))
            except (ValueError, RecursionError) as error:
                raise RunError(f"{path} is damaged at line {number}: {error}.") from error
        return records


def create_run_folder(home: Path, name: str) -> RunFolder:
    """A new folder `<date>-<name>-<id>` below `home`.

    Raises: StorageError where it cannot be made.
    """
    make_folder(home)
    day = datetime.now(UTC).strftime("%Y-%m-%d")
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-") or "run"
    while True:
        path = home / f"{day}-{slug}-{secrets.token_hex(3)}"
        with storage_faults(path):
            try:
                path.mkdir()
            except FileExistsError:
                continue
        folder = RunFolder(path)
        make_folder(folder.figures)
        return folder


def find_run_folder(reference: str, home: Path) -> RunFolder:
    """The run that `reference` means: a folder, an id, a part of one, or `latest`.

    Raises: RunError where none or several are meant.
    """
    # Path.expanduser() raises where there is no such user.
    direct = Path(os.path.expanduser(reference))
    if reference and _holds_run(direct):
        return RunFolder(direct)
    known = {folder.id: folder for folder in list_run_folders(home)}
    if not known:
        raise RunError(f"There is no run in {home}. Train one: conviction train digits")
    if reference == "latest":
        return max(known.values(), key=lambda folder: folder.summary_file.stat().st_mtime_ns)
    if reference in known:
        return known[reference]
    meant = [name for name in known if reference in name] if reference else []
    if len(meant) == 1:
        return known[meant[0]]
    if meant:
        raise RunError(f"{reference!r} means {len(meant)} runs: {', '.join(sorted(meant))}. Write more of the name.")
    guess = nearest(reference, known)
    hint = f" Did you mean {guess!r}?" if guess else ""
    raise RunError(f"No run named {reference!r} in {home}.{hint} `conviction runs` lists them.")


def list_run_folders(home: Path) -> list[RunFolder]:
    """Every folder below `home` that holds a run, oldest name first."""
    if not home.is_dir():
        return []
    return [RunFolder(path) for path in sorted(home.iterdir()) if _holds_run(path)]


def list_unfinished_folders(home: Path) -> list[RunFolder]:
    """The folders of trainings that were killed before they had written `run.json`, oldest name first."""
    if not home.is_dir():
        return []
    begun = [RunFolder(path) for path in sorted(home.iterdir()) if _NAME.fullmatch(path.name) and path.is_dir()]
    return [folder for folder in begun if not _holds_run(folder.path) and not is_locked(folder.path / ".lock")]


def _holds_run(path: Path) -> bool:
    # Path.is_file() raises where the name is too long or the folder closed.
    return os.path.isfile(path / "run.json")


def _write_lines(path: Path, records: Iterable[Any]) -> None:
    lines = [json.dumps(to_json(record), ensure_ascii=False, allow_nan=False) for record in records]
    write_text(path, "".join(line + "\n" for line in lines))
