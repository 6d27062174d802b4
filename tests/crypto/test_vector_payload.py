"""Sealed payloads of points: they open at their own point, epoch and vault, unchanged, or not at all."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualmem_mcp import errors
from dualmem_mcp.crypto.vector_payload import MAX_SEALED_BYTES, VectorPayload, open_payload, seal_payload
from dualmem_mcp.crypto.vectors import VectorKeys
from dualmem_mcp.errors import TamperedError, UsageError
from dualmem_mcp.model.search import COLLECTION_OF, SearchItem
from tests.crypto.test_vectors import GOLDEN, keys, unit_vectors

ITEM = SearchItem(
    key="turn/c/t1",
    kind="turn",
    text="We moor at the north quay.",
    conversation_id="c",
    turn_id="t1",
    author="Ada",
    timestamp=datetime(2026, 3, 1, 12, 0, 0, 250_000, UTC),
    device="desk",
)
VECTOR = unit_vectors(1, 8)[0].astype(np.float16).astype(np.float32)
PAYLOAD = VectorPayload(ITEM, 3, "some-model", VECTOR, "turn/c/t0")


def point_of(own: VectorKeys, payload: VectorPayload) -> str:
    return own.point_id(payload.item.key, payload.passage)


def assert_same(opened: VectorPayload, payload: VectorPayload) -> None:
    assert (opened.item, opened.passage, opened.previous) == (payload.item, payload.passage, payload.previous)
    assert opened.model_id == payload.model_id
    assert opened.vector.dtype == np.float32
    assert np.array_equal(opened.vector, payload.vector)


# As another program writes it


@pytest.fixture(scope="module")
def golden_keys() -> VectorKeys:
    return VectorKeys(bytes.fromhex(GOLDEN["epoch_key"]), GOLDEN["vault_id"], GOLDEN["epoch"])


@pytest.mark.parametrize("made", GOLDEN["payloads"], ids=lambda made: made["item"]["key"])
def test_payloads_are_the_formats(golden_keys, made):
    opened = open_payload(golden_keys, made["id"], bytes.fromhex(made["sealed"]))
    told = dict(made["item"])
    assert (opened.passage, opened.model_id) == (told.pop("passage"), told.pop("model"))
    assert opened.previous == told.pop("previous")
    time = told.pop("timestamp")
    assert opened.item == SearchItem(**told, timestamp=time and datetime.fromisoformat(time))
    assert opened.vector.tolist() == made["vector"]
    assert seal_payload(golden_keys, opened).hex() == made["sealed"]


@pytest.mark.parametrize("name", GOLDEN["hostile"])
def test_hostile_payloads_are_refused(golden_keys, name):
    made = GOLDEN["hostile"][name]
    with pytest.raises(errors.DualmemError) as caught:
        open_payload(golden_keys, made["id"], bytes.fromhex(made["sealed"]))
    assert type(caught.value) is getattr(errors, made["error"])
    assert caught.value.hint


# Laws


texts = st.text(st.characters(codec=None), max_size=300)
times = st.none() | st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=5))])).filter(
    lambda time: 1 < time.year < 9999
)
items = st.builds(
    SearchItem,
    key=texts,
    kind=st.sampled_from(list(COLLECTION_OF)),
    text=texts,
    conversation_id=texts,
    turn_id=texts,
    author=texts,
    timestamp=times,
    device=texts,
)
vectors = st.lists(st.floats(-1, 1, width=16), min_size=1, max_size=40).map(lambda row: np.array(row, np.float32))
payloads = st.builds(VectorPayload, items, st.integers(0, (1 << 32) - 1), st.text(max_size=40), vectors, texts)


@given(payloads)
@settings(max_examples=60)
def test_what_is_sealed_opens_the_same(payload):
    own = keys()
    sealed = seal_payload(own, payload)
    assert_same(open_payload(own, point_of(own, payload), sealed), payload)
    assert seal_payload(keys(), payload) == sealed


@given(st.integers(0), st.integers(0, 7))
@settings(max_examples=80)
def test_a_changed_bit_is_found(place, bit):
    own = keys()
    sealed = bytearray(seal_payload(own, PAYLOAD))
    sealed[place % len(sealed)] ^= 1 << bit
    with pytest.raises(TamperedError):
        open_payload(own, point_of(own, PAYLOAD), bytes(sealed))


@given(st.integers(0, 2100))
@settings(max_examples=60)
def test_what_was_cut_is_found(length):
    own = keys()
    sealed = seal_payload(own, PAYLOAD)
    with pytest.raises(TamperedError):
        open_payload(own, point_of(own, PAYLOAD), sealed[: length % len(sealed)])


@pytest.mark.parametrize("other", [keys(2), keys(vault_id="0b" * 16), keys(epoch=2)], ids=["key", "vault", "epoch"])
def test_under_other_keys_nothing_opens(other):
    own = keys()
    sealed = seal_payload(own, PAYLOAD)
    for point in (point_of(own, PAYLOAD), point_of(other, PAYLOAD)):
        with pytest.raises(TamperedError, match="does not authenticate"):
            open_payload(other, point, sealed)


def test_moved_to_another_point_it_does_not_open():
    own = keys()
    with pytest.raises(TamperedError, match="does not authenticate"):
        open_payload(own, own.point_id(ITEM.key, 4), seal_payload(own, PAYLOAD))


# Sizes


def test_short_texts_have_one_size():
    own = keys()
    sizes = {
        len(
            seal_payload(
                own, replace(PAYLOAD, item=replace(ITEM, text="y" * length), vector=unit_vectors(1, 384)[0])
            )
        )
        for length in (0, 1, 30, 900)
    }
    assert sizes == {1 + 16 + 2048 + 16}


def test_what_would_not_open_is_not_sealed():
    own = keys()
    for payload in (
        replace(PAYLOAD, item=replace(ITEM, text="z" * MAX_SEALED_BYTES)),
        replace(PAYLOAD, item=replace(ITEM, author="z" * 70_000)),
        replace(PAYLOAD, model_id="z" * 300),
        replace(PAYLOAD, previous="z" * 70_000),
        replace(PAYLOAD, vector=np.zeros(0, np.float32)),
        replace(PAYLOAD, vector=np.zeros(4097, np.float32)),
        replace(PAYLOAD, vector=np.array([1e30], np.float32)),
    ):
        with pytest.raises(UsageError, match="cannot be sealed"):
            seal_payload(own, payload)


def test_the_longest_text_of_an_index_fits():
    own = keys()
    payload = replace(PAYLOAD, item=replace(ITEM, text="🌊" * 50_000))
    assert_same(open_payload(own, point_of(own, payload), seal_payload(own, payload)), payload)


def test_errors_hold_nothing_of_the_text():
    own = keys()
    sealed = bytearray(seal_payload(own, PAYLOAD))
    sealed[-1] ^= 1
    with pytest.raises(TamperedError) as caught:
        open_payload(own, point_of(own, PAYLOAD), bytes(sealed))
    assert "quay" not in f"{caught.value!r} {caught.value.hint} {caught.value.subject} {PAYLOAD!r}"
