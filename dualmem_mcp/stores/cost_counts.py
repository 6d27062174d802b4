"""What the cost engine counts, in the encrypted database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Final

from dualmem_mcp.model.ids import ConversationId, HandoffId
from dualmem_mcp.ports import PackageFact
from dualmem_mcp.stores.columns import from_time, to_time
from dualmem_mcp.stores.database import Database

MOST_DAYS: Final = 400
"""Days with counts that are kept: a year and what a comparison with it needs."""


class DatabaseCostCounts:
    """CostCounts in memory.db."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add_use(self, day: date, counts: Mapping[str, int]) -> None:
        """As the port says."""
        rows = [(day.isoformat(), component, count) for component, count in counts.items() if count]
        if not rows:
            return
        with self._database.write() as connection:
            connection.executemany(
                "INSERT INTO daily_use VALUES (?, ?, ?)"
                " ON CONFLICT (day, component) DO UPDATE SET count = count + excluded.count",
                rows,
            )
            # By how many there are and not by age: a clock that is years ahead for an hour costs no history.
            connection.execute(
                "DELETE FROM daily_use WHERE day NOT IN"
                " (SELECT DISTINCT day FROM daily_use ORDER BY day DESC LIMIT ?)",
                (MOST_DAYS,),
            )

    def use(self, since: date) -> Mapping[date, Mapping[str, int]]:
        """As the port says."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT day, component, count FROM daily_use WHERE day >= ? ORDER BY day, component",
                (since.isoformat(),),
            ).fetchall()
        found: dict[date, dict[str, int]] = {}
        for day, component, count in rows:
            found.setdefault(date.fromisoformat(day), {})[component] = count
        return found

    def conversations(self, since: datetime | None = None) -> int:
        """As the port says."""
        after = "" if since is None else to_time(since)
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT count(*) FROM conversations WHERE updated_at >= ?", (after,)
            ).fetchone()
        return int(row[0])

    def packages(self) -> Sequence[PackageFact]:
        """As the port says."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT handoff_id, conversation_id, package_bytes, created_at, base FROM handoffs"
                " ORDER BY created_at, handoff_id"
            ).fetchall()
        return [
            PackageFact(
                HandoffId(one), ConversationId(conversation), size, from_time(at), HandoffId(base) if base else None
            )
            for one, conversation, size, at, base in rows
        ]
