"""How storage and sync stand, and a sync on demand."""

from __future__ import annotations

from typing import Final

from dualmem_mcp.remote.pages.visit import Goto, Page, Visit
from dualmem_mcp.server.sync_loop import sync_by_hand
from dualmem_mcp.sync.last_sync import LastSync

_SYNC_SECONDS: Final = 20.0
"""Somebody waits at the page; what was not reached is left to the next sync."""

_DONE: Final = {
    "synced": "Synced just now.",
    "busy": "Another sync is running; look again in a moment.",
    "refused": "The bucket refuses this device. Nothing is lost; what to set right stands below.",
    "away": "The bucket could not be reached. Nothing is lost: it is tried again by itself.",
}


def state(visit: Visit) -> Page:
    """What `memory_status` says, and how syncs went."""
    app = visit.app
    context = {
        "status": app.status(),
        "outcome": LastSync(app.home.root, app.clock).outcome(),
        "waiting": app.sync_waiting(),
        "conflicts": app.list_conflicts(1)["count"],
        "done": _DONE.get(visit.query.get("done", ""), ""),
        "now": app.clock.now(),
    }
    return Page("state.html", "Storage and sync", context)


def sync_now(visit: Visit) -> Goto:
    """Exchange changes with the other devices now."""
    large = not visit.app.settings.sync.wifi_only
    result = sync_by_hand(visit.app, large_objects=large, max_seconds=_SYNC_SECONDS)
    done = next((name for name in ("refused", "away", "busy") if result[name]), "synced")
    return Goto(f"/state?done={done}")
