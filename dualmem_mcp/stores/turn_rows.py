"""Turns as rows of memory.db: each once in its conversation, whoever brings it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dualmem_mcp.model.conversation import Turn, estimate_tokens
from dualmem_mcp.model.source import API_ERROR, IMPORTED, ImportedTurn
from dualmem_mcp.stores.columns import to_column, to_time
from dualmem_mcp.stores.connection import Connection
from dualmem_mcp.stores.row_payloads import NEVER, TURN_COLUMNS


def add_turns(
    connection: Connection,
    conversation_id: str,
    turns: Iterable[Turn],
    *,
    device_name: str = "",
    told_elsewhere: bool = False,
) -> int:
    """Add the turns that are not there, in their order; returns how many.

    A turn is there if one of its uuid is, or one of the same API message with the same text: what a client
    writes down while an answer streams in can say the same thing under several uuids. With `told_elsewhere` they
    are of another device, whose ops tell of them.
    """
    added = 0
    for turn in turns:
        text = turn.text
        if turn.message_id and text and _is_repeated(connection, conversation_id, turn.message_id, text):
            continue
        row = (
            conversation_id,
            to_column(turn.uuid),
            None if turn.parent_uuid is None else to_column(turn.parent_uuid),
            turn.role,
            to_time(turn.timestamp) if turn.timestamp else None,
            to_column(text),
            turn.visible_tokens,
            int(turn.is_meta),
            int(turn.is_compact_summary),
            "",
            to_column(device_name),
            API_ERROR if turn.is_api_error else turn.origin,
            turn.message_id or None,
            NEVER if told_elsewhere else None,
        )
        added += _insert(connection, row)
    return added


def add_imported_turn(connection: Connection, turn: ImportedTurn) -> bool:
    """Add the turn of a file if its id is new in its conversation; whether it was."""
    row = (
        turn.conversation_id,
        to_column(turn.id),
        None,
        turn.role,
        to_time(turn.timestamp) if turn.timestamp else None,
        to_column(turn.text),
        estimate_tokens(turn.text),
        0,
        0,
        to_column(turn.author),
        "",
        IMPORTED,
        None,
        None,
    )
    return _insert(connection, row) > 0


def _is_repeated(connection: Connection, conversation_id: str, message_id: str, text: str) -> bool:
    found = connection.execute(
        "SELECT 1 FROM turns WHERE conversation_id = ? AND message_id = ? AND text = ?",
        (conversation_id, message_id, to_column(text)),
    )
    return found.fetchone() is not None


def _insert(connection: Connection, row: tuple[Any, ...]) -> int:
    return connection.execute(
        f"INSERT INTO turns ({TURN_COLUMNS}, stamp) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
        " ON CONFLICT DO NOTHING",
        row,
    ).rowcount
