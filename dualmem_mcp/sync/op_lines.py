"""Ops as lines of segments and snapshots: canonical JSON, one op a line. Source: docs/ops.md, "An op"."""

from __future__ import annotations

import json
from typing import Any, Final

from dualmem_mcp.crypto.canonical import canonical_json
from dualmem_mcp.crypto.header import tampered
from dualmem_mcp.errors import MalformedError
from dualmem_mcp.model.oplog import Op, Stamp

MOST_LINE_BYTES: Final = 64 * 2**20
"""Of a line of a snapshot; a segment's have 16 MiB. Source: docs/format.md, "Snapshots", "Log segments"."""
_MOST_KIND: Final = 128
_MOST_SEQUENCE: Final = 2**53 - 1
_MEMBERS: Final = {"kind", "payload", "sequence", "stamp"}


def op_line(op: Op) -> bytes:
    """The op as a line, with its line feed."""
    return canonical_json(_members(op)) + b"\n"


def parse_op_line(line: bytes, *, subject: str) -> Op:
    """The op of a line without its line feed; `subject` names the object that it stands in.

    Raises TamperedError for anything else than `op_line` writes.
    """
    try:
        values = json.loads(line) if len(line) <= MOST_LINE_BYTES else None
        if isinstance(values, dict) and set(values) == _MEMBERS:
            kind, payload, sequence = values["kind"], values["payload"], values["sequence"]
            if (
                isinstance(kind, str)
                and 0 < len(kind) <= _MOST_KIND
                and isinstance(payload, str)
                and isinstance(sequence, int)
                and not isinstance(sequence, bool)
                and 0 <= sequence <= _MOST_SEQUENCE
                and isinstance(values["stamp"], str)
            ):
                op = Op(Stamp.parse(values["stamp"]), sequence, kind, payload)
                if canonical_json(_members(op)) == line:
                    return op
    except (ValueError, RecursionError, MalformedError):
        pass
    raise tampered("has a line that is no op", subject)


def _members(op: Op) -> dict[str, Any]:
    return {"kind": op.kind, "payload": op.payload, "sequence": op.sequence, "stamp": str(op.stamp)}
