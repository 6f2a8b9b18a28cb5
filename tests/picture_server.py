"""A web server on this machine that serves pictures, and misbehaves where a test asks it to."""

from __future__ import annotations

import os
import socket
import ssl
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WEB_PAGE = b"<!DOCTYPE html>\n<html><title>404</title>Gone, but answered with 200</html>"


class PictureServer(ThreadingHTTPServer):
    """Serves `files` by path; `answers` by path do something else. `asked` counts requests by path."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.answers: dict[str, Callable[[_Handler], None]] = {}
        self.asked: Counter[str] = Counter()
        self.hosts: set[str] = set()
        self.closing = threading.Event()
        self.pause_s = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: PictureServer

    def do_GET(self) -> None:
        path = self.path
        self.server.asked[path] += 1
        self.server.hosts.add(self.headers["Host"])
        if path in self.server.answers:
            self.server.answers[path](self)
        elif path in self.server.files:
            self.server.closing.wait(self.server.pause_s)
            self.reply(200, self.server.files[path])
        else:
            self.reply(404, WEB_PAGE)

    def reply(self, status: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None: ...


def status(number: int, **headers: str) -> Callable[[_Handler], None]:
    return lambda handler: handler.reply(number, WEB_PAGE, **headers)


def redirect(target: str, number: int = 302) -> Callable[[_Handler], None]:
    return lambda handler: handler.reply(number, Location=target)


def other_bytes(content: bytes, **headers: str) -> Callable[[_Handler], None]:
    return lambda handler: handler.reply(200, content, **headers)


def first_then(first: Callable[[_Handler], None], times: int, content: bytes) -> Callable[[_Handler], None]:
    """`first` for so many requests, then the picture."""
    count = Counter[str]()

    def answer(handler: _Handler) -> None:
        count["asked"] += 1
        if count["asked"] <= times:
            first(handler)
        else:
            handler.reply(200, content)

    return answer


def reset(handler: _Handler) -> None:
    """The connection is torn down in the middle of the picture."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"\xff\xd8\xff")
    handler.wfile.flush()
    # Closing with no time to linger sends RST in place of FIN.
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True
    os.close(handler.connection.detach())


def silent(handler: _Handler) -> None:
    """The connection is closed without an answer."""
    handler.close_connection = True


def shorter(content: bytes) -> Callable[[_Handler], None]:
    """More bytes are announced than come."""

    def answer(handler: _Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content) + 100))
        handler.end_headers()
        handler.wfile.write(content)
        handler.close_connection = True

    return answer


def dripping(handler: _Handler) -> None:
    """A byte every 20 ms, for ever: no single read takes long."""
    handler.send_response(200)
    handler.end_headers()
    while not handler.server.closing.wait(0.02):
        handler.wfile.write(b"\xff")
        handler.wfile.flush()


def dripping_head(handler: _Handler) -> None:
    """A head that does not end."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    while not handler.server.closing.wait(0.02):
        handler.wfile.write(b"x")
        handler.wfile.flush()


def endless(handler: _Handler) -> None:
    """As many bytes as the client takes, without saying how many."""
    handler.send_response(200)
    handler.end_headers()
    while not handler.server.closing.is_set():
        handler.wfile.write(b"\xff" * 65536)


def endless_chunks(handler: _Handler) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    while not handler.server.closing.is_set():
        handler.wfile.write(b"10000\r\n" + b"\xff" * 65536 + b"\r\n")


def raw(content: bytes) -> Callable[[_Handler], None]:
    """Bytes in place of an answer of HTTP."""

    def answer(handler: _Handler) -> None:
        handler.wfile.write(content)
        handler.close_connection = True

    return answer


@contextmanager
def serving(secured: ssl.SSLContext | None = None) -> Iterator[PictureServer]:
    """A server that lives as long as the block; with a certificate's context it speaks https."""
    server = PictureServer()
    if secured:
        # The handshake belongs into the handler's thread: one that fails would end the server.
        server.socket = secured.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
