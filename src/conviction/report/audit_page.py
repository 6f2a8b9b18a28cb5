"""An audit as one HTML file that needs nothing else: styles and thumbnails stand in it, and no script."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from conviction.core.audit_record import (
    ACROSS,
    DUPLICATE_KINDS,
    FINDING_KINDS,
    WITHIN,
    AuditPicture,
    AuditRecord,
    DuplicateGroup,
    FindingKind,
    PictureFinding,
)
from conviction.core.errors import ConfigError, StorageError
from conviction.core.files import write_text
from conviction.core.names import shown
from conviction.report.audit_style import STYLE
from conviction.report.audit_text import (
    FINDING_HEADINGS,
    SPLIT_WORDS,
    balance_line,
    between_words,
    duplicate_line,
    group_words,
    label_line,
    leak_line,
    nature_lines,
    odd_line,
    plain_line,
    scope_lines,
    seal_line,
    size_line,
    unreadable_line,
)

_SUFFIXES = (".html", ".htm")
_MOST_GROUPS, _MOST_OF_GROUP, _MOST_OF_KIND, _MOST_LISTED, _MOST_CLASSES = 60, 12, 24, 200, 200


def check_page_path(path: Path) -> None:
    """Refuse a name that no page can have, before minutes of work. Raises: ConfigError, StorageError."""
    if path.suffix.lower() not in _SUFFIXES:
        raise ConfigError(f"An audit's page is written as .html, but got {str(path)!r}.")
    if not path.parent.is_dir():
        raise StorageError(f"Cannot write {path}: its folder does not exist.")
    if path.is_dir():
        raise StorageError(f"Cannot write {path}: a folder stands where a file is needed.")


def shown_pictures(record: AuditRecord) -> set[str]:
    """The pictures whose thumbnails the page shows; of the test split those alone that have a copy in another split."""
    paths = {
        picture.path
        for groups in _parted(record).values()
        for group in groups[:_MOST_GROUPS]
        for picture in group.pictures[:_MOST_OF_GROUP]
    }
    for kind in FINDING_KINDS:
        paths |= {finding.picture.path for finding in _of_kind(record, kind)[:_MOST_OF_KIND]}
    leaked = {pair.second.path for pair in record.pairs if pair.is_leak}
    return paths - (_test_paths(record) - leaked)


def write_audit_page(record: AuditRecord, thumbnails: Mapping[str, str], path: Path) -> None:
    """Write the page; `thumbnails` are data URIs by the pictures' paths. Raises: StorageError."""
    write_text(path, audit_page(record, thumbnails))


def audit_page(record: AuditRecord, thumbnails: Mapping[str, str]) -> str:
    """The whole page as text."""
    title = escape(f"Audit of {shown(record.path)}")
    body = [
        f"<header><h1>{title}</h1><p>{escape(size_line(record))}</p></header>",
        _overview(record),
        _counts(record),
        _seal(record, thumbnails),
        *(_groups(heading, groups, thumbnails) for heading, groups in _parted(record).items()),
        _unreadable(record),
        *(_findings(record, kind, heading, thumbnails) for kind, heading in FINDING_HEADINGS.items()),
        _classes(record),
        _method(record),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # Names of files come from anywhere: whatever slips through may neither run nor fetch.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(filter(None, body))
        + "\n</main>\n</body>\n</html>\n"
    )


def _overview(record: AuditRecord) -> str:
    contradicting = any(group.is_contradicting for group in record.groups)
    rows = [
        ("Leaks", leak_line(record), any(record.leaked.values())),
        ("Labels", label_line(record), contradicting),
        ("Copies", duplicate_line(record), bool(record.pairs)),
        ("Unreadable", unreadable_line(record), bool(record.unreadable)),
        ("Odd pictures", odd_line(record), bool(record.findings)),
        ("Classes", balance_line(record), False),
    ]
    cells = (
        f'<div class="{"warn" if found else "fine"}"><dt>{name}</dt><dd>{escape(text)}</dd></div>'
        for name, text, found in rows
    )
    return f'<dl class="overview">{"".join(cells)}</dl>'


def _counts(record: AuditRecord) -> str:
    if not record.pairs:
        return ""
    head = "".join(f'<th scope="col">{kind}</th>' for kind in DUPLICATE_KINDS)
    rows = []
    for between in (*ACROSS, *WITHIN):
        counts = record.count_pairs(between)
        cells = "".join(f"<td>{counts[kind]:,}</td>" for kind in DUPLICATE_KINDS)
        leak = ' class="leak"' if between in ACROSS and counts.total() else ""
        rows.append(f'<tr{leak}><th scope="row">{between_words(between)}</th>{cells}</tr>')
    return (
        "<section><h2>Pairs of copies</h2><table><thead><tr><td></td>"
        f"{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></section>"
    )


def _seal(record: AuditRecord, thumbnails: Mapping[str, str]) -> str:
    """Above the thumbnails, where they are about to be looked at."""
    line = seal_line(record)
    return f'<p class="seal">{escape(line)}</p>' if line and thumbnails else ""


