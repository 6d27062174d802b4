"""Payloads that hand on ops of another device: what was written is read, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp.errors import MalformedError
from dualmem_mcp.model.adoption import MOST_OPS, adopted_ops, adoption, without_ops
from dualmem_mcp.model.half_pairs import compact_json
from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.model.oplog import Op, Stamp

DEVICE = DeviceId("0b" * 16)
ITEM = {"sequence": 3, "ticks": 7, "kind": "note.put", "payload": "{}"}
OPS = st.builds(
    Op,
    st.builds(Stamp, st.integers(0, 2**63 - 1), st.just(DEVICE)),
    st.integers(0, 2**53 - 1),
    st.from_regex(r"[a-z][a-z0-9_.-]{0,63}", fullmatch=True).filter(
        lambda kind: kind not in {"log.adopt", "tombstones"}
    ),
    st.dictionaries(st.text(), st.text() | st.integers() | st.floats(allow_nan=False)).map(compact_json),
)


@given(st.lists(OPS, max_size=5), st.sampled_from(["", "chat-1"]))
def test_what_is_handed_on_arrives_as_it_was(ops: list[Op], conversation_id: str) -> None:
    payload = json.loads(compact_json(adoption(DEVICE, ops, conversation_id)))
    assert list(adopted_ops(payload)) == ops
    assert payload.get("conversation_id", "") == conversation_id
    kept = without_ops(payload)
    assert set(kept) == set(payload) - {"ops"}
    assert list(adopted_ops(kept)) == []


def test_deleted_tags_are_handed_on() -> None:
    pairs = [[f"{7:016x}-{DEVICE}.1", f"{9:016x}-{DEVICE}"]]
    op = Op(Stamp(9, DEVICE), 0, "tombstones", compact_json(pairs))
    assert list(adopted_ops(adoption(DEVICE, [op], ""))) == [op]


def test_one_whose_content_is_not_told_any_more_hands_on_nothing() -> None:
    assert list(adopted_ops({"omitted": True})) == []


@pytest.mark.parametrize(
    "payload",
    [
        {"ops": [ITEM]},
        {"device_id": "x", "ops": [ITEM]},
        {"device_id": DEVICE + "0", "ops": [ITEM]},
        {"device_id": DEVICE, "ops": {}},
        {"device_id": DEVICE, "ops": [[]]},
        {"device_id": DEVICE, "ops": [ITEM] * (MOST_OPS + 1)},
        {"device_id": DEVICE, "ops": [{**ITEM, "more": 1}]},
        *(
            {"device_id": DEVICE, "ops": [{**ITEM, **change}]}
            for change in (
                {"sequence": -1},
                {"sequence": 2**53},
                {"sequence": True},
                {"sequence": "3"},
                {"ticks": 2**63},
                {"ticks": 1.5},
                {"kind": "log.adopt"},
                {"kind": "Upper"},
                {"kind": None},
                {"payload": {}},
                {"payload": "[]"},
                {"payload": "{"},
                {"payload": "[" * 100_000},
                {"payload": '{"x": "\ud800"}'},
                {"kind": "tombstones", "payload": "{}"},
                {"kind": "tombstones", "payload": "[]"},
            )
        ),
    ],
)
def test_anything_else_is_refused(payload: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        adopted_ops(payload)
