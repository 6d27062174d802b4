"""Ops as lines of segments and snapshots: canonical JSON, one op a line. Source: docs/ops.md, "An op"."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from dualmem_mcp.crypto.canonical import canonical_json
from dualmem_mcp.crypto.header import tampered
from dualmem_mcp.errors import MalformedError
from dualmem_mcp.model.oplog import Op, Stamp, Tag
from dualmem_mcp.model.whole_log import TOMBSTONES

MOST_LINE_BYTES: Final = 64 * 2**20
"""Of a snapshot; a segment takes 16 MiB. Source: docs/format.md, "Snapshots", "Log segments"."""

_KIND: Final = re.compile(r"[a-z][a-z0-9_.-]{0,63}", re.ASCII)
_MOST_SEQUENCE: Final = 2**53 - 1
_MEMBERS: Final = {"kind", "payload", "sequence", "stamp"}
_NUMBERED: Final = ("entity.", "observation.", "relation.", "record.")


def op_line(op: Op) -> bytes:
    """The op as a line, with its line feed."""
    return canonical_json(_members(op)) + b"\n"


def parse_op_line(line: bytes, *, subject: str, checked: bool = False) -> Op:
    """The op of a line without its line feed; `subject` names the object that it stands in.

    Raises TamperedError for anything else than `op_line` writes of an op that a segment or snapshot may hold. What
    was `checked` once is only read.
    """
    try:
        if len(line) <= MOST_LINE_BYTES:
            values = json.loads(line)
            if checked or (isinstance(values, dict) and set(values) == _MEMBERS and _has_types(values)):
                op = Op(Stamp.parse(values["stamp"]), values["sequence"], values["kind"], values["payload"])
                if checked or (canonical_json(values) == line and _is_sound(op)):
                    return op
    except (ValueError, RecursionError, MalformedError):
        pass  # NaN, half of a surrogate pair and what is nested too deep among them
    raise tampered("has a line that is no op", subject)


def _members(op: Op) -> dict[str, Any]:
    return {"kind": op.kind, "payload": op.payload, "sequence": op.sequence, "stamp": str(op.stamp)}


def _has_types(values: dict[str, Any]) -> bool:
    kind, sequence = values["kind"], values["sequence"]
    return (
        isinstance(kind, str)
        and _KIND.fullmatch(kind) is not None
        and isinstance(values["payload"], str)
        and isinstance(values["stamp"], str)
        and isinstance(sequence, int)
        and not isinstance(sequence, bool)
        and 0 <= sequence <= _MOST_SEQUENCE
    )


def _is_sound(op: Op) -> bool:
    """Whether the payload is what its kind needs to be looked at, and the op has its number where it needs one."""
    op.payload.encode("utf-8")
    payload = json.loads(op.payload)
    if op.kind == TOMBSTONES:
        return op.sequence == 0 and isinstance(payload, list) and all(map(_is_tombstone, payload))
    if not isinstance(payload, dict):
        return False
    return op.sequence > 0 or not op.kind.startswith(_NUMBERED)


def _is_tombstone(pair: Any) -> bool:
    if not (
        isinstance(pair, list) and len(pair) == len(("tag", "stamp")) and all(isinstance(x, str) for x in pair)
    ):
        return False
    Tag.parse(pair[0])
    Stamp.parse(pair[1])
    return True
