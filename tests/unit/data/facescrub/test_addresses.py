"""Which addresses are refused, and with what reason."""

import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conviction.data.facescrub import address as addresses
from conviction.data.facescrub.address import Address, follow, is_any, is_public, parse_address, resolve
from conviction.data.facescrub.outcome import NotKept

ADDRESSES: dict[str, tuple[str, str]] = {
    "no scheme": ("a.org/1.jpg", "is neither http nor https"),
    "scheme alone": ("http:", "names no host"),
    "no host": ("http:///1.jpg", "names no host"),
    "port without host": ("http://:80/1.jpg", "names no host"),
    "relative": ("/1.jpg", "is neither http nor https"),
    "scheme left to the page": ("//a.org/1.jpg", "is neither http nor https"),
    "file": ("file:///etc/passwd", "is neither http nor https"),
    "FTP": ("ftp://a.org/1.jpg", "is neither http nor https"),
    "gopher": ("gopher://a.org:70/1", "is neither http nor https"),
    "data": ("data:image/png;base64,AAAA", "is neither http nor https"),
    "script": ("javascript:alert(1)", "is neither http nor https"),
    "misspelt scheme": ("htp://a.org/1.jpg", "is neither http nor https"),
    "user name": ("http://me@a.org/1.jpg", "carries a user name"),
    "user name and password": ("http://me:secret@a.org/", "carries a user name"),
    "host that is a user name": ("http://a.org@10.0.0.1/", "carries a user name"),
    "empty user name": ("http://@a.org/", "carries a user name"),
    "line break": ("http://a.org/\r\nHost: b.org", "holds the character '\\r'"),
    "tab": ("http://a.org/\t1.jpg", "holds the character '\\t'"),
    "escape": ("http://a.org/\x1b1.jpg", "holds the character '\\x1b'"),
    "delete": ("http://a.org/\x7f", "holds the character '\\x7f'"),
    "backslash": ("http://a.org\\@b.org/", "holds the character '\\\\'"),
    "blank in the host": ("http://a b.org/", "has a host that is no valid name"),
    "sign in the host": ("http://a$b.org/", "has a host that is no valid name"),
    "percent in the host": ("http://a%2eorg/", "has a host that is no valid name"),
    "host of dots": ("http://.../1.jpg", "has a host that is no valid name"),
    "empty label": ("http://a..org/", "has a host that is no valid name"),
    "label of 64 letters": (f"http://{'a' * 64}.org/", "has a host that is no valid name"),
    "host of 300 letters": (f"http://{'a.' * 150}org/", "has a host that is no valid name"),
    "port in words": ("http://a.org:http/", "is no address: Port could not be cast"),
    "port beyond all": ("http://a.org:70000/", "is no address: Port out of range"),
    "port below zero": ("http://a.org:-1/", "is no address: Port"),
    "port 0": ("http://a.org:0/", "asks for port 0: 80, 443 and those from 1,024 on are allowed"),
    "port of a mail server": ("http://a.org:25/", "asks for port 25"),
    "port of a shell": ("https://a.org:22/", "asks for port 22"),
    "bracket left open": ("http://[::1/", "is no address"),
    "no IPv6 in the brackets": ("http://[hello]/", "is no address"),
    "zone": ("http://[fe80::1%25eth0]/", "has a host that is no valid name"),
}


@pytest.mark.parametrize("fault", ADDRESSES)
def test_refused_address_says_why(fault: str) -> None:
    url, says = ADDRESSES[fault]
    with pytest.raises(NotKept) as caught:
        parse_address(url)
    assert caught.value.outcome.name == "refused_address"
    assert says in caught.value.outcome.reason
    assert caught.value.outcome.reason.isprintable()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://a.org", Address("http", "a.org", 80, "/")),
        ("HTTPS://A.ORG/B.jpg", Address("https", "a.org", 443, "/B.jpg")),
        ("http://a.org:8080/x?y=1#z", Address("http", "a.org", 8080, "/x?y=1")),
        ("http://my_blog.a.org./1.jpg", Address("http", "my_blog.a.org.", 80, "/1.jpg")),
        ("http://a.org/%252B/a%20b c|ü.jpg", Address("http", "a.org", 80, "/%252B/a%20b%20c%7C%C3%BC.jpg")),
        ("http://bücher.example/1.jpg", Address("http", "xn--bcher-kva.example", 80, "/1.jpg")),
        ("http://[2001:DB8::1]:8080/", Address("http", "2001:db8::1", 8080, "/")),
        ("http://a.org/;a=1?q=http://b.org/", Address("http", "a.org", 80, "/;a=1?q=http://b.org/")),
    ],
)
def test_address_as_it_goes_over_the_wire(url: str, expected: Address) -> None:
    assert parse_address(url) == expected


def test_host_header_holds_the_port_where_it_is_not_the_usual_one() -> None:
    for url, header in (
        ("http://a.org:80/", "a.org"),
        ("https://a.org:80/", "a.org:80"),
        ("http://[2001:db8::1]/", "[2001:db8::1]"),
        ("http://[2001:db8::1]:8080/", "[2001:db8::1]:8080"),
    ):
        assert parse_address(url).host_header == header


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/b.jpg", "http://a.org:8080/b.jpg"),
        ("b.jpg", "http://a.org:8080/x/b.jpg"),
        ("//b.org/", "http://b.org/"),
        ("https://b.org/", "https://b.org/"),
        ("?q=1", "http://a.org:8080/x/y?q=1"),
        # UTF-8 in a header, as http.client gives it.
        ("/ü b".encode().decode("latin-1"), "http://a.org:8080/%C3%BC%20b"),
    ],
)
def test_redirects_are_followed_from_where_they_stand(location: str, target: str) -> None:
    assert str(follow(parse_address("http://a.org:8080/x/y"), location)) == target


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://a.org/", "http://me@b.org/", "http://[::1", "javascript:x"]
)
def test_redirects_are_judged_as_addresses_are(location: str) -> None:
    with pytest.raises(NotKept, match=r"^redirects to '.*', which (is|carries) ") as caught:
        follow(parse_address("http://a.org/"), location)
    assert caught.value.outcome.name == "refused_address"


