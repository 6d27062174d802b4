"""What the workflows need of the outside world, as Protocols; `stores/` and `transcripts/` implement them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol

from dualmem_mcp.model.branches import TurnLink
from dualmem_mcp.model.conversation import Session, Turn
from dualmem_mcp.model.handoff import ConversationSummary, HandoffRecord
from dualmem_mcp.model.ids import ConversationId, DeviceId, HandoffId
from dualmem_mcp.model.oplog import LogHead, Op, Stamp
from dualmem_mcp.model.record import RecordType
from dualmem_mcp.model.search import Collection, Filter, ItemKind, SearchItem

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


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

    def shared(self, conversation_ids: Sequence[ConversationId]) -> Sequence[ConversationId]:
        """Those of the conversations that turns of several devices belong to, or any by `save_progress`."""
        ...


@dataclass(frozen=True, slots=True)
class Applied:
    """What a segment changed here: ops that were new, how many of them are held back as from the future, and the
    subjects (16 bytes each) or conversations that look different now."""

    ops: int
    held: int
    subjects: frozenset[bytes] = frozenset()
    conversations: frozenset[str] = frozenset()


class OpLog(Protocol):
    """This device's ops and what it has of other devices', for exchange. `docs/sync.md` has the whole."""

    def device_id(self) -> DeviceId:
        """The device whose log this one writes."""
        ...

    def heads(self) -> Mapping[DeviceId, LogHead]:
        """Where each log ends here: for this device the last segment sealed, for others the last one taken in."""
        ...

    def waiting(self) -> int:
        """Changes made here that no segment holds yet."""
        ...

    def unsealed(self, most_ops: int, most_bytes: int) -> Sequence[Op]:
        """The oldest own ops that no segment holds, at least one if there is one; rows that no op tells of yet get
        theirs first."""
        ...

    def add_segment(self, key: str, data: bytes, head: LogHead) -> None:
        """Queue a sealed segment for upload and move this device's head to it, both or neither.

        Raises ConflictError if the head is not the one before it any more (another process was faster).
        """
        ...

    def take_in(self, device_id: DeviceId, ops: Sequence[Op], head: LogHead) -> Applied:
        """Merge a segment of another device and move its head, in one transaction; what is here already changes
        nothing. Ops more than 24 hours ahead of the clock are kept and held back.

        Raises ConflictError if the segment does not follow on that device's head.
        """
        ...

    def own_ops(self, after: int, upto: int) -> Sequence[Op]:
        """Ops of this device by sequence, those in (after, upto], as they were sealed as far as they are kept."""
        ...

    def release(self, *, all_of_them: bool = False) -> Applied:
        """Let ops take effect whose time has come, or all that were held back."""
        ...

    def held(self) -> Mapping[DeviceId, int]:
        """How many ops of each device are held back."""
        ...

    def fork(self, device_id: DeviceId, after: int, head: LogHead) -> int:
        """Go on under a new device id, because another machine writes under the old one: own ops after that
        sequence become the new device's, with stamps of its own. The old log is from now on another device's, and
        known here up to `head`; segments of it that wait behind are dropped. Returns how many ops moved."""
        ...

    def go_back(self, head: LogHead) -> int:
        """Take the own log to end with that segment: what was sealed behind it waits to be sealed anew. Returns how
        many ops that are."""
        ...

    def set_ahead(self, milliseconds: int) -> int:
        """Remember how far this machine's clock is ahead of the bucket's (negative: behind). Ops that nobody has seen
        yet, from more than five minutes ahead of it, get stamps of the present; returns how many."""
        ...


@dataclass(frozen=True, slots=True)
class Record:
    """A note, task, bookmark, decision or the like: fields with JSON values. `created` and `changed` tell when, and
    on which device, by their stamps."""

    type: RecordType
    id: str
    conversation_id: str
    fields: Mapping[str, Any]
    created: Stamp
    changed: Stamp


class Records(Protocol):
    """Records of all types; each change is an op, merged by field."""

    def put(
        self, record_type: RecordType, record_id: str, fields: Mapping[str, Any], *, conversation_id: str = ""
    ) -> bool:
        """Make the record, or change these fields of it; whether anything changed. A deleted one stays deleted."""
        ...

    def get(self, record_type: RecordType, record_id: str) -> Record | None:
        """The record of that name, or None."""
        ...

    def find(
        self, *, conversation_id: str | None = None, types: Sequence[RecordType] = (), limit: int = 1000
    ) -> Sequence[Record]:
        """Records, the newest made last: of one conversation ("" for those of none), of these types, or all."""
        ...

    def delete(self, record_type: RecordType, record_id: str) -> bool:
        """Delete the record; whether there was one."""
        ...


@dataclass(frozen=True, slots=True)
class Version:
    """One side of a conflict: the value, and the stamp of the op that set it."""

    value: Any
    stamp: Stamp


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two devices changed one thing without knowing of each other.

    `field` is empty where a deletion hides what the other side added; `kept` is then None. `name` says to a person
    what it is about; `kept` is what counts now, `lost` what does not, the newest first.
    """

    conflict_id: str
    kind: Literal["entity", "relation", "record"]
    name: str
    field: str
    kept: Version | None
    lost: tuple[Version, ...]


