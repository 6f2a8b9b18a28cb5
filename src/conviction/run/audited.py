"""A source of pictures, audited before anything is trained on it.

Copies have to be looked for across all splits, so that an audit reads the pictures before they are divided. What it
then tells of the test split is in docs/decisions/0012-audits-and-the-sealed-test-split.md.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from conviction.core.audit_record import (
    FINDING_KINDS,
    SPLITS,
    AuditPicture,
    AuditRecord,
    DuplicatePair,
    PictureFinding,
    UnreadableFile,
)
from conviction.core.errors import ConfigError, DataError
from conviction.core.records import SplitName
from conviction.data.audit.gather import Gathered, Progress, gather
from conviction.data.audit.grouping import grouped
from conviction.data.audit.kept import KeptAudit, keep_audit, kept_audit
from conviction.data.audit.pairing import FoundPair, find_pairs
from conviction.data.audit.quality import judge
from conviction.data.audit.thumbnail import data_uris
from conviction.data.pack import SPLIT_CODES, Pack
from conviction.data.split import Splits, as_placed, divide
from conviction.report.audit_page import shown_pictures, write_audit_page
from conviction.run.described import DRAWABLE, as_recipe
from conviction.run.recipe import Recipe

SIMILARITY = 0.85
_LEAST_SIMILARITY = 0.5


def audit_data(
    source: str | Path | Recipe,
    overrides: Mapping[str, Any] | None = None,
    *,
    similarity: float = SIMILARITY,
    progress: Progress | None = None,
) -> AuditRecord:
    """Copies within and across splits, contradicting labels, unreadable and odd pictures of a recipe's data.

    A pair of pictures that is less alike than `similarity` (0.5 to 1) is no near duplicate. A later training on the
    same pictures warns of the leaks. `progress` is told what goes on, how much of it is done, and of how much.

    Raises: DataError, ConfigError, StorageError.
    """
    return Audited(source, overrides, similarity=similarity, progress=progress).record


class Audited:
    """An audit's record, and the pictures that it speaks of."""

    def __init__(
        self,
        source: str | Path | Recipe,
        overrides: Mapping[str, Any] | None = None,
        *,
        similarity: float = SIMILARITY,
        progress: Progress | None = None,
    ) -> None:
        if not _LEAST_SIMILARITY <= similarity < 1:
            raise ConfigError(
                f"`{_LEAST_SIMILARITY} <= similarity < 1` must hold, but got {similarity:g}. Exact copies are always "
                f"looked for; {SIMILARITY} is usual for near ones."
            )
        self._recipe = as_recipe(source, overrides or {})
        gathered = gather(self._recipe.data, progress)
        command = _command(source, overrides or {}, similarity)
        self.record = _audit(self._recipe, gathered, similarity, command, progress)
        pairs = tuple((pair.first.path, pair.second.path) for pair in self.record.pairs)
        # A stricter look than usual does not take back what an audit found.
        if similarity <= SIMILARITY or kept_audit(gathered.pictures_digest) is None:
            keep_audit(gathered.pictures_digest, KeptAudit(command, pairs, _groups_of_one_colour(self.record)))

    def save_page(self, path: str | Path) -> None:
        """Write the audit as one HTML file with thumbnails. Raises: StorageError, DataError."""
        shown = shown_pictures(self.record)
        write_audit_page(self.record, data_uris(self._recipe.data, shown) if shown else {}, Path(path))


