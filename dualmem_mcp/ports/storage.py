"""What lies in the bucket and on this device: objects, sealed things that wait, packages, conversations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from dualmem_mcp.model.branches import TurnLink
from dualmem_mcp.model.conversation import Session, Turn
from dualmem_mcp.model.handoff import ConversationSummary, HandoffRecord
from dualmem_mcp.model.ids import ConversationId, HandoffId

CLIENT_PLACES: Final = "place/"
"""Blobs about where this device stands in a conversation, whose id follows, alone or with a slash and more. They
are erased with it."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object in a store: key, size, and the entity tag that conditional writes compare.

    In a listing the tag may be empty, where telling it would take reading the object; `stat` has it.
    """

    key: str
    size_bytes: int
    etag: str


class ObjectStore(Protocol):
    """Immutable-by-convention objects under string keys: a folder or an S3 bucket with a prefix.

    Keys are relative to the store's root: components of `[A-Za-z0-9._-]`, none of which starts with `.`,
    joined by `/`; at most 128 characters a component and 512 in all (else UsageError). No object's key is
    a folder of another's. A listing may hold objects that others put there. Every method raises
    StoreUnreachableError when the store cannot be reached (after its own bounded retries),
    StoreRefusedError when it answers but forbids. Reads and
    unconditional puts and deletes are idempotent.
    """

    @property
    def location(self) -> str:
        """Where the store is, for messages: `s3://bucket/prefix` or a path; never holds credentials."""
        ...

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """The bytes from `start`, at most `length`; fewer at the end, b"" past it.

        Raises NotFoundError if there is no such object.
        """
        ...

    def stat(self, key: str) -> ObjectInfo:
        """Size and tag of an object. Raises NotFoundError if there is none."""
        ...

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        """Write the whole object, atomically; returns its new tag.

        With `if_absent` only where no object of that key exists, with `if_match` only over the version
        with that tag; else ConflictError, and nothing is changed. A reader sees all of it or none.
        """
        ...

    def list(self, prefix: str = "", *, start_after: str = "") -> Iterator[ObjectInfo]:
        """Objects whose key starts with `prefix` and sorts after `start_after`, in order of their keys' bytes."""
        ...

    def delete(self, key: str) -> None:
        """Remove the object; one that does not exist is no error."""
        ...

    def server_time(self) -> datetime | None:
        """The time that the store stated with its last answer, carried on by this machine's steady clock; None for
        a store without a clock of its own, or before its first answer."""
        ...


class BlobCache(Protocol):
    """Small sealed or public objects of the vault (vault.json, key objects), kept on this device so that
    everything but fetching works without the bucket. Durable; lies inside the encrypted database."""

    def get(self, key: str) -> bytes | None:
        """The bytes last put under that key, or None."""
        ...

    def put(self, key: str, data: bytes) -> None:
        """Keep the bytes under that key, over any earlier ones."""
        ...

    def keys(self, prefix: str = "") -> list[str]:
        """Keys with that prefix, sorted."""
        ...


class Outbox(Protocol):
    """Sealed objects waiting to be uploaded, in the order they were added; survives a crash."""

    def add(self, key: str, data: bytes) -> None:
        """Keep an object durably until `remove`; the same key and bytes again make it whole if it was damaged."""
        ...

    def pending(self) -> Sequence[str]:
        """Keys waiting, oldest first."""
        ...

    def read(self, key: str) -> bytes:
        """The bytes of a waiting object. Raises NotFoundError, TamperedError if they are not those added."""
        ...

    def remove(self, key: str) -> None:
        """Forget an object that has been uploaded; one that is not there is no error."""
        ...


class PackageCache(Protocol):
    """Whole sealed packages kept on this device for use offline."""

    def read(self, handoff_id: HandoffId, *, start: int = 0, length: int | None = None) -> bytes | None:
        """Bytes of a package kept here, or None if it is not."""
        ...

    def write(self, handoff_id: HandoffId, data: bytes, *, made_here: bool) -> None:
        """Keep a whole package, atomically."""
        ...

    def remove(self, handoff_id: HandoffId) -> None:
        """Forget a package; one that is not there is no error."""
        ...


class Catalogue(Protocol):
    """The conversations and handoffs that this device knows of."""

    def save_session(self, session: Session) -> int:
        """Record a conversation of this device with its turns; returns how many turns were new."""
        ...

    def save_handoff(self, record: HandoffRecord, *, told_elsewhere: bool = False) -> None:
        """Record a handoff; again with the same id changes nothing. With `told_elsewhere` it is another device's,
        whose log tells of it."""
        ...

    def handoffs(self, conversation_id: ConversationId) -> Sequence[HandoffRecord]:
        """Handoffs of one conversation, newest first."""
        ...

    def newest_handoff(self) -> HandoffRecord | None:
        """The newest handoff of all, or None."""
        ...

    def handoff(self, handoff_id: HandoffId) -> HandoffRecord | None:
        """One handoff, or None."""
        ...

    def rename_device(self, old: str, new: str) -> None:
        """What this device has not told the others of yet is of the device `new` and no longer of `old`."""
        ...

    def manifest_keys(self) -> frozenset[str]:
        """Keys of the manifests already recorded."""
        ...

    def conversations(
        self, *, query: str = "", limit: int = 20, cursor: str = ""
    ) -> tuple[Sequence[ConversationSummary], str]:
        """Conversations newest first whose title, folder or id holds `query` (any case), and the next cursor."""
        ...


class Threads(Protocol):
    """The turns of conversations as all devices know them: they came from session files, by `save_progress`, or
    by sync."""

    def conversation(self, conversation_id: ConversationId) -> ConversationSummary | None:
        """What is known of the conversation, or None."""
        ...

    def links(self, conversation_id: ConversationId) -> Sequence[TurnLink]:
        """All its turns without their texts, in the order in which they came here."""
        ...

    def texts(self, conversation_id: ConversationId, uuids: Sequence[str]) -> Mapping[str, str]:
        """The texts of those of the turns that are there."""
        ...

    def add(
        self, conversation_id: ConversationId, turns: Sequence[Turn], *, title: str, device_name: str
    ) -> tuple[int, bool]:
        """Add turns made on this device, all or none, and begin the conversation under that title if it is new.
        Returns how many turns were new, and whether anything changed. No turns: only the conversation is begun."""
        ...

    def is_elsewhere(self, conversation_id: ConversationId, uuid: str) -> bool:
        """Whether another conversation has that turn as well: a session of its own that went on from there."""
        ...

    def shared(self, conversation_ids: Sequence[ConversationId]) -> Sequence[ConversationId]:
        """Those of the conversations that turns of several devices belong to, or any by `save_progress`."""
        ...
