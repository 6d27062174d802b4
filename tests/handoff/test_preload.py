"""The preload section: what goes in comes out, and nothing else than that is taken for one."""

from __future__ import annotations

import json
import struct
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualmem_mcp.errors import TamperedError
from dualmem_mcp.handoff.preload import (
    MAX_TEXT,
    PreloadEntry,
    PreloadSet,
    preload_from_bytes,
    preload_to_bytes,
    shortened,
)
from dualmem_mcp.model.device import SMALL_CACHE
from dualmem_mcp.model.search import COLLECTION_OF, SearchItem, item_key

CONVERSATION = "harbour"
DIMENSIONS = 6


def vector(first: int = 7) -> bytes:
    return struct.pack("6b", first, -127, 127, 0, 1, -1)


def own(number: int = 0, *, text: str = "we take the *blue* winch", has_vector: bool = True) -> PreloadEntry:
    item = SearchItem(
        item_key("turn", CONVERSATION, f"t{number}"),
        "turn",
        text,
        CONVERSATION,
        f"t{number}",
        "user",
        datetime(2026, 2, 3, 4, 5, 6, 7, UTC),
        "desk",
    )
    return PreloadEntry(item.key, 1.0, item, vector() if has_vector else b"")


def other(number: int = 0) -> PreloadEntry:
    return PreloadEntry(item_key("entity", f"mast {number}"), 0.875, None, vector(first=number % 100))


def packed(*entries: PreloadEntry) -> bytes:
    return preload_to_bytes(PreloadSet("minilm", DIMENSIONS, entries))


def lines_of(data: bytes, count: int) -> tuple[list[dict], bytes]:
    """The section's objects, and what follows them."""
    parts = data.split(b"\n", count)
    return [json.loads(part) for part in parts[:count]], parts[count]


def rebuilt(lines: list[dict], tail: bytes) -> bytes:
    compact = (json.dumps(line, sort_keys=True, separators=(",", ":")).encode() + b"\n" for line in lines)
    return b"".join(compact) + tail


def changed(data: bytes, lines_before: int, line: int, **values: object) -> bytes:
    lines, tail = lines_of(data, lines_before)
    lines[line] = {name: value for name, value in (lines[line] | values).items() if value is not ...}
    return rebuilt(lines, tail)


_NAMES = st.text(max_size=40)
_ITEMS = st.builds(
    lambda kind, tail, text, turn, author, device, at: SearchItem(
        f"{kind}/{CONVERSATION}/{tail}", kind, text, CONVERSATION, turn, author, at, device
    ),
    st.sampled_from(sorted(COLLECTION_OF)),
    _NAMES,
    st.text(max_size=MAX_TEXT),
    _NAMES,
    _NAMES,
    _NAMES,
    st.none() | st.datetimes(timezones=st.just(UTC)),
)
_VECTORS = st.just(b"") | st.binary(min_size=DIMENSIONS, max_size=DIMENSIONS)
_ENTRIES = st.one_of(
    st.builds(
        lambda item, relevance, vector: PreloadEntry(item.key, relevance / 1000, item, vector),
        _ITEMS,
        st.integers(0, 1000),
        _VECTORS,
    ),
    st.builds(
        lambda key, relevance, vector: PreloadEntry(key, relevance / 1000, None, vector),
        st.text(max_size=60),
        st.integers(0, 1000),
        _VECTORS,
    ),
)


@given(st.lists(_ENTRIES, max_size=12, unique_by=lambda entry: entry.key))
def test_what_goes_in_comes_out(entries: list[PreloadEntry]) -> None:
    data = packed(*entries)
    found = preload_from_bytes(data, CONVERSATION) if entries else PreloadSet()
    assert list(found.entries) == entries
    assert bool(data) == bool(entries)
    assert preload_to_bytes(found) == data
    if any(entry.vector for entry in entries):
        assert (found.model_id, found.dimensions) == ("minilm", DIMENSIONS)


