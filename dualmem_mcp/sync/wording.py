"""What a sync did, what was saved, and what conflicts are about, in a few lines for a person or a model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from dualmem_mcp.handoff.quoting import cut, one_line

_MOST_CHARACTERS: Final = 500


def has_moved(result: Mapping[str, Any]) -> bool:
    """Whether a sync exchanged anything."""
    return any(result[way]["ops"] or result[way]["bytes"] for way in ("pushed", "pulled"))


def sync_text(result: Mapping[str, Any], *, conflicts_hint: str) -> str:
    """The result of a sync in at most two lines, without its warnings; the hint says how conflicts are shown."""
    ways = (_moved("Sent", result["pushed"]), _moved("received", result["pulled"]))
    nothing = "Nothing was exchanged" if any(result[name] for name in ("away", "refused", "busy")) else "Up to date"
    moved = "; ".join(way for way in ways if way) or nothing
    took = f"{result['duration_ms'] / 1000:.1f} s"
    cost = f", ${result['cost_usd']:.6f} at list price" if round(result["cost_usd"], 6) else ""
    lines = [f"{moved[:1].upper()}{moved[1:]} ({took}{cost})."]
    waits = []
    if result["queued"]:
        waits.append(f"{_count(result['queued'], 'object')} wait{'s' * (result['queued'] == 1)} to be uploaded.")
    if result["conflicts"]:
        verb = "waits" if result["conflicts"] == 1 else "wait"
        waits.append(f"{_count(result['conflicts'], 'conflict')} {verb} for a decision: {conflicts_hint}.")
    return "\n".join((*lines, *filter(None, (" ".join(waits),))))


def saved_text(saved: Mapping[str, Any]) -> str:
    """What `save_progress` kept, in a line."""
    kept = [_count(number, _singular(name)) for name, number in saved["saved"].items() if number]
    what = ", ".join(kept) or "nothing new"
    return f"Saved to conversation {saved['conversation_id']}: {what}."


def conflict_text(conflict: Mapping[str, Any]) -> str:
    """A conflict in a few lines: what it is about, what counts now, what lost, each with device, time and stamp."""
    # The name of a record begins with what it is.
    about = one_line(conflict["name"] if conflict["kind"] == "record" else f"{conflict['kind']} {conflict['name']}")
    about = f"{about}, {one_line(conflict['field'])}" if conflict["field"] else about
    kept = conflict["kept"]
    lines = [f"{conflict['conflict_id']}  {cut(about, _MOST_CHARACTERS)}"]
    lines.append(f"   counts now: {_side(kept) if kept else 'deleted'}")
    lines += [f"   lost: {_side(side)}" for side in conflict["lost"]]
    return "\n".join(lines)


def _singular(name: str) -> str:
    return name.replace("_", " ").removesuffix("s")


def _side(side: Mapping[str, Any]) -> str:
    value = side["value"] if isinstance(side["value"], str) else json.dumps(side["value"], ensure_ascii=False)
    origin = f"{one_line(side['device'])}, {side['at'][:16]}, {side['stamp']}"
    return f"{cut(one_line(value), _MOST_CHARACTERS)}  [{origin}]"


def _moved(verb: str, way: Mapping[str, int]) -> str:
    if not way["ops"] and not way["bytes"]:
        return ""
    if not way["ops"]:
        return f"{verb} {_size(way['bytes'])}"
    return f"{verb} {_count(way['ops'], 'change')} in {_count(way['segments'], 'segment')}, {_size(way['bytes'])}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def _size(size_bytes: int) -> str:
    if size_bytes < 1000:
        return f"{size_bytes} bytes"
    return f"{size_bytes / 1000:,.1f} KB" if size_bytes < 1_000_000 else f"{size_bytes / 1_000_000:,.1f} MB"
