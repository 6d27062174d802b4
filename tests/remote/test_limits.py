"""What strangers and clients can make the endpoint hold: large, slow, compressed and many requests."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from dataclasses import replace
from pathlib import Path

import anyio
import httpx2 as httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from dualmem_mcp.model.grant import UserId
from dualmem_mcp.remote.interfaces import Caller
from dualmem_mcp.remote.limits import Bodies, ClientLeftError
from dualmem_mcp.remote.options import Limits
from dualmem_mcp.remote.refusals import Refusal
from tests.remote.http_host import AUTHORIZED, CALLER, HOST, listening

MIB = 1 << 20


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


async def answer_shortly(request: Request) -> PlainTextResponse:
    return PlainTextResponse((await request.body()).decode())


# Size


async def test_a_body_of_the_largest_size_comes_whole(tmp_path: Path) -> None:
    async with listening(tmp_path) as host, host.client() as client:
        largest = b"a" * (4 * MIB)
        answer = await client.post("/mcp", headers=AUTHORIZED, content=largest)
        assert answer.status_code == 200
        assert len(host.tenant.seen[0]["body"]) == len(largest)


async def test_a_larger_body_is_refused_by_its_stated_length(tmp_path: Path) -> None:
    async with listening(tmp_path) as host:
        answer = await host.raw(host.head("POST /mcp HTTP/1.1", f"Content-Length: {4 * MIB + 1}"), seconds=0.5)
        assert status(answer) == 413
        assert b"4194304 bytes" in answer
        assert host.tenant.seen == []


@pytest.mark.parametrize("length", ["9" * 15, "9" * 16, "9" * 4_000, "-1", "+5", "1e3", "0x10", "5, 5"])
async def test_no_stated_length_is_trusted(tmp_path: Path, length: str) -> None:
    async with listening(tmp_path) as host:
        answer = await host.raw(host.head("POST /mcp HTTP/1.1", f"Content-Length: {length}"), seconds=0.5)
        assert status(answer) in (400, 413)
        assert host.tenant.seen == []


async def test_a_larger_body_without_a_length_is_refused_while_it_comes(tmp_path: Path) -> None:
    async def chunks():
        for _ in range(64):
            yield b"a" * MIB

    async with listening(tmp_path) as host, host.client() as client:
        try:
            answer = await client.post("/mcp", headers=AUTHORIZED, content=chunks())
        except httpx.TransportError:
            pass  # the rest of the body was no longer read
        else:
            assert answer.status_code == 413
        assert host.tenant.seen == []
        assert host.endpoint._bodies._held.all == 0


async def test_the_answer_reaches_a_client_that_sends_on(tmp_path: Path) -> None:
    async with listening(tmp_path) as host, host.client() as client:
        answer = await client.post("/mcp", headers=AUTHORIZED, content=b"a" * (6 * MIB))
        assert answer.status_code == 413
        again = await client.post("/mcp", headers=AUTHORIZED, content=b"{}")
        assert again.status_code == 200


async def test_strangers_may_send_less(tmp_path: Path) -> None:
    async def echo(request) -> PlainTextResponse:
        return PlainTextResponse(str(len(await request.body())))

    routes = [Route("/oauth/token", echo, methods=["POST"])]
    async with listening(tmp_path, routes=routes) as host, host.client() as client:
        assert (await client.post("/oauth/token", content=b"a" * 65_536)).text == "65536"
        assert (await client.post("/oauth/token", content=b"a" * 65_537)).status_code == 413


async def test_all_bodies_together_have_a_bound(tmp_path: Path) -> None:
    async with listening(tmp_path, limits=Limits(bodies_bytes=3 * MIB)) as host, host.client() as client:
        host.tenant.gate.clear()
        first = asyncio.create_task(client.post("/mcp", headers=AUTHORIZED, content=b"a" * 2 * MIB))
        await host.tenant.has_inside(1)
        second = await client.post("/mcp", headers=AUTHORIZED, content=b"a" * 2 * MIB)
        assert second.status_code == 503
        assert second.headers["retry-after"] == "1"
        host.tenant.gate.set()
        assert (await first).status_code == 200
        assert (await client.post("/mcp", headers=AUTHORIZED, content=b"a" * 2 * MIB)).status_code == 200


# Compressed bodies

_BOMB = gzip.compress(b"\0" * (16 * MIB))


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "br", "zstd", "deflate", "identity, gzip", "x"])
async def test_a_bomb_is_never_unpacked(tmp_path: Path, coding: str) -> None:
    async with listening(tmp_path) as host, host.client() as client:
        answer = await client.post("/mcp", headers={**AUTHORIZED, "Content-Encoding": coding}, content=_BOMB)
        assert answer.status_code == 415
        assert answer.headers["accept-encoding"] == "identity"
        assert host.tenant.seen == []
        plain = await client.post("/mcp", headers={**AUTHORIZED, "Content-Encoding": "identity"}, content=b"{}")
        assert plain.status_code == 200


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("begun", "endless"),
    [(b"1;", b"a"), (b"0\r\n", b"a: bbbbbb\r\n"), (b"0\r\na: ", b"b")],
    ids=["extension of a chunk", "trailers", "one trailer"],
)
async def test_what_is_no_body_ends(tmp_path: Path, method: str, begun: bytes, endless: bytes) -> None:
    async with listening(tmp_path, routes=[Route("/login", answer_shortly, methods=["GET", "POST"])]) as host:
        head = host.head(f"{method} /login HTTP/1.1", "Transfer-Encoding: chunked")
        _, writer = await asyncio.open_connection("127.0.0.1", host.port)
        writer.write(head + begun)
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 16 * MIB:
                writer.write(endless * (65_536 // len(endless)))
                await writer.drain()
                sent += 65_536
        writer.close()
        assert sent < 16 * MIB


async def test_trailers_are_no_headers(tmp_path: Path) -> None:
    seen: list[tuple[str, str]] = []

    async def note(request: Request) -> PlainTextResponse:
        seen.extend(request.headers.items())
        return PlainTextResponse((await request.body()).decode())

    async with listening(tmp_path, routes=[Route("/login", note, methods=["POST"])]) as host:
        head = host.head("POST /login HTTP/1.1", "Transfer-Encoding: chunked", "Connection: close")
        trailers = b"Cookie: session=stolen\r\nOrigin: https://evil.example\r\n"
        answer = await host.raw(head + b"2;name=value\r\nab\r\n0\r\n" + trailers + b"\r\n")
        assert status(answer) == 200
        assert answer.endswith(b"ab")
    assert ("transfer-encoding", "chunked") in seen
    assert not {"cookie", "origin"} & {name for name, _ in seen}


async def test_a_body_of_single_bytes_is_taken(tmp_path: Path) -> None:
    async with listening(tmp_path) as host:
        body = b"1\r\na\r\n" * 20_000 + b"0\r\n\r\n"
        head = host.head("POST /mcp HTTP/1.1", "Transfer-Encoding: chunked", "Connection: close")
        answer = await host.raw(head + body)
        assert status(answer) == 200
        assert len(host.tenant.seen[0]["body"]) == 20_000


# Time


async def test_a_slow_body_is_given_up(tmp_path: Path) -> None:
    async with listening(tmp_path, limits=Limits(body_seconds=0.2)) as host:
        reader, writer = await asyncio.open_connection("127.0.0.1", host.port)
        writer.write(host.head("POST /mcp HTTP/1.1", "Content-Length: 100") + b"a")

        async def trickle() -> None:
            while True:
                await asyncio.sleep(0.05)
                writer.write(b"a")

        trickling = asyncio.create_task(trickle())
        answer = b""
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(5):
                while chunk := await reader.read(1_000):
                    answer += chunk
        trickling.cancel()
        writer.close()
        assert status(answer) == 408
        assert host.tenant.seen == []


@pytest.mark.parametrize(
    "sent",
    [b"", b"P", b"POST /mcp HTTP/1.1\r\n", f"POST /mcp HTTP/1.1\r\nHost: {HOST}\r\nX: ".encode()],
)
async def test_a_slow_head_is_given_up(tmp_path: Path, sent: bytes) -> None:
    async with listening(tmp_path, limits=Limits(header_seconds=0.2)) as host:
        answer = await host.raw(sent)
        assert status(answer) == 408


async def test_a_head_that_trickles_gains_no_time(tmp_path: Path) -> None:
    async with listening(tmp_path, limits=Limits(header_seconds=0.3)) as host:
        reader, writer = await asyncio.open_connection("127.0.0.1", host.port)
        begun = asyncio.get_running_loop().time()
        writer.write(b"POST /mcp HTTP/1.1\r\n")
        answer = b""
        while not reader.at_eof() and asyncio.get_running_loop().time() - begun < 5:
            writer.write(b"X: a\r\n")
            try:
                async with asyncio.timeout(0.05):
                    answer += await reader.read(1_000)
            except TimeoutError:
                continue
            except ConnectionError:
                break
        writer.close()
        assert asyncio.get_running_loop().time() - begun < 2
        assert status(answer) == 408


async def test_the_second_request_of_a_connection_has_no_more_time(tmp_path: Path) -> None:
    async with listening(tmp_path, limits=Limits(header_seconds=0.2)) as host:
        whole = host.head("POST /mcp HTTP/1.1", "Content-Length: 0")
        answer = await host.raw(whole + b"POST /mcp HT")
        assert [status(part) for part in answer.split(b"HTTP/1.1 ")[1:] for part in [b"HTTP/1.1 " + part]] == [
            200,
            408,
        ]


async def test_a_slow_second_head_puts_nothing_into_the_answer_before_it(tmp_path: Path) -> None:
    async with listening(tmp_path, limits=Limits(header_seconds=0.2)) as host:
        host.tenant.kind, host.tenant.parts = b"text/plain", [b"the first part"]
        host.tenant.gate.clear()
        first = host.head("POST /mcp HTTP/1.1", "Content-Length: 2") + b"{}"
        answer = await host.raw(first + b"POST /mcp HTTP/1.1\r\nX: ")
        host.tenant.gate.set()
        assert status(answer) == 200
        assert answer.endswith(b"the first part\r\n")
        assert b" 408 " not in answer


@pytest.mark.parametrize("size", [40_000, 2_000_000])
async def test_a_head_has_a_size(tmp_path: Path, size: int) -> None:
    async with listening(tmp_path) as host:
        for lines in (f"X: {'a' * size}", "\r\n".join(["X: aaaa"] * (size // 9))):
            answer = await host.raw(host.head("POST /mcp HTTP/1.1", lines)[:-2], seconds=2.0)
            assert status(answer) == 431
            whole = await host.raw(host.head("POST /mcp HTTP/1.1", lines), seconds=2.0)
            assert status(whole) in (400, 431)
        assert host.tenant.seen == []


async def test_a_connection_rests_only_so_long(tmp_path: Path) -> None:
    async with listening(tmp_path, limits=Limits(idle_seconds=1)) as host:
        begun = asyncio.get_running_loop().time()
        answer = await host.raw(host.head("POST /mcp HTTP/1.1", "Content-Length: 0"))
        assert status(answer) == 200
        assert 0.9 < asyncio.get_running_loop().time() - begun < 4


async def test_a_refused_body_that_never_comes_does_not_keep_its_connection(tmp_path: Path) -> None:
    async with listening(tmp_path, limits=Limits(header_seconds=0.3)) as host:
        begun = asyncio.get_running_loop().time()
        answer = await host.raw(host.head("POST /mcp HTTP/1.1", f"Content-Length: {99 * MIB}") + b"a")
        assert status(answer) == 413
        assert asyncio.get_running_loop().time() - begun < 3


async def test_a_client_that_does_not_read_is_cut_off(tmp_path: Path) -> None:
    async with listening(tmp_path, limits=Limits(write_seconds=0.3)) as host:
        host.tenant.answer = b"a" * (40 * MIB)
        reader, writer = await asyncio.open_connection("127.0.0.1", host.port, limit=1_000)
        writer.write(host.head("POST /mcp HTTP/1.1", "Content-Length: 0"))
        await asyncio.sleep(1.0)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(40 * MIB)
        writer.close()


async def test_a_request_that_takes_too_long_is_answered_so(tmp_path: Path) -> None:
    async with listening(tmp_path, limits=Limits(request_seconds=0.2)) as host, host.client() as client:
        host.tenant.gate.clear()
        answer = await client.post("/mcp", headers=AUTHORIZED, content=b"{}")
        assert answer.status_code == 504
        assert host.tenant.inside == 0
        host.tenant.kind, host.tenant.parts = b"text/event-stream", (b"data: 1\n\n",)
        answer = await client.post("/mcp", headers=AUTHORIZED, content=b"{}")
        assert answer.text == "data: 1\n\n"  # a stream of events ends as streams do
        host.tenant.kind = b"application/json"
        with pytest.raises(httpx.RemoteProtocolError):  # of any other nobody may take the part for the whole
            await client.post("/mcp", headers=AUTHORIZED, content=b"{}")


# Numbers


async def test_more_requests_than_there_is_room_for_come_again_later(tmp_path: Path) -> None:
    async with listening(tmp_path, limits=Limits(requests=3)) as host, host.client() as client:
        host.tenant.gate.clear()
        running = [asyncio.create_task(client.post("/mcp", headers=AUTHORIZED, content=b"{}")) for _ in range(3)]
        await host.tenant.has_inside(3)
        answer = await client.post("/mcp", headers=AUTHORIZED, content=b"{}")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        host.tenant.gate.set()
        assert [each.status_code for each in await asyncio.gather(*running)] == [200] * 3
        assert (await client.post("/mcp", headers=AUTHORIZED, content=b"{}")).status_code == 200


async def test_one_user_leaves_room_for_the_others(tmp_path: Path) -> None:
    async with listening(tmp_path, limits=Limits(requests_per_user=2)) as host, host.client() as client:
        host.callers.good["bens"] = Caller(replace(CALLER.grant, user=UserId("ben")), b"")
        ben = {"Authorization": "Bearer bens"}
        host.tenant.gate.clear()
        running = [asyncio.create_task(client.post("/mcp", headers=AUTHORIZED, content=b"{}")) for _ in range(2)]
        await host.tenant.has_inside(2)
        assert (await client.post("/mcp", headers=AUTHORIZED, content=b"{}")).status_code == 503
        bens = asyncio.create_task(client.post("/mcp", headers=ben, content=b"{}"))
        await host.tenant.has_inside(3)
        host.tenant.gate.set()
        assert [each.status_code for each in await asyncio.gather(*running, bens)] == [200] * 3
        assert host.endpoint._requests._running.of == {}


async def test_bodies_of_strangers_take_nothing_from_those_who_are_logged_in(tmp_path: Path) -> None:
    async with listening(tmp_path, limits=Limits(stranger_bodies_bytes=50_000)) as host, host.client() as client:
        stalled = b"POST /login HTTP/1.1\r\nHost: memory.example\r\nContent-Length: 60000\r\n\r\n" + b"a" * 45_000
        _, writer = await asyncio.open_connection("127.0.0.1", host.port)
        writer.write(stalled)
        await asyncio.sleep(0.1)
        assert (await client.post("/login", content=b"a" * 10_000)).status_code == 503
        assert (await client.post("/mcp", headers=AUTHORIZED, content=b"a" * 100_000)).status_code == 200
        writer.close()


async def test_one_network_leaves_room_for_the_bodies_of_others(tmp_path: Path) -> None:
    limits = Limits(stranger_bodies_bytes=300_000)
    async with listening(tmp_path, limits=limits) as host, host.client() as client:
        stalled = (
            b"POST /login HTTP/1.1\r\nHost: memory.example\r\nX-Forwarded-For: %s\r\nContent-Length: 60000\r\n\r\n"
        )
        writers = []
        for number in range(8):
            _, writer = await asyncio.open_connection("127.0.0.1", host.port)
            writer.write(stalled % f"2001:db8::{number}".encode() + b"a" * 50_000)
            writers.append(writer)
        await asyncio.sleep(0.2)
        same = await client.post("/login", content=b"a" * 40_000, headers={"X-Forwarded-For": "2001:db8::9"})
        other = await client.post("/login", content=b"a" * 40_000, headers={"X-Forwarded-For": "203.0.113.9"})
        assert (same.status_code, other.status_code) == (503, 404)
        for writer in writers:
            writer.close()
        async with asyncio.timeout(5):
            while host.endpoint._stranger_bodies._held.of:  # noqa: ASYNC110 - nothing else tells
                await asyncio.sleep(0.01)


async def test_strangers_do_not_take_the_room_of_those_who_are_logged_in(tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def slow(_request) -> PlainTextResponse:
        await gate.wait()
        return PlainTextResponse("done")

    limits = Limits(stranger_requests=2)
    async with listening(tmp_path, limits=limits, routes=[Route("/login", slow)]) as host, host.client() as client:
        running = [asyncio.create_task(client.get("/login")) for _ in range(2)]
        await asyncio.sleep(0.1)
        assert (await client.get("/login")).status_code == 503
        assert (await client.post("/mcp", headers=AUTHORIZED, content=b"{}")).status_code == 200
        gate.set()
        assert [each.text for each in await asyncio.gather(*running)] == ["done"] * 2


async def test_streams_have_a_number(tmp_path: Path) -> None:
    async with (
        listening(tmp_path, limits=Limits(streams=2)) as host,
        host.client() as client,
        client.stream("GET", "/mcp", headers=AUTHORIZED) as first,
        client.stream("GET", "/sse", headers=AUTHORIZED) as second,
    ):
        assert (first.status_code, second.status_code) == (200, 200)
        third = await client.get("/mcp", headers=AUTHORIZED)
        assert (third.status_code, third.headers["retry-after"]) == (503, "10")
        # Listening to subscriptions is a stream, too, though it is posted.
        listen = {**AUTHORIZED, "Mcp-Method": "subscriptions/listen"}
        assert (await client.post("/mcp", headers=listen, content=b"{}")).status_code == 503
        assert (await client.post("/mcp", headers=AUTHORIZED, content=b"{}")).status_code == 200


async def test_one_user_leaves_streams_for_the_others(tmp_path: Path) -> None:
    async with listening(tmp_path, limits=Limits(streams_per_user=1)) as host, host.client() as client:
        host.callers.good["bens"] = Caller(replace(CALLER.grant, user=UserId("ben")), b"")
        async with client.stream("GET", "/mcp", headers=AUTHORIZED) as mine:
            assert (await client.get("/sse", headers=AUTHORIZED)).status_code == 503
            async with client.stream("GET", "/mcp", headers={"Authorization": "Bearer bens"}) as bens:
                assert (mine.status_code, bens.status_code) == (200, 200)
        host.endpoint.streams.end_all()
        await anyio.wait_all_tasks_blocked()
        assert host.endpoint.streams._number.of == {}


async def test_connections_at_rest_cost_no_task(tmp_path: Path) -> None:
    async with listening(tmp_path) as host:
        before = len(asyncio.all_tasks())
        held = []
        for number in range(300):
            reader, writer = await asyncio.open_connection("127.0.0.1", host.port)
            if number % 2:
                writer.write(host.head("POST /mcp HTTP/1.1", "Content-Length: 0"))
                await reader.readuntil(b"\r\n\r\n")
            held.append(writer)
        await asyncio.sleep(0.05)
        assert len(asyncio.all_tasks()) == before
        answer = await host.raw(host.head("POST /mcp HTTP/1.1", "Content-Length: 0", "Connection: close"))
        assert status(answer) == 200
        for writer in held:
            writer.close()


async def test_connections_have_a_number(tmp_path: Path) -> None:
    async with listening(tmp_path, limits=Limits(connections=5)) as host:
        held = [await asyncio.open_connection("127.0.0.1", host.port) for _ in range(5)]
        assert status(await host.raw(b"")) == 503
        for _, writer in held:
            writer.close()
        await asyncio.sleep(0.05)
        assert (
            status(await host.raw(host.head("POST /mcp HTTP/1.1", "Content-Length: 0", "Connection: close"))) == 200
        )


async def test_a_connection_that_rests_makes_room_for_a_new_one(tmp_path: Path) -> None:
    async with listening(tmp_path, limits=Limits(connections=3)) as host:
        held = [await asyncio.open_connection("127.0.0.1", host.port) for _ in range(3)]
        for reader, writer in held[:2]:
            writer.write(host.head("POST /mcp HTTP/1.1", "Content-Length: 0"))
            await reader.readuntil(b"\r\n\r\n")
        answer = await host.raw(host.head("POST /mcp HTTP/1.1", "Content-Length: 0", "Connection: close"))
        assert status(answer) == 200
        async with asyncio.timeout(5):
            await held[0][0].read()
        assert held[0][0].at_eof()  # the one that rested longest
        held[1][1].write(host.head("POST /mcp HTTP/1.1", "Content-Length: 0"))
        assert await held[1][0].readuntil(b"\r\n\r\n")
        for _, writer in held:
            writer.close()


async def test_a_stream_of_a_client_that_leaves_is_over(tmp_path: Path) -> None:
    async with listening(tmp_path) as host, host.client() as client:
        async with client.stream("POST", "/mcp", headers=AUTHORIZED, content=b"{}") as answer:
            assert answer.status_code == 200
        async with client.stream("GET", "/mcp", headers=AUTHORIZED):
            assert len(host.endpoint.streams) == 1
        host.endpoint.streams.end_all()  # the tenant of this test does not look whether its client is there
        await asyncio.sleep(0.05)
        assert len(host.endpoint.streams) == 0


# The parts alone


async def test_a_client_that_leaves_while_it_sends_is_answered_nothing() -> None:
    messages = [{"type": "http.request", "body": b"a", "more_body": True}, {"type": "http.disconnect"}]

    async def receive() -> dict:
        return messages.pop(0)

    bodies = Bodies(100, 1_000, 5.0)
    with pytest.raises(ClientLeftError):
        async with bodies.read({"headers": []}, receive):
            raise AssertionError("unreachable")
    assert bodies._held.all == 0


async def test_a_body_in_a_thousand_parts_is_one() -> None:
    parts = [{"type": "http.request", "body": bytes([n % 256]), "more_body": n < 999} for n in range(1_000)]

    async def receive() -> dict:
        return parts.pop(0) if parts else {"type": "http.disconnect"}

    bodies = Bodies(1_000, 1_000, 5.0)
    async with bodies.read({"headers": []}, receive) as whole:
        assert not isinstance(whole, Refusal)
        assert bodies._held.all == 1_000
        message = await whole()
        assert message["body"] == bytes(n % 256 for n in range(1_000))
        assert message["more_body"] is False
        assert (await whole())["type"] == "http.disconnect"
    assert bodies._held.all == 0
