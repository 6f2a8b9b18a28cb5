"""`conviction data facescrub` against a web server on this machine that misbehaves."""

from __future__ import annotations

import csv
import hashlib
import io
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

import picture_server as server_of
from command import conviction, start
from picture_server import PictureServer, first_then, other_bytes, redirect, serving, status


@pytest.fixture
def server() -> Iterator[PictureServer]:
    with serving() as running:
        yield running


def write_list(path: Path, server: PictureServer, **counts: int) -> Path:
    """A list with so many faces of each person, each in a small picture of its own."""
    lines = ["name\timage_id\tface_id\turl\tbbox\tsha256"]
    for name, count in counts.items():
        for _ in range(count):
            number = len(server.files) + 1
            buffer = io.BytesIO()
            noise = np.random.default_rng(number).integers(0, 255, (24, 24, 3)).astype(np.uint8)
            Image.fromarray(noise).save(buffer, "JPEG")
            server.files[f"/{number}.jpg"] = buffer.getvalue()
            digest = hashlib.sha256(buffer.getvalue()).hexdigest()
            lines.append(f"{name}\t{number}\t{number}\t{server.url}/{number}.jpg\t4,4,20,20\t{digest}")
    path.write_text("\n".join(lines) + "\n")
    return path


def files(path: Path) -> set[str]:
    """The pictures in the class folders."""
    found = (file.relative_to(path) for file in path.rglob("*.jpg"))
    return {file.as_posix() for file in found if not file.parts[0].startswith(".")}


