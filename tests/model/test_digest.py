"""Digests as JSON: complete round trips, tolerant reading, unknown members kept."""

from __future__ import annotations

import json
from dataclasses import fields
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp.model import digest as module
from dualmem_mcp.model.digest import AgentEntry, Commit, Decision, Digest, Entry, FileEntry, Request, Resumption

_WORDS = st.text(max_size=12)
_TIMES = st.none() | st.integers(0, 4_000_000_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | _WORDS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_WORDS, inner, max_size=2),
    max_leaves=4,
)
_REQUESTS = st.builds(
    Request, text=_WORDS, uuid=_WORDS, timestamp=_TIMES, constraint=st.booleans(), repeats=st.integers(0, 3)
)
_DIGESTS = st.builds(
    Digest,
    title=_WORDS,
    started_at=_TIMES,
    visible_tokens=st.integers(0, 10**6),
    requests=st.lists(_REQUESTS, max_size=3).map(tuple),
    files=st.lists(
        st.builds(FileEntry, path=_WORDS, operations=st.dictionaries(_WORDS, st.integers(0, 9), max_size=2)),
        max_size=2,
    ).map(tuple),
    decisions=st.lists(st.builds(Decision, text=_WORDS, score=st.floats(0, 9)), max_size=2).map(tuple),
    resumption=st.builds(Resumption, interrupted=st.booleans()),
    next_steps=st.lists(_WORDS, max_size=2).map(tuple),
)


@given(_DIGESTS)
def test_a_digest_comes_back_from_json_as_it_was(digest: Digest) -> None:
    assert Digest.from_json(json.loads(json.dumps(digest.to_json()))) == digest


@given(st.dictionaries(_WORDS.filter(lambda name: not name.startswith("_")), _JSON, max_size=4))
def test_members_that_this_version_does_not_know_are_written_again(unknown: dict[str, object]) -> None:
    known = {one.name for cls in (Digest, Request) for one in fields(cls)}
    unknown = {name: value for name, value in unknown.items() if name not in known}
    raw = {**unknown, "title": "t", "requests": [{**unknown, "text": "r"}]}
    assert Digest.from_json(raw).to_json() == raw


@given(st.dictionaries(st.sampled_from([one.name for one in fields(Digest)]), _JSON, max_size=6))
def test_members_of_the_wrong_type_never_break_reading(raw: dict[str, object]) -> None:
    digest = Digest.from_json(raw)
    assert Digest.from_json(digest.to_json()) == digest


@pytest.mark.parametrize("raw", [None, 7, "text", [], [{}], True])
def test_what_is_no_object_reads_as_an_empty_digest(raw: object) -> None:
    assert Digest.from_json(raw) == Digest()


def test_wrong_types_take_the_default_and_right_ones_stay() -> None:
    digest = Digest.from_json(
        {
            "title": 5,
            "visible_tokens": True,
            "started_at": "yesterday",
            "files": [{"path": "a", "operations": {"edit": 2, "x": "y"}}],
            "commands": [{"exit": "1"}, {"exit": 1}],
            "next_steps": ["one", 2],
        }
    )
    assert (digest.title, digest.visible_tokens, digest.started_at) == ("", 0, None)
    assert digest.files[0].operations == {"edit": 2}
    assert [command.exit for command in digest.commands] == [None, 1]
    assert digest.next_steps == ("one",)


def test_times_without_a_zone_are_utc() -> None:
    assert Digest.from_json({"started_at": "2026-03-01T09:00:00"}).started_at == datetime(2026, 3, 1, 9, tzinfo=UTC)


def test_defaults_are_not_written() -> None:
    assert Digest().to_json() == {}
    assert Commit(hash="1a2b3c4", uuid="u").to_json() == {"hash": "1a2b3c4", "uuid": "u"}
    assert AgentEntry().to_json() == {}


def test_every_member_that_holds_entries_is_read_as_such() -> None:
    """A member of entries whose class is not named in the module would stay raw JSON."""
    checked = 0
    for cls in vars(module).values():
        if not (isinstance(cls, type) and issubclass(cls, Entry)):
            continue
        for one in fields(cls):
            if isinstance(one.default, Entry):
                assert isinstance(getattr(cls.from_json({one.name: {"uuid": "u"}}), one.name), type(one.default))
            elif str(one.type).startswith("tuple[") and "str" not in str(one.type):
                [entry] = getattr(cls.from_json({one.name: [{"uuid": "u"}]}), one.name)
                assert isinstance(entry, Entry)
            else:
                continue
            checked += 1
    assert checked > 12
