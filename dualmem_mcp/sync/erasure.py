"""Erasing a conversation: its keys destroyed, its objects removed, its name banned on all devices for good.

Source: docs/format.md, "Erasure".
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from dualmem_mcp.crypto.canonical import canonical_json
from dualmem_mcp.crypto.envelope import ObjectKind, bytes_reader
from dualmem_mcp.errors import DualmemError, NotFoundError, StoreUnreachableError, TamperedError
from dualmem_mcp.handoff.channel import Channel, manifest_prefix, package_key
from dualmem_mcp.handoff.manifest import record_from_json
from dualmem_mcp.model.ids import ConversationId, HandoffId
from dualmem_mcp.sync.compaction import WANTED

_MOST_RECORD_BYTES: Final = 64 << 10
_MOST_KEYS: Final = 100_000
_PACKAGE: Final = re.compile(r"packages/[0-9a-f]{32}")
_PLAN: Final = "local/erasing/"
"""Blobs that say what of the bucket an erasure that was begun here has still to remove; empty when it is done."""

REMAINS: Final = (
    "what was said and noted in it lies sealed in segments of the log until `dualmem compact` has removed these",
    "other devices keep what they have of it until they sync",
    "a bucket that keeps old versions of objects, and copies of the bucket, keep it, keys included",
    "Claude Code's own transcript, memory.json and files restored from it are not touched",
    "what was shown to Claude cannot be taken back",
)


class Erasures(Protocol):
    """What of erased conversations lies in this device's memory."""

    def erase(self, conversation_id: ConversationId) -> bool:
        """Ban the conversation, remove what is here of it, and tell the other devices so, all at once; whether that
        changed anything."""
        ...

    def knows(self, conversation_id: ConversationId) -> bool:
        """Whether there is anything of the conversation here."""
        ...

    def is_erased(self, conversation_id: ConversationId) -> bool:
        """Whether the conversation is banned."""
        ...

    def left_over(self) -> tuple[Sequence[HandoffId], Sequence[ConversationId]]:
        """The handoffs whose packages may lie here still, and the conversations whose keys do."""
        ...

    def note_gone(self, handoffs: Sequence[HandoffId], conversations: Sequence[ConversationId]) -> None:
        """These packages and keys have gone from here."""
        ...


@dataclass(frozen=True, slots=True)
class Removed:
    """What was removed from the bucket: keys overwritten, packages and manifests deleted.

    `waits` says why some of it has to wait, empty if nothing has.
    """

    keys: int = 0
    packages: int = 0
    manifests: int = 0
    waits: str = ""


def was_erased(conversation_id: ConversationId, *, operation: str) -> NotFoundError:
    """What to raise where somebody asks for an erased conversation, or wants to add to it."""
    return NotFoundError(
        f"conversation {conversation_id} was erased, which is for good",
        operation=operation,
        subject=conversation_id,
        hint="Nothing of it is left, and nothing is kept of it again. What belongs to another conversation can be: "
        "`claude --resume … --fork-session` gives a session a new id.",
    )


def erase(channel: Channel, erasures: Erasures, conversation_id: ConversationId) -> dict[str, Any]:
    """Erase a conversation: conversation_id, name, keys, packages, manifests, queued, remains, warnings.

    What the bucket holds goes with the next sync if it is away. Again it goes on where it stopped. Raises
    NotFoundError if neither this device nor the bucket knows of the conversation.
    """
    name = channel.vault.object_name("conversation", conversation_id)
    if not erasures.is_erased(conversation_id) and not _is_known(channel, erasures, conversation_id):
        raise NotFoundError(
            f"there is no conversation {conversation_id} here nor in the bucket",
            operation="erase conversation",
            subject=conversation_id,
            hint="`dualmem conversations` lists those that were handed over, with their ids.",
        )
    # First of all what is to do, so that a stop at any moment is made good by the next sync.
    packages = [record.package_key for record in channel.catalogue.handoffs(conversation_id)]
    _save_plan(channel, conversation_id, {*packages, *_plan(channel, conversation_id)})
    channel.blobs.put(WANTED, b"1")
    erasures.erase(conversation_id)
    removed = carry_out(channel, erasures)
    return {
        "conversation_id": conversation_id,
        "name": name,
        "keys": removed.keys,
        "packages": removed.packages,
        "manifests": removed.manifests,
        "queued": bool(removed.waits),
        "remains": list(REMAINS),
        "warnings": [f"what the bucket holds of it goes at the next sync: {removed.waits}"]
        if removed.waits
        else [],
    }


