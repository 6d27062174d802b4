"""Segments: what is sealed opens the same, and nothing else opens at all. The golden ones were written from
docs/format.md by another program, tests/golden/make_log_v1.py."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualmem_mcp import errors
from dualmem_mcp.crypto.vault import Vault
from dualmem_mcp.errors import TamperedError
from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.model.oplog import NO_HEAD, LogHead, Op, Stamp
from dualmem_mcp.sync.op_lines import op_line
from dualmem_mcp.sync.segments import (
    MOST_BYTES,
    MOST_OPS,
    Sealed,
    fill,
    is_omitted,
    open_segment,
    parse_segment_key,
    seal_segment,
    segment_key,
)
from tests.conftest import SteppingClock
from tests.crypto import test_golden as golden_vault
from tests.crypto.conftest import Bench, MemoryObjectStore

FOLDER = Path(__file__).resolve().parents[1] / "golden" / "log-v1"
EXPECTED: dict[str, Any] = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))


@cache
def own_vault() -> Vault:
    """A vault of one device, made once for all examples."""
    return Bench(MemoryObjectStore(), SteppingClock()).create()[0]


def make_ops(*payloads: str, first: int = 1) -> list[Op]:
    device = own_vault().device_id
    return [
        Op(Stamp(1000 + number, device), number, "x.y", payload) for number, payload in enumerate(payloads, first)
    ]


def sealed(ops: list[Op], after: LogHead = NO_HEAD) -> Sealed:
    lines, taken = fill(ops)
    assert len(taken) == len(ops)
    return seal_segment(own_vault(), lines, last_sequence=ops[-1].sequence, after=after)


def opened(segment: Sealed):
    vault = own_vault()
    return open_segment(vault, segment.key, vault.device_keys.ed25519_public, segment.data)


# Sealing and opening


@settings(max_examples=40)
@given(
    st.lists(st.dictionaries(st.text(), st.text() | st.integers() | st.none(), max_size=4), min_size=1, max_size=6)
)
def test_what_is_sealed_opens_the_same(payloads: list[dict[str, Any]]) -> None:
    ops = make_ops(*(json.dumps(payload) for payload in payloads))
    segment = sealed(ops)
    got = opened(segment)
    assert (got.ops, got.before, got.head) == (ops, NO_HEAD, segment.head)
    after = make_ops("{}", first=len(ops) + 1)
    second = sealed(after, segment.head)
    assert second.key == segment_key(own_vault().device_id, 2)
    assert (opened(second).before, opened(second).head.segment) == (segment.head, 2)


def test_all_short_segments_have_one_size() -> None:
    assert len({len(sealed(make_ops(json.dumps({"name": "n" * size}))).data) for size in (1, 50, 900)}) == 1


def test_a_segment_is_filled_up_to_its_bounds() -> None:
    ops = make_ops(*["{}"] * (MOST_OPS + 1))
    assert len(fill(ops)[1]) == MOST_OPS
    large = make_ops(*[json.dumps({"name": "x" * (MOST_BYTES // 3)})] * 4)
    lines, taken = fill(large)
    assert len(taken) == 2
    assert sum(map(len, lines)) <= MOST_BYTES
    alone = make_ops(json.dumps({"name": "x" * MOST_BYTES}), "{}")
    assert fill(alone)[1] == alone[:1]
    assert opened(sealed(alone[:1])).ops == alone[:1]
    assert fill([]) == ([], [])


def test_an_op_too_long_for_any_segment_is_told_of_without_its_content() -> None:
    [op] = make_ops(json.dumps({"name": "\u00e9" * (3 << 20)}, ensure_ascii=False))
    assert is_omitted(op)
    [line], [taken] = fill([op])
    assert taken is op
    assert json.loads(json.loads(line)["payload"]) == {"omitted": True}
    assert not is_omitted(make_ops(json.dumps({"name": "x" * (3 << 20)}))[0])


def test_keys_of_segments() -> None:
    device = DeviceId("ab" * 16)
    key = segment_key(device, 12)
    assert key == f"log/{device}/00000000000000000012"
    assert parse_segment_key(key) == (device, 12)
    for other in ("log/x/1", key + "0", key[:-1], "packages/" + "ab" * 16, key + "\n", key.replace("a", "A")):
        assert parse_segment_key(other) is None


# What is not as it was sealed


@pytest.fixture(scope="module")
def segment() -> Sealed:
    return sealed(make_ops('{"name":"Ada"}', '{"name":"Engine"}'))


@given(st.data())
def test_a_flipped_bit_is_seen(segment: Sealed, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(segment.data) - 1))
    changed = bytearray(segment.data)
    changed[position] ^= 1 << data.draw(st.integers(0, 7))
    vault = own_vault()
    with pytest.raises((TamperedError, errors.NotFoundError)):
        open_segment(vault, segment.key, vault.device_keys.ed25519_public, bytes(changed))


@given(st.data())
def test_a_cut_is_seen(segment: Sealed, data: st.DataObject) -> None:
    length = data.draw(st.integers(0, len(segment.data) - 1))
    vault = own_vault()
    with pytest.raises(TamperedError):
        open_segment(vault, segment.key, vault.device_keys.ed25519_public, segment.data[:length])


@settings(max_examples=150)
@given(
    lines=st.lists(
        st.binary(max_size=60)
        | st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        ).map(lambda value: json.dumps(value).encode())
        | st.fixed_dictionaries(
            {
                "kind": st.sampled_from(["x.y", "", 1, None, "entity.create"]),
                "payload": st.sampled_from(["{}", "[]", "", "{", 1, None, '{"a":"\ud800"}', "{}" * 9]),
                "sequence": st.sampled_from([0, 1, 2, -1, 2**53, 1.5, True, "1", None]),
                "stamp": st.sampled_from([f"{5:016x}-" + "ab" * 16, "", 7, None]),
            }
        ).map(lambda values: json.dumps(values, sort_keys=True, separators=(",", ":")).encode()),
        max_size=3,
    )
)
def test_lines_of_a_hostile_device_are_refused_or_ops(lines: list[bytes]) -> None:
    """A device of the vault signs what it likes: nothing but ops of its own comes of it, and no other error."""
    vault = own_vault()
    segment = seal_segment(vault, [line + b"\n" for line in lines], last_sequence=1, after=NO_HEAD)
    try:
        ops = open_segment(vault, segment.key, vault.device_keys.ed25519_public, segment.data).ops
    except TamperedError:
        return
    assert [op_line(op) for op in ops] == [line + b"\n" for line in lines]
    assert {op.stamp.device_id for op in ops} == {vault.device_id}


def test_a_segment_at_a_key_that_is_none(segment: Sealed) -> None:
    with pytest.raises(TamperedError):
        open_segment(own_vault(), "packages/x", own_vault().device_keys.ed25519_public, segment.data)


# Golden


@pytest.fixture(scope="module")
def vault() -> Vault:
    return golden_vault.join(golden_vault.bucket(), golden_vault.EXPECTED["passphrase"])


def public_key(vault: Vault) -> bytes:
    return next(entry.ed25519 for entry in vault.devices() if entry.device_id == EXPECTED["device_id"])


def test_the_golden_log(vault: Vault) -> None:
    head, ops = NO_HEAD, []
    for number, key in enumerate(EXPECTED["keys"], start=1):
        assert key == segment_key(EXPECTED["device_id"], number)
        segment = open_segment(vault, key, public_key(vault), (FOLDER / "bucket" / key).read_bytes())
        assert segment.before == head
        head = segment.head
        ops += segment.ops
    assert head == LogHead(2, bytes.fromhex(EXPECTED["last_hash"]), 5)
    assert [
        {"kind": op.kind, "payload": op.payload, "sequence": op.sequence, "stamp": str(op.stamp)} for op in ops
    ] == EXPECTED["ops"]


@pytest.mark.parametrize("stated", EXPECTED["hostile"], ids=lambda stated: stated["file"])
def test_hostile_segments(stated: dict[str, str], vault: Vault) -> None:
    data = (FOLDER / "hostile" / stated["file"]).read_bytes()
    with pytest.raises(errors.DualmemError) as caught:
        open_segment(vault, segment_key(EXPECTED["device_id"], 1), public_key(vault), data)
    assert type(caught.value).__name__ == stated["error"]
    assert caught.value.hint
