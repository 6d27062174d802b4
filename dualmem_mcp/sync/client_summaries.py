"""What a client's own compaction left of a conversation, kept as a record in case the session loses it."""

from __future__ import annotations

from typing import Final

from dualmem_mcp.model.digest import Quote
from dualmem_mcp.model.ids import ConversationId, DeviceId
from dualmem_mcp.ports import Records
from dualmem_mcp.sync.progress import derived_id

MOST_CHARACTERS: Final = 200_000
"""Of a summary that is kept; Claude Code's have some 4,000 to 18,000."""


def keep_client_summary(
    records: Records, device_id: DeviceId, conversation_id: ConversationId, text: str, *, trigger: str
) -> None:
    """Keep the summary of a compaction in the place of what this device kept of the conversation before.

    `trigger` is what the client says of it (manual, auto). Of a conversation that was erased nothing is kept.
    """
    fields = {"text": text[:MOST_CHARACTERS], "origin": "claude-code", "trigger": trigger[:40]}
    record_id = derived_id(conversation_id, "compaction", device_id)
    records.put("compaction", record_id, fields, conversation_id=conversation_id)


def kept_client_summary(records: Records, conversation_id: ConversationId) -> Quote | None:
    """The newest summary that was kept of the conversation, on whatever device."""
    found = records.find(conversation_id=conversation_id, types=("compaction",))
    newest = max(found, key=lambda one: one.changed, default=None)
    if newest is None:
        return None
    return Quote(text=str(newest.fields.get("text", "")), timestamp=newest.changed.instant)
