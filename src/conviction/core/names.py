"""Names that come from files and lists: which can be shown as they are, and how others are shown."""

from __future__ import annotations

import unicodedata

# Words of Persian and Hindi and many emoji are joined or kept apart by these two.
_JOINERS = "\u200c\u200d"


def is_printable(name: str) -> bool:
    """Python's rule, but with the wide and narrow spaces that screenshots and Japanese names hold."""
    return name.isprintable() or all(
        letter.isprintable() or letter in _JOINERS or unicodedata.category(letter) == "Zs" for letter in name
    )


def shown(name: str) -> str:
    """The name itself, or in quotes and with escapes where characters would move the cursor or turn the line round."""
    return name if is_printable(name) else repr(name)
