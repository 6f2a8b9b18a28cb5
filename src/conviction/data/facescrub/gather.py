"""Fetch, check, cut and keep the faces of a list, many at a time; a later start goes on where this one ended."""

from __future__ import annotations

import queue
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from conviction.core.device import num_cores
from conviction.core.errors import DataError
from conviction.core.records import SplitName
from conviction.data.facescrub.address import is_any, is_public
from conviction.data.facescrub.cut import check_content, cut_face
from conviction.data.facescrub.face_list import Face
from conviction.data.facescrub.fetch import Fetcher, Limits
from conviction.data.facescrub.folder import FaceFolder, open_face_folder
from conviction.data.facescrub.outcome import FINAL, NotKept, Outcome

_CLOSING_S = 1.0
_WAIT_S = 0.1

Progress = Callable[[int, int, int], None]


@dataclass(frozen=True)
class GatherConfig:
    """`num_train_per_person` None: no split. `retries_final` asks again what was dead or wrong before."""

    size_px: int = 224
    num_train_per_person: int | None = None
    seed: int = 0
    num_connections: int = 16
    limits: Limits = field(default_factory=Limits)
    allows_private: bool = False
    retries_final: bool = False


@dataclass(frozen=True)
class Gathered:
    """What a folder holds of the faces asked for; `splits` has a place for each face in the class folders."""

    outcomes: dict[Face, Outcome]
    splits: dict[Face, SplitName | None]

    @property
    def kept(self) -> list[Face]:
        """The faces that were kept, in the order of the lists."""
        return [face for face, outcome in self.outcomes.items() if outcome.name == "kept"]


@dataclass(frozen=True)
class _Picture:
    """A picture to fetch, and the faces in it."""

    url: str
    sha256: str
    faces: tuple[Face, ...]


_Found = list[tuple[Face, Outcome, bytes]]


def gather(faces: Sequence[Face], path: Path, config: GatherConfig, progress: Progress | None = None) -> Gathered:
    """Bring the faces into the folder at `path`. After Ctrl-C too, class folders and manifest say what is there.

    `progress` is called with the number of pictures done, their total, and the number of faces kept.

    Raises: DataError where no face could be kept, or too few for the split; ConfigError where the folder is of no use;
    StorageError where it cannot be written.
    """
    with open_face_folder(path, config.size_px) as folder:
        try:
            _fetch_all(faces, folder, config, progress)
        except KeyboardInterrupt:
            _finish(faces, folder, config)
            raise
        gathered = _finish(faces, folder, config)
    _refuse_nothing(gathered, path, config)
    return gathered


def _finish(faces: Sequence[Face], folder: FaceFolder, config: GatherConfig) -> Gathered:
    outcomes = {face: folder.outcome(face) for face in faces}
    kept = [face for face, outcome in outcomes.items() if outcome.name == "kept"]
    splits: dict[Face, SplitName | None] = dict.fromkeys(kept)
    if config.num_train_per_person is not None:
        from conviction.data.facescrub.divide import divide_faces

        splits = dict(divide_faces(kept, config.num_train_per_person, config.seed))
    folder.arrange(splits)
    folder.write_manifest(faces, splits)
    return Gathered(outcomes, splits)


def _refuse_nothing(gathered: Gathered, path: Path, config: GatherConfig) -> None:
    kept = gathered.kept
    if not kept:
        counts = Counter(outcome.name for outcome in gathered.outcomes.values())
        said = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in counts.most_common())
        face, outcome = next(iter(gathered.outcomes.items()))
        raise DataError(
            f"None of {len(gathered.outcomes):,} faces could be kept ({said}). The first, {face.url!r}: "
            f"{outcome.reason}. {path}/manifest.csv has them all."
        )
    if config.num_train_per_person is not None and len({face.person for face in gathered.splits}) < 2:
        by_person = Counter(face.person for face in kept).most_common(2)
        most = ", ".join(f"{person!r} {count}" for person, count in by_person)
        raise DataError(
            f"--per-person-train {config.num_train_per_person}: fewer than two people have the "
            f"{config.num_train_per_person + 2} faces that the splits take, from three pictures at least "
            f"(most: {most}). Lower it; what was fetched is kept."
        )


