"""A PostgreSQL server of the tests' own: as its own user, in a temporary folder, on a free port of this machine."""

import os
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

PASSWORD = "p@ss/w:rd?"


def find_programs() -> Path:
    """The folder of initdb and pg_ctl: where PATH has them, or where Debian puts the newest."""
    on_path = shutil.which("initdb")
    if on_path:
        return Path(on_path).resolve().parent
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not installed:
        pytest.skip("PostgreSQL is not installed: no initdb")
    return installed[-1].parent


def as_server_user(folder: Path) -> list[str]:
    """How to run a program as who owns the server; PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("PostgreSQL does not run as root, and there is no setpriv to run it as another user")
    known = {user.pw_name: user for user in pwd.getpwall()}
    user = known.get("postgres") or known["nobody"]
    os.chown(folder, user.pw_uid, user.pw_gid)
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[dict[str, str | int]]:
    """How to connect to the server, as psycopg takes it."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    programs = find_programs()
    # Not pytest's folder: another user may not enter it, and a socket's path is short.
    with tempfile.TemporaryDirectory(prefix="conviction-") as name:
        folder, port = Path(name), free_port()
        user = as_server_user(folder)
        (folder / "password").write_text(PASSWORD)
        (folder / "password").chmod(0o644)

        def run(program: str, *arguments: str) -> None:
            command = [*user, str(programs / program), "--pgdata", str(folder / "data"), *arguments]
            # Into a file: the server keeps what it inherits, so that a pipe would never end.
            with (folder / "output").open("wb") as output:
                done = subprocess.run(command, cwd="/", stdout=output, stderr=subprocess.STDOUT, timeout=60)
            assert done.returncode == 0, (folder / "output").read_text(errors="replace")

        version = subprocess.run([programs / "initdb", "--version"], check=True, capture_output=True, text=True).stdout
        number = re.search(r"\d+", version)
        # A language whose order is not that of the bytes, where the server knows one.
        language = ["--locale-provider=icu", "--icu-locale=en-US"] if number and int(number[0]) >= 15 else []
        secret = ["--auth=scram-sha-256", "--username=conviction", f"--pwfile={folder / 'password'}"]
        run("initdb", *secret, "--encoding=UTF8", "--locale=C", "--no-sync", *language)
        options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder} -c fsync=off"
        run("pg_ctl", "start", "--wait", "--log", str(folder / "log"), "--options", options)
        try:
            yield {"host": "127.0.0.1", "port": port, "user": "conviction", "password": PASSWORD, "dbname": "postgres"}
        finally:
            run("pg_ctl", "stop", "--wait", "--mode=immediate")


@pytest.fixture
def postgresql_url(postgresql_server: dict[str, str | int]) -> str:
    """The address of an empty database."""
    import psycopg
    from sqlalchemy import URL

    name = f"ledger_{uuid.uuid4().hex}"
    with psycopg.connect(**postgresql_server, autocommit=True) as connection:  # type: ignore[arg-type]
        connection.execute(f"CREATE DATABASE {name}")  # type: ignore[call-overload]
    place = {key: postgresql_server[key] for key in ("host", "port", "password")}
    url = URL.create("postgresql+psycopg", username="conviction", database=name, **place)  # type: ignore[arg-type]
    return url.render_as_string(hide_password=False)
