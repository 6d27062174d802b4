"""Canonical JSON: one encoding of each content, so that what is signed and compared is bytes."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

from dualmem_mcp.errors import TamperedError

MAX_JSON_BYTES = 65536
"""Larger is no vault.json, key or roster entry; checked before parsing."""

_MAX_INTEGER = 1 << 53
_HEX = re.compile(r"[0-9a-f]*")


def canonical_json(value: dict[str, Any]) -> bytes:
    """The value as canonical JSON. Source: docs/format.md, "Notation"."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


class Fields:
    """The fields of a JSON object from the bucket; each reading checks its type and raises TamperedError."""

    def __init__(self, values: dict[str, Any], *, subject: str) -> None:
        self.values = values
        self._subject = subject

    @classmethod
    def parse(cls, data: bytes, *, subject: str, most_bytes: int = MAX_JSON_BYTES) -> Fields:
        """The fields of canonical JSON. Raises TamperedError if the bytes are not exactly that, or too many."""
        fields = cls({}, subject=subject)
        if len(data) > most_bytes:
            raise fields.unfit("is too long")
        try:
            values = json.loads(data)
            same = isinstance(values, dict) and canonical_json(values) == data
        except (ValueError, RecursionError):
            raise fields.unfit("is not as it was written") from None
        if not same:
            raise fields.unfit("is not as it was written")
        return cls(values, subject=subject)

    def text(self, name: str, *, longest: int = 256) -> str:
        """A string of at most `longest` characters."""
        value = self.values.get(name)
        if not isinstance(value, str) or len(value) > longest:
            raise self.unfit(f"has no fit field {name!r}")
        return value

    def integer(self, name: str, *, low: int = 0, high: int = _MAX_INTEGER - 1) -> int:
        """A whole number within bounds, both inclusive."""
        value = self.values.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.unfit(f"has no fit field {name!r}")
        return value

    def binary(self, name: str, *, length: int) -> bytes:
        """So many bytes, from lower-case hexadecimal."""
        value = self.values.get(name)
        if not isinstance(value, str) or len(value) != 2 * length or not _HEX.fullmatch(value):
            raise self.unfit(f"has no fit field {name!r}")
        return bytes.fromhex(value)

    def time(self, name: str) -> datetime:
        """A time in UTC."""
        try:
            return datetime.strptime(self.text(name), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        except ValueError:
            raise self.unfit(f"has no fit field {name!r}") from None

    def nested(self, name: str) -> Fields:
        """An object within."""
        value = self.values.get(name)
        if not isinstance(value, dict):
            raise self.unfit(f"has no fit field {name!r}")
        return Fields(value, subject=self._subject)

    def unfit(self, what: str) -> TamperedError:
        """The error for a field that is not as we write it."""
        return TamperedError(
            f"{self._subject or 'an object of the vault'} {what}",
            operation="read vault",
            subject=self._subject,
            hint="It was changed or damaged: restore it from a backup of the bucket, or update dualmem-mcp.",
        )


def time_text(time: datetime) -> str:
    """A time as canonical JSON states it: UTC, whole seconds."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
