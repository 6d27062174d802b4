"""Messages and events survive the way to the client, whatever they hold."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp.remote import wire

# Halves of surrogate pairs too: JavaScript clients make them.
TEXT = st.text(st.characters(codec=None, min_codepoint=0, max_codepoint=0x1FFFF)) | st.text(
    st.sampled_from('\x0a\x0d\x85\u2028\u2029\x0b\x1c\ud83d\ude00\\"a')
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_a_value_comes_back_from_its_bytes(value: Any) -> None:
    # Two halves that meet are one character, as in any JSON.
    assert wire.parse(wire.dump(value)) == json.loads(json.dumps(value))


@given(VALUES)
def test_an_event_is_three_lines_to_whoever_splits_them(value: Any) -> None:
    frame = wire.event(wire.dump(value)).decode()
    name, data, end = frame.splitlines()
    assert (name, end) == ("event: message", "")
    assert wire.parse(data.removeprefix("data: ").encode()) == json.loads(json.dumps(value))


@given(st.binary(max_size=64))
def test_any_bytes_are_a_value_or_unfit(body: bytes) -> None:
    with contextlib.suppress(wire.UnfitBodyError):
        assert wire.checked_message(wire.parse(body))["jsonrpc"] == "2.0"


@given(VALUES)
def test_whatever_is_taken_for_a_message_has_its_parts(value: Any) -> None:
    message = {"jsonrpc": "2.0", "method": value, "id": value, "params": value}
    for given_parts in (message, {**message, "method": "m"}, {**message, "id": 1}, {**message, "params": {}}):
        try:
            checked = wire.checked_message(given_parts)
        except wire.UnfitBodyError:
            continue
        assert isinstance(checked["method"], str)
        assert type(checked["id"]) in {int, str}
        assert checked["params"] is None or isinstance(checked["params"], dict)


@pytest.mark.parametrize(
    ("given_types", "json_too", "stream_too"),
    [
        ([], True, False),
        (["*/*"], True, True),
        (["application/json"], True, False),
        (["text/event-stream"], False, True),
        (["application/json", "text/event-stream"], True, True),
        (["Application/JSON ; q=1 , TEXT/event-stream;q=0.5"], True, True),
        (["text/*"], False, True),
        (["text/html"], False, False),
        ([""], True, False),
    ],
)
def test_what_a_client_takes_is_what_it_says(given_types: list[str], json_too: bool, stream_too: bool) -> None:
    scope = {"headers": [(b"accept", each.encode()) for each in given_types]}
    assert wire.accepted(scope) == wire.Accept(json_too, stream_too)


async def test_a_body_that_is_too_long_or_breaks_off_is_unfit() -> None:
    def receiving(*messages: dict[str, Any]) -> Any:
        left = iter(messages)

        async def receive() -> Any:
            return next(left)

        return receive

    whole = receiving(
        {"type": "http.request", "body": b"ab", "more_body": True}, {"type": "http.request", "body": b"c"}
    )
    assert await wire.read_body(whole, 3) == b"abc"
    with pytest.raises(wire.UnfitBodyError) as long:
        await wire.read_body(receiving({"type": "http.request", "body": b"abcd", "more_body": True}), 3)
    assert long.value.status == 413
    with pytest.raises(wire.UnfitBodyError):
        await wire.read_body(receiving({"type": "http.disconnect"}), 3)
