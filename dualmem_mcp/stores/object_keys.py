"""The rule for keys, prefixes and ranges that every object store keeps."""

from __future__ import annotations

import re

from dualmem_mcp.errors import UsageError

# Limits that every store can keep: file systems take 255 bytes a name (encrypted ones 143), S3 takes 1,024 a key.
MAX_KEY_LENGTH = 512
MAX_COMPONENT_LENGTH = 128

_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*", re.ASCII)
_PREFIX = re.compile(r"[A-Za-z0-9._/-]*", re.ASCII)


def check_key(key: str) -> str:
    """The key itself, if it fits the rule of ObjectStore and its limits of length; else UsageError."""
    if _KEY.fullmatch(key) and len(key) <= MAX_KEY_LENGTH and max(map(len, key.split("/"))) <= MAX_COMPONENT_LENGTH:
        return key
    shown = key if len(key) <= 60 else key[:60] + "…"
    raise UsageError(
        f"{shown!r} is not an object key",
        operation="check object key",
        subject=shown,
        hint=f"Keys are letters, digits, `.`, `_` and `-` in components of at most {MAX_COMPONENT_LENGTH} "
        f"that do not start with `.`, joined by `/`, at most {MAX_KEY_LENGTH} in all.",
    )


def is_key(text: str) -> bool:
    """Whether the text is a key of the rule; listings skip what others put beside our objects."""
    try:
        check_key(text)
    except UsageError:
        return False
    return True


def check_range(start: int, length: int | None) -> None:
    """Raises ValueError if a range of bytes starts or extends below zero."""
    if start < 0 or (length is not None and length < 0):
        raise ValueError("start and length of a range cannot be negative")


def check_prefix(prefix: str) -> str:
    """The prefix itself, if keys could start with it; else UsageError."""
    if not _PREFIX.fullmatch(prefix) or len(prefix) > MAX_KEY_LENGTH:
        raise UsageError("no object key starts with that prefix", operation="list objects", subject=prefix[:60])
    return prefix
