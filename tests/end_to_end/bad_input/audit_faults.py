"""Audits that cannot be made or written."""

from __future__ import annotations

from pathlib import Path

from bad_input.case import Arguments, case, command_case, two_classes

command_case(
    "Audits", "similarity that is none", "config", ("0.5 <= similarity < 1", "got 85"),
    "data", "audit", "digits", "--similarity", "85",
)  # fmt: skip
command_case(
    "Audits", "page that is no page", "config", ("written as .html", "'audit.pdf'"),
    "data", "audit", "digits", "--html", "audit.pdf",
)  # fmt: skip
command_case(
    "Audits", "page in a folder that is not there", "storage", ("nowhere/audit.html", "its folder does not exist"),
    "data", "audit", "digits", "--html", "nowhere/audit.html",
)  # fmt: skip
command_case("Audits", "no such source", "data", ("Did you mean 'digits'?",), "data", "audit", "digts")


@case("Audits", "no picture that can be read", "data", "none of the 24 pictures can be read", "is empty")
def _all_broken(folder: Path) -> Arguments:
    root = two_classes(folder)
    for path in root.rglob("*.png"):
        path.write_bytes(b"")
    return ["data", "audit", root]