def manifest(path: Path) -> list[dict[str, str]]:
    with (path / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_what_a_person_reads(server: PictureServer, tmp_path: Path) -> None:
    faces = write_list(tmp_path / "faces.txt", server, Ann=8, Bo=6, Cy=3, Di=1)
    server.answers["/1.jpg"] = status(404)
    server.answers["/18.jpg"] = status(503)
    out = tmp_path / "out"
    finished = conviction(
        *("data", "facescrub", faces, "--out", out, "--allow-private", "--size-px", 16),
        *("--per-person-train", 3, "--retries", 0),
    )
    assert finished.code == 0, finished.err
    lines = [" ".join(line.split()) for line in finished.out.splitlines()]
    assert lines[0] == f"{out}: 16 faces of 3 people, 16×16 pixels"
    assert "person listed kept training validation test" in lines
    assert "Ann 8 7 3 2 2" in lines
    assert "Bo 6 6 3 2 1" in lines
    assert "Cy 3 3 0 0 0" in lines
    assert "all 18 16 6 4 3" in lines
    assert "Not kept: 2 of 18 faces" in lines
    assert "dead link 1 the server says that there is no such picture" in lines
    assert "no answer 1 time out, no connection, or a server out of order" in lines
    assert f"Manifest {out}/manifest.csv" in lines
    assert "fetching pictures: 18 of 18; 16 faces kept" in finished.err
    assert "note: nothing could be kept of 'Di'." in finished.err
    assert "note: left out of the splits, which take 5 faces from three pictures at least: Cy (3)." in finished.err
    assert "note: the same command tries 1 of the faces again; --retry-dead tries all." in finished.err


def test_json_is_one_document(server: PictureServer, tmp_path: Path) -> None:
    faces = write_list(tmp_path / "faces.txt", server, Ann=4, Bo=3)
    server.answers["/2.jpg"] = other_bytes(server_of.WEB_PAGE)
    arguments = ("data", "facescrub", faces, faces, "--out", tmp_path / "out", "--allow-private", "--json")
    found = conviction(*arguments, "--size-px", 16, "--per-person-train", 1, "--seed", 7).json
    assert found["people"] == {
        "Ann": {"listed": 4, "kept": 3, "train": 1, "validation": 1, "test": 1},
        "Bo": {"listed": 3, "kept": 3, "train": 1, "validation": 1, "test": 1},
    }
    assert found["outcomes"] == {"kept": 6, "not_an_image": 1}
    assert (found["seed"], found["size_px"], found["num_train_per_person"]) == (7, 16, 1)
    assert found["path"] == str(tmp_path / "out")
    assert found["notes"] == ["lines that stand in the lists more than once count once: 7."]


def test_people_are_chosen(server: PictureServer, tmp_path: Path) -> None:
    faces = write_list(tmp_path / "faces.txt", server, Ann=1, Bo=3, Cy=2)
    command = ("data", "facescrub", faces, "--allow-private", "--size-px", 16)
    assert conviction(*command, "--out", tmp_path / "two", "--people", 2).code == 0
    assert {name.split("/")[0] for name in files(tmp_path / "two")} == {"Bo", "Cy"}
    assert conviction(*command, "--out", tmp_path / "named", "--person", "Ann", "--person", "Cy").code == 0
    assert {name.split("/")[0] for name in files(tmp_path / "named")} == {"Ann", "Cy"}


def test_private_addresses_are_refused_without_being_asked(server: PictureServer, tmp_path: Path) -> None:
    faces = write_list(tmp_path / "faces.txt", server, Ann=1, Bo=1)
    finished = conviction("data", "facescrub", faces, "--out", tmp_path / "out", "--json")
    assert finished.code == 2
    assert finished.json["error"]["kind"] == "data"
    assert "None of 2 faces could be kept (refused address 2)" in finished.json["error"]["message"]
    assert "127.0.0.1 is no public address (--allow-private allows it)" in finished.json["error"]["message"]
    assert not server.asked
    # Allowed, the same folder is filled: what was refused is no final outcome.
    assert conviction("data", "facescrub", faces, "--out", tmp_path / "out", "--allow-private").code == 0


def test_a_redirect_into_a_private_range_is_refused(
    server: PictureServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    from conviction.data.facescrub import address, gather

    faces = write_list(tmp_path / "faces.txt", server, Ann=1, Bo=1)
    faces.write_text(faces.read_text().replace("//127.0.0.1:", "//public.example:"))
    targets = {"public.example": "127.0.0.1", "inner.example": "127.0.0.2"}
    monkeypatch.setattr(
        address.socket,
        "getaddrinfo",
        lambda host, port, **_: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (targets.get(host, host), port))],
    )
    # This machine's first address stands for the public internet.
    monkeypatch.setattr(gather, "is_public", lambda ip: str(ip) == "127.0.0.1")
    server.answers["/1.jpg"] = redirect(f"http://inner.example:{server.server_port}/secret")
    assert conviction("data", "facescrub", faces, "--out", tmp_path / "out").code == 0
    first, second = manifest(tmp_path / "out")
    assert first["outcome"] == "refused_address"
    assert first["reason"].startswith("inner.example leads to 127.0.0.2, which is no public address")
    assert second["outcome"] == "kept"
    assert server.asked == {"/1.jpg": 1, "/2.jpg": 1}


def test_the_manifest_is_text_that_every_program_reads(server: PictureServer, tmp_path: Path) -> None:
    faces = write_list(tmp_path / "faces.txt", server, **{"Miguel O'Hara": 1, 'Ann "Q." Lee, Jr.': 1})
    assert conviction("data", "facescrub", faces, "--out", tmp_path / "out", "--allow-private").code == 0
    rows = manifest(tmp_path / "out")
    assert [row["file"] for row in rows] == ["Miguel O'Hara/1-1.jpg", 'Ann "Q." Lee, Jr./2-2.jpg']
    assert all((tmp_path / "out" / row["file"]).is_file() for row in rows)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_in_one_sentence(server: PictureServer, tmp_path: Path, number: signal.Signals) -> None:
    faces = write_list(tmp_path / "faces.txt", server, Ann=30, Bo=30)
    server.pause_s = 0.05
    out = tmp_path / "out"
    command = ("data", "facescrub", faces, "--out", out, "--allow-private", "--size-px", 16, "--connections", 2)
    running = start(*command)
    wait_for(lambda: server.asked.total() >= 12)
    running.send_signal(number)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert err.splitlines()[-1] == (
        f"Error: Interrupted. What was fetched is in {out}; the same command goes on from there."
    )
    assert "Traceback" not in err
    num_kept = len(files(out))
    assert 5 <= num_kept < 60
    assert Counter(row["outcome"] for row in manifest(out)) == {"kept": num_kept, "not_tried": 60 - num_kept}
    server.asked.clear()
    server.pause_s = 0
    assert conviction(*command).code == 0
    assert server.asked.total() == 60 - num_kept


