"""Findings as rows of memory.db."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from dualmem_mcp.model.source import Finding, FindingKind
from dualmem_mcp.stores.columns import from_column, from_time, to_column, to_time
from dualmem_mcp.stores.connection import Connection
from dualmem_mcp.stores.row_payloads import FINDING_COLUMNS, NEVER

_COLUMNS: Final = "kind, finding_id, text, conversation_id, turn_uuid, author, timestamp, device_name"


def read_findings(connection: Connection, conversation_id: str, beginning: str) -> list[Finding]:
    """The findings of one conversation whose ids begin so; those that were removed are there without a text."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM findings WHERE conversation_id = ?1"  # noqa: S608
        " AND substr(finding_id, 1, length(?2)) = ?2 ORDER BY id",
        (conversation_id, beginning),
    )
    return [_finding(row) for row in rows]


def read_findings_after(
    connection: Connection, after: int, kinds: Sequence[FindingKind], limit: int
) -> list[tuple[int, Finding]]:
    """Findings of these kinds by the number of their last change, from the one after `after`."""
    marks = ", ".join("?" * len(kinds))
    rows = connection.execute(
        f"SELECT id, {_COLUMNS} FROM findings WHERE id > ? AND kind IN ({marks}) ORDER BY id LIMIT ?",  # noqa: S608
        (after, *kinds, limit),
    )
    return [(row[0], _finding(row[1:])) for row in rows]


def own_findings(connection: Connection, conversation_id: str, device_name: str) -> dict[tuple[str, str], bool]:
    """Kind and id of the findings that this device made or learned by itself, those that it may remove; for each
    whether it is of another device's package."""
    rows = connection.execute(
        "SELECT kind, finding_id, stamp IS X'' FROM findings"
        " WHERE conversation_id = ? AND (device_name = ? OR stamp = X'')",
        (conversation_id, to_column(device_name)),
    )
    return {(kind, from_column(finding_id)): bool(carried) for kind, finding_id, carried in rows}


def put_finding(
    connection: Connection,
    conversation_id: str,
    finding: Finding,
    device_name: str,
    *,
    told_elsewhere: bool = False,
) -> None:
    """Keep the finding in place of an earlier one of its name, with a new number: what reads on from a number
    comes by it again. With `told_elsewhere` it is another device's, whose ops tell of it.

    Findings of a project as a whole stay on the device, whose files they are from.
    """
    connection.execute(
        f"INSERT OR REPLACE INTO findings ({FINDING_COLUMNS}, stamp) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
        (
            conversation_id,
            finding.kind,
            to_column(finding.finding_id),
            to_column(finding.turn_uuid),
            to_column(finding.text),
            to_column(finding.author),
            to_time(finding.timestamp) if finding.timestamp else None,
            to_column(device_name),
            NEVER if told_elsewhere or not conversation_id else None,
        ),
    )


def _finding(row: Sequence[Any]) -> Finding:
    return Finding(
        kind=row[0],
        finding_id=from_column(row[1]),
        text=from_column(row[2]),
        conversation_id=row[3],
        turn_uuid=from_column(row[4]),
        author=from_column(row[5]),
        timestamp=from_time(row[6]) if row[6] else None,
        device=from_column(row[7]),
    )
