"""`conviction data facescrub`: faces, gathered from lists of addresses."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conviction.cli.options import JsonOption
from conviction.cli.output import Column, print_aside, print_json, print_lines, print_table

if TYPE_CHECKING:
    from conviction.core.records import SplitName
    from conviction.data.facescrub.face_list import Face, FaceList
    from conviction.data.facescrub.gather import GatherConfig, Gathered

_WHAT_THEY_MEAN = {
    "dead_link": "the server says that there is no such picture",
    "hash_differs": "another picture lies there now",
    "not_an_image": "what lies there is no picture",
    "box_outside": "the face's box lies outside of the picture",
    "too_large": "more bytes than --max-bytes",
    "refused_address": "no public http(s) address",
    "no_answer": "time out, no connection, or a server out of order",
    "not_tried": "the command ended before",
}


# An option is a parameter to typer, and each is on its own.
def facescrub(
    lists: Annotated[list[Path], typer.Argument(metavar="LIST", help="FaceScrub's lists, parted by tabs.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where class folders and manifest go.")],
    people: Annotated[
        int | None,
        typer.Option("--people", metavar="N", min=2, help="So many people: those with the most faces listed."),
    ] = None,
    person: Annotated[
        list[str], typer.Option("--person", metavar="NAME", help="This person; to be repeated for further ones.")
    ] = [],  # noqa: B006 - typer copies it
    per_person_train: Annotated[
        int | None,
        typer.Option(
            "--per-person-train",
            metavar="N",
            min=1,
            help="Train on so many faces of each person; the rest is halved between validation and test.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Decides which faces go into which split.")] = 0,
    size_px: Annotated[int, typer.Option("--size-px", min=8, max=1024, help="Side of the faces in pixels.")] = 224,
    connections: Annotated[int, typer.Option("--connections", min=1, max=64, help="Fetch so many at a time.")] = 16,
    timeout_s: Annotated[
        float, typer.Option("--timeout-s", min=0.1, max=3600, help="Seconds for one try, redirects included.")
    ] = 30.0,
    retries: Annotated[
        int, typer.Option("--retries", min=0, max=10, help="Further tries where a server does not answer.")
    ] = 2,
    max_bytes: Annotated[
        int, typer.Option("--max-bytes", min=1000, max=500_000_000, help="A larger picture is not read.")
    ] = 20_000_000,
    retry_dead: Annotated[
        bool, typer.Option("--retry-dead", help="Ask again for what was dead or wrong at an earlier start.")
    ] = False,
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="Also fetch from private addresses, as in tests.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Gather FaceScrub's faces into class folders: fetch, compare the SHA-256, cut the box, resize. Resumable."""
    from conviction.core.errors import ConfigError
    from conviction.data.facescrub.face_list import choose_people, read_lists
    from conviction.data.facescrub.fetch import Limits
    from conviction.data.facescrub.gather import GatherConfig

    if people is not None and person:
        raise ConfigError("--people chooses by number, --person by name: leave one out.")
    found = read_lists(lists)
    faces = choose_people(found, people, person)
    config = GatherConfig(
        size_px=size_px,
        num_train_per_person=per_person_train,
        seed=seed,
        num_connections=connections,
        limits=Limits(timeout_s, max_bytes, retries),
        allows_private=allow_private,
        retries_final=retry_dead,
    )
    gathered = _gathered(faces, out, config)
    if as_json:
        print_json(_as_json(gathered, found, out, config))
        return
    _print(gathered, out, config)
    for note in _notes(gathered, found, config):
        print_aside(f"note: {note}")


def _gathered(faces: tuple[Face, ...], out: Path, config: GatherConfig) -> Gathered:
    from conviction.cli.progress import watcher
    from conviction.core.errors import Interrupted
    from conviction.data.facescrub.gather import gather

    try:
        with watcher() as watching:
            return gather(faces, out, config, watching.fetching)
    except KeyboardInterrupt:
        raise Interrupted(f"Interrupted. What was fetched is in {out}; the same command goes on from there.") from None


