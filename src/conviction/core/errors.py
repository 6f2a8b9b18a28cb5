"""Faults that a user can mend. Each says the rule, the value received and the way out.

The command line prints the message alone and exits with code 2. `assert` is for our own bugs.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import ClassVar

_ALIKE = 0.6
_MOST_LISTED = 40


class ConvictionError(Exception):
    """A fault that the user can mend; `kind` names its family for programs that read `--json`."""

    kind: ClassVar[str] = "error"

    @property
    def message(self) -> str:
        """The whole message, as the command line prints it."""
        return str(self)


class ConfigError(ConvictionError):
    """A recipe, an override or an argument breaks a rule."""

    kind = "config"


class UnknownName(ConfigError):
    """A name is not in its registry; the message gives the nearest known ones, and some `always`."""

    kind = "unknown_name"

    def __init__(self, what: str, name: str, known: Iterable[str], always: Iterable[str] = ()) -> None:
        self.what, self.name, self.known = what, name, sorted(known)
        super().__init__(f"No {what} named {name!r}. {did_you_mean(str(name), self.known, always)}")


class NewerFormat(ConfigError):
    """A file was written by a later version of Conviction."""

    kind = "newer_format"


class DataError(ConvictionError):
    """The pictures, or the archive that holds them, cannot be used as they are."""

    kind = "data"


class RunError(ConvictionError):
    """A run folder is missing, damaged, or in a state that forbids the request."""

    kind = "run"


class LedgerError(ConvictionError):
    """The ledger's database cannot be reached or used."""

    kind = "ledger"


class StorageError(ConvictionError):
    """A file cannot be written: full disk, read-only folder, missing permission."""

    kind = "storage"


class TrainingDiverged(ConvictionError):
    """The loss became NaN or infinite."""

    kind = "diverged"


class OutOfMemory(ConvictionError):
    """A step needs more memory than there is."""

    kind = "out_of_memory"


class Interrupted(ConvictionError):
    """The user, or a scheduler, asked the command to end."""

    kind = "interrupted"


class InstallationError(ConvictionError):
    """The installed packages do not fit each other."""

    kind = "installation"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, or like the beginning of it; None where none is alike."""
    wanted = name.lower()

    def likeness(candidate: str) -> float:
        whole, beginning = candidate.lower(), candidate.lower()[: len(wanted) + 1]
        return max(_likeness(wanted, whole), 0.95 * _likeness(wanted, beginning))

    known = list(known)
    # `lr` for `learning_rate`.
    short = [candidate for candidate in known if wanted == "".join(part[:1] for part in candidate.lower().split("_"))]
    if short and len(wanted) > 1:
        return short[0]
    # Of equally alike ones, that with the longer beginning in common.
    best = max(known, key=lambda one: (likeness(one), _num_in_common(wanted, one.lower())), default=None)
    return best if best is not None and likeness(best) >= _ALIKE else None


def _likeness(first: str, second: str) -> float:
    return difflib.SequenceMatcher(None, first, second).ratio()


def _num_in_common(first: str, second: str) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


def did_you_mean(name: str, known: Iterable[str], always: Iterable[str] = ()) -> str:
    """`Did you mean 'x'? Known: …`, or the known names alone where none is alike.

    Of very many known names only those most alike are given, and those named `always`.
    """
    known = list(known)
    guess = nearest(name, known)
    hint = f"Did you mean {guess!r}? " if guess else ""
    if len(known) > _MOST_LISTED:
        alike = sorted(known, key=lambda one: -_likeness(name.lower(), one.lower()))[: _MOST_LISTED // 2]
        return f"{hint}Known, of {len(known)}: {', '.join(sorted({*alike, *always}))}, …"
    return f"{hint}Known: {', '.join(known) or 'none'}."


_WAYS_OUT = {
    errno.ENOSPC: "the disk is full: free some space, or put the folder elsewhere",
    errno.EDQUOT: "the disk quota is used up: free some space, or put the folder elsewhere",
    errno.EFBIG: "the file would pass the size limit set for this process",
    errno.EROFS: "the file system is read-only: put the folder elsewhere",
    errno.EACCES: "permission is missing: change it, or put the folder elsewhere",
    errno.EPERM: "permission is missing: change it, or put the folder elsewhere",
    errno.ENOTDIR: "a file stands where a folder is needed",
    errno.EEXIST: "a file stands where a folder is needed",
    errno.EISDIR: "a folder stands where a file is needed",
    errno.ENOENT: "its folder does not exist",
    errno.ENAMETOOLONG: "the name is longer than the file system allows",
}


@contextmanager
def storage_faults(path: Path, way_out: str = "") -> Iterator[None]:
    """Turn the operating system's refusal to write below `path` into a `StorageError`."""
    try:
        yield
    except OSError as error:
        reason = _WAYS_OUT.get(error.errno or 0)
        if reason is None:
            raise
        raise StorageError(f"Cannot write {path}: {reason}{way_out}.") from error
