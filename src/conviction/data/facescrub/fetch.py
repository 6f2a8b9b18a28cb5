"""One picture's bytes over http or https: within a time and a size, from checked IP addresses alone.

Written on the standard library's http.client, which follows no redirects, asks no proxy, and lets us connect to the
very IP address that was checked.
"""

from __future__ import annotations

import functools
import http.client
import io
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http import HTTPStatus

from conviction.data.facescrub.address import Address, IpAddress, follow, is_public, parse_address, resolve, shown
from conviction.data.facescrub.outcome import NotKept

MOST_REDIRECTS = 10
_CHUNK_BYTES = 1 << 16
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_FAIR_SHARE = 0.8
_REDIRECTS = (301, 302, 303, 307, 308)
# The server asks to come again, or is out of order for now.
_PASSING = (408, 421, 425, 429, 500, 502, 503, 504)
_HEADERS = {
    "User-Agent": "conviction (gathers research data sets)",
    "Accept": "image/*,*/*;q=0.5",
    # The checksum is that of the file: compressed on its way, it would be another.
    "Accept-Encoding": "identity",
    "Connection": "close",
}


@dataclass(frozen=True)
class Limits:
    """`timeout_s` is for one try as a whole, with all of its redirects, however slowly the bytes arrive."""

    timeout_s: float = 30.0
    max_bytes: int = 20_000_000
    num_retries: int = 2


class _Passing(Exception):
    """A fault that may be gone at the next try, `pause_s` from now where the server says when.

    `unreached` is the host and port that no connection could be made to.
    """

    def __init__(self, reason: str, pause_s: float = 0.0, unreached: str = "") -> None:
        super().__init__(reason)
        self.pause_s = pause_s
        self.unreached = unreached


class _Reader(io.RawIOBase):
    """A socket's bytes with one deadline for all of them: a socket's own time limit is for each read."""

    def __init__(self, connected: socket.socket, deadline: float) -> None:
        self._socket = connected
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        self._socket.settimeout(_left(self._deadline))
        return self._socket.recv_into(buffer)

    def close(self) -> None:
        self._socket.close()
        super().close()


class _Transport:
    """What http.client needs of a socket. The socket lives as long as the answer that is read from it."""

    def __init__(self, connected: socket.socket, deadline: float) -> None:
        self._socket = connected
        self._deadline = deadline

    def sendall(self, content: bytes) -> None:
        self._socket.settimeout(_left(self._deadline))
        self._socket.sendall(content)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._socket, self._deadline))

    def close(self) -> None:
        """http.client closes the connection once it has the head of an answer; the rest is still to be read."""


class Fetcher:
    """Fetches pictures; one for all threads. Once `stop` is set it does not wait for further tries.

    A host that could not be reached in any try is not waited for again: lists name many pictures of each dead host.
    """

    def __init__(
        self, limits: Limits, stop: threading.Event, is_allowed: Callable[[IpAddress], bool] = is_public
    ) -> None:
        self._limits = limits
        self._stop = stop
        self._is_allowed = is_allowed
        self._unreached: dict[str, str] = {}

    def fetch(self, url: str) -> bytes:
        """The bytes at an address. Raises: NotKept with what the server answered, or that it did not."""
        address = parse_address(url)
        unreached: set[str] = set()
        for number in range(self._limits.num_retries + 1):
            try:
                return self._try(address)
            except _Passing as fault:
                reason = str(fault)
                unreached.add(fault.unreached)
                pause_s = min(max(_FIRST_PAUSE_S * 2**number, fault.pause_s), _LONGEST_PAUSE_S)
            if number == self._limits.num_retries or self._stop.wait(pause_s):
                break
        # The same place in every try.
        if len(unreached) == 1 and (place := unreached.pop()):
            self._unreached[place] = reason
        raise NotKept("no_answer", reason)

    def _try(self, address: Address) -> bytes:
        deadline = time.monotonic() + self._limits.timeout_s
        seen: list[str] = []
        while True:
            seen.append(str(address))
            connected = self._reach(address, deadline)
            with _faults(address, self._limits.timeout_s), closing(_ask(address, connected, deadline)) as answer:
                if answer.status not in _REDIRECTS:
                    return self._body(answer)
                address = _next(address, answer.getheader("Location"), seen)

    def _reach(self, address: Address, deadline: float) -> socket.socket:
        place = f"{address.host}:{address.port}"
        if place in self._unreached:
            raise NotKept("no_answer", self._unreached[place])
        # Where a slow redirect has used the time up, nothing is said of the host that it leads to.
        had_time = deadline - time.monotonic() > _FAIR_SHARE * self._limits.timeout_s
        with _faults(address, self._limits.timeout_s, unreached=place if had_time else ""):
            return _connect(address, self._is_allowed, deadline)

    def _body(self, answer: http.client.HTTPResponse) -> bytes:
        if answer.status != HTTPStatus.OK:
            raise _refusal(answer)
        announced = answer.length
        if announced is not None and announced > self._limits.max_bytes:
            raise NotKept(
                "too_large", f"{announced:,} bytes are announced; at most {self._limits.max_bytes:,} are read"
            )
        content = bytearray()
        while chunk := answer.read(_CHUNK_BYTES):
            content += chunk
            if len(content) > self._limits.max_bytes:
                raise NotKept("too_large", f"goes on after {self._limits.max_bytes:,} bytes, the most that is read")
        if announced is not None and len(content) < announced:
            raise _Passing(f"ended after {len(content):,} of {announced:,} bytes")
        return bytes(content)


