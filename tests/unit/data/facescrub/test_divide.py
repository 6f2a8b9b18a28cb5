"""Which faces train, which validate and which test."""

import hashlib
from collections import Counter
from dataclasses import replace

from conviction.data.facescrub.divide import divide_faces
from conviction.data.facescrub.face_list import Face


def listed(**counts: int) -> list[Face]:
    return [
        Face(
            name,
            str(number),
            "0",
            "http://a.org/",
            (0, 0, 1, 1),
            hashlib.sha256(f"{name}{number}".encode()).hexdigest(),
        )
        for name, count in counts.items()
        for number in range(count)
    ]


def test_the_seed_alone_decides_the_split() -> None:
    faces = listed(Ann=20, Bo=20)
    first = divide_faces(faces, 10, seed=0)
    assert divide_faces(faces[::-1], 10, seed=0) == first
    assert divide_faces(faces, 10, seed=1) != first


def test_further_faces_move_few() -> None:
    faces = listed(Ann=40, Bo=40)
    before, after = divide_faces(faces[:-1], 20, seed=0), divide_faces(faces, 20, seed=0)
    moved = [face for face in before if before[face] != after[face]]
    # The face that is new pushes at most one over each of the two borders; those of others stay.
    assert len(moved) <= 2
    assert {face.person for face in moved} <= {"Bo"}


def test_faces_of_one_picture_are_never_divided() -> None:
    faces = listed(Ann=30, Bo=30)
    pairs = [Face("Ann", face.image_id, "9", face.url, (5, 5, 9, 9), face.sha256) for face in faces[:10]]
    splits = divide_faces([*faces, *pairs], 12, seed=0)
    by_picture: dict[str, set[str]] = {}
    for face, split in splits.items():
        by_picture.setdefault(face.sha256, set()).add(split)
    assert all(len(found) == 1 for found in by_picture.values())
    assert Counter(split for face, split in splits.items() if face.person == "Bo")["train"] == 12
    assert Counter(split for face, split in splits.items() if face.person == "Ann")["train"] == 12


def test_people_whose_faces_come_from_two_pictures_are_left_out() -> None:
    faces = listed(Ann=6, Bo=6, Cy=2)
    more = [Face("Cy", face.image_id, "9", face.url, (5, 5, 9, 9), face.sha256) for face in faces[-2:]]
    assert {face.person for face in divide_faces([*faces, *more], 2, seed=0)} == {"Ann", "Bo"}


def test_people_who_share_most_pictures_spoil_the_split_of_nobody() -> None:
    """Three people on five photographs: no split could have one of each of them alone."""
    photographs = listed(X=5)
    shown = {"Cat": (0, 1, 2), "Dan": (1, 2, 3), "Eve": (0, 3, 4)}
    shared = [
        replace(photographs[number], person=name, face_id=name) for name, numbers in shown.items() for number in numbers
    ]
    splits = divide_faces([*listed(Ann=6, Bo=6), *shared], 1, seed=0)
    assert Counter(face.person for face in splits) == {"Ann": 6, "Bo": 6}
