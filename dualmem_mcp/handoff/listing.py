"""The conversations that a device knows of, after a look into the bucket."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from dualmem_mcp.errors import NotFoundError
from dualmem_mcp.handoff.channel import Channel
from dualmem_mcp.handoff.quoting import one_line
from dualmem_mcp.handoff.reconstruct import refresh_catalogue
from dualmem_mcp.model.handoff import ConversationSummary
from dualmem_mcp.model.ids import ConversationId
from dualmem_mcp.ports import Catalogue

FindBranches = Callable[[Sequence[ConversationId]], Mapping[str, Sequence[Mapping[str, Any]]]]
"""The branches of those of the conversations that have some."""


def list_conversations(
    catalogue: Catalogue,
    channel: Channel | None,
    *,
    find_branches: FindBranches,
    query: str = "",
    limit: int = 20,
    cursor: str = "",
) -> dict[str, Any]:
    """One page, newest first: conversations, next_cursor, warnings. No `channel`, no look into the bucket.

    `branches` of a conversation says who went on with it where several did; else it is empty.

    A bucket that cannot be reached or has lost its vault is a warning: what is known here is shown. Raises
    UsageError for a cursor that this did not give, TamperedError for a bucket that was exchanged or set back.
    """
    warnings: tuple[str, ...] = ()
    if channel is not None and not cursor:  # one look for all pages
        try:
            warnings = refresh_catalogue(channel).warnings
        except NotFoundError as error:
            warnings = (f"{error.message}; showing what this device has",)
    rows, next_cursor = catalogue.conversations(query=query, limit=limit, cursor=cursor)
    branches = find_branches([row.conversation_id for row in rows])
    return {
        "conversations": [{**_shown(row), "branches": branches.get(row.conversation_id, [])} for row in rows],
        "next_cursor": next_cursor,
        "warnings": list(warnings),
    }


def _shown(row: ConversationSummary) -> dict[str, Any]:
    # Sessions and other devices choose these words; none of them may move a terminal's cursor or end a line.
    words = {name: one_line(getattr(row, name)) for name in ("title", "cwd", "device_name")}
    return {**asdict(row), **words, "updated_at": row.updated_at.isoformat()}