class Conflicts(Protocol):
    """What lost and waits for a decision."""

    def find(self, limit: int = 100) -> Sequence[Conflict]:
        """Conflicts, those of the newest losers first."""
        ...

    def count(self) -> int:
        """How many there are."""
        ...

    def resolve(self, conflict_id: str, *, keep: bool, stamp: str | None = None) -> Conflict:
        """Decide: with `keep` for what counts now, else for the lost version of that stamp (the newest if None).
        Returns the conflict as it was; the decision is an op, so that all devices take it.

        Raises NotFoundError if there is none of that id, UsageError if it has no version of that stamp.
        """
        ...


class Embedder(Protocol):
    """A model that turns texts into vectors."""

    @property
    def model_id(self) -> str:
        """Names model, weights and whatever changes its vectors: those of different ids cannot be compared."""
        ...

    @property
    def dimensions(self) -> int:
        """Length of the vectors."""
        ...

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """One vector a text, in order: float32 (n, dimensions), L2-normalised. What is too long is cut."""
        ...


@dataclass(frozen=True, slots=True)
class Scored:
    """Items of an index with scores, the best first: int64 (n,) and float32 (n,)."""

    ids: NDArray[np.int64]
    scores: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Features:
    """What ranking has to know of items beside their scores, one entry for each id that was asked for and is there.

    `ids` int64, ascending. `terms` counts the words that are no stop words, int32. `timestamps` are seconds since
    1970, float64, nan for none. `conversations` are numbers of the index's own, int64, 0 for none; the turns of a
    conversation have ids that follow each other, so that `id - 1` and `id + 1` of the same conversation are what
    was said before and after. `traits` are the flags of `model.words.Trait`, uint8.
    """

    ids: NDArray[np.int64]
    kinds: tuple[ItemKind, ...]
    authors: tuple[str, ...]
    conversations: NDArray[np.int64]
    timestamps: NDArray[np.float64]
    terms: NDArray[np.int32]
    traits: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Unembedded:
    """An item that has no vectors yet, with the one before it in its conversation, if there is one."""

    id: int
    item: SearchItem
    previous: SearchItem | None


@dataclass(frozen=True, slots=True)
class IndexCounts:
    """Items in an index, how many of them have their vectors, and its size on disk."""

    items: int
    embedded: int
    size_bytes: int


