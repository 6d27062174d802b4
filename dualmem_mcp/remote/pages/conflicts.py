"""What devices changed without knowing of each other: both sides, and the user's decision."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from dualmem_mcp.errors import ConflictError, NotFoundError, UsageError
from dualmem_mcp.model.subject_op import ENTITY_TYPE
from dualmem_mcp.remote.pages.visit import Goto, Page, Visit

_SHOWN: Final = 50
_ALL: Final = 1_000_000
_DELETED: Final = "deleted"
_FIELDS: Final = {ENTITY_TYPE: "type"}

_DONE: Final = {"kept": "Decided: what counted stays.", "taken": "Decided: the other side counts now."}


def conflicts(visit: Visit) -> Page:
    """The conflicts that wait, the newest first."""
    found = visit.app.list_conflicts(_SHOWN)
    context = {
        "conflicts": [_shown(conflict) for conflict in found["conflicts"]],
        "count": found["count"],
        "done": _DONE.get(visit.query.get("done", ""), ""),
        "now": visit.app.clock.now(),
    }
    return Page("conflicts.html", "Conflicts", context)


def decide_conflict(visit: Visit) -> Goto:
    """Decide a conflict as the form says. Raises ConflictError if it is not any more what the user was shown,
    NotFoundError if it is decided already."""
    conflict_id, seen, take = visit.field("conflict"), visit.field("seen"), visit.form.get("take", "")
    if bool(take) == ("keep" in visit.form):
        raise UsageError(
            "the form does not say which side counts",
            operation="resolve conflict",
            subject=conflict_id[:60],
            hint="Go back and choose one side.",
        )
    waiting = {one["conflict_id"]: _kept_stamp(one) for one in visit.app.list_conflicts(_ALL)["conflicts"]}
    if conflict_id not in waiting:
        raise NotFoundError(
            "this conflict does not wait any more",
            operation="resolve conflict",
            subject=conflict_id[:60],
            hint="It was decided already, here or on another device.",
        )
    if waiting[conflict_id] != seen:
        raise ConflictError(
            "another device has changed this since you looked",
            operation="resolve conflict",
            subject=conflict_id[:60],
            hint="Look at the conflicts again; nothing was decided.",
        )
    visit.app.resolve_conflict(conflict_id, not take, take or None)
    return Goto(f"/conflicts?done={'taken' if take else 'kept'}")


def _shown(conflict: Mapping[str, Any]) -> dict[str, Any]:
    kept = conflict["kept"]
    return {
        **conflict,
        "field": _FIELDS.get(conflict["field"], conflict["field"]),
        "seen": _kept_stamp(conflict),
        "kept": _side(kept) if kept else None,
        "lost": [_side(side) for side in conflict["lost"]],
    }


def _kept_stamp(conflict: Mapping[str, Any]) -> str:
    return str(conflict["kept"]["stamp"]) if conflict["kept"] else _DELETED


def _side(side: Mapping[str, Any]) -> dict[str, Any]:
    value = side["value"]
    return {**side, "text": value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)}
