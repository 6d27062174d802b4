"""The vault's devices."""

from __future__ import annotations

from dualmem_mcp.errors import NotFoundError
from dualmem_mcp.remote.pages.visit import Page, Visit


def devices(visit: Visit) -> Page:
    """The devices in the order they joined, and how one is put out of the vault."""
    try:
        found = visit.app.sharing.devices()
    except NotFoundError:  # no vault: an empty list says what to do
        found = []
    return Page("devices.html", "Devices", {"devices": found, "now": visit.app.clock.now()})
