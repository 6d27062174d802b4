"""The keys of conversations that a device has or finds. Source: docs/format.md, "Conversation keys"."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from dualmem_mcp.crypto.epochs import Epochs, fetch_key, mark_uploaded
from dualmem_mcp.crypto.header import tampered
from dualmem_mcp.crypto.key_objects import known_key, open_conversation_key
from dualmem_mcp.crypto.keys import ConversationKey
from dualmem_mcp.errors import NotFoundError
from dualmem_mcp.model.ids import ConversationId, VaultId
from dualmem_mcp.ports import BlobCache, ObjectStore

_PREFIX = "keys/c/"
_KEY_ID = re.compile(r"[0-9a-f]{32}")


def is_key_id(text: str) -> bool:
    """Whether a conversation key may be called so."""
    return _KEY_ID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class ConversationKeys:
    """The conversation keys of one vault; `epochs` seal them."""

    vault_id: VaultId
    epochs: Epochs
    cache: BlobCache
    opened: dict[str, ConversationKey] = field(default_factory=dict, repr=False)

    def find(self, key_id: str, objects: ObjectStore | None) -> ConversationKey:
        """The key of that id: from memory, the cache, or the bucket if one is given, and cached then.

        Raises NotFoundError if it is nowhere or the conversation was erased, TamperedError, and what the bucket
        raises.
        """
        if key_id in self.opened:
            return self.opened[key_id]
        object_key = f"{_PREFIX}{key_id}"
        if not is_key_id(key_id):
            raise tampered("names an impossible key", object_key[:60])
        data = self.cache.get(object_key)
        fetched = data is None
        if data is None:
            data = fetch_key(object_key, objects, missing="the key of this conversation is not in the vault")
        key = open_conversation_key(
            data,
            key_id=key_id,
            vault_id=self.vault_id,
            unwrap=lambda header: known_key("epoch", self.epochs.key(header.key_epoch, objects=objects).key)(
                header
            ),
        )
        if fetched:
            self.cache.put(object_key, data)
            mark_uploaded(self.cache, object_key)
        self.opened[key_id] = key
        return key

    def keep(self, key: ConversationKey, sealed: bytes) -> None:
        """Remember a key that was made here."""
        self.cache.put(key.object_key, sealed)
        self.opened[key.key_id] = key

    def cached(self, conversation_id: ConversationId, objects: ObjectStore | None) -> list[ConversationKey]:
        """The keys of a conversation that this device has copies of."""
        found = []
        for object_key in self.cache.keys(_PREFIX):
            try:
                key = self.find(object_key.rpartition("/")[2], objects)
            except NotFoundError:
                continue  # erased
            if key.conversation_id == conversation_id:
                found.append(key)
        return found

    def forget(self, key: ConversationKey, tombstone: bytes) -> None:
        """Overwrite this device's copy of the key."""
        self.cache.put(key.object_key, tombstone)
        self.opened.pop(key.key_id, None)
