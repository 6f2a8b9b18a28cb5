"""The sentences on an audit that the terminal and the page share."""

from __future__ import annotations

from conviction.core.audit_record import (
    AuditRecord,
    Between,
    DuplicateGroup,
    FindingKind,
)

SPLIT_WORDS = {"train": "training", "validation": "validation", "test": "test"}
FINDING_WORDS: dict[FindingKind, str] = {
    "empty": "of one colour alone",
    "dark": "very dark",
    "bright": "very bright",
    "blurred": "blurred",
    "odd_size": "of an odd size",
}
FINDING_HEADINGS: dict[FindingKind, str] = {
    "empty": "Pictures of one colour alone",
    "dark": "Very dark pictures",
    "bright": "Very bright pictures",
    "blurred": "Blurred pictures",
    "odd_size": "Pictures of an odd size",
}
# Below, the smaller class still teaches; from ten on, accuracy alone says little.
_UNEVEN, _VERY_UNEVEN = 2.0, 10.0
_NATURE_PERCENT = 5


def num_things(count: int, singular: str, plural: str = "") -> str:
    """`1 pair`, `1,234 pairs`, `no pairs`."""
    word = singular if count == 1 else plural or f"{singular}s"
    return f"{count:,} {word}" if count else f"no {word}"


def size_line(record: AuditRecord) -> str:
    """How many pictures, classes and splits."""
    totals = record.totals
    parts = ", ".join(f"{total:,} {SPLIT_WORDS[split]}" for split, total in totals.items())
    count = sum(totals.values())
    return f"{num_things(count, 'picture')} of {num_things(len(record.classes), 'class', 'classes')} ({parts})"


def leak_line(record: AuditRecord) -> str:
    """Whether pictures are in two splits."""
    parts = [
        f"{number:,} of {record.totals[split]:,} {SPLIT_WORDS[split]} pictures"
        for split, number in sorted(record.leaked.items())
        if number
    ]
    if not parts:
        return "no picture has a copy in another split"
    verb = "have" if sum(record.leaked.values()) > 1 else "has"
    return f"{' and '.join(parts)} {verb} a copy in another split"


def label_line(record: AuditRecord) -> str:
    """Whether copies have different labels."""
    count = sum(group.is_contradicting for group in record.groups)
    if not count:
        return "no copies with different labels"
    return f"{num_things(count, 'group')} of copies with different labels"


def duplicate_line(record: AuditRecord) -> str:
    """How many copies there are in all."""
    if not record.pairs:
        return "none found"
    pictures = sum(len(group.pictures) for group in record.groups)
    return (
        f"{num_things(len(record.pairs), 'pair')} in {num_things(len(record.groups), 'group')} ({pictures:,} pictures)"
    )


def unreadable_line(record: AuditRecord) -> str:
    """How many pictures cannot be read."""
    return num_things(len(record.unreadable), "picture") if record.unreadable else "none"


def balance_line(record: AuditRecord) -> str:
    """The smallest and the largest class of the training split."""
    (small, fewest), (large, most) = record.smallest_and_largest_class()
    if fewest == most:
        return f"even: {num_things(most, 'training picture')} of each class"
    if fewest == 0:
        return f"the class {small!r} has no training pictures, {large!r} has {most:,}"
    ratio = most / fewest
    word = "very uneven" if ratio >= _VERY_UNEVEN else "uneven" if ratio >= _UNEVEN else "nearly even"
    fewer = num_things(fewest, "training picture")
    return f"{word}: {fewer} of {small!r} to {most:,} of {large!r}, {ratio:.1f} times as many"


def odd_line(record: AuditRecord) -> str:
    """How many pictures are odd, by kind."""
    parts = [
        f"{count:,} {words}"
        for kind, words in FINDING_WORDS.items()
        if (count := sum(finding.kind == kind for finding in record.findings))
    ]
    return ", ".join(parts) or "none"


def nature_lines(record: AuditRecord) -> list[str]:
    """A sentence for each kind that is so common that it describes the set."""
    return [
        f"{count:,} of {record.num_judged:,} training and validation pictures are {FINDING_WORDS[kind]}: more than "
        f"{_NATURE_PERCENT} %, so that this is how the set is. They are not listed."
        for kind, count in record.by_nature.items()
    ]


def plain_line(record: AuditRecord) -> str:
    """How many pictures only exact copies can be found of; empty where there are none."""
    if not record.num_plain:
        return ""
    return f"{num_things(record.num_plain, 'picture')} too low in contrast for near copies to be told: exact ones only."


def seal_line(record: AuditRecord) -> str:
    """What the names and pictures shown would give away of another division's test split; empty where none is drawn."""
    if "test" not in record.drawn:
        return ""
    if not record.totals["test"]:
        return "No test split is set aside here: of one drawn later, pictures named or shown here may be part."
    return (
        f"The test split was drawn (seed {record.seed}) and is sealed in this division alone: with another seed or "
        "other shares, pictures named or shown here as training or validation may be test pictures. Decide on the "
        "division before you look, and keep it."
    )


def between_words(between: Between) -> str:
    """`training – test`, or `within training`."""
    first, second = (SPLIT_WORDS[split] for split in between)
    return f"within {first}" if first == second else f"{first} – {second}"


def group_words(group: DuplicateGroup) -> str:
    """Kinds and similarity of a group, and what is wrong with it."""
    kinds = " and ".join(group.kinds)
    alike = "" if group.lowest_similarity == 1 else f", similarity {group.lowest_similarity:.3f}"
    if group.num_pairs > 1 and alike:
        alike += " or more"
    wrong = [
        "in different splits" if group.is_leak else f"within {SPLIT_WORDS[group.splits[0]]}",
        *(["with different labels"] if group.is_contradicting else []),
    ]
    return f"{kinds}{alike}: {len(group.pictures)} pictures {', '.join(wrong)}"


def scope_lines() -> list[str]:
    """What an audit does and does not look at."""
    return [
        "The test split is looked at for copies, pictures of one colour and files that cannot be read; nothing "
        "else about its pictures is told. They are shown only where the other split shows the same.",
        "Colours do not count for near copies, nor do brightness and contrast; mirrored copies are found where they "
        "are mirrored left to right.",
    ]
