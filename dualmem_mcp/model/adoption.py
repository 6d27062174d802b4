"""What a device took in of another's log before it heard that it does not count: the payload that hands it on.

Source: docs/ops.md, "log.adopt".
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from dualmem_mcp.errors import MalformedError
from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.model.oplog import Op, OpKind, Stamp
from dualmem_mcp.model.whole_log import TOMBSTONES

MOST_OPS: Final = 500
"""Ops in one payload."""

_DEVICE: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
_KIND: Final = re.compile(r"[a-z][a-z0-9_.-]{0,63}", re.ASCII)
_MOST_SEQUENCE: Final = 2**53 - 1
_MOST_TICKS: Final = 2**63 - 1


def adoption(device_id: DeviceId, ops: Sequence[Op], conversation_id: str) -> dict[str, Any]:
    """The payload for ops of one device; all are of that conversation, if one is given, and go when it is erased.

    An op's sequence is 0 where rows stand for it, as in a snapshot.
    """
    about = {"conversation_id": conversation_id} if conversation_id else {}
    return {"device_id": device_id, **about, "ops": [_item(op) for op in ops]}


def adopted_ops(payload: Mapping[str, Any]) -> Sequence[Op]:
    """The ops of a payload, as their device made them; none of one whose content is not told any more.

    Raises MalformedError for anything that `adoption` does not write.
    """
    if "omitted" in payload or "ops" not in payload:
        return ()
    device_id, items = payload.get("device_id"), payload["ops"]
    if not _fits(device_id, _DEVICE) or not isinstance(items, list) or len(items) > MOST_OPS:
        raise _unfit()
    return [_op(DeviceId(str(device_id)), item) for item in items]


def without_ops(payload: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of the payload where its ops have taken effect."""
    return {name: value for name, value in payload.items() if name != "ops"}


def _item(op: Op) -> dict[str, Any]:
    return {"sequence": op.sequence, "ticks": op.stamp.ticks, "kind": op.kind, "payload": op.payload}


def _op(device_id: DeviceId, item: Any) -> Op:
    if not isinstance(item, dict) or set(item) != {"sequence", "ticks", "kind", "payload"}:
        raise _unfit()
    sequence, ticks, kind, payload = (item[name] for name in ("sequence", "ticks", "kind", "payload"))
    numbers = _is_number(sequence, _MOST_SEQUENCE) and _is_number(ticks, _MOST_TICKS)
    if not numbers or not _fits(kind, _KIND) or kind == OpKind.LOG_ADOPT or not isinstance(payload, str):
        raise _unfit()
    try:
        payload.encode("utf-8")
        values = json.loads(payload)
    except (ValueError, RecursionError):
        raise _unfit() from None
    if not isinstance(values, list if kind == TOMBSTONES else dict) or (kind == TOMBSTONES and sequence):
        raise _unfit()
    return Op(Stamp(ticks, device_id), sequence, kind, payload)


def _is_number(value: Any, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def _fits(value: Any, form: re.Pattern[str]) -> bool:
    return isinstance(value, str) and form.fullmatch(value) is not None


def _unfit() -> MalformedError:
    return MalformedError("this does not hand on ops of another device", operation="parse op")
