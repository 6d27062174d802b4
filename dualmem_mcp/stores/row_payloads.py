"""Rows of turns, conversations, findings and handoffs as payloads of ops, and back.

What comes back from a payload is checked, since another device, or another version, wrote it. Rows are tuples in
the order of the columns named here, as they are bound to a statement.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, get_args

from dualmem_mcp.errors import UsageError
from dualmem_mcp.model.ids import parse_conversation_id
from dualmem_mcp.model.source import FindingKind
from dualmem_mcp.stores.columns import from_column, from_time, to_column
from dualmem_mcp.stores.object_keys import is_key

MOST_NAME: Final = 4096
"""Characters of an id, a role or a name; those of titles, folders and texts are bounded by the op alone."""
_MOST_COUNT: Final = 2**53

TURN_COLUMNS: Final = (
    "conversation_id, uuid, parent_uuid, role, timestamp, text, visible_tokens, is_meta, is_compact_summary,"
    " author, device_name, origin, message_id"
)
CONVERSATION_COLUMNS: Final = "id, title, cwd, updated_at, message_count, device_name, listed"
FINDING_COLUMNS: Final = "conversation_id, kind, finding_id, turn_uuid, text, author, timestamp, device_name"
HANDOFF_COLUMNS: Final = (
    "handoff_id, conversation_id, title, cwd, created_at, device_id, device_name, base, package_key,"
    " package_bytes, manifest_key, message_count, visible_tokens, digest_tokens, last_turn_uuid"
)
NEVER: Final = b""
"""The stamp of a row that no op of this device will tell of; it sorts before all others."""

Row = tuple[Any, ...]

_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00", re.ASCII)
_ID: Final = re.compile(r"[0-9a-f]{32}")


class UnfitError(ValueError):
    """A payload does not have the form of its kind; the message names the member, not its value."""


def turn_json(row: Row) -> dict[str, Any]:
    """The member of `turns` for a row of TURN_COLUMNS; conversation and device stand in the payload around it."""
    members: dict[str, Any] = {
        "uuid": from_column(row[1]),
        "parent": None if row[2] is None else from_column(row[2]),
        "role": row[3],
        "timestamp": row[4],
        "text": from_column(row[5]),
        "tokens": row[6],
    }
    further = {
        "author": from_column(row[9]),
        "origin": row[11],
        "message_id": row[12],
        "meta": bool(row[7]),
        "compact": bool(row[8]),
    }
    return {**members, **{name: value for name, value in further.items() if value}}


def turn_row(conversation_id: str, device_name: str, members: Any) -> Row:
    """The row of TURN_COLUMNS of one member of `turns`. Raises UnfitError."""
    turn = _mapping(members, "turns")
    return (
        conversation_id,
        to_column(_text(turn, "uuid")),
        _optional(turn, "parent"),
        _plain(turn, "role"),
        _time(turn, "timestamp"),
        to_column(_text(turn, "text", most=None)),
        _count(turn, "tokens"),
        int(_flag(turn, "meta")),
        int(_flag(turn, "compact")),
        to_column(_text(turn, "author", default="")),
        to_column(device_name),
        _plain(turn, "origin", default=""),
        _plain(turn, "message_id", default="") or None,
    )


def turn_batch(payload: Mapping[str, Any]) -> tuple[str, str, Sequence[Any]]:
    """Conversation, name of the device, and the members of `turns`, not checked yet. Raises UnfitError."""
    turns = payload.get("turns")
    if not isinstance(turns, list):
        raise UnfitError("turns")
    return _conversation(payload), _text(payload, "device_name", default=""), turns


def conversation_json(row: Row) -> dict[str, Any]:
    """The payload of `conversation.set` for a row of CONVERSATION_COLUMNS."""
    return {
        "conversation_id": row[0],
        "title": from_column(row[1]),
        "cwd": from_column(row[2]),
        "updated_at": row[3],
        "message_count": row[4],
        "device_name": from_column(row[5]),
        "listed": bool(row[6]),
    }


def conversation_row(payload: Mapping[str, Any]) -> Row:
    """The row of CONVERSATION_COLUMNS. Raises UnfitError."""
    return (
        _conversation(payload),
        to_column(_text(payload, "title", most=None)),
        to_column(_text(payload, "cwd", most=None)),
        _needed_time(payload, "updated_at"),
        _count(payload, "message_count"),
        to_column(_text(payload, "device_name")),
        int(_flag(payload, "listed")),
    )


def finding_json(row: Row) -> dict[str, Any]:
    """The payload of `finding.put` for a row of FINDING_COLUMNS."""
    return {
        "conversation_id": row[0],
        "kind": row[1],
        "finding_id": from_column(row[2]),
        "turn_uuid": from_column(row[3]),
        "text": from_column(row[4]),
        "author": from_column(row[5]),
        "timestamp": row[6],
        "device_name": from_column(row[7]),
    }


def finding_row(payload: Mapping[str, Any]) -> Row:
    """The row of FINDING_COLUMNS. Raises UnfitError."""
    kind = _plain(payload, "kind")
    if kind not in get_args(FindingKind):
        raise UnfitError("kind")
    return (
        _conversation(payload),
        kind,
        to_column(_text(payload, "finding_id")),
        to_column(_text(payload, "turn_uuid")),
        to_column(_text(payload, "text", most=None)),
        to_column(_text(payload, "author")),
        _time(payload, "timestamp"),
        to_column(_text(payload, "device_name")),
    )


def handoff_json(row: Row) -> dict[str, Any]:
    """The payload of `handoff.add` for a row of HANDOFF_COLUMNS."""
    return {
        "handoff_id": row[0],
        "conversation_id": row[1],
        "title": from_column(row[2]),
        "cwd": from_column(row[3]),
        "created_at": row[4],
        "device_id": row[5],
        "device_name": from_column(row[6]),
        "base": row[7],
        "package_key": row[8],
        "package_bytes": row[9],
        "manifest_key": row[10],
        "message_count": row[11],
        "visible_tokens": row[12],
        "digest_tokens": row[13],
        "last_turn_uuid": from_column(row[14]),
    }


def handoff_row(payload: Mapping[str, Any]) -> Row:
    """The row of HANDOFF_COLUMNS. Raises UnfitError."""
    return (
        _matching(payload, "handoff_id", _ID),
        _conversation(payload),
        to_column(_text(payload, "title", most=None)),
        to_column(_text(payload, "cwd", most=None)),
        _needed_time(payload, "created_at"),
        _matching(payload, "device_id", _ID),
        to_column(_text(payload, "device_name")),
        None if payload.get("base") is None else _matching(payload, "base", _ID),
        _key(payload, "package_key"),
        _count(payload, "package_bytes"),
        _key(payload, "manifest_key"),
        _count(payload, "message_count"),
        _count(payload, "visible_tokens"),
        _count(payload, "digest_tokens"),
        to_column(_text(payload, "last_turn_uuid")),
    )


def _mapping(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise UnfitError(name)
    return value


def _text(
    members: Mapping[str, Any], name: str, *, most: int | None = MOST_NAME, default: str | None = None
) -> str:
    value = members.get(name, default)
    if not isinstance(value, str) or (most is not None and len(value) > most):
        raise UnfitError(name)
    return value


def _plain(members: Mapping[str, Any], name: str, *, default: str | None = None) -> str:
    """A text for a column of type TEXT, which cannot hold half of a surrogate pair."""
    value = _text(members, name, default=default)
    if to_column(value) != value:
        raise UnfitError(name)
    return value


def _optional(members: Mapping[str, Any], name: str) -> str | bytes | None:
    return None if members.get(name) is None else to_column(_text(members, name))


def _matching(members: Mapping[str, Any], name: str, form: re.Pattern[str]) -> str:
    value = _text(members, name, most=512)
    if not form.fullmatch(value):
        raise UnfitError(name)
    return value


def _key(members: Mapping[str, Any], name: str) -> str:
    value = _text(members, name)
    if not is_key(value):
        raise UnfitError(name)
    return value


def _conversation(members: Mapping[str, Any]) -> str:
    try:
        return parse_conversation_id(_text(members, "conversation_id"))
    except UsageError:
        raise UnfitError("conversation_id") from None


def _count(members: Mapping[str, Any], name: str) -> int:
    value = members.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _MOST_COUNT:
        raise UnfitError(name)
    return value


def _flag(members: Mapping[str, Any], name: str) -> bool:
    value = members.get(name, False)
    if not isinstance(value, bool):
        raise UnfitError(name)
    return value


def _time(members: Mapping[str, Any], name: str) -> str | None:
    return None if members.get(name) is None else _needed_time(members, name)


def _needed_time(members: Mapping[str, Any], name: str) -> str:
    """A time in the one form that sorts as the times do: columns hold no other."""
    value = _matching(members, name, _TIME)
    try:
        from_time(value)
    except ValueError:
        raise UnfitError(name) from None
    return value
