"""Values out of other people's JSON: each reader gives its type, or an empty value where another type stands."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from pydantic_core import from_json

MAX_DEPTH: Final = 40
"""Values nested deeper than this inside a record are cut, so that no later code recurses without bound."""

_SURROGATE: Final = re.compile("[\ud800-\udfff]")


# `json.dumps` with these makes an encoder for each call, which takes longer than the encoding.
_COMPACT: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))

_AROUND: Final = "\ufeff \t\r\n"


def json_line(line: bytes) -> Any:
    """The JSON value of a line, with replacement characters for what is no UTF-8 in it; None for an empty line.

    Raises ValueError or RecursionError if it holds no such value.
    """
    try:
        return from_json(line)  # takes half the time, and less memory: strings that repeat are kept once
    except ValueError:
        # It refuses half surrogate pairs, bytes that are no UTF-8, and deep nesting.
        text = line.decode("utf-8", "replace").strip(_AROUND)
        return json.loads(text) if text else None


def is_blank(line: bytes) -> bool:
    """Whether nothing stands in a line."""
    return not line.decode("utf-8", "replace").strip(_AROUND)


def text_of(value: object) -> str:
    """The value if it is a string, free of lone surrogates (which no UTF-8 file can hold); else an empty one."""
    if not isinstance(value, str):
        return ""
    if value.isascii():
        return value
    return _SURROGATE.sub("\ufffd", value)


def object_of(value: object) -> Mapping[str, Any]:
    """The value if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def list_of(value: object) -> list[Any]:
    """The value if it is a JSON array, else an empty one."""
    return value if isinstance(value, list) else []


def time_of(value: object) -> datetime | None:
    """An ISO 8601 instant as UTC, or None if it is none."""
    if not isinstance(value, str) or not 10 <= len(value) <= 40:
        return None
    try:
        moment = datetime.fromisoformat(value)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def count_of(value: object) -> int:
    """The value if it is a plausible count, else 0."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else 0


def bounded(value: object, *, depth: int = MAX_DEPTH, max_text: int | None = None) -> Any:
    """A copy of a JSON value, free of lone surrogates, nested no deeper than `depth`, strings cut at `max_text`."""
    if isinstance(value, str):
        text = text_of(value)
        return text if max_text is None or len(text) <= max_text else text[:max_text] + "…"
    if isinstance(value, dict):
        if depth <= 0:
            return "…"
        return {text_of(key): bounded(item, depth=depth - 1, max_text=max_text) for key, item in value.items()}
    if isinstance(value, list):
        if depth <= 0:
            return "…"
        return [bounded(item, depth=depth - 1, max_text=max_text) for item in value]
    return value


def json_text(value: object) -> str:
    """Compact JSON of a value that `bounded` gave."""
    return _COMPACT.encode(value)