class SearchReader(Protocol):
    """What a search asks of one collection's index. Ids are the index's own and hold until it is rebuilt."""

    collection: Collection

    def lexical(self, terms: Sequence[str], where: Filter, limit: int) -> Scored:
        """The items that hold at least one of the words (or a word of the same stem), by BM25 over what the filter
        lets pass; higher is better. Words are plain text: nothing in them is an operator."""
        ...

    def nearest(self, vector: NDArray[np.float32], where: Filter, limit: int) -> Scored:
        """The items with a passage nearest to the vector, by cosine; found by their bits, scored exactly."""
        ...

    def cosines(self, vector: NDArray[np.float32], ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """For each id the cosine of its nearest passage, nan where there are no vectors: float32 (n,)."""
        ...

    def vectors(self, ids: Sequence[int]) -> Mapping[int, NDArray[np.float32]]:
        """The vectors (k, dimensions) of those of the items that have some."""
        ...

    def features(self, ids: NDArray[np.int64], where: Filter) -> Features:
        """Features of those of the items that the filter lets pass."""
        ...

    def items(self, ids: Sequence[int]) -> Sequence[SearchItem]:
        """The items themselves, in the order of the ids; those that have gone are left out."""
        ...

    def authors(self, where: Filter) -> Sequence[str]:
        """The different authors of what the filter lets pass, at most 200."""
        ...


class SearchIndex(SearchReader, Protocol):
    """One collection's index: words and vectors. It holds nothing that cannot be made again.

    `generation` changes when it is rebuilt. Safe from several threads and beside other processes. An index that is
    damaged, of another key or deleted while in use is made anew, empty, and the call answered from that; its owner
    fills it again.
    """

    @property
    def generation(self) -> str:
        """Random, a new one for each index that is begun empty: whoever fills it starts over when it changes."""
        ...

    def put(self, items: Sequence[SearchItem]) -> int:
        """Add items in their order, in one small transaction; returns how many were new or changed.

        An item that is there with the same text stays as it is; one whose text changed loses its vectors.
        """
        ...

    def remove(self, keys: Sequence[str]) -> int:
        """Forget items; returns how many were there."""
        ...

    def use_model(self, model_id: str, dimensions: int) -> None:
        """Say whose vectors are wanted; those of another model are dropped."""
        ...

    def unembedded(self, limit: int) -> Sequence[Unembedded]:
        """Items without vectors, the newest first."""
        ...

    def put_vectors(self, model_id: str, vectors: Sequence[tuple[int, NDArray[np.float32]]]) -> None:
        """Store the vectors (k, dimensions) of each item, one for each of its passages; those of an item that has
        gone, or of another model than the index uses now, are dropped."""
        ...

    def reading(self) -> AbstractContextManager[SearchReader]:
        """Several questions to one state of the index, which takes less time than one by one; from one thread at a
        time. If the index has to be made anew meanwhile, what follows is answered from that."""
        ...

    def counts(self) -> IndexCounts:
        """How much there is."""
        ...


@dataclass(frozen=True, slots=True)
class Access:
    """How often an item was given as an answer, and when last."""

    count: int
    last_at: datetime


@dataclass(frozen=True, slots=True)
class CachedItem:
    """An item of the working set: with one vector, float32 (dimensions,), and the priority that it stays by."""

    item: SearchItem
    vector: NDArray[np.float32] | None
    priority: float


class AccessLog(Protocol):
    """Which items were used, and the working set; both outlive the indexes."""

    def add(self, keys: Sequence[str], at: datetime) -> None:
        """Count one more access, at that time, for each of the items of these keys."""
        ...

    def accesses(self, keys: Sequence[str]) -> Mapping[str, Access]:
        """Those of the items that were ever used."""
        ...

    def working_set(self, model_id: str) -> Sequence[CachedItem]:
        """The working set last saved with vectors of that model; of another model's, the items without vectors."""
        ...

    def save_working_set(self, model_id: str, entries: Sequence[CachedItem]) -> None:
        """Keep these entries in place of the earlier ones."""
        ...


class Clock(Protocol):
    """The time, injected so that tests never depend on the wall clock."""

    def now(self) -> datetime:
        """The time now, with time zone UTC."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)


class Progress(Protocol):
    """Called by long work: steps done, steps in all, what is being done (never with content)."""

    def __call__(self, done: int, total: int, message: str) -> None: ...


def no_progress(done: int, total: int, message: str) -> None:
    """A Progress for callers that do not show any."""
