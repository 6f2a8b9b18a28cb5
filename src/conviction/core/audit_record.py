"""What an audit of pictures found, as plain records: copies within and across splits, unreadable and odd pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from conviction.core.records import SplitName, to_json

DuplicateKind = Literal["exact", "near", "mirrored"]
FindingKind = Literal["empty", "dark", "bright", "blurred", "odd_size"]
Between = tuple[SplitName, SplitName]

DUPLICATE_KINDS: tuple[DuplicateKind, ...] = ("exact", "near", "mirrored")
FINDING_KINDS: tuple[FindingKind, ...] = ("empty", "dark", "bright", "blurred", "odd_size")
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
ACROSS: tuple[Between, ...] = (("train", "test"), ("train", "validation"), ("validation", "test"))
WITHIN: tuple[Between, ...] = (("train", "train"), ("validation", "validation"), ("test", "test"))


@dataclass(frozen=True)
class AuditPicture:
    """One picture by its path; `split` is None where it cannot be read, and therefore has no place."""

    path: str
    label: str
    split: SplitName | None


@dataclass(frozen=True)
class DuplicatePair:
    """Two pictures that show the same; `similarity` is 1 for exact copies.

    `first` is in the earlier split of training, validation, test, and has the earlier path within one.
    """

    kind: DuplicateKind
    similarity: float
    first: AuditPicture
    second: AuditPicture

    @property
    def between(self) -> Between:
        """The splits of the two."""
        assert self.first.split is not None
        assert self.second.split is not None
        return self.first.split, self.second.split

    @property
    def is_leak(self) -> bool:
        """Whether the two are in different splits."""
        return self.first.split != self.second.split

    @property
    def is_contradicting(self) -> bool:
        """Whether the two have different labels."""
        return self.first.label != self.second.label


Placed = tuple[SplitName, str]


def count_leaked(pairs: Iterable[tuple[Placed, Placed]]) -> dict[SplitName, int]:
    """How many test pictures have a copy in another split, and validation pictures one in training.

    Each pair holds the split and the path of two pictures that are copies.
    """
    held: dict[SplitName, set[str]] = {"validation": set(), "test": set()}
    for pair in pairs:
        earlier, later = sorted(pair, key=lambda placed: SPLITS.index(placed[0]))
        if earlier[0] != later[0]:
            held[later[0]].add(later[1])
    return {split: len(paths) for split, paths in held.items()}


@dataclass(frozen=True)
class DuplicateGroup:
    """Pictures that are joined by pairs; not every two of a large group need be alike."""

    pictures: tuple[AuditPicture, ...]
    kinds: tuple[DuplicateKind, ...]
    num_pairs: int
    lowest_similarity: float

    @property
    def splits(self) -> tuple[SplitName, ...]:
        """The splits that the group has pictures in."""
        held = {picture.split for picture in self.pictures}
        return tuple(split for split in SPLITS if split in held)

    @property
    def is_leak(self) -> bool:
        """Whether the group has pictures in more than one split."""
        return len(self.splits) > 1

    @property
    def is_contradicting(self) -> bool:
        """Whether the group has pictures of more than one class."""
        return len({picture.label for picture in self.pictures}) > 1


@dataclass(frozen=True)
class UnreadableFile:
    """A picture that cannot be used; `reason` is the end of a sentence that begins with its path."""

    picture: AuditPicture
    reason: str


@dataclass(frozen=True)
class PictureFinding:
    """Something odd about one picture; `reason` is the end of a sentence that begins with its path."""

    kind: FindingKind
    picture: AuditPicture
    reason: str


@dataclass(frozen=True)
class AuditRecord:
    """All that an audit found.

    Copies and unreadable files are looked for in all splits. The findings are about `num_judged` training and
    validation pictures; of the test split, pictures of one colour alone are among them. `by_nature` counts, by kind,
    what is so common that it describes the set: these are not listed. `num_plain` of the judged pictures have too
    little contrast to be compared but for exact copies. Of equal pictures of one colour, `pairs` has the first
    with each of the others. `command` shows the audit again.
    """

    source: str
    path: str
    command: str
    classes: tuple[str, ...]
    counts: dict[SplitName, dict[str, int]]
    drawn: tuple[SplitName, ...]
    seed: int
    similarity: float
    num_plain: int
    num_judged: int
    unreadable: tuple[UnreadableFile, ...]
    pairs: tuple[DuplicatePair, ...]
    groups: tuple[DuplicateGroup, ...]
    findings: tuple[PictureFinding, ...]
    by_nature: dict[FindingKind, int]
    notes: tuple[str, ...]
    format: int = 1

    @property
    def totals(self) -> dict[SplitName, int]:
        """The number of readable pictures in each split."""
        return {split: sum(by_class.values()) for split, by_class in self.counts.items()}

    @property
    def leaked(self) -> dict[SplitName, int]:
        """How many test pictures have a copy in another split, and how many validation pictures one in training."""
        return count_leaked(
            ((one, pair.first.path), (two, pair.second.path)) for pair in self.pairs for one, two in [pair.between]
        )

    def count_pairs(self, between: Between) -> Counter[DuplicateKind]:
        """The number of pairs of each kind between two splits, or within one."""
        return Counter(pair.kind for pair in self.pairs if pair.between == between)

    def smallest_and_largest_class(self) -> tuple[tuple[str, int], tuple[str, int]]:
        """The classes with the fewest and the most training pictures; the first by name among equals."""
        counts = self.counts["train"]
        smallest = min(counts, key=lambda name: counts[name])
        largest = max(counts, key=lambda name: counts[name])
        return (smallest, counts[smallest]), (largest, counts[largest])

    def as_json(self) -> dict[str, Any]:
        """Every field, and what programs ask for most: leaks, contradictions and pairs counted."""
        return {
            **to_json(self),
            "leaked": self.leaked,
            "num_contradicting_groups": sum(group.is_contradicting for group in self.groups),
            "num_pairs": {
                "-".join(dict.fromkeys(between)): {kind: self.count_pairs(between)[kind] for kind in DUPLICATE_KINDS}
                for between in (*ACROSS, *WITHIN)
            },
        }