@contextmanager
def _faults(address: Address, timeout_s: float, unreached: str = "") -> Iterator[None]:
    """Turn what sockets, TLS and http.client raise into what a person can read."""
    try:
        yield
    except TimeoutError:
        raise _Passing(f"took longer than {timeout_s:g} s", unreached=unreached) from None
    except ssl.SSLCertVerificationError as error:
        raise NotKept("dead_link", f"the certificate of {address.host} is not valid: {error.verify_message}") from None
    except socket.gaierror as error:
        reason = f"the name {address.host} is not known ({error.strerror})"
        raise _Passing(reason, unreached=unreached) from None
    except ssl.SSLError as error:
        raise _Passing(f"no secure connection to {address.host} ({error.reason or 'SSL'})") from None
    except http.client.IncompleteRead:
        raise _Passing("ended before its end") from None
    except OSError as error:
        reason = f"no connection to {address.host} ({error.strerror or 'closed without an answer'})"
        raise _Passing(reason, unreached=unreached) from None
    except (http.client.HTTPException, ValueError) as error:
        raise _Passing(f"{address.host} does not answer as HTTP asks ({type(error).__name__})") from None


def _ask(address: Address, connected: socket.socket, deadline: float) -> http.client.HTTPResponse:
    """The answer, its body unread; it closes the connection when it is closed."""
    connection = http.client.HTTPConnection(address.host, address.port)
    # http.client would look the name up again; given a connection, it uses that.
    connection.sock = _Transport(connected, deadline)
    try:
        connection.putrequest("GET", address.target, skip_host=True, skip_accept_encoding=True)
        for name, value in {"Host": address.host_header, **_HEADERS}.items():
            connection.putheader(name, value)
        connection.endheaders()
        return connection.getresponse()
    except BaseException:
        connected.close()
        raise


def _connect(address: Address, is_allowed: Callable[[IpAddress], bool], deadline: float) -> socket.socket:
    """A connection to one of the host's checked IP addresses, the first that answers."""
    ips = resolve(address, is_allowed)
    for number, ip in enumerate(ips, start=1):
        try:
            # An IP address that does not answer leaves the later ones their share of the time.
            plain = _dial(ip, address.port, _left(deadline) / (len(ips) - number + 1))
        except OSError:
            if number == len(ips):
                raise
            continue
        return plain if address.scheme == "http" else _secured(plain, address, deadline)
    raise OSError("the name leads nowhere")


def _dial(ip: str, port: int, timeout_s: float) -> socket.socket:
    # Not socket.create_connection, which resolves again.
    plain = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_STREAM)
    try:
        plain.settimeout(timeout_s)
        plain.connect((ip, port))
    except BaseException:
        plain.close()
        raise
    return plain


def _secured(plain: socket.socket, address: Address, deadline: float) -> socket.socket:
    try:
        plain.settimeout(_left(deadline))
        # The certificate is checked for the name of the host, not for the IP address.
        return _tls().wrap_socket(plain, server_hostname=address.host)
    except BaseException:
        plain.close()
        raise


@functools.cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _next(address: Address, location: str | None, seen: list[str]) -> Address:
    if not location:
        raise NotKept("dead_link", f"{shown(str(address))} redirects without saying where")
    target = follow(address, location)
    if str(target) in seen:
        raise NotKept("dead_link", f"redirects in a circle: {shown(str(target))} comes again")
    if len(seen) > MOST_REDIRECTS:
        raise NotKept("dead_link", f"redirects more than {MOST_REDIRECTS} times")
    return target


def _refusal(answer: http.client.HTTPResponse) -> Exception:
    """What a status other than 200 says."""
    try:
        name = f"{answer.status} {HTTPStatus(answer.status).phrase}"
    except ValueError:
        name = str(answer.status)
    if answer.status in _PASSING:
        after = answer.getheader("Retry-After") or ""
        return _Passing(f"the server answers {name}", float(after) if after.isdecimal() and len(after) < 6 else 0.0)
    return NotKept("dead_link", f"the server answers {name}")


def _left(deadline: float) -> float:
    """The seconds until the deadline. Raises: TimeoutError where it has passed."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