def wait_for(condition: object) -> None:
    assert callable(condition)
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it did not come about")


@pytest.mark.slow
def test_killed_at_any_moment_and_started_again(server: PictureServer, tmp_path: Path) -> None:
    faces = write_list(tmp_path / "faces.txt", server, Ann=40, Bo=40)
    server.pause_s = 0.02
    out = tmp_path / "out"
    command = ("data", "facescrub", faces, "--out", out, "--allow-private", "--size-px", 16, "--per-person-train", 30)
    for num_asked in (3, 25, 50, 70):
        running = start(*command, "--connections", 4)
        wait_for(lambda: server.asked.total() >= num_asked)  # noqa: B023 - called at once
        running.kill()
        running.communicate(timeout=60)
        # Whatever has its final name is whole.
        for place in out.rglob("[!.]*.jpg"):
            with Image.open(place) as image:
                image.load()
                assert image.size == (16, 16)
    num_asked = server.asked.total()
    num_kept = len(list(out.rglob("[!.]*.jpg")))
    assert conviction(*command).code == 0
    # Each kill lost at most what was under way: four connections, and what waited to be written.
    assert server.asked.total() - num_asked <= 80 - num_kept + 1
    assert server.asked.total() <= 80 + 4 * (4 + 8 + 1)
    assert Counter(name.split("/")[0] for name in files(out)) == {"train": 60, "validation": 10, "test": 10}
    assert Counter(row["outcome"] for row in manifest(out)) == {"kept": 80}
    assert not list(out.rglob(".writing-*"))


