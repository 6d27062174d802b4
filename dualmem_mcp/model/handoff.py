"""What is recorded of a handoff: the entry that devices list, and the conversations they make up."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from dualmem_mcp.model.ids import ConversationId, DeviceId, HandoffId


@dataclass(frozen=True, slots=True)
class HandoffRecord:
    """One handoff as the bucket's manifest object states it; all of it sealed there.

    `package_key` and `manifest_key` are object keys in the vault; `base` is the handoff whose package
    holds the parts that this one did not send again, or None.
    """

    handoff_id: HandoffId
    conversation_id: ConversationId
    title: str
    cwd: str
    created_at: datetime
    device_id: DeviceId
    device_name: str
    base: HandoffId | None
    package_key: str
    package_bytes: int
    manifest_key: str
    message_count: int
    visible_tokens: int
    digest_tokens: int
    last_turn_uuid: str


@dataclass(frozen=True, slots=True)
class ConversationSummary:
    """One conversation as `list_conversations` shows it: of this device, handed over, or both."""

    conversation_id: ConversationId
    title: str
    cwd: str
    updated_at: datetime
    message_count: int
    device_name: str
    handoff_id: HandoffId | None
    """The newest handoff, None if the conversation was never handed over."""


@dataclass(frozen=True, slots=True)
class KeptPackage:
    """A sealed package kept on this device: its size, and when it was last used, in ns since 1970."""

    handoff_id: HandoffId
    size_bytes: int
    used_ns: int
