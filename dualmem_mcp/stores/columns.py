"""How texts of other people lie in columns of type ANY, and times in columns of type TEXT.

A text is TEXT; one with half a surrogate pair, which UTF-8 cannot express, is a BLOB of its WTF-8 bytes. The
same text always lies there in the same form, so that equality and uniqueness hold.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

from dualmem_mcp.model.half_pairs import has_half_pair

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_column(text: str) -> str | bytes:
    """The value to bind for a text."""
    return text.encode("utf-8", "surrogatepass") if has_half_pair(text) else text


def from_column(value: str | bytes) -> str:
    """The text of a column's value."""
    return value if isinstance(value, str) else value.decode("utf-8", "surrogatepass")


def text_digest(text: str) -> bytes:
    """16 bytes of BLAKE2b over the text's UTF-8 (WTF-8): equal for equal texts and, in practice, for no others."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def to_time(instant: datetime) -> str:
    """The instant in ISO 8601, UTC, with microseconds: sorts as the instants do."""
    return instant.astimezone(UTC).isoformat(timespec="microseconds")


def from_time(text: str) -> datetime:
    """The instant, in UTC."""
    return datetime.fromisoformat(text)


def to_microseconds(instant: datetime) -> int:
    """The instant in whole microseconds since 1970: what columns of numbers hold."""
    return (instant - _EPOCH) // timedelta(microseconds=1)


def from_microseconds(number: int) -> datetime:
    """The instant, in UTC."""
    return _EPOCH + timedelta(microseconds=number)
