"""An audit's record, made by hand: `a1` to `a4` are cats in training, `d1` and `d2` dogs, `t1` to `t4` cats in test."""

from __future__ import annotations

from typing import Any

from conviction.core.audit_record import (
    AuditPicture,
    AuditRecord,
    DuplicateKind,
    DuplicatePair,
    PictureFinding,
    UnreadableFile,
)
from conviction.data.audit.grouping import grouped

PICTURES = {
    **{f"a{number}": AuditPicture(f"a{number}", "cat", "train") for number in range(1, 5)},
    **{f"d{number}": AuditPicture(f"d{number}", "dog", "train") for number in range(1, 3)},
    "v1": AuditPicture("v1", "cat", "validation"),
    **{f"t{number}": AuditPicture(f"t{number}", "cat", "test") for number in range(1, 5)},
}


def pair(first: str, second: str, kind: DuplicateKind = "exact", similarity: float = 1.0) -> DuplicatePair:
    return DuplicatePair(kind, similarity, PICTURES[first], PICTURES[second])


def audit_record(*pairs: DuplicatePair, **changed: Any) -> AuditRecord:
    fields: dict[str, Any] = {
        "source": "folder",
        "path": "photos",
        "command": "conviction data audit photos",
        "classes": ("cat", "dog"),
        "counts": {
            "train": {"cat": 40, "dog": 20},
            "validation": {"cat": 5, "dog": 3},
            "test": {"cat": 5, "dog": 3},
        },
        "drawn": ("validation", "test"),
        "seed": 0,
        "similarity": 0.85,
        "num_plain": 2,
        "num_judged": 68,
        "unreadable": (UnreadableFile(AuditPicture("cat/b.jpg", "cat", None), "is empty (0 bytes)"),),
        "pairs": pairs,
        "groups": grouped(pairs),
        "findings": (PictureFinding("dark", PICTURES["a1"], "is very dark"),),
        "by_nature": {"blurred": 30},
        "notes": ("A note.",),
        **changed,
    }
    return AuditRecord(**fields)