def carry_out(channel: Channel, erasures: Erasures) -> Removed:
    """Let go of what this device keeps of erased conversations, and go on with erasures that were begun here.

    Done after each sync; mostly there is nothing to do. A bucket that is away is no error.
    """
    handoffs, conversations = erasures.left_over()
    for handoff_id in handoffs:
        channel.packages.remove(handoff_id)
        channel.outbox.remove(package_key(handoff_id))
    plans = [key.removeprefix(_PLAN) for key in channel.blobs.keys(_PLAN) if channel.blobs.get(key)]
    keys = packages = manifests = 0
    try:
        for conversation_id in map(ConversationId, plans):
            _collect(channel, conversation_id)
        for conversation_id in dict.fromkeys([*conversations, *map(ConversationId, plans)]):
            keys += _destroy_keys(channel, conversation_id)
        for conversation_id in map(ConversationId, plans):
            gone = _delete_objects(channel, conversation_id)
            packages += gone[0]
            manifests += gone[1]
            channel.blobs.put(_PLAN + conversation_id, b"")
    except StoreUnreachableError as error:
        erasures.note_gone(handoffs, [])
        return Removed(keys, packages, manifests, error.message)
    erasures.note_gone(handoffs, conversations)
    return Removed(keys, packages, manifests)


def _is_known(channel: Channel, erasures: Erasures, conversation_id: ConversationId) -> bool:
    if erasures.knows(conversation_id) or channel.vault.cached_conversation_keys(conversation_id):
        return True
    return any(True for _ in channel.objects.list(manifest_prefix(channel.vault, conversation_id)))


def _plan(channel: Channel, conversation_id: ConversationId) -> list[str]:
    kept = channel.blobs.get(_PLAN + conversation_id)
    return list(json.loads(kept)["packages"]) if kept else []


def _save_plan(channel: Channel, conversation_id: ConversationId, packages: set[str]) -> None:
    # A record may name anything as its package: what is no package is not removed.
    named = sorted(filter(_PACKAGE.fullmatch, packages))
    channel.blobs.put(_PLAN + conversation_id, canonical_json({"packages": named}))


def _collect(channel: Channel, conversation_id: ConversationId) -> None:
    """Note the packages that manifests of the bucket name, as long as there are keys to open these with."""
    packages = set(_plan(channel, conversation_id))
    for info in channel.objects.list(manifest_prefix(channel.vault, conversation_id)):
        try:
            data = channel.objects.get(info.key, length=_MOST_RECORD_BYTES)
            reader = channel.open(ObjectKind.MANIFEST, info.key, bytes_reader(data))
            packages.add(record_from_json(reader.read_section("record"), manifest_key=info.key).package_key)
        except StoreUnreachableError:
            raise
        except DualmemError:
            continue  # without its key, or damaged, it names nothing any more; it is deleted all the same
    # Keys that are in the bucket and not here yet: made by other devices, perhaps for handoffs not heard of.
    for count, info in enumerate(channel.objects.list("keys/c/")):
        if count >= _MOST_KEYS:
            break
        try:
            channel.vault.conversation_key(info.key.rpartition("/")[2], objects=channel.objects)
        except (NotFoundError, TamperedError):
            continue
    _save_plan(channel, conversation_id, packages)


def _destroy_keys(channel: Channel, conversation_id: ConversationId) -> int:
    keys = channel.vault.cached_conversation_keys(conversation_id)
    for key in keys:
        for epoch_key, sealed in channel.vault.pending_epoch():
            channel.objects.put(epoch_key, sealed)
            channel.vault.mark_uploaded(epoch_key)
        # In the bucket first: what is overwritten here alone would not be found again.
        tombstone = channel.vault.seal_tombstone(key)
        channel.objects.put(key.object_key, tombstone)
        channel.outbox.remove(key.object_key)
        channel.vault.forget_conversation_key(key, tombstone)
    channel.blobs.put(f"local/conversation-key/{conversation_id}", b"")
    return len(keys)


def _delete_objects(channel: Channel, conversation_id: ConversationId) -> tuple[int, int]:
    packages = _plan(channel, conversation_id)
    for key in packages:
        channel.outbox.remove(key)
        channel.objects.delete(key)
    manifests = [info.key for info in channel.objects.list(manifest_prefix(channel.vault, conversation_id))]
    for key in manifests:
        channel.outbox.remove(key)
        channel.objects.delete(key)
    return len(packages), len(manifests)
