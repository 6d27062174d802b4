"""The names of Claude Code's project folders."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

MAX_SLUG: Final = 200
"""Characters of a project folder's name before it is cut. Source: Claude Agent SDK, session storage."""

_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"


def project_slug(cwd: str) -> str:
    """The name of the project folder for a working directory, as Claude Code derives it.

    The caller resolves symbolic links. Every character but ASCII letters and digits becomes `-`; beyond 200
    characters the name is cut and `-` and a hash of the whole are added. Source: notes of the format in
    docs/transcripts.md; the hash is the Agent SDK's (32 bits, base 36), Claude Code's own binary may use
    another: look such folders up by their first 200 characters.
    """
    path = unicodedata.normalize("NFC", cwd)
    # JavaScript counts UTF-16 units: a character beyond the basic plane becomes two dashes.
    units = "".join(char if ord(char) < 0x10000 else "--" for char in path)
    slug = re.sub(r"[^a-zA-Z0-9]", "-", units)
    return slug if len(slug) <= MAX_SLUG else f"{slug[:MAX_SLUG]}-{_base36(_hash32(path))}"


def _hash32(text: str) -> int:
    """`h = h * 31 + unit` over UTF-16 units in signed 32-bit arithmetic, without its sign."""
    value = 0
    encoded = text.encode("utf-16-le", "surrogatepass")
    for index in range(0, len(encoded), 2):
        value = (value * 31 + int.from_bytes(encoded[index : index + 2], "little")) & 0xFFFFFFFF
    return abs(value - 0x100000000 if value >= 0x80000000 else value)


def _base36(number: int) -> str:
    text = ""
    while number:
        number, rest = divmod(number, 36)
        text = _DIGITS[rest] + text
    return text or "0"
