"""Which addresses may be fetched: http and https, on machines that everybody can reach.

A list is written by others. One that named addresses within the reader's own network would make this program ask
them, and so would a public page that redirects there.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from conviction.data.facescrub.outcome import NotKept

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
DEFAULT_PORTS = {"http": 80, "https": 443}
FIRST_FREE_PORT = 1024
_MOST_SHOWN = 80
_MOST_HOST_LETTERS = 253
# What a browser leaves as it is in a path or a query.
_PLAIN = "!#$%&'()*+,/:;=?@[]~"

_PUBLIC_IPV6 = ipaddress.ip_network("2000::/3")
_IPV4_IN_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Ranges that ipaddress calls global, in some versions of Python or in all.
_NOT_PUBLIC = tuple(map(ipaddress.ip_network, ("192.88.99.0/24", "192.0.0.0/24", "3fff::/20", "2001::/23")))


@dataclass(frozen=True)
class Address:
    """A checked address: its parts as they go over the wire, without its fragment."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def host_header(self) -> str:
        """The host, in brackets where it is an IPv6 address, with the port where it is not the usual one."""
        shown = f"[{self.host}]" if ":" in self.host else self.host
        return shown if self.port == DEFAULT_PORTS[self.scheme] else f"{shown}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host_header}{self.target}"


def parse_address(url: str) -> Address:
    """The parts of an address. Raises: NotKept (`refused_address`), with the end of a sentence as its reason."""
    # urlsplit drops line breaks and tabs without a word, so that they are looked for first.
    if odd := re.search(r"[\x00-\x1f\x7f\\]", url):
        raise refused(f"holds the character {odd.group()!r}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise refused(f"is no address: {error}") from error
    if parts.scheme not in DEFAULT_PORTS:
        raise refused("is neither http nor https")
    if "@" in parts.netloc:
        raise refused("carries a user name")
    host = _host(parts)
    if port is None:
        port = DEFAULT_PORTS[parts.scheme]
    if port < FIRST_FREE_PORT and port not in DEFAULT_PORTS.values():
        raise refused(f"asks for port {port}: 80, 443 and those from {FIRST_FREE_PORT:,} on are allowed")
    target = quote(parts.path, safe=_PLAIN) or "/"
    if parts.query:
        target += "?" + quote(parts.query, safe=_PLAIN)
    return Address(parts.scheme, host, port, target)


def follow(address: Address, location: str) -> Address:
    """Where a redirect leads. Raises: NotKept."""
    # http.client reads headers as Latin-1; servers that send other letters send UTF-8.
    text = location.encode("latin-1", "replace").decode("utf-8", "replace")
    try:
        return parse_address(urljoin(str(address), quote(text, safe=_PLAIN)))
    except ValueError as error:
        raise refused(f"redirects to {shown(text)}, which is no address: {error}") from error
    except NotKept as fault:
        raise refused(f"redirects to {shown(text)}, which {fault}") from fault


def is_public(ip: IpAddress) -> bool:
    """Whether an IP address is one that everybody can reach; IPv4 within IPv6 is judged as what it leads to."""
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip in _IPV4_IN_NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if ip not in _PUBLIC_IPV6:
            return False
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _NOT_PUBLIC)


def is_any(ip: IpAddress) -> bool:
    """Allows private addresses too, for tests."""
    return True


def resolve(address: Address, is_allowed: Callable[[IpAddress], bool]) -> list[str]:
    """The IP addresses of a host, all checked. Connect to these: a moment later the name may mean another place.

    Raises: NotKept where one of them is not allowed, OSError where the name is not known.
    """
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    ips = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    for ip in ips:
        # A zone (fe80::1%eth0) is only ever part of an address that is not public.
        if not is_allowed(ipaddress.ip_address(ip.partition("%")[0])):
            place = f"{ip} is" if _is_ip(address.host) else f"{address.host} leads to {ip}, which is"
            raise refused(f"{place} no public address (--allow-private allows it)")
    return ips


def refused(reason: str) -> NotKept:
    """The refusal of an address."""
    return NotKept("refused_address", reason)


def shown(url: str) -> str:
    """An address in quotes, cut where it is long."""
    return repr(url if len(url) <= _MOST_SHOWN else url[: _MOST_SHOWN - 1] + "…")


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _host(parts: SplitResult) -> str:
    """The host as DNS knows it: in small letters, other alphabets in their ASCII form."""
    host = parts.hostname or ""
    if not host:
        raise refused("names no host")
    if "%" in host:
        raise refused("has a host that is no valid name")
    if ":" in host:
        try:
            return str(ipaddress.IPv6Address(host))
        except ValueError as error:
            raise refused(f"is no address: {error}") from error
    try:
        name = host.encode("idna").decode("ascii").lower()
    except UnicodeError as error:
        raise refused("has a host that is no valid name") from error
    if not re.fullmatch(r"[a-z0-9_.-]+", name) or len(name) > _MOST_HOST_LETTERS or not name.strip("."):
        raise refused("has a host that is no valid name")
    return name
