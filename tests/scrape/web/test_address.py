"""Only public http addresses are asked, in whatever spelling a private one comes."""

import asyncio
import ipaddress
import socket
from typing import Any

import aiodns
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from dreamloom.scrape.collection import Collection, Status
from dreamloom.scrape.web.address import (
    PrivateAddressError,
    PublicResolver,
    check_url,
    is_public,
    join_url,
    resolver_error_status,
    system_resolver,
)
from dreamloom.scrape.web.outcome import RowDropped


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("http://h.org/a b.jpg", "http://h.org/a%20b.jpg"),
        (" http://h.org/ä.jpg?q=ü#x \n", "http://h.org/%C3%A4.jpg?q=%C3%BC"),
        ("http://h.org/%E4%20.jpg", "http://h.org/%E4%20.jpg"),
        ("\ufeffhttp://h.org/x", "http://h.org/x"),
        ('"http://h.org/x"', "http://h.org/x"),
        ("http://h.org/100%.jpg", "http://h.org/100%25.jpg"),
        ("http://h.org/i?a=1&amp;b=2", "http://h.org/i?a=1&b=2"),
        ("HTTPS://Bücher.DE:8443/x", "https://xn--bcher-kva.de:8443/x"),
        ("http://user:secret@h.org/x", "http://h.org/x"),
        ("http://134744072/x", "http://8.8.8.8/x"),
        ("http://[2606:4700::1111]/x", "http://[2606:4700::1111]/x"),
        ("http://h.org\\a\\b.jpg?c=\\", "http://h.org/a/b.jpg?c=%5C"),
        ("http:\\\\h.org\\x", "http://h.org/x"),
        ("http:/h.org/x", "http://h.org/x"),
        ("http://h.org\\@other.org/x", "http://h.org/@other.org/x"),
        ("https:///h.org//x", "https://h.org//x"),
        ("http:h.org", "http://h.org/"),
        ("http://h.org:/x", "http://h.org/x"),
        ("http://a:b@c:d@[2606:4700::1111]:81/x", "http://[2606:4700::1111]:81/x"),
    ],
)
def test_addresses_are_made_askable(text: str, asked: str) -> None:
    assert str(check_url(text)) == asked


@pytest.mark.parametrize(
    "target",
    [
        "/a?Signature=a%2Fb%2Bc%3D&Expires=1&Key-Pair-Id=K",  # CloudFront
        "/a?X-Amz-Credential=A%2F2024%2Fs3%2Faws4_request&X-Amz-Signature=0",  # S3
        "/unsafe/200x200/filters:quality(80)/http%3A%2F%2Fh.org%2Fa%20b.jpg",  # thumbor
        "/%7Ejoe/%28x%29/%2e%2E/%41",
        "/caf%e4/%E4%b8%AD?q=%e4",
        "/a+b%20c?d=e+f%20g&h=%26",
        "/a//b/./c/../d;e=1,2!$'()*@:",
        "/a[0].jpg?b[]=1&c=http://h.org/?d",
        "/%23%3F%25%00%0a",
    ],
)
def test_an_address_is_asked_for_as_it_is_written(target: str) -> None:
    url = check_url(f"http://h.org{target}")
    assert url.raw_path_qs == target
    assert str(url) == f"http://h.org{target}"