def _fetch_all(faces: Sequence[Face], folder: FaceFolder, config: GatherConfig, progress: Progress | None) -> None:
    pictures = _pictures(faces, folder, config.retries_final)
    num_kept = sum(folder.outcome(face).name == "kept" for face in faces)
    stop = threading.Event()
    fetcher = Fetcher(config.limits, stop, is_any if config.allows_private else is_public)
    decoding = threading.BoundedSemaphore(num_cores())

    def look(picture: _Picture) -> _Found:
        return _look(picture, fetcher, decoding, config.size_px)

    with (
        folder.journal() as journal,
        _quiet_pictures(),
        _in_parallel(look, pictures, config.num_connections, stop) as results,
    ):
        for number, found in enumerate(results, start=1):
            for face, outcome, content in found:
                if outcome.name == "kept":
                    folder.keep(face, content)
                    num_kept += 1
                journal.note(face, outcome)
            if progress:
                progress(number, len(pictures), num_kept)


def _pictures(faces: Sequence[Face], folder: FaceFolder, retries_final: bool) -> list[_Picture]:
    """What is to be fetched, each picture once, whatever the number of its faces."""
    wanted: dict[tuple[str, str], list[Face]] = {}
    for face in faces:
        name = folder.outcome(face).name
        if name != "kept" and (retries_final or name not in FINAL):
            wanted.setdefault((face.url, face.sha256), []).append(face)
    return [_Picture(url, sha256, tuple(listed)) for (url, sha256), listed in wanted.items()]


def _look(picture: _Picture, fetcher: Fetcher, decoding: threading.BoundedSemaphore, size_px: int) -> _Found:
    try:
        content = fetcher.fetch(picture.url)
        check_content(content, picture.sha256)
    except NotKept as fault:
        return [(face, fault.outcome, b"") for face in picture.faces]
    found: _Found = []
    for face in picture.faces:
        try:
            # A large picture takes hundreds of megabytes while it is decoded.
            with decoding:
                cut, remark = cut_face(content, face.box_px, size_px)
            found.append((face, Outcome("kept", remark), cut))
        except NotKept as fault:
            found.append((face, fault.outcome, b""))
    return found


@contextmanager
def _quiet_pictures() -> Iterator[None]:
    """What Pillow says of odd metadata is nobody's concern; what it says of very large pictures is a refusal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


@contextmanager
def _in_parallel(
    look: Callable[[_Picture], _Found], pictures: Sequence[_Picture], num_threads: int, stop: threading.Event
) -> Iterator[Iterator[_Found]]:
    """What `look` finds in each picture, in the order in which it is found; leaving the block ends the threads."""
    jobs: queue.SimpleQueue[_Picture] = queue.SimpleQueue()
    for picture in pictures:
        jobs.put(picture)
    results: queue.Queue[_Found | BaseException] = queue.Queue(maxsize=2 * num_threads)

    def work() -> None:
        while not stop.is_set():
            try:
                found: _Found | BaseException = look(jobs.get_nowait())
            except queue.Empty:
                return
            except BaseException as error:  # our own bug, which is to be seen
                found = error
            # Not forever: whoever was to take it may have gone.
            while not stop.is_set():
                try:
                    results.put(found, timeout=_WAIT_S)
                    break
                except queue.Full:
                    continue

    def take() -> Iterator[_Found]:
        for _ in pictures:
            found = results.get()
            if isinstance(found, BaseException):
                raise found
            yield found

    # Daemons: one that waits for a slow server does not keep the program from ending.
    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(num_threads, len(pictures)))]
    for thread in threads:
        thread.start()
    try:
        yield take()
    finally:
        stop.set()
        for thread in threads:
            thread.join(_CLOSING_S / len(threads))
