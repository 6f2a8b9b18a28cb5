"""Figures as they were drawn."""

from __future__ import annotations

from typing import Any

import pytest
from matplotlib.figure import Figure


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are written, in their order."""
    figures: list[Figure] = []
    write = Figure.savefig

    def keep(figure: Figure, *given: Any, **named: Any) -> None:
        figures.append(figure)
        write(figure, *given, **named)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures
