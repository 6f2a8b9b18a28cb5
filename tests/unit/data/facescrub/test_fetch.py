"""Fetching from a server that misbehaves in every way that it can think of."""

import ipaddress
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import picture_server as server_of
from conviction.data.facescrub import address as addresses
from conviction.data.facescrub import fetch as fetching
from conviction.data.facescrub.address import IpAddress, is_any, is_public
from conviction.data.facescrub.fetch import Fetcher, Limits
from conviction.data.facescrub.outcome import NotKept
from picture_server import PictureServer, first_then, other_bytes, redirect, serving, status

PICTURE = b"\xff\xd8\xff" + bytes(5000)


@pytest.fixture
def server() -> Iterator[PictureServer]:
    with serving() as running:
        running.files["/1.jpg"] = PICTURE
        yield running


class Quick(threading.Event):
    """Pauses between tries, noted down in place of waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses_s: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.pauses_s.append(timeout or 0)
        return self.is_set()


def fetch(url: str, stop: threading.Event | None = None, **limits: float) -> bytes:
    return Fetcher(Limits(**{"timeout_s": 5.0, **limits}), stop or Quick(), is_any).fetch(url)  # type: ignore[arg-type]


def refusal(url: str, **limits: float) -> tuple[str, str]:
    with pytest.raises(NotKept) as caught:
        fetch(url, **limits)
    return caught.value.outcome.name, caught.value.outcome.reason


def test_a_picture(server: PictureServer) -> None:
    assert fetch(f"{server.url}/1.jpg") == PICTURE
    assert server.hosts == {f"127.0.0.1:{server.server_port}"}


def test_redirects_are_followed_to_the_picture(server: PictureServer) -> None:
    for number in (301, 302, 303, 307, 308):
        server.answers["/a"] = redirect("/b?x=1", number)
        server.answers["/b?x=1"] = redirect(f"{server.url}/1.jpg", number)
        assert fetch(f"{server.url}/a#part") == PICTURE


def test_bytes_of_unknown_number(server: PictureServer) -> None:
    server.answers["/chunks"] = server_of.raw(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
    )
    server.answers["/old"] = server_of.raw(b"HTTP/1.0 200 OK\r\n\r\nhello world")
    for path in ("/chunks", "/old"):
        assert fetch(server.url + path) == b"hello world"


def test_a_body_longer_than_announced_is_cut_there(server: PictureServer) -> None:
    server.answers["/long"] = server_of.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello world")
    assert fetch(f"{server.url}/long") == b"hello"


ANSWERS: dict[str, tuple[Callable[..., None], str, str]] = {
    "not there": (status(404), "dead_link", "the server answers 404 Not Found"),
    "gone": (status(410), "dead_link", "the server answers 410 Gone"),
    "forbidden": (status(403), "dead_link", "the server answers 403 Forbidden"),
    "a part alone": (status(206), "dead_link", "the server answers 206 Partial Content"),
    "no content": (status(204), "dead_link", "the server answers 204 No Content"),
    "a status of its own": (status(799), "dead_link", "the server answers 799"),
    "not modified": (status(304), "dead_link", "the server answers 304 Not Modified"),
    "redirect to nowhere": (status(302), "dead_link", "redirects without saying where"),
    "redirect to itself": (redirect("/x"), "dead_link", "redirects in a circle"),
    "redirect to a file": (redirect("file:///etc/passwd"), "refused_address", "is neither http nor https"),
    "redirect with a password": (redirect("http://me:x@a.org/"), "refused_address", "carries a user name"),
    "redirect to a mail server": (redirect("http://a.org:25/"), "refused_address", "asks for port 25"),
    "out of order": (status(500), "no_answer", "the server answers 500 Internal Server Error"),
    "overloaded": (status(503), "no_answer", "the server answers 503 Service Unavailable"),
    "too many requests": (status(429), "no_answer", "the server answers 429 Too Many Requests"),
    "reset": (server_of.reset, "no_answer", "no connection to 127.0.0.1 (Connection reset by peer)"),
    "no answer": (server_of.silent, "no_answer", "no connection to 127.0.0.1 (closed without an answer)"),
    "shorter than announced": (server_of.shorter(PICTURE), "no_answer", "ended after 5,003 of 5,103 bytes"),
    "another protocol": (server_of.raw(b"220 mail.example ESMTP\r\n"), "no_answer", "does not answer as HTTP asks"),
    "head too long": (
        server_of.raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n"),
        "no_answer",
        "does not answer as HTTP asks (LineTooLong)",
    ),
    "too many heads": (
        server_of.raw(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n"),
        "no_answer",
        "does not answer as HTTP asks",
    ),
    "chunk that is no number": (
        server_of.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"),
        "no_answer",
        "ended before its end",
    ),
    "chunks cut off": (
        server_of.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nhello"),
        "no_answer",
        "ended before its end",
    ),
    "many bytes announced": (
        server_of.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"),
        "too_large",
        "99,999,999,999 bytes are announced; at most 100,000 are read",
    ),
    "endless": (server_of.endless, "too_large", "goes on after 100,000 bytes, the most that is read"),
    "endless in chunks": (server_of.endless_chunks, "too_large", "goes on after 100,000 bytes"),
}


@pytest.mark.parametrize("fault", ANSWERS)
def test_answer_that_is_no_picture(fault: str, server: PictureServer) -> None:
    server.answers["/x"], name, says = ANSWERS[fault]
    found, reason = refusal(f"{server.url}/x", max_bytes=100_000)
    assert found == name, reason
    assert says in reason
    # What may pass is tried again, twice; what is final is asked for once.
    assert server.asked["/x"] == (3 if name == "no_answer" else 1)


@pytest.mark.parametrize("answer", [server_of.dripping, server_of.dripping_head])
def test_the_time_limit_is_for_the_whole_not_for_each_read(server: PictureServer, answer: Callable[..., None]) -> None:
    server.answers["/x"] = answer
    began = time.monotonic()
    assert refusal(f"{server.url}/x", timeout_s=0.3, num_retries=1) == ("no_answer", "took longer than 0.3 s")
    # A byte comes every 20 ms: a limit on each read alone would wait for ever.
    assert server.asked["/x"] == 2
    assert time.monotonic() - began < 30


def test_the_time_limit_holds_over_redirects(server: PictureServer) -> None:
    def slowly(handler: object) -> None:
        server.closing.wait(0.15)
        redirect(f"/x{server.asked.total()}")(handler)  # type: ignore[arg-type]

    for number in range(20):
        server.answers[f"/x{number}"] = slowly
    assert refusal(f"{server.url}/x0", timeout_s=0.5, num_retries=0) == ("no_answer", "took longer than 0.5 s")
    assert server.asked.total() <= 5


def test_redirects_beyond_ten(server: PictureServer) -> None:
    for number in range(12):
        server.answers[f"/{number}"] = redirect(f"/{number + 1}")
    server.answers["/12"] = other_bytes(PICTURE)
    assert refusal(f"{server.url}/1") == ("dead_link", "redirects more than 10 times")
    assert server.asked["/11"] == 1
    assert fetch(f"{server.url}/2") == PICTURE


def test_a_circle_of_two(server: PictureServer) -> None:
    server.answers |= {"/a": redirect("/b"), "/b": redirect("/a")}
    name, reason = refusal(f"{server.url}/a")
    assert (name, reason) == ("dead_link", f"redirects in a circle: '{server.url}/a' comes again")
    assert server.asked == {"/a": 1, "/b": 1}


def test_what_passes_is_tried_again(server: PictureServer) -> None:
    for number, first in enumerate((status(500), server_of.reset, server_of.silent, server_of.shorter(PICTURE))):
        server.answers[f"/{number}"] = first_then(first, 2, PICTURE)
        stop = Quick()
        assert fetch(f"{server.url}/{number}", stop) == PICTURE
        assert stop.pauses_s == [0.5, 1.0]


@pytest.mark.parametrize(("after", "pause_s"), [("7", 7), ("86400", 30), ("soon", 0.5), ("9" * 5000, 0.5)])
def test_the_server_may_say_when_to_come_again(server: PictureServer, after: str, pause_s: float) -> None:
    server.answers["/x"] = first_then(status(503, Retry_After=after), 1, PICTURE)
    stop = Quick()
    assert fetch(f"{server.url}/x", stop) == PICTURE
    assert stop.pauses_s == [pause_s]


def test_no_further_try_once_it_is_to_end(server: PictureServer) -> None:
    server.answers["/x"] = status(500)
    stop = Quick()
    stop.set()
    with pytest.raises(NotKept):
        fetch(f"{server.url}/x", stop)
    assert server.asked["/x"] == 1


def test_port_where_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert refusal(f"http://127.0.0.1:{port}/") == ("no_answer", "no connection to 127.0.0.1 (Connection refused)")


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The IP addresses that were dialled, one by one; 127.0.0.9 does not answer."""
    dialled: list[str] = []
    dial = fetching._dial

    def counting(ip: str, port: int, timeout_s: float) -> socket.socket:
        dialled.append(ip)
        if ip == "127.0.0.9":
            raise TimeoutError
        return dial(ip, port, timeout_s)

    monkeypatch.setattr(fetching, "_dial", counting)
    return dialled


def test_a_host_that_cannot_be_reached_is_not_waited_for_again(server: PictureServer, dialled: list[str]) -> None:
    fetcher = Fetcher(Limits(timeout_s=5.0), Quick(), is_any)
    server.answers["/away"] = redirect("http://127.0.0.9:8080/1.jpg")
    for url in ("http://127.0.0.9:8080/1.jpg", "http://127.0.0.9:8080/2.jpg", f"{server.url}/away"):
        with pytest.raises(NotKept, match="took longer than 5 s") as caught:
            fetcher.fetch(url)
        # The next start asks again.
        assert caught.value.outcome.name == "no_answer"
    assert dialled == ["127.0.0.9"] * 3 + ["127.0.0.1"]
    # A server that answers, however badly, was reached; so was the same host at another port.
    server.answers["/bad"] = status(500)
    for _ in range(2):
        with pytest.raises(NotKept):
            fetcher.fetch(f"{server.url}/bad")
    assert server.asked["/bad"] == 6


def test_a_host_is_asked_again_that_another_left_no_time_for(server: PictureServer, dialled: list[str]) -> None:
    moved = redirect("http://127.0.0.9:8080/1.jpg")

    def late(handler: Any) -> None:
        time.sleep(0.5)
        moved(handler)

    server.answers["/late"] = late
    fetcher = Fetcher(Limits(timeout_s=2.0, num_retries=0), Quick(), is_any)
    for _ in range(2):
        with pytest.raises(NotKept, match="took longer than 2 s"):
            fetcher.fetch(f"{server.url}/late")
    assert dialled.count("127.0.0.9") == 2


def test_a_host_that_answered_once_is_asked_again(server: PictureServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.answers["/bad"] = status(500)
    dial, num_dialled = fetching._dial, 0

    def failing_in_the_end(ip: str, port: int, timeout_s: float) -> socket.socket:
        nonlocal num_dialled
        num_dialled += 1
        if num_dialled == 2:
            raise ConnectionRefusedError(111, "Connection refused")
        return dial(ip, port, timeout_s)

    monkeypatch.setattr(fetching, "_dial", failing_in_the_end)
    fetcher = Fetcher(Limits(num_retries=1), Quick(), is_any)
    for _ in range(2):
        with pytest.raises(NotKept):
            fetcher.fetch(f"{server.url}/bad")
    assert num_dialled == 4


def test_an_address_that_does_not_answer_leaves_the_later_ones_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    shares_s: list[float] = []

    def deaf(ip: str, port: int, timeout_s: float) -> socket.socket:
        shares_s.append(timeout_s)
        raise TimeoutError

    monkeypatch.setattr(fetching, "resolve", lambda address, is_allowed: ["192.0.2.1", "192.0.2.2", "192.0.2.3"])
    monkeypatch.setattr(fetching, "_dial", deaf)
    with pytest.raises(NotKept, match="took longer than 9 s"):
        Fetcher(Limits(timeout_s=9.0, num_retries=0), Quick()).fetch("http://a.example/")
    assert [round(share) for share in shares_s] == [3, 4, 9]


def test_a_server_without_tls_under_https(server: PictureServer) -> None:
    name, reason = refusal(f"https://127.0.0.1:{server.server_port}/1.jpg", num_retries=0)
    assert name == "no_answer"
    assert reason.startswith("no secure connection to 127.0.0.1 (")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for secure.example that nobody has signed, with its key, in one file."""
    if not shutil.which("openssl"):
        pytest.skip("there is no openssl to make a certificate with")
    folder = tmp_path_factory.mktemp("certificate")
    about = ("-subj", "/CN=secure.example", "-addext", "subjectAltName=DNS:secure.example", "-days", "2")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *about, "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=folder,
        capture_output=True,
        check=True,
    )
    whole = folder / "both.pem"
    whole.write_text((folder / "key.pem").read_text() + (folder / "cert.pem").read_text())
    return whole


@pytest.fixture
def secured(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PictureServer]:
    """A server that speaks https, under the name that its certificate has and under another one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with serving(context) as running:
        running.files["/1.jpg"] = PICTURE
        names = {"secure.example": ["127.0.0.1"], "other.example": ["127.0.0.1"]}
        monkeypatch.setattr(addresses.socket, "getaddrinfo", naming(names, running.server_port))
        yield running


def test_the_certificate_is_checked_for_the_name(
    secured: PictureServer, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if an authority that this machine trusts had signed it.
    monkeypatch.setattr(fetching, "_tls", lambda: ssl.create_default_context(cafile=certificate))
    assert fetch(f"https://secure.example:{secured.server_port}/1.jpg") == PICTURE
    assert secured.hosts == {f"secure.example:{secured.server_port}"}
    name, reason = refusal(f"https://other.example:{secured.server_port}/1.jpg")
    assert name == "dead_link"
    assert reason.startswith("the certificate of other.example is not valid: Hostname mismatch")
    assert secured.asked == {"/1.jpg": 1}


def test_a_certificate_that_nobody_has_signed(secured: PictureServer) -> None:
    name, reason = refusal(f"https://secure.example:{secured.server_port}/1.jpg")
    assert name == "dead_link"
    assert reason.startswith("the certificate of secure.example is not valid: self")
    assert not secured.asked


def test_a_handshake_that_does_not_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"https://127.0.0.1:{mute.getsockname()[1]}/"
        assert refusal(url, timeout_s=0.3, num_retries=0) == ("no_answer", "took longer than 0.3 s")


def naming(names: dict[str, list[str]], port: int) -> Callable[..., list[object]]:
    """A resolver that knows these names alone, and counts how often each is asked for."""

    def getaddrinfo(host: str, asked_port: int, **_: object) -> list[object]:
        if host not in names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        ips = names[host]
        # A name that leads elsewhere at every question, as in DNS rebinding.
        current = [ips.pop(0)] if len(ips) > 1 and ips[0] != "both" else ips[-2:]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, asked_port)) for ip in current if ip != "both"]

    return getaddrinfo


def is_test_public(ip: IpAddress) -> bool:
    """This machine stands for the public internet."""
    return ip == ipaddress.ip_address("127.0.0.1") or is_public(ip)


def test_a_public_page_that_redirects_to_a_private_one(server: PictureServer, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"public.example": ["127.0.0.1"], "inner.example": ["127.0.0.2"]}
    monkeypatch.setattr(addresses.socket, "getaddrinfo", naming(names, server.server_port))
    public = f"http://public.example:{server.server_port}"
    fetcher = Fetcher(Limits(timeout_s=5.0), Quick(), is_test_public)
    assert fetcher.fetch(f"{public}/1.jpg") == PICTURE
    for number, target in enumerate((f"http://inner.example:{server.server_port}/1.jpg", "http://inner.example/")):
        server.answers[f"/{number}"] = redirect(target)
        with pytest.raises(
            NotKept, match=r"inner\.example leads to 127\.0\.0\.2, which is no public address"
        ) as caught:
            fetcher.fetch(f"{public}/{number}")
        assert caught.value.outcome.name == "refused_address"
    assert server.asked == {"/1.jpg": 1, "/0": 1, "/1": 1}
    # The name goes over the wire, not the IP address that was connected to.
    assert server.hosts == {f"public.example:{server.server_port}"}


