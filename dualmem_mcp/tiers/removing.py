"""Removing all that a vault has in the service."""

from __future__ import annotations

from typing import Final

from dualmem_mcp.ports.placements import Placements
from dualmem_mcp.tiers.bench import Bench

_ROWS_AT_ONCE: Final = 5_000


def remove_all(bench: Bench) -> int:
    """Remove the vault's points of all epochs from all tiers, and the rows; how many there were. Raises what the
    service and the database raise; called again it goes on."""
    removed = 0
    for name, epoch in bench.populated():
        for ids in bench.listed((name, epoch)):
            bench.transfer.remove((name, epoch, point) for point in ids)
            removed += len(ids)
    _forget_rows(bench.placements)
    return removed


def _forget_rows(placements: Placements) -> None:
    digests = placements.columns().keys
    for start in range(0, len(digests), _ROWS_AT_ONCE):
        rows = placements.of_digests(digests[start : start + _ROWS_AT_ONCE].tolist())
        placements.remove([row.key for row in rows])
