"""All that a handoff passes through on one device, and the names of its objects in the bucket."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dualmem_mcp.crypto.envelope import Header, ObjectKind, RangeReader, SealedReader, Section, seal_object
from dualmem_mcp.crypto.vault import ConversationKey, Vault
from dualmem_mcp.model.ids import ConversationId, HandoffId
from dualmem_mcp.ports import BlobCache, Catalogue, Clock, ObjectStore, Outbox, PackageCache


@dataclass(frozen=True, slots=True)
class Channel:
    """An open vault with the stores that a handoff reads and writes."""

    vault: Vault
    objects: ObjectStore
    outbox: Outbox
    packages: PackageCache
    catalogue: Catalogue
    blobs: BlobCache
    clock: Clock

    def conversation_key(self, conversation_id: ConversationId) -> tuple[ConversationKey, list[tuple[str, bytes]]]:
        """The key that this device seals a conversation with, and the objects that must be uploaded first.

        Made at the first handoff and kept; every device makes its own, so that two of them offline never
        wait for each other. Erasing a conversation destroys all of them.
        """
        memo = f"local/conversation-key/{conversation_id}"
        if kept := self.blobs.get(memo):
            key = self.vault.conversation_key(kept.decode("ascii"), objects=self.objects)
            # A device that was revoked knows the keys from before.
            if self.vault.is_of_present_key(key.epoch):
                return key, self.vault.pending_objects(key)
        key, waiting = self.vault.create_conversation_key(conversation_id)
        self.blobs.put(memo, key.key_id.encode("ascii"))
        return key, waiting

    def seal(self, kind: ObjectKind, key: str, sections: Sequence[Section], with_key: ConversationKey) -> bytes:
        """The sections as one sealed object that opens under no other name."""
        return seal_object(
            sections,
            place=self.vault.place(kind, key),
            key_id=with_key.key_id,
            key_epoch=with_key.epoch,
            wrapping_key=with_key.key,
        )

    def open(self, kind: ObjectKind, key: str, read: RangeReader) -> SealedReader:
        """A reader of the sealed object at `key`. Raises TamperedError if it was not sealed for that place."""

        def unwrap(header: Header) -> bytes:
            return self.vault.conversation_key(header.key_id, objects=self.objects).key

        return SealedReader.open(read, place_of=self.vault.place_of(kind, key), unwrap=unwrap)


def package_key(handoff_id: HandoffId) -> str:
    """Where a package lies; the id is random, so the name says nothing."""
    return f"packages/{handoff_id}"


def packed_handoff(key: str) -> HandoffId | None:
    """The handoff whose package lies there; None if the key is no package's."""
    kind, _, name = key.partition("/")
    return HandoffId(name) if kind == "packages" else None


def manifest_prefix(vault: Vault, conversation_id: ConversationId | None = None) -> str:
    """The prefix of all handoff records, or of one conversation's, under a keyed hash of its id."""
    if conversation_id is None:
        return "manifests/"
    return f"manifests/{vault.object_name('conversation', conversation_id)}/"


def manifest_key(vault: Vault, conversation_id: ConversationId, content_sha256: str) -> str:
    """Where a handoff record lies: named by its content, so that a retry writes the same object."""
    return manifest_prefix(vault, conversation_id) + vault.object_name("manifest", content_sha256)