def _print(gathered: Gathered, out: Path, config: GatherConfig) -> None:
    from conviction.data.facescrub.folder import SPLITS

    kept = Counter(face.person for face in gathered.kept)
    placed = Counter((face.person, split) for face, split in gathered.splits.items())
    splits: tuple[SplitName, ...] = SPLITS if config.num_train_per_person is not None else ()
    listed = Counter(face.person for face in gathered.outcomes)
    rows = [
        (person, f"{listed[person]:,}", f"{kept[person]:,}", *(f"{placed[person, split]:,}" for split in splits))
        for person in listed
    ]
    sums = [sum(placed[person, split] for person in listed) for split in splits]
    total = ("all", f"{listed.total():,}", f"{kept.total():,}", *(f"{number:,}" for number in sums))
    columns = [
        Column("person", "left"),
        Column("listed"),
        Column("kept"),
        *(Column("training" if split == "train" else split) for split in splits),
    ]
    print_lines([f"{out}: {kept.total():,} faces of {len(kept):,} people, {config.size_px}×{config.size_px} pixels"])
    print_table(columns, [*rows, total])
    _print_reasons(gathered)
    print_lines(
        [
            f"Manifest    {out / 'manifest.csv'}",
            f"Train       conviction train RECIPE --set {shlex.quote(f'data.path={out}')}",
        ]
    )


def _print_reasons(gathered: Gathered) -> None:
    """How many faces were not kept, and why."""
    counts = Counter(outcome.name for outcome in gathered.outcomes.values() if outcome.name != "kept")
    if not counts:
        return
    print_lines([f"Not kept: {counts.total():,} of {len(gathered.outcomes):,} faces"])
    rows = [(name.replace("_", " "), f"{count:,}", _WHAT_THEY_MEAN[name]) for name, count in counts.most_common()]
    print_table([Column("why", "left"), Column("faces"), Column("which means", "left", rank=1)], rows)


def _notes(gathered: Gathered, found: FaceList, config: GatherConfig) -> list[str]:
    """What a person should know, a sentence each."""
    from conviction.data.facescrub.outcome import FINAL
    from conviction.data.source.base import listed

    notes = []
    kept = Counter(face.person for face in gathered.kept)
    if without := [name for name in dict.fromkeys(face.person for face in gathered.outcomes) if not kept[name]]:
        notes.append(f"nothing could be kept of {listed(without)}.")
    placed = {face.person for face in gathered.splits}
    if too_few := [f"{name} ({count})" for name, count in kept.items() if name not in placed]:
        notes.append(
            f"left out of the splits, which take {(config.num_train_per_person or 0) + 2} faces from three pictures at "
            f"least: {', '.join(too_few)}. A lower --per-person-train takes them in; nothing is fetched again."
        )
    again = sum(outcome.name not in {"kept", *FINAL} for outcome in gathered.outcomes.values())
    if again:
        notes.append(f"the same command tries {again:,} of the faces again; --retry-dead tries all.")
    if found.num_repeats:
        notes.append(f"lines that stand in the lists more than once count once: {found.num_repeats:,}.")
    return notes


def _as_json(gathered: Gathered, found: FaceList, out: Path, config: GatherConfig) -> dict[str, Any]:
    people: dict[str, dict[str, int]] = {}
    for face, outcome in gathered.outcomes.items():
        counts = people.setdefault(face.person, {"listed": 0, "kept": 0, "train": 0, "validation": 0, "test": 0})
        counts["listed"] += 1
        counts["kept"] += outcome.name == "kept"
        if split := gathered.splits.get(face):
            counts[split] += 1
    return {
        "path": str(out.resolve()),
        "manifest": str((out / "manifest.csv").resolve()),
        "size_px": config.size_px,
        "seed": config.seed,
        "num_train_per_person": config.num_train_per_person,
        "people": people,
        "outcomes": dict(Counter(outcome.name for outcome in gathered.outcomes.values())),
        "notes": _notes(gathered, found, config),
    }
