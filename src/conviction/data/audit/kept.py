"""What training needs to know of an audit, kept in the cache under the digest of the pictures.

An audit of other pictures is never found. Which copies are leaks follows from the division that a training uses, be it
another one than the audit's. Where no audit was made, a start of a training costs one look for a file.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from conviction.core.audit_record import SPLITS, count_leaked
from conviction.core.files import make_folder, write_text
from conviction.core.names import shown
from conviction.core.records import SplitName, from_json, to_json
from conviction.data.pack import Pack
from conviction.data.source.locate import cache_folder
from conviction.data.split import Splits


@dataclass(frozen=True)
class KeptAudit:
    """The pairs of copies by their paths, and the command that shows them.

    Of `equal` pictures, which are groups of one colour each, every two are copies; `pairs` need not hold all of these.
    """

    command: str
    pairs: tuple[tuple[str, str], ...]
    equal: tuple[tuple[str, ...], ...] = ()


def keep_audit(pictures_digest: str, audit: KeptAudit) -> None:
    """Write it, in place of a former one. Raises: StorageError."""
    path = _place(pictures_digest)
    make_folder(path.parent)
    write_text(path, json.dumps(to_json(audit)))


def kept_audit(pictures_digest: str) -> KeptAudit | None:
    """The audit of these pictures; None where there was none or its file is damaged."""
    try:
        return from_json(KeptAudit, json.loads(_place(pictures_digest).read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        return None


def leak_warning(pack: Pack, splits: Splits) -> str | None:
    """A sentence on copies in different splits; None where there are none or these pictures were never audited."""
    audit = kept_audit(pack.pictures_digest)
    if audit is None or not audit.pairs:
        return None
    split_of = dict(splits.by_path(pack.paths))
    placed = [((split_of[one], one), (split_of[two], two)) for one, two in audit.pairs if {one, two} <= split_of.keys()]
    for group in audit.equal:
        members = [(split_of[path], path) for path in group if path in split_of]
        # With the one of the earliest split, as each of a later split is a leak exactly where that one is elsewhere.
        placed += [(min(members, key=lambda one: SPLITS.index(one[0])), member) for member in members]
    totals: dict[SplitName, int] = {split: sum(place == split for place in split_of.values()) for split in SPLITS}
    parts = [
        f"{number:,} of the {totals[split]:,} {split} pictures"
        for split, number in count_leaked(placed).items()
        if number
    ]
    if not parts:
        return None
    return (
        f"an audit found copies of {' and '.join(parts)} in another split: accuracy on these looks better than it is. "
        f"See the copies: {shown(audit.command)}"
    )


def _place(pictures_digest: str) -> Path:
    key = hashlib.sha256(pictures_digest.encode(errors="surrogateescape")).hexdigest()[:32]
    return cache_folder() / "audits" / f"{key}.json"
