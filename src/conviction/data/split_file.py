"""A list that says of every picture which split it belongs to."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from conviction.core.errors import DataError, did_you_mean
from conviction.data.pack import SPLIT_CODES, UNREADABLE_LABEL, Pack
from conviction.data.source.base import SPLIT_WORDS, listed
from conviction.data.source.table_file import TEXT_SUFFIXES, read_rows, text_of


def read_places(path: str, pack: Pack) -> np.ndarray:
    """`SPLIT_CODES` of each picture, from a list with the columns `file` (or `path`) and `split`.

    The `split.csv` of a run is such a list.

    Raises: DataError where the list is damaged, names an unknown picture, one twice, or leaves one out.
    """
    source = Path(os.path.expanduser(path))
    rows = {name: number for number, name in enumerate(pack.paths)}
    places = np.full(len(rows), SPLIT_CODES[None], np.int8)
    seen: dict[str, str] = {}
    unknown: list[str] = []
    for row in read_rows(source, ("split",), TEXT_SUFFIXES):
        name = text_of(row, "path" if "path" in row.values and "file" not in row.values else "file")
        if name not in rows:
            # Written as paths are in other lists.
            name = "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))
        word = text_of(row, "split")
        if word.lower() not in SPLIT_WORDS:
            raise DataError(f"{row.place}: no split is called {word!r}. {did_you_mean(word, SPLIT_WORDS)}")
        if name in seen:
            raise DataError(f"{row.place} lists {name!r} again, as {seen[name]}. Remove one of the two lines.")
        seen[name] = row.place
        if name in rows:
            places[rows[name]] = SPLIT_CODES[SPLIT_WORDS[word.lower()]]
        else:
            unknown.append(name)
    example = f"Its pictures are named as in {pack.shown_path}, for example {pack.paths[0]!r}."
    if unknown:
        raise DataError(
            f"{source}: {len(unknown):,} of {len(seen):,} pictures are not there: {listed(unknown)}. {example}"
        )
    left_out = (places == SPLIT_CODES[None]) & (pack.labels != UNREADABLE_LABEL)
    if left_out.any():
        names = [pack.paths[row] for row in np.flatnonzero(left_out).tolist()]
        raise DataError(f"{source} leaves out {len(names):,} of {len(rows):,} pictures: {listed(names)}. {example}")
    return places