# One for each range of IANA's registries of special addresses, at one of its ends.
PRIVATE = {
    "0.0.0.0": "this host",
    "0.255.255.255": "this network",
    "10.0.0.1": "private",
    "100.64.0.1": "carrier's NAT",
    "100.127.255.255": "carrier's NAT",
    "127.0.0.1": "loopback",
    "127.255.255.254": "loopback",
    "169.254.169.254": "link-local, where clouds keep credentials",
    "172.16.0.1": "private",
    "172.31.255.255": "private",
    "192.0.0.1": "IETF",
    "192.0.0.9": "port control",
    "192.0.2.1": "documentation",
    "192.88.99.1": "6to4 relay",
    "192.168.1.1": "private",
    "198.18.0.1": "benchmarks",
    "198.51.100.1": "documentation",
    "203.0.113.1": "documentation",
    "224.0.0.1": "multicast",
    "239.255.255.255": "multicast",
    "240.0.0.1": "reserved",
    "255.255.255.255": "broadcast",
    "::": "unspecified",
    "::1": "loopback",
    "::7f00:1": "IPv4-compatible",
    "::ffff:127.0.0.1": "IPv4-mapped loopback",
    "::ffff:10.1.2.3": "IPv4-mapped private",
    "::ffff:169.254.169.254": "IPv4-mapped link-local",
    "64:ff9b::7f00:1": "NAT64 of loopback",
    "64:ff9b::a00:1": "NAT64 of private",
    "64:ff9b:1::808:808": "local NAT64",
    "100::1": "discarded",
    "2001::1": "Teredo",
    "2001:10::1": "ORCHID",
    "2001:db8::1": "documentation",
    "2002:7f00:1::": "6to4 of loopback",
    "2002:c0a8:101::1": "6to4 of private",
    "3fff::1": "documentation",
    "5f00::1": "segment routing",
    "fc00::1": "unique local",
    "fdff::1": "unique local",
    "fe80::1": "link-local",
    "fec0::1": "site-local",
    "ff02::1": "multicast",
    "ff0e::1": "multicast",
}


@pytest.mark.parametrize("ip", PRIVATE)
def test_addresses_that_not_everybody_reaches(ip: str) -> None:
    assert not is_public(ipaddress.ip_address(ip)), PRIVATE[ip]


@pytest.mark.parametrize(
    "ip",
    [
        *("1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "172.15.255.255", "172.32.0.0"),
        *("192.167.255.255", "223.255.255.255", "2606:4700::1111", "2a00:1450::1", "::ffff:8.8.8.8"),
        *("64:ff9b::808:808", "2002:808:808::1"),
    ],
)
def test_addresses_that_everybody_reaches(ip: str) -> None:
    assert is_public(ipaddress.ip_address(ip))


@given(st.integers(0, 2**32 - 1))
def test_ipv4_within_ipv6_is_judged_as_ipv4(number: int) -> None:
    inner = ipaddress.IPv4Address(number)
    for outer in (0xFFFF << 32 | number, 0x2002 << 112 | number << 80, 0x64FF9B << 96 | number):
        assert is_public(ipaddress.IPv6Address(outer)) == is_public(inner)


def answering(*ips: str) -> object:
    def getaddrinfo(host: str, port: int, **_: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in ips]

    return getaddrinfo


def test_one_private_address_among_public_ones_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses.socket, "getaddrinfo", answering("8.8.8.8", "10.0.0.1"))
    with pytest.raises(
        NotKept, match=r"a\.org leads to 10\.0\.0\.1, which is no public address \(--allow-private"
    ) as caught:
        resolve(parse_address("http://a.org/"), is_public)
    assert caught.value.outcome.name == "refused_address"
    assert resolve(parse_address("http://a.org/"), is_any) == ["8.8.8.8", "10.0.0.1"]


def test_zones_are_judged_without_their_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses.socket, "getaddrinfo", answering("fe80::1%eth0"))
    with pytest.raises(NotKept, match="no public address"):
        resolve(parse_address("http://a.org/"), is_public)


# The operating system reads all of these as 127.0.0.1.
@pytest.mark.parametrize(
    "host", ["127.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.0.0.1", "[::1]", "[::ffff:7f00:1]"]
)
def test_every_spelling_of_this_machine_is_refused(host: str) -> None:
    with pytest.raises(NotKept) as caught:
        resolve(parse_address(f"http://{host}:8080/"), is_public)
    assert caught.value.outcome.name == "refused_address"


def parsed(url: str) -> Address | NotKept:
    try:
        return parse_address(url)
    except NotKept as fault:
        return fault


@given(st.text(max_size=40))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    for url in (text, f"http://{text}", f"http://a.org/{text}", f"https://a.org:{text}/"):
        found = parsed(url)
        if isinstance(found, NotKept):
            assert found.outcome.reason.isprintable()
        else:
            assert f"{found.host}{found.target}".isascii()
            assert not any(letter.isspace() for letter in found.target)
            assert parse_address(str(found)) == found