@given(st.text(st.sampled_from("aZ09-._~%:/?@!$&'()*+,;=[] ä|\\^{}<>\"`"), max_size=30))
def test_what_is_asked_for_is_ascii_and_asked_for_as_it_is(text: str) -> None:
    url = check_url(f"http://h.org/{text}")
    assert set(str(url)) <= set(map(chr, range(0x21, 0x7F))) - set('|\\^{}<>"`#')
    assert check_url(str(url)) == url


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (None, "bad_url"),
        ("", "bad_url"),
        ("not a url", "bad_url"),
        ("http://", "bad_url"),
        ("http:///", "bad_url"),
        ("http://h.org:+80/x", "bad_url"),
        ("http://h.org:8_0/x", "bad_url"),
        ("http://h.org:\uff18\uff10/x", "bad_url"),
        ("http://h.org:65536/x", "bad_url"),
        ("http://h.org:99999/", "bad_url"),
        ("http://two words.org/", "bad_url"),
        ("http://a..org/", "bad_url"),
        ("http://" + "a" * 64 + ".org/", "bad_url"),
        ("http://1.2.3.4.5/", "bad_url"),
        ("http://256.1.1.1/", "bad_url"),
        ("http://\x00h.0x7f.1/", "bad_url"),
        ("http://a]b[@", "bad_url"),
        ("//h.org/x", "bad_url"),
        ("C:\\pictures\\x.jpg", "bad_scheme"),
        ("/etc/passwd", "bad_url"),
        ("file:///etc/passwd", "bad_scheme"),
        ("ftp://h.org/x.jpg", "bad_scheme"),
        ("data:image/gif;base64,R0lGODlhAQABAAAAACw=", "bad_scheme"),
        ("gopher://h.org/", "bad_scheme"),
        ("javascript:alert(1)", "bad_scheme"),
    ],
)
def test_what_is_no_address_says_so(text: str | None, status: str) -> None:
    with pytest.raises(RowDropped) as caught:
        check_url(text, allow_private_addresses=True)
    assert caught.value.status == status


PRIVATE = [
    "127.0.0.1", "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "127.0.0.1.", "0.0.0.0", "0.1.2.3", "10.0.0.1",
    "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1", "255.255.255.255", "198.18.0.1",
    "[::1]", "[::]", "[fe80::1]", "[fc00::1]", "[fd00:ec2::254]", "[ff02::1]", "[::ffff:127.0.0.1]", "[::ffff:a00:1]",
    "[::127.0.0.1]", "[2002:7f00:1::]", "[64:ff9b::a9fe:a9fe]", "[2001:db8::1]", "１２７.0.0.1",
]  # fmt: skip


@pytest.mark.parametrize("host", PRIVATE)
def test_private_literals_are_refused_in_every_spelling(host: str) -> None:
    for text in (f"http://{host}/x.jpg", f"https://user@{host}:8080/"):
        with pytest.raises(RowDropped) as caught:
            check_url(text)
        assert caught.value.status == Status.PRIVATE_ADDRESS
        assert check_url(text, allow_private_addresses=True).host


@pytest.mark.parametrize("host", ["8.8.8.8", "1.1.1.1", "[2606:4700::1111]", "[::ffff:8.8.8.8]", "[64:ff9b::808:808]"])
def test_public_literals_are_not(host: str) -> None:
    assert check_url(f"http://{host}/")


