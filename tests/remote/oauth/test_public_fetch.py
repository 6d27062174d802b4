"""Documents from the public internet, and from nowhere else."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import socket
import ssl
from contextlib import asynccontextmanager

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp.remote.oauth.public_fetch import FetchError, PublicFetcher, is_public

HOST = "client.example"


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A certificate of `client.example` and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return path


@asynccontextmanager
async def server(certificate, *answers: bytes, forever: bytes = b"", pause: float = 0.0):
    """A TLS server on loopback that says each of the answers to one connection, and what it was asked."""
    asked: list[bytes] = []
    waiting = list(answers)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    async def answer(reader, writer):
        try:
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(waiting.pop(0) if len(waiting) > 1 else waiting[0])
            await writer.drain()
            while forever:
                writer.write(forever)
                await writer.drain()
                await asyncio.sleep(pause)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with listening:
        yield listening.sockets[0].getsockname()[1], asked


def fetcher(certificate, port: int, *addresses: str, **other) -> PublicFetcher:
    """Takes loopback for a public address, so that there is something to fetch from."""

    async def resolve(_: str):
        return addresses or ("127.0.0.1",)

    trusting = ssl.create_default_context(cafile=str(certificate))
    return PublicFetcher(
        **{
            "resolve": resolve,
            "is_public": lambda address: address == "127.0.0.1" or is_public(address),
            "port": port,
            "context": trusting,
            **other,
        }
    )


def ok(body: bytes, *headers: bytes) -> bytes:
    lines = [
        b"HTTP/1.1 200 OK",
        b"Content-Type: Application/JSON; charset=utf-8",
        b"Content-Length: %d" % len(body),
    ]
    return b"\r\n".join([*lines, *headers, b"", body])


async def test_a_document_is_fetched(certificate):
    async with server(certificate, ok(b'{"a": 1}', b"Cache-Control: Max-Age=60")) as (port, asked):
        document = await fetcher(certificate, port).fetch(HOST, "/client.json?v=1")
    assert (document.body, document.media_type, document.cache_control) == (
        b'{"a": 1}',
        "application/json",
        "max-age=60",
    )
    assert asked[0].startswith(b"GET /client.json?v=1 HTTP/1.1\r\n")
    assert b"Host: client.example\r\n" in asked[0]
    for name in (b"Cookie", b"Authorization", b"Referer"):
        assert name not in asked[0]


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.1.2.3",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "192.0.2.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:8.8.8.8",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::a00:1",
        "2002:7f00:1::",
        "2002:a00:1::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "2001:db8::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
        "100::1",
        "localhost",
        "",
        "0x7f000001",
        "2130706433",
    ],
)
def test_addresses_that_are_not_of_the_public_internet(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "160.79.104.10", "2606:4700::1111", "2a00:1450:4001::1"])
def test_addresses_that_are(address):
    assert is_public(address)


@given(st.ip_addresses(v=4, network="10.0.0.0/8") | st.ip_addresses(v=4, network="192.168.0.0/16"))
def test_no_dress_makes_a_private_address_public(ip):
    packed = int(ip)
    for dressed in (
        ipaddress.IPv6Address(0xFFFF << 32 | packed),
        ipaddress.IPv6Address(packed),
        ipaddress.IPv6Address((0x2002 << 112) | packed << 80),
        ipaddress.IPv6Address((0x64FF9B << 96) | packed),
    ):
        assert not is_public(str(dressed))


@pytest.mark.parametrize(
    "addresses",
    [
        ("10.0.0.1",),
        ("127.0.0.1", "10.0.0.1"),
        ("10.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "::ffff:10.0.0.1"),
        ("127.0.0.1", "fe80::1%lo"),
        tuple("127.0.0.1" for _ in range(17)),
    ],
)
async def test_a_name_with_any_address_inside_is_not_asked(certificate, addresses):
    """DNS that answers a public and a private address, too: of which one would be connected to is left to luck."""
    async with server(certificate, ok(b"{}")) as (port, asked):
        with pytest.raises(FetchError, match="not a server of the public internet"):
            await fetcher(certificate, port, *addresses).fetch(HOST, "/c")
    assert asked == []


async def test_loopback_is_not_public_without_a_test(certificate):
    async with server(certificate, ok(b"{}")) as (port, asked):
        with pytest.raises(FetchError, match="not a server of the public internet"):
            await fetcher(certificate, port, is_public=is_public).fetch(HOST, "/c")
    assert asked == []


async def test_the_name_is_resolved_once_and_the_connection_goes_to_what_was_checked(certificate):
    """DNS that gives another answer the second time (rebinding) is not asked a second time."""
    answers = [("127.0.0.1",), ("10.0.0.1",)]
    asked_for = []

    async def resolve(host: str):
        asked_for.append(host)
        return answers.pop(0)

    async with server(certificate, ok(b"{}")) as (port, asked):
        await fetcher(certificate, port, resolve=resolve).fetch(HOST, "/c")
    assert asked_for == [HOST]
    assert len(asked) == 1


@pytest.mark.parametrize(
    "status", [b"301 Moved", b"302 Found", b"307 Temporary", b"404 Not", b"500 Broken", b"204 No"]
)
async def test_only_a_document_itself_counts_and_no_redirect_is_followed(certificate, status):
    redirect = b"HTTP/1.1 " + status + b"\r\nLocation: https://127.0.0.1/\r\nContent-Length: 0\r\n\r\n"
    async with server(certificate, redirect, ok(b"{}")) as (port, asked):
        with pytest.raises(FetchError, match=f"status {status[:3].decode()}"):
            await fetcher(certificate, port).fetch(HOST, "/c")
    assert len(asked) == 1


@pytest.mark.parametrize(
    "answer",
    [
        ok(b"x" * ((64 << 10) + 1)),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"2000\r\n" + b"x" * 0x2000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
    ],
)
async def test_a_huge_document_is_not_read_to_its_end(certificate, answer):
    forever = b"2000\r\n" + b"x" * 0x2000 + b"\r\n" if b"chunked" in answer else b"x" * 0x2000
    async with server(certificate, answer, forever=forever) as (port, _):
        with pytest.raises(FetchError, match="more than 64 KiB"):
            await fetcher(certificate, port).fetch(HOST, "/c")


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\n", ok(b"{}").replace(b"Length: 2", b"Length: 900")])
async def test_a_slow_server_is_left(certificate, answer):
    async with server(certificate, answer, forever=b"x", pause=0.05) as (port, _):
        with pytest.raises(FetchError, match=r"in time|web server"):
            await fetcher(certificate, port, total_seconds=0.3).fetch(HOST, "/c")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * (64 << 10) + b"\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\n\r\n",
    ],
)
async def test_what_is_no_answer_is_refused(certificate, answer):
    async with server(certificate, answer) as (port, _):
        with pytest.raises(FetchError):
            await fetcher(certificate, port).fetch(HOST, "/c")


async def test_a_certificate_of_another_name_or_issuer_is_refused(certificate):
    async with server(certificate, ok(b"{}")) as (port, asked):
        with pytest.raises(FetchError, match="certificate"):
            await fetcher(certificate, port).fetch("other.example", "/c")
        with pytest.raises(FetchError, match="certificate"):
            await fetcher(certificate, port, context=None).fetch(HOST, "/c")
    assert asked == []


async def test_nobody_there_is_told(certificate):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(FetchError, match="cannot be reached"):
        await fetcher(certificate, port).fetch(HOST, "/c")


async def test_a_name_without_address_is_told():
    with pytest.raises(FetchError, match="has no address"):
        await PublicFetcher().fetch("a" * 64 + ".invalid", "/c")
