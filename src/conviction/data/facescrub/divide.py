"""So many faces of each person to train on; the rest is halved between validation and test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from conviction.core.errors import DataError
from conviction.core.records import SplitName
from conviction.data.facescrub.face_list import Face
from conviction.data.pack import SPLIT_CODES, Pack
from conviction.data.split import SplitConfig, divide

# One for validation, one for test.
NUM_BEYOND_TRAINING = 2
# As faces of one picture are not divided.
LEAST_PICTURES = 3


def people_with_enough(faces: Sequence[Face], num_train: int) -> list[str]:
    """The people who have faces for every split, from pictures for every split, in the order of the faces."""
    pictures: dict[str, list[str]] = {}
    for face in faces:
        pictures.setdefault(face.person, []).append(face.sha256)
    least = num_train + NUM_BEYOND_TRAINING
    return [person for person, found in pictures.items() if len(found) >= least and len({*found}) >= LEAST_PICTURES]


def divide_faces(faces: Sequence[Face], num_train: int, seed: int) -> dict[Face, SplitName]:
    """The split of each face of people with enough of them, as `split.train_per_class` draws it; the odd one validates.

    Two faces that were cut from one picture are never divided, which may cost one more or one fewer to train on. Where
    people share so many pictures that one of them could not be in every split, the faces of shared pictures are left
    out.
    """
    try:
        return _divided(faces, num_train, seed)
    except DataError:
        people: dict[str, set[str]] = {}
        for face in faces:
            people.setdefault(face.sha256, set()).add(face.person)
        return _divided([face for face in faces if len(people[face.sha256]) == 1], num_train, seed)


def _divided(faces: Sequence[Face], num_train: int, seed: int) -> dict[Face, SplitName]:
    """Raises: DataError."""
    people = sorted(people_with_enough(faces, num_train))
    placed = sorted((face for face in faces if face.person in people), key=lambda face: face.key)
    if not placed:
        return {}
    shared = Counter(face.sha256 for face in placed)
    pack = Pack(
        images=np.zeros((len(placed), 0, 0, 3), np.uint8),
        labels=np.array([people.index(face.person) for face in placed], np.int64),
        splits=np.full(len(placed), SPLIT_CODES[None], np.int64),
        paths=tuple(face.key for face in placed),
        classes=tuple(people),
        digest="",
        shown_path="",
        skipped=(),
        notes=(),
        groups=tuple(face.sha256 if shared[face.sha256] > 1 else None for face in placed),
    )
    splits = divide(pack, SplitConfig(train_per_class=num_train), seed)
    by_key = {face.key: face for face in placed}
    return {by_key[path]: split for path, split in splits.by_path(pack.paths)}