def test_help_loads_no_torch() -> None:
    code = (
        "import sys\nfrom conviction.cli.main import main\n"
        "try: main(['data', 'facescrub', '--help'])\nexcept SystemExit as end: assert end.code == 0\n"
        "print(sorted({'torch', 'matplotlib', 'numpy', 'PIL', 'ssl'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@dataclass(frozen=True)
class Originals:
    """FaceScrub's own pictures on the test's server, and the list that leads there."""

    faces: Path
    # Paths on the server by SHA-256, of pictures that are there.
    paths: dict[str, str]


@pytest.fixture
def originals(real_data: Path, server: PictureServer, tmp_path: Path) -> Originals:
    archive = real_data / "facescrub-originals.tar.xz"
    if not archive.is_file():
        pytest.skip("CONVICTION_DATA has no facescrub-originals.tar.xz")
    contents: dict[str, bytes] = {}
    lines: list[str] = []
    with tarfile.open(archive) as opened:
        for member in opened:
            file = opened.extractfile(member)
            if file is None:
                continue
            if member.name.endswith("facescrub_sample.txt"):
                lines = file.read().decode().splitlines()
            elif "/by_sha256/" in member.name:
                contents[Path(member.name).stem] = file.read()
    paths = {}
    for number, line in enumerate(lines):
        fields = line.split("\t")
        address = urlsplit(fields[3])
        path = f"/{address.netloc}{address.path}"
        if content := contents.get(fields[5]):
            server.files[path] = content
            paths[fields[5]] = path
        fields[3] = server.url + path
        lines[number] = "\t".join(fields)
    assert (len(lines), len(paths)) == (96, 72)
    faces = tmp_path / "sample.txt"
    faces.write_text("\n".join(lines) + "\n")
    return Originals(faces, paths)


@pytest.mark.slow
def test_real_faces_from_a_server_that_misbehaves(
    originals: Originals, server: PictureServer, real_data: Path, tmp_path: Path
) -> None:
    contents = {path: server.files[path] for path in originals.paths.values()}
    bad = sorted(contents)[:12]
    picture = contents[bad[0]]
    server.answers |= {
        bad[0]: status(500),
        bad[1]: first_then(status(500), 1, contents[bad[1]]),
        bad[2]: first_then(server_of.reset, 1, contents[bad[2]]),
        bad[3]: other_bytes(picture),
        bad[4]: other_bytes(server_of.WEB_PAGE, Content_Type="image/jpeg"),
        bad[5]: server_of.dripping,
        bad[6]: server_of.endless,
        bad[7]: redirect(bad[7]),
        bad[8]: redirect("http://[::1]:22/"),
        bad[9]: server_of.shorter(contents[bad[9]]),
        bad[10]: redirect("/moved.jpg", 301),
        bad[11]: other_bytes(b""),
    }
    server.files["/moved.jpg"] = contents[bad[10]]
    out = tmp_path / "faces"
    command = ("data", "facescrub", originals.faces, "--out", out, "--allow-private", "--size-px", 128)
    limits = ("--timeout-s", 1, "--max-bytes", 100_000, "--retries", 1, "--connections", 8)
    finished = conviction(*command, *limits, "--json")
    assert finished.code == 0, finished.out
    outcomes = {urlsplit(row["url"]).path: row["outcome"] for row in manifest(out)}
    assert [outcomes[path] for path in bad] == [
        *("no_answer", "kept", "kept", "hash_differs", "not_an_image", "no_answer"),
        *("too_large", "dead_link", "refused_address", "no_answer", "kept", "not_an_image"),
    ]
    assert Counter(outcomes.values()) == {
        "kept": 63,
        "dead_link": 25,
        "no_answer": 3,
        "not_an_image": 2,
        **dict.fromkeys(("hash_differs", "too_large", "refused_address"), 1),
    }
    # All is well again: one more start fetches what is missing, and nothing else.
    server.answers.clear()
    server.asked.clear()
    found = conviction(*command, *limits, "--retry-dead", "--per-person-train", 8, "--json").json
    assert sum(server.asked.values()) == 24 + 9
    assert found["outcomes"] == {"kept": 72, "dead_link": 24}
    assert set(found["people"]) == {
        *("Alec Baldwin", "America Ferrera", "Angie Harmon", "Bill Hader", "Daniel Radcliffe", "Fran Drescher")
    }
    assert all(
        counts["train"] == 8 and counts["validation"] == counts["test"] == 2 for counts in found["people"].values()
    )
    assert_same_faces(out, real_data / "facescrub-faces.tar.xz")
    info = conviction("data", "info", out, "--json").json
    assert [sum(counts.values()) for counts in info["counts"].values()] == [48, 12, 12]
    trained = conviction(
        *("train", "simplecnn-artists", "--set", f"data.path={out}", "--set", "fit.epochs=1", "--json")
    )
    assert trained.code == 0, trained.out
    assert trained.json["epochs"] == 1


def assert_same_faces(out: Path, archive: Path) -> None:
    """Each face that was cut is one of those that others cut from the same originals to the same boxes."""
    if not archive.is_file():
        return
    others: dict[str, list[np.ndarray]] = {}
    with tarfile.open(archive) as opened:
        for member in opened:
            if file := opened.extractfile(member):
                others.setdefault(Path(member.name).parent.name, []).append(standardized(file.read()))
    for place in out.glob("*/*/*.jpg"):
        known = np.stack(others[place.parent.name.lower().replace(" ", "_")])
        correlations = known @ standardized(place.read_bytes()) / known.shape[1]
        # Faces cut a tenth to the side correlate with 0.9 or less.
        assert correlations.max() > 0.995, place


def standardized(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        small = np.asarray(image.convert("L").resize((64, 64), Image.Resampling.BILINEAR)).astype(np.float64).ravel()
    return (small - small.mean()) / small.std()