@given(st.ip_addresses(v=4))
def test_an_address_inside_another_is_judged_as_itself(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    for inside in ((0xFFFF << 32) | number, (0x2002 << 112) | (number << 80), (0x64FF9B << 96) | number):
        assert is_public(ipaddress.IPv6Address(inside)) == is_public(address)


class Answers(AbstractResolver):
    """A name server that says what it was told to."""

    def __init__(self, *hosts: str) -> None:
        self.hosts = hosts

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            {"hostname": host, "host": h, "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}
            for h in self.hosts
        ]

    async def close(self) -> None:
        pass


def test_names_lead_to_public_addresses_only() -> None:
    async def resolved(*hosts: str, allow_private_addresses: bool = False) -> list[str]:
        resolver = PublicResolver(Answers(*hosts), allow_private_addresses=allow_private_addresses)
        answers = await resolver.resolve("h.org", 80)
        return [each["host"] for each in answers]

    assert asyncio.run(resolved("8.8.8.8", "10.0.0.1", "::1", "1.1.1.1")) == ["8.8.8.8", "1.1.1.1"]
    assert asyncio.run(resolved("10.0.0.1", allow_private_addresses=True)) == ["10.0.0.1"]
    with pytest.raises(PrivateAddressError) as caught:
        asyncio.run(resolved("127.0.0.1", "fe80::1%2"))
    assert resolver_error_status(caught.value)[0] == Status.PRIVATE_ADDRESS


def test_localhost_is_refused_by_the_system_s_resolver() -> None:
    async def ask() -> None:
        resolver = PublicResolver(system_resolver())
        try:
            await resolver.resolve("localhost", 80, socket.AF_UNSPEC)
        finally:
            await resolver.close()

    with pytest.raises(PrivateAddressError):
        asyncio.run(ask())


def test_names_that_are_not_are_told_from_servers_that_do_not_answer() -> None:
    def of_cares(code: int) -> Status:
        error = OSError(None, "said by c-ares")
        error.__cause__ = aiodns.error.DNSError(code, "said by c-ares")
        return resolver_error_status(error)[0]

    assert of_cares(aiodns.error.ARES_ENOTFOUND) == of_cares(aiodns.error.ARES_ENODATA) == Status.DNS_UNKNOWN
    assert of_cares(aiodns.error.ARES_ETIMEOUT) == of_cares(aiodns.error.ARES_ESERVFAIL) == Status.DNS_TEMPORARY
    assert resolver_error_status(socket.gaierror(socket.EAI_NONAME, ""))[0] == Status.DNS_UNKNOWN
    assert resolver_error_status(socket.gaierror(socket.EAI_AGAIN, ""))[0] == Status.DNS_TEMPORARY


class Fickle(AbstractResolver):
    """A name server of which a name has two addresses at first, and then the second alone."""

    def __init__(self) -> None:
        self.asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked += 1
        hosts = ["127.0.0.2", "127.0.0.1"] if self.asked == 1 else ["127.0.0.2"]
        same = ResolveResult(hostname=host, host="", port=port, family=family, proto=0, flags=0)
        return [{**same, "host": host} for host in hosts]

    async def close(self) -> None:
        pass


def test_a_name_that_changes_its_mind_gains_nothing(
    site: Any, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: in this test's internet 127.0.0.1 is public, and 127.0.0.2 is not."""
    monkeypatch.setattr("dreamloom.scrape.web.address.is_public", lambda ip: str(ip) == "127.0.0.1" or is_public(ip))
    fickle = Fickle()
    monkeypatch.setattr("dreamloom.scrape.web.http.system_resolver", lambda: fickle)
    urls = [site.put(f"/{n}", site.image(n)).replace("127.0.0.1", "fickle.example") for n in range(3)]
    rows = site.scraped(collection, urls, allow_private_addresses=False)
    assert [row["status"] for row in rows] == ["ok"] * 3
    assert fickle.asked == 1
    other = urls[0].replace("fickle", "fickle2")
    rows = site.scraped(collection, [other], allow_private_addresses=False)
    assert [row["status"] for row in rows] == ["private_address"]


@pytest.mark.parametrize(
    ("location", "leads_to"),
    [
        ("c.jpg", "http://h.org/a/c.jpg"),
        ("../c.jpg?d", "http://h.org/c.jpg?d"),
        ("?d", "http://h.org/a/b?d"),
        ("", "http://h.org/a/b?q"),
        (" //other.org/x\n", "http://other.org/x"),
        ("\\\\other.org\\x?\\", "http://other.org/x?\\"),
        ("/\\other.org/x", "http://other.org/x"),
        ("\\x", "http://h.org/x"),
        ("http:c.jpg", "http://h.org/a/c.jpg"),
        ("https:\\\\other.org/x", "https://other.org/x"),
        ("ftp://other.org/x", "ftp://other.org/x"),
    ],
)
def test_redirects_lead_where_browsers_go(location: str, leads_to: str) -> None:
    assert join_url(URL("http://h.org/a/b?q"), location) == leads_to
