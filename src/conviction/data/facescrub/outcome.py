"""What became of a face: kept, or why not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

OutcomeName = Literal[
    "kept",
    "dead_link",
    "hash_differs",
    "not_an_image",
    "box_outside",
    "too_large",
    "refused_address",
    "no_answer",
    "not_tried",
]
OUTCOMES: tuple[OutcomeName, ...] = get_args(OutcomeName)
# The server or the picture said so: asking again would give the same. The others are tried again at the next start.
FINAL: frozenset[OutcomeName] = frozenset({"dead_link", "hash_differs", "not_an_image", "box_outside"})


@dataclass(frozen=True)
class Outcome:
    """`reason` says why a face was not kept, or what is special about one that was."""

    name: OutcomeName
    reason: str = ""


NOT_TRIED = Outcome("not_tried", "the command ended before")


class NotKept(Exception):
    """Why a picture or a face of it cannot be kept."""

    def __init__(self, name: OutcomeName, reason: str) -> None:
        super().__init__(reason)
        self.outcome = Outcome(name, reason)
