"""Records: what devices note about a conversation or the memory as a whole, beside the graph and the turns."""

from __future__ import annotations

from typing import Final, Literal, get_args

RecordType = Literal[
    "note",
    "task",
    "bookmark",
    "decision",
    "next_step",
    "question",
    "summary",
    "compaction",
    "checkpoint",
    "digest",
]
"""`docs/ops.md`, "record.set", has the fields of each."""

RECORD_TYPES: Final[tuple[RecordType, ...]] = get_args(RecordType)
