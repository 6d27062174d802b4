from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCNotification, JSONRPCRequest, JSONRPCResponse

from dualmem_mcp.server.stdio import Wire, parse, serialize, wire_streams

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=10,
)


@given(json_values)
def test_a_message_survives_the_wire_whatever_its_texts_hold(value: Any) -> None:
    """Half surrogate pairs too: JavaScript clients send them, and expect them back."""
    line = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "m", "params": {"value": value}}).encode()
    message = parse(line)
    assert isinstance(message, JSONRPCRequest)
    assert message.params == {"value": value}
    written = serialize(message)
    assert written.endswith(b"\n")
    assert written.count(b"\n") == 1
    assert json.loads(written)["params"] == {"value": value}


def test_deep_nesting_is_read(caplog: pytest.LogCaptureFixture) -> None:
    line = b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"x":' + b"[" * 300 + b"]" * 300 + b"}}"
    message = parse(line)
    assert isinstance(message, JSONRPCRequest)
    assert message.id == 1
    assert json.loads(serialize(message))["params"] == message.params


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[]",
        b"7",
        b'"text"',
        b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]',
        b'{"jsonrpc":"1.0","id":1,"method":"ping"}',
        b'{"jsonrpc":"2.0","id":1}',
        b'{"jsonrpc":"2.0","id":1,"method":"m","params":[]}',
        b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"x":"\\ud800", "y":NaN}}',
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
    ],
)
def test_what_is_no_message_is_skipped_with_a_word_in_the_log(
    line: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    assert parse(line) is None
    assert caplog.messages == [f"skipped {len(line)} bytes of input that are not a JSON-RPC message"]


@pytest.mark.parametrize("number", ["9" * 100, "9" * 10_000, "1e999", "-0.0", "1e-999"])
def test_no_number_ends_the_reading(number: str) -> None:
    parsed = parse(b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"x":' + number.encode() + b"}}")
    assert parsed is None or parsed.id == 1
    assert parse(b'{"jsonrpc":"2.0","id":2,"method":"m"}').id == 2


async def test_a_message_that_cannot_be_written_raises_where_it_came_from(pipes: Pipes) -> None:
    message = SessionMessage(JSONRPCNotification(jsonrpc="2.0", method="n", params={"x": object()}))

    async def serve() -> None:
        async with wire_streams(pipes.wire) as (_, outgoing):
            await outgoing.send(message)
            await anyio.sleep_forever()

    with anyio.fail_after(10), pytest.raises(ExceptionGroup) as caught:
        await serve()
    assert caught.group_contains(TypeError)


def test_empty_lines_are_skipped_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    assert parse(b"") is None
    assert parse(b" \r") is None
    assert caplog.messages == []


class Pipes:
    """The client's ends of two pipes, and the wire that the server holds."""

    def __init__(self) -> None:
        incoming, self.to_server = os.pipe()
        self.from_server, outgoing = os.pipe()
        self.wire = Wire(incoming, outgoing)

    def write(self, *messages: dict[str, Any]) -> None:
        os.write(self.to_server, b"".join(json.dumps(message).encode() + b"\n" for message in messages))

    def close_input(self) -> None:
        os.close(self.to_server)

    def read(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in os.read(self.from_server, 1 << 16).splitlines()]


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    pipes = Pipes()
    yield pipes
    # The threads of the streams may still be at work on the server's ends; they end with the client's.
    for descriptor in (pipes.to_server, pipes.from_server):
        with suppress(OSError):
            os.close(descriptor)


def request(identity: int | str, method: str = "m", **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": identity, "method": method, "params": params}


def response(identity: int | str) -> SessionMessage:
    return SessionMessage(JSONRPCResponse(jsonrpc="2.0", id=identity, result={}))


async def test_a_message_cut_into_pieces_arrives_whole(pipes: Pipes) -> None:
    line = json.dumps(request(1, text="x" * 200_000)).encode()
    async with wire_streams(pipes.wire) as (incoming, _):
        with anyio.fail_after(10):
            await anyio.to_thread.run_sync(os.write, pipes.to_server, line[:100])
            await anyio.to_thread.run_sync(_write_all, pipes.to_server, line[100:] + b"\n" + line[:50])
            message = await incoming.receive()
    assert isinstance(message, SessionMessage)
    assert message.message.params["text"] == "x" * 200_000


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


async def test_input_that_ends_without_a_line_end_still_counts(pipes: Pipes) -> None:
    os.write(pipes.to_server, json.dumps({"jsonrpc": "2.0", "method": "n"}).encode())
    pipes.close_input()
    async with wire_streams(pipes.wire) as (incoming, _):
        with anyio.fail_after(10):
            received = [item async for item in incoming]
    assert [item.message for item in received] == [JSONRPCNotification(jsonrpc="2.0", method="n")]


async def test_the_input_ends_only_when_every_request_is_answered(pipes: Pipes) -> None:
    pipes.write(request(1), request("two"), request(3), request(4, "subscriptions/listen"))
    pipes.write({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "3"}})
    pipes.close_input()
    ended = anyio.Event()
    async with wire_streams(pipes.wire) as (incoming, outgoing), anyio.create_task_group() as tasks:

        async def until_the_end() -> None:
            async for _ in incoming:
                pass
            ended.set()

        with anyio.fail_after(10):
            tasks.start_soon(until_the_end)
            await outgoing.send(response(1))
            await anyio.wait_all_tasks_blocked()
            assert not ended.is_set()
            await outgoing.send(response("two"))
            await ended.wait()
    assert [message["id"] for message in pipes.read()] == [1, "two"]


async def test_a_client_that_reads_no_more_ends_both_streams(pipes: Pipes) -> None:
    ended: list[str] = []
    os.close(pipes.from_server)
    with anyio.fail_after(10):
        async with wire_streams(pipes.wire) as (incoming, outgoing):
            await outgoing.send(response(1))
            with pytest.raises(anyio.get_cancelled_exc_class()):
                await incoming.receive()  # there is nobody to serve
            with pytest.raises(anyio.get_cancelled_exc_class()):
                await outgoing.send(response(2))
            ended.append("both")
    assert ended == ["both"]


async def test_a_client_that_does_not_read_holds_nobody_else_up(pipes: Pipes) -> None:
    big = SessionMessage(JSONRPCNotification(jsonrpc="2.0", method="n", params={"text": "x" * 1_000_000}))
    async with wire_streams(pipes.wire) as (incoming, outgoing):
        with anyio.fail_after(10):
            await outgoing.send(big)  # more than a pipe holds
            await anyio.wait_all_tasks_blocked()
            pipes.write(request(1))
            assert (await incoming.receive()).message.id == 1
            received = 0
            while received < 1_000_000:
                received += len(await anyio.to_thread.run_sync(os.read, pipes.from_server, 1 << 16))
