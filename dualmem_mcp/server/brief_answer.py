"""A brief as a tool's result: text and structured form together within what clients take."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from dualmem_mcp.handoff.quoting import cut

# Longest first in practice; each is a section of its own that load_context gives in full.
_LISTS: Final = ("agents", "commands", "active_files", "requests", "decisions", "tasks")
_SINCE: Final = ("turns", "notes", "decisions", "next_steps", "tasks")
_LONGEST_TEXT: Final = 1_000
"""Characters of a text where lists alone do not make room; the brief has it at its own length."""
_MOST_ENTRIES: Final = 20


def within_limit(brief: Mapping[str, Any], limit: int) -> tuple[dict[str, Any], int]:
    """The structured form with its oldest entries left out, list by list, until the result's JSON, with the brief
    as its text, has at most `limit` characters; and by how many it still has more.

    What was left out is named in `warnings`.
    """
    fitted = dict(brief)
    excess = _size(fitted) + _size(brief["brief"]) + 100 - limit
    for name in _LISTS:
        if excess > 0 and (entries := fitted.get(name)):
            fitted[name], freed = _newest(entries, excess)
            excess -= freed
            note = (
                f"{len(entries) - len(fitted[name])} of {len(entries)} {name} left out here; load_context has them"
            )
            fitted["warnings"] = [*fitted.get("warnings", ()), note]
            excess += len(note) + 4
    if excess > 0 and (since := fitted.get("since_handoff")):
        since = dict(since)
        for name in _SINCE:
            if excess > 0 and since.get(name):
                since[name], freed = _newest(since[name], excess)
                excess -= freed
        fitted["since_handoff"] = since
        note = "what came since the handoff is left out here in part; load_context has it as since"
        fitted["warnings"] = [*fitted.get("warnings", ()), note]
        excess += len(note) + 4
    if excess > 0:
        fitted = {
            name: value if name in ("brief", "sections") else _shortened(value) for name, value in fitted.items()
        }
        excess = _size(fitted) + _size(brief["brief"]) + 100 - limit
    return fitted, max(0, excess)


def _newest(entries: Sequence[Any], excess: int) -> tuple[list[Any], int]:
    """The entries without as many of the first as make that room, and the room that was made."""
    left, freed = list(entries), 0
    while left and freed < excess:
        freed += _size(left.pop(0)) + 2
    return left, freed


def _shortened(value: Any) -> Any:
    if isinstance(value, str):
        return cut(value, _LONGEST_TEXT)
    if isinstance(value, Mapping):
        return {name: _shortened(one) for name, one in value.items()}
    if isinstance(value, Sequence):
        return [_shortened(one) for one in value[-_MOST_ENTRIES:]]
    return value


def _size(value: object) -> int:
    return len(json.dumps(value, ensure_ascii=False))