def _parted(record: AuditRecord) -> dict[str, list[DuplicateGroup]]:
    """The groups under their headings, each group once."""
    parts: dict[str, list[DuplicateGroup]] = {
        "Copies in different splits": [],
        "Copies with different labels": [],
        "Copies within training or validation": [],
        "Copies within test": [],
    }
    across, contradicting, within, test = parts.values()
    for group in record.groups:
        if group.is_leak:
            across.append(group)
        elif group.splits == ("test",):
            test.append(group)
        elif group.is_contradicting:
            contradicting.append(group)
        else:
            within.append(group)
    return parts


def _groups(heading: str, groups: Sequence[DuplicateGroup], thumbnails: Mapping[str, str]) -> str:
    if not groups:
        return ""
    cards = []
    for group in groups[:_MOST_GROUPS]:
        pictures = group.pictures[:_MOST_OF_GROUP]
        more = len(group.pictures) - len(pictures)
        rest = f'<p class="more">and {more:,} more of this group</p>' if more else ""
        figures = "".join(_figure(picture, thumbnails, SPLIT_WORDS[picture.split or "train"]) for picture in pictures)
        warn = " warn" if group.is_leak or group.is_contradicting else ""
        cards.append(
            f'<article class="group{warn}"><h3>{escape(group_words(group))}</h3>'
            f'<div class="pictures">{figures}</div>{rest}</article>'
        )
    left = _left_out(len(groups) - _MOST_GROUPS, "group")
    return f"<section><h2>{heading} ({len(groups):,})</h2>{''.join(cards)}{left}</section>"


def _figure(picture: AuditPicture, thumbnails: Mapping[str, str], remark: str) -> str:
    path, label = escape(shown(picture.path)), escape(shown(picture.label))
    source = thumbnails.get(picture.path)
    image = f'<img src="{escape(source)}" alt="">' if source else '<div class="unseen">not shown</div>'
    return (
        f'<figure class="{picture.split or "none"}">{image}<figcaption><b>{label}</b> <i>{escape(remark)}</i>'
        f"<code>{path}</code></figcaption></figure>"
    )


def _unreadable(record: AuditRecord) -> str:
    if not record.unreadable:
        return ""
    items = "".join(
        f"<li><code>{escape(shown(one.picture.path))}</code> {escape(one.reason)}</li>"
        for one in record.unreadable[:_MOST_LISTED]
    )
    left = _left_out(len(record.unreadable) - _MOST_LISTED, "file")
    return f"<section><h2>Unreadable ({len(record.unreadable):,})</h2><ul>{items}</ul>{left}</section>"


def _findings(record: AuditRecord, kind: FindingKind, heading: str, thumbnails: Mapping[str, str]) -> str:
    found = _of_kind(record, kind)
    if not found:
        return ""
    figures = "".join(_figure(one.picture, thumbnails, one.reason) for one in found[:_MOST_OF_KIND])
    left = _left_out(len(found) - _MOST_OF_KIND, "picture")
    return f'<section><h2>{heading} ({len(found):,})</h2><div class="pictures">{figures}</div>{left}</section>'


def _of_kind(record: AuditRecord, kind: FindingKind) -> list[PictureFinding]:
    return [finding for finding in record.findings if finding.kind == kind]


def _classes(record: AuditRecord) -> str:
    most = max(1, *record.counts["train"].values())
    rows = []
    for name in record.classes[:_MOST_CLASSES]:
        counts = [by_class[name] for by_class in record.counts.values()]
        width = 100 * counts[0] / most
        rows.append(
            f'<tr><th scope="row">{escape(shown(name))}</th>{"".join(f"<td>{count:,}</td>" for count in counts)}'
            f'<td class="bar"><span style="width:{width:.1f}%"></span></td></tr>'
        )
    head = "".join(f'<th scope="col">{SPLIT_WORDS[split]}</th>' for split in record.counts)
    left = _left_out(len(record.classes) - _MOST_CLASSES, "class", "classes")
    return (
        f"<section><h2>Classes</h2><p>{escape(balance_line(record))}</p><table><thead><tr><td></td>{head}"
        f'<th scope="col" class="bar">training</th></tr></thead><tbody>{"".join(rows)}</tbody></table>{left}</section>'
    )


def _method(record: AuditRecord) -> str:
    lines: Iterable[str] = (
        f"Near copies have a similarity of {record.similarity:g} or more, and stand out from the set's other pictures.",
        *filter(None, [plain_line(record)]),
        *nature_lines(record),
        *scope_lines(),
        *record.notes,
    )
    drawn = f" The splits {' and '.join(record.drawn)} were drawn from seed {record.seed}." if record.drawn else ""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return (
        f"<section><h2>What was looked at</h2><ul>{items}</ul><p>{escape(drawn.strip())}</p>"
        f"<p>Written by <code>{escape(shown(record.command))}</code></p></section>"
    )


def _left_out(number: int, singular: str, plural: str = "") -> str:
    if number <= 0:
        return ""
    word = singular if number == 1 else plural or f"{singular}s"
    return f'<p class="more">{number:,} more {word} not shown here; --json lists all.</p>'


def _test_paths(record: AuditRecord) -> set[str]:
    held = {picture.path for group in record.groups for picture in group.pictures if picture.split == "test"}
    return held | {finding.picture.path for finding in record.findings if finding.picture.split == "test"}