def _audit(
    recipe: Recipe, gathered: Gathered, similarity: float, command: str, progress: Progress | None
) -> AuditRecord:
    pack = gathered.to_divide()
    splits, notes = _divided(pack, recipe)
    split_of: dict[str, SplitName] = dict(splits.by_path(pack.paths))
    pictures = [AuditPicture(entry.path, entry.label, split_of.get(entry.path)) for entry in gathered.entries]
    readable = np.array([row for row, picture in enumerate(pictures) if picture.split], np.int64)
    judged = np.array([row for row in readable.tolist() if pictures[row].split != "test"], np.int64)
    judgement = judge(gathered.measures, gathered.sizes_px, judged, readable)
    # Without brightness nothing is left of one colour to be compared: all would be near copies of one another.
    blank = judgement.reasons["empty"]
    comparable = np.array([row for row in readable.tolist() if row not in blank], np.int64)
    telling = (lambda done, total: progress("comparing", done, total)) if progress else None
    found, plain = find_pairs(gathered.thumbnails, gathered.digests, comparable, similarity, telling)
    named = [*(_named(pair, pictures) for pair in found), *_pairs_of_one_colour(gathered.digests, pictures, blank)]
    pairs = tuple(sorted(named, key=_order))
    return AuditRecord(
        source=recipe.data.name,
        path=pack.shown_path,
        command=command,
        classes=pack.classes,
        counts=splits.count_by_class(pack),
        drawn=tuple(name for name in DRAWABLE if not (pack.splits == SPLIT_CODES[name]).any()),
        seed=recipe.seed if recipe.split.seed is None else recipe.split.seed,
        similarity=similarity,
        num_plain=len(set(plain) & set(judged.tolist())),
        num_judged=len(judged),
        unreadable=tuple(UnreadableFile(pictures[row], reason) for row, reason in sorted(gathered.faults.items())),
        pairs=pairs,
        groups=grouped(pairs),
        findings=tuple(
            PictureFinding(kind, pictures[row], reason)
            for kind in FINDING_KINDS
            for row, reason in sorted(judgement.reasons.get(kind, {}).items())
        ),
        by_nature=judgement.by_nature,
        notes=notes,
    )


def _divided(pack: Pack, recipe: Recipe) -> tuple[Splits, tuple[str, ...]]:
    """As a training divides the pictures, and notes; where it cannot, what the source places, and all else trains."""
    try:
        splits = divide(pack, recipe.split, recipe.seed)
    except DataError as error:
        splits = as_placed(pack)
        stopped = f"A training would stop: {error.message} Told apart are those splits alone that the source names."
        return splits, (*pack.notes, stopped)
    return splits, splits.notes(pack)


def _pairs_of_one_colour(
    digests: Sequence[bytes], pictures: Sequence[AuditPicture], rows: Iterable[int]
) -> Iterator[DuplicatePair]:
    """Pictures of the same pixels, the first of them with each of the others.

    A picture of a later split has a copy elsewhere exactly where its pair says so; thousands of black frames are
    thousands of pairs, where every two would be millions.
    """
    same: dict[bytes, list[AuditPicture]] = {}
    for row in rows:
        same.setdefault(digests[row], []).append(pictures[row])
    for members in same.values():
        first, *others = sorted(members, key=_rank)
        yield from (DuplicatePair("exact", 1.0, first, other) for other in others)


def _groups_of_one_colour(record: AuditRecord) -> tuple[tuple[str, ...], ...]:
    blank = {finding.picture.path for finding in record.findings if finding.kind == "empty"}
    paths = (tuple(picture.path for picture in group.pictures) for group in record.groups)
    return tuple(group for group in paths if group[0] in blank)


def _named(found: FoundPair, pictures: list[AuditPicture]) -> DuplicatePair:
    kind, similarity, *rows = found
    first, second = sorted((pictures[row] for row in rows), key=_rank)
    return DuplicatePair(kind, similarity, first, second)


def _order(pair: DuplicatePair) -> tuple[tuple[int, str], tuple[int, str]]:
    return _rank(pair.first), _rank(pair.second)


def _rank(picture: AuditPicture) -> tuple[int, str]:
    assert picture.split is not None
    return SPLITS.index(picture.split), picture.path


def _command(source: str | Path | Recipe, overrides: Mapping[str, Any], similarity: float) -> str:
    words = ["conviction", "data", "audit", source.name if isinstance(source, Recipe) else str(source)]
    words += [part for key, value in overrides.items() for part in ("--set", f"{key}={_spelled(value)}")]
    if similarity != SIMILARITY:
        words += ["--similarity", f"{similarity:g}"]
    return shlex.join(words)


def _spelled(value: Any) -> str:
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else str(value)
