"""Compressed answers: what the client accepts, every byte back, and what is left alone."""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import Callable
from pathlib import Path

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from dualmem_mcp.remote.compression import Compression, coding_for, compress_whole, compressor_for
from tests.remote.http_host import AUTHORIZED, TOKEN, listening

CODINGS = ["zstd", "br", "gzip"]

# A kind of text that is repetitive enough to be worth it, and longer than one window.
LONG = "".join(f"line {number}: the crane lifts 40 t\n" for number in range(12_000)).encode()


def decompressed(coding: str, data: bytes) -> bytes:
    """All of a stream, by the reference implementations."""
    if coding == "zstd":
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    if coding == "br":
        return brotli.decompress(data)
    return zlib.decompress(data, 16 + zlib.MAX_WBITS)


@pytest.mark.parametrize(
    ("accepts", "coding"),
    [
        ("", None),
        ("identity", None),
        ("gzip", "gzip"),
        ("GZIP", "gzip"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip, deflate, br", "br"),
        ("gzip, deflate", "gzip"),
        ("deflate", None),
        ("*", "zstd"),
        ("*;q=0", None),
        ("zstd;q=0, *", "br"),
        ("br;q=0.5, gzip;q=1.0", "gzip"),
        ("br; q=0.5 , gzip;q=0.4", "br"),
        ("identity, gzip;q=0.5", None),
        ("identity;q=0.2, gzip;q=0.5", "gzip"),
        ("gzip;q=0", None),
        ("gzip;q=nan", None),
        ("gzip;q=2", None),
        ("gzip;level=9", None),
        ("x" * 10_000, None),
        (",,;;q=,", None),
        ("zstd;q=0.001", "zstd"),
    ],
)
def test_the_coding_that_the_client_likes_best(accepts: str, coding: str | None) -> None:
    assert coding_for(accepts.encode()) == coding


@given(st.binary(max_size=200))
def test_any_header_gets_an_answer(accepts: bytes) -> None:
    assert coding_for(accepts) in (None, *CODINGS)


@pytest.mark.parametrize("coding", CODINGS)
@given(parts=st.lists(st.binary(max_size=2_000), max_size=8))
def test_parts_come_back_whole(coding: str, parts: list[bytes]) -> None:
    compressor = compressor_for(coding)
    sent = b"".join([*map(compressor.compress, parts), compressor.finish()])
    assert decompressed(coding, sent) == b"".join(parts)
    assert decompressed(coding, compress_whole(coding, b"".join(parts))) == b"".join(parts)


@pytest.mark.parametrize("coding", CODINGS)
def test_after_a_flush_all_so_far_can_be_read(coding: str) -> None:
    compressor = compressor_for(coding)
    reading: dict[str, Callable[[], Callable[[bytes], bytes]]] = {
        "zstd": lambda: zstandard.ZstdDecompressor().decompressobj().decompress,
        "br": lambda: brotli.Decompressor().process,
        "gzip": lambda: zlib.decompressobj(16 + zlib.MAX_WBITS).decompress,
    }
    read = reading[coding]()
    for number in range(5):
        event = f"data: {number} {random.Random(number).random()}\n\n".encode()
        assert read(compressor.compress(event) + compressor.flush()) == event


# Over the wire


async def got(host, **headers: str) -> tuple[dict[str, str], bytes]:
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    answer = await host.raw(host.head("POST /mcp HTTP/1.1", "Content-Length: 0", "Connection: close", *lines))
    head, _, body = answer.partition(b"\r\n\r\n")
    headers: dict[str, str] = {}
    for line in head.decode().split("\r\n")[1:]:
        name, _, value = line.lower().partition(": ")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers, body


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("size", [2 << 10, 100_000, len(LONG)])
async def test_every_byte_comes_back(tmp_path: Path, coding: str, size: int) -> None:
    async with listening(tmp_path) as host:
        host.tenant.answer = LONG[:size]
        headers, body = await got(host, accept_encoding=coding)
        assert headers["content-encoding"] == coding
        assert int(headers["content-length"]) == len(body) < size / 2
        assert "accept-encoding" in headers["vary"]
        assert decompressed(coding, body) == LONG[:size]


async def test_what_is_left_alone(tmp_path: Path) -> None:
    async with listening(tmp_path) as host:
        for answer, kind, accepts in [
            (LONG[:2047], b"application/json", "br"),
            (LONG[:5_000], b"image/png", "br"),
            (LONG[:5_000], b"application/octet-stream", "br"),
            (LONG[:5_000], b"text/html; charset=utf-8", "br"),
            (LONG[:5_000], b"application/json", "identity"),
        ]:
            host.tenant.answer, host.tenant.kind = answer, kind
            headers, body = await got(host, accept_encoding=accepts)
            assert "content-encoding" not in headers
            assert body == answer
        host.tenant.kind = b"application/json"
        headers, _ = await got(host)
        assert "accept-encoding" in headers["vary"]  # for a cache: others get another answer


@pytest.mark.parametrize("coding", CODINGS)
async def test_events_of_a_call_are_readable_as_they_come(tmp_path: Path, coding: str) -> None:
    async with listening(tmp_path) as host:
        host.tenant.kind = b"text/event-stream"
        host.tenant.parts = (b"data: first\n\n",)
        host.tenant.gate.clear()
        reader, writer = await asyncio.open_connection("127.0.0.1", host.port)
        writer.write(host.head("POST /mcp HTTP/1.1", "Content-Length: 0", f"Accept-Encoding: {coding}"))
        head = await reader.readuntil(b"\r\n\r\n")
        assert f"content-encoding: {coding}".encode() in head
        sent = bytearray()
        while not sent:  # the call is still running: only a flush can have sent this
            sent += await reader.readexactly(int((await reader.readline()).strip(), 16))
            await reader.readexactly(2)
        decoder = {
            "zstd": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
            "br": lambda data: brotli.Decompressor().process(data),
            "gzip": lambda data: zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(data),
        }[coding]
        assert decoder(bytes(sent)) == b"data: first\n\n"
        host.tenant.gate.set()
        assert await reader.readuntil(b"0\r\n\r\n")
        writer.close()


async def test_streams_without_an_end_are_not_compressed(tmp_path: Path) -> None:
    async with listening(tmp_path) as host, host.client() as client:
        headers = {**AUTHORIZED, "Accept-Encoding": "br"}
        async with client.stream("GET", "/mcp", headers=headers) as answer:
            assert "content-encoding" not in answer.headers
            async for part in answer.aiter_raw():
                assert part == b": there\n\n"
                break


async def test_pages_and_logins_are_not_compressed(tmp_path: Path) -> None:
    """BREACH: a secret beside what a stranger chose."""

    async def page(request) -> Response:
        return HTMLResponse(f"<p>{request.query_params.get('q', '')}<input value={TOKEN}>" + "x" * 5_000)

    async def token(_request) -> Response:
        return JSONResponse({"access_token": TOKEN, "padding": "x" * 5_000})

    async def style(_request) -> Response:
        return Response("body { color: black }\n" * 500, media_type="text/css")

    routes = [Route("/search", page), Route("/oauth/token", token, methods=["POST"]), Route("/static/x.css", style)]
    async with listening(tmp_path, routes=routes) as host, host.client() as client:
        headers = {"Accept-Encoding": "br, gzip"}
        assert "content-encoding" not in (await client.get(f"/search?q={TOKEN}", headers=headers)).headers
        assert "content-encoding" not in (await client.post("/oauth/token", headers=headers)).headers
        styled = await client.get("/static/x.css", headers=headers)
        assert styled.headers["content-encoding"] == "br"
        assert styled.text.startswith("body { color: black }")


async def test_parts_of_an_answer_that_is_no_stream() -> None:
    """As a download of many parts comes: compressed as a whole, without a length."""
    sent: list[dict] = []

    async def application(_scope, _receive, send) -> None:
        headers = [(b"content-type", b"application/x-ndjson"), (b"etag", b'"1"')]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for start in range(0, len(LONG), 1 << 16):
            await send({"type": "http.response.body", "body": LONG[start : start + (1 << 16)], "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def send(message: dict) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/export", "headers": [(b"accept-encoding", b"zstd")]}
    await Compression(application)(scope, None, send)
    assert {name for name, _ in sent[0]["headers"]} == {b"content-type", b"vary", b"content-encoding"}
    assert decompressed("zstd", b"".join(message["body"] for message in sent[1:])) == LONG
    assert sent[-1].get("more_body", False) is False