def test_a_name_that_changes_between_check_and_connection(
    server: PictureServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Public when it is checked, private a moment later: only one question is ever asked.
    names = {"rebinding.example": ["127.0.0.1", "10.0.0.1"]}
    monkeypatch.setattr(addresses.socket, "getaddrinfo", naming(names, server.server_port))
    fetcher = Fetcher(Limits(timeout_s=5.0, num_retries=0), Quick(), is_test_public)
    assert fetcher.fetch(f"http://rebinding.example:{server.server_port}/1.jpg") == PICTURE
    with pytest.raises(NotKept, match=r"leads to 10\.0\.0\.1"):
        fetcher.fetch(f"http://rebinding.example:{server.server_port}/1.jpg")


def test_the_next_address_where_the_first_does_not_answer(
    server: PictureServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The server listens on 127.0.0.1 alone.
    names = {"two.example": ["both", "127.0.0.3", "127.0.0.1"]}
    monkeypatch.setattr(addresses.socket, "getaddrinfo", naming(names, server.server_port))
    assert fetch(f"http://two.example:{server.server_port}/1.jpg") == PICTURE


def test_a_name_that_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses.socket, "getaddrinfo", naming({}, 0))
    name, reason = refusal("http://nowhere.example/1.jpg")
    assert (name, reason) == ("no_answer", "the name nowhere.example is not known (Name or service not known)")


def test_proxies_of_the_environment_are_not_asked(server: PictureServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert fetch(f"{server.url}/1.jpg") == PICTURE


def test_this_machine_is_refused_without_being_asked(server: PictureServer) -> None:
    fetcher = Fetcher(Limits(), Quick())
    for host in ("127.0.0.1", "localhost", "127.1", "2130706433"):
        with pytest.raises(NotKept) as caught:
            fetcher.fetch(f"http://{host}:{server.server_port}/1.jpg")
        assert caught.value.outcome.name == "refused_address"
    assert not server.asked


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    head=st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 302 Found\r\nLocation: ", b"HTTP/1.0 "]),
    rest=st.binary(max_size=60),
    chunked=st.booleans(),
)
def test_whatever_a_server_says_is_bytes_or_a_reason(
    server: PictureServer, head: bytes, rest: bytes, chunked: bool
) -> None:
    server.answers["/x"] = server_of.raw(head + b"Transfer-Encoding: chunked\r\n\r\n" * chunked + rest)
    try:
        found = fetch(f"{server.url}/x", num_retries=0)
    except NotKept as fault:
        shown = fault.outcome.reason
    else:
        shown = f"{len(found)} bytes"
    # A reason is a line of text: whatever the server sent, it stands in a manifest and in a terminal.
    assert shown.isprintable()
