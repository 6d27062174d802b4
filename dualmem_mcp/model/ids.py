"""Identifiers, each its own type, and the check that keeps hostile ones out of paths and keys."""

from __future__ import annotations

import hashlib
import re
from typing import NewType

from dualmem_mcp.errors import UsageError

VaultId = NewType("VaultId", str)
"""32 lower-case hexadecimal digits, random."""

DeviceId = NewType("DeviceId", str)
"""32 lower-case hexadecimal digits, random; one for each data home."""

ConversationId = NewType("ConversationId", str)
"""For Claude Code the session's UUID; otherwise whatever the source calls the thread."""

HandoffId = NewType("HandoffId", str)
"""32 lower-case hexadecimal digits, random; names one package."""

_CONVERSATION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def parse_conversation_id(text: str) -> ConversationId:
    """The id, if it is 1 to 128 letters, digits, `.`, `_` or `-` and starts with a letter or digit.

    Raises UsageError otherwise: ids become file names, so `../../x` must never pass.
    """
    if not _CONVERSATION_ID.fullmatch(text) or ".." in text:
        shown = text if len(text) <= 40 else text[:40] + "…"
        raise UsageError(
            f"{shown!r} is not a conversation id",
            operation="parse conversation id",
            subject=shown,
            hint="Use an id as `dualmem conversations` lists it, or the name of a session file without .jsonl.",
        )
    return ConversationId(text)


def conversation_id_for(name: str) -> ConversationId:
    """The id under which a conversation of that name is kept: the name itself where it can be an id, else what of
    it can, with 12 digits of its BLAKE2b, so that different names stay different."""
    try:
        return parse_conversation_id(name)
    except UsageError:
        digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
        words = re.sub(r"[^A-Za-z0-9_-]+", "-", name)[:100].strip("-_") or "conversation"
        return parse_conversation_id(f"{words}-{digest}")
