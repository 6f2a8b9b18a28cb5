"""Pairs joined to groups."""

from __future__ import annotations

from collections.abc import Sequence

from conviction.core.audit_record import DUPLICATE_KINDS, SPLITS, AuditPicture, DuplicateGroup, DuplicatePair


def grouped(pairs: Sequence[DuplicatePair]) -> tuple[DuplicateGroup, ...]:
    """The groups that the pairs join: those across splits first, then contradicting ones, then the larger."""
    leader: dict[str, str] = {}
    pictures: dict[str, AuditPicture] = {}

    def led(path: str) -> str:
        while leader[path] != path:
            leader[path] = leader[leader[path]]
            path = leader[path]
        return path

    for pair in pairs:
        for picture in (pair.first, pair.second):
            pictures[picture.path] = picture
            leader.setdefault(picture.path, picture.path)
        leader[led(pair.second.path)] = led(pair.first.path)
    members: dict[str, list[AuditPicture]] = {}
    for path in sorted(pictures, key=lambda path: (SPLITS.index(pictures[path].split or "test"), path)):
        members.setdefault(led(path), []).append(pictures[path])
    joined: dict[str, list[DuplicatePair]] = {}
    for pair in pairs:
        joined.setdefault(led(pair.first.path), []).append(pair)
    groups = [
        DuplicateGroup(
            tuple(held),
            tuple(kind for kind in DUPLICATE_KINDS if any(pair.kind == kind for pair in joined[path])),
            len(joined[path]),
            min(pair.similarity for pair in joined[path]),
        )
        for path, held in members.items()
    ]
    return tuple(
        sorted(
            groups,
            key=lambda group: (
                not group.is_leak,
                not group.is_contradicting,
                -len(group.pictures),
                group.pictures[0].path,
            ),
        )
    )