@settings(max_examples=300)
@given(st.data())
def test_whatever_is_changed_is_tampering_or_within_bounds(data: st.DataObject) -> None:
    section = bytearray(packed(own(), other(), own(1, has_vector=False)))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(section) - 1))
        section[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        found = preload_from_bytes(bytes(section), CONVERSATION)
    except TamperedError:
        return
    for entry in found.entries:
        assert len(entry.vector) in {0, found.dimensions}
        assert 0 <= entry.relevance <= 1
        assert entry.item is None or entry.item.conversation_id == CONVERSATION


WHOLE = packed(own(), other())
HOSTILE = {
    "nothing": b"",
    "no line": b"{}",
    "no JSON": b"x\n" + WHOLE,
    "not canonical": WHOLE.replace(b'"count":2', b'"count": 2'),
    "another format": changed(WHOLE, 3, 0, format=2),
    "fewer entries": changed(WHOLE, 3, 0, count=1),
    "more entries": changed(WHOLE, 3, 0, count=3),
    "very many entries": changed(WHOLE, 3, 0, count=SMALL_CACHE + 1),
    "a negative count": changed(WHOLE, 3, 0, count=-1),
    "other dimensions": changed(WHOLE, 3, 0, dimensions=DIMENSIONS + 1),
    "no dimensions": changed(WHOLE, 3, 0, dimensions=0),
    "huge dimensions": changed(WHOLE, 3, 0, dimensions=1 << 40),
    "a long model": changed(WHOLE, 3, 0, model="m" * 300),
    "a vector less": changed(WHOLE, 3, 1, vector=False),
    "a vector that is a number": changed(WHOLE, 3, 1, vector=1),
    "the end is cut": WHOLE[:-1],
    "something behind": WHOLE + b"\0",
    "twice the same key": changed(WHOLE, 3, 2, key=own().key),
    "no key": changed(WHOLE, 3, 2, key=...),
    "a long key": changed(WHOLE, 3, 2, key="k" * 600),
    "a text of another conversation": changed(WHOLE, 3, 1, key="turn/kiln/t0"),
    "a text of a conversation that begins alike": changed(WHOLE, 3, 1, key=f"turn/{CONVERSATION}s/t0"),
    "another kind than its key says": changed(WHOLE, 3, 1, kind="note"),
    "an unknown kind": changed(WHOLE, 3, 1, kind="turns"),
    "a long text": changed(WHOLE, 3, 1, text="x" * (MAX_TEXT + 1)),
    "no text but a number": changed(WHOLE, 3, 1, text=5),
    "a long author": changed(WHOLE, 3, 1, author="x" * 600),
    "no time": changed(WHOLE, 3, 1, timestamp="yesterday"),
    "a time without a zone": changed(WHOLE, 3, 1, timestamp="2026-02-03T04:05:06"),
    "a relevance above 1": changed(WHOLE, 3, 1, relevance=1001),
    "a relevance that is none": changed(WHOLE, 3, 1, relevance=0.5),
    "a very long line": b"[" * (1 << 20) + b"\n" + WHOLE,
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_section_is_tampering(data: bytes) -> None:
    with pytest.raises(TamperedError, match="preload"):
        preload_from_bytes(data, CONVERSATION)


def test_the_format_is_what_it_was() -> None:
    """What an earlier version wrote; not to be changed."""
    data = (
        b'{"count":3,"dimensions":6,"format":1,"model":"minilm"}\n'
        b'{"author":"user","device":"desk","key":"turn/harbour/t0","kind":"turn","relevance":1000,'
        b'"text":"a \\u2192 b","timestamp":"2026-02-03T04:05:06.000007+00:00","turn_id":"t0","vector":true}\n'
        b'{"key":"entity/mast 0","relevance":875,"vector":true}\n'
        b'{"author":"user","device":"desk","key":"turn/harbour/t1","kind":"turn","relevance":1000,"text":"c",'
        b'"timestamp":"2026-02-03T04:05:06.000007+00:00","turn_id":"t1","vector":false}\n'
        b"\x07\x81\x7f\x00\x01\xff"
        b"\x00\x81\x7f\x00\x01\xff"
    )
    entries = [own(text="a → b"), other(), own(1, text="c", has_vector=False)]
    assert packed(*entries) == data
    assert preload_from_bytes(data, CONVERSATION) == PreloadSet("minilm", DIMENSIONS, entries)


def test_a_member_that_is_not_known_is_passed_over() -> None:
    data = changed(changed(WHOLE, 3, 0, new="of a later version"), 3, 2, text_of="later")
    assert preload_from_bytes(data, CONVERSATION).entries == [own(), other()]


def test_without_vectors_nothing_is_said_of_a_model() -> None:
    found = preload_from_bytes(packed(own(has_vector=False)), CONVERSATION)
    assert (found.model_id, found.dimensions) == ("", 0)


def test_the_writer_keeps_to_the_bounds_of_the_reader() -> None:
    many = [own(number, text="\U0001f30a" * MAX_TEXT) for number in range(400)]
    data = packed(PreloadEntry("k" * 600, 1.0, None, b""), *many)
    found = preload_from_bytes(data, CONVERSATION).entries
    assert 100 < len(found) < 400
    assert list(found) == many[: len(found)]
    short = [other(number) for number in range(SMALL_CACHE + 5)]
    assert preload_from_bytes(packed(*short), CONVERSATION).entries == short[:SMALL_CACHE]


def test_of_a_long_text_beginning_and_end_travel() -> None:
    text = "first " + "word " * 2_000 + "last"
    item = shortened(own(text=text).item)
    assert len(item.text) <= MAX_TEXT
    assert item.text.startswith("first ")
    assert item.text.endswith(" last")
    assert shortened(own().item) == own().item
