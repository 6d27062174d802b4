"""What indexing needs of the outside, as Protocols; `transcripts/` and `stores/` implement them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Protocol

from dualmem_mcp.model.conversation import Session
from dualmem_mcp.model.digest import Decision
from dualmem_mcp.model.graph import Entity
from dualmem_mcp.model.ids import ConversationId
from dualmem_mcp.model.project import ProjectFile
from dualmem_mcp.model.search import Collection
from dualmem_mcp.model.source import (
    Finding,
    FindingKind,
    ImportedTurn,
    IndexProgress,
    ReadMark,
    SessionChunk,
    StoredTurn,
)


class SessionFiles(Protocol):
    """The session files of this device that may be indexed."""

    def paths(self) -> Sequence[str]:
        """The files, the newest first."""
        ...

    def read_tail(self, path: str, mark: ReadMark | None) -> Iterator[SessionChunk]:
        """What the file holds after the mark; nothing if it is as the mark left it, or has gone.

        Raises StoreUnreachableError if it cannot be read.
        """
        ...

    def read_session(self, path: str) -> Session:
        """The whole session in the file. Raises NotFoundError, MalformedError, StoreUnreachableError."""
        ...

    def changed_knowledge(self) -> Iterator[tuple[str, Sequence[ProjectFile]]]:
        """Each project of whose files some have changed since they were last given here, with all that its agents
        know: their definitions, and the files of its memory. Given it is when the next is asked for."""
        ...


class CarriedSession(Protocol):
    """A conversation as its package carries it: decisions of its digest, and the session itself, None for one that
    this device has from its own files."""

    @property
    def conversation_id(self) -> str: ...
    @property
    def decisions(self) -> Sequence[Decision]: ...
    @property
    def session(self) -> Session | None: ...


class CarriedSessions(Protocol):
    """The conversations whose packages are kept on this device."""

    def sources(self) -> Sequence[tuple[str, str]]:
        """A name for each package, which never means another, and the name of the device it is from."""
        ...

    def read(self, source: str) -> CarriedSession:
        """The conversation. Raises NotFoundError, TamperedError, StoreUnreachableError, MalformedError."""
        ...


class SourceLog(Protocol):
    """What was read of the sources, and how far; both written in the same transaction, all of them short."""

    def mark(self, path: str) -> ReadMark | None:
        """How far the file was read; None if it never was."""
        ...

    def add_chunk(self, chunk: SessionChunk, before: ReadMark | None) -> int | None:
        """Keep the turns of a chunk that was read on from `before`, and its mark; how many turns were new.

        None, and nothing is kept, if somebody else has read on from there meanwhile.
        """
        ...

    def findings_due(self) -> Sequence[tuple[str, ConversationId]]:
        """Files whose decisions and agents have to be looked at again."""
        ...

    def put_findings(
        self, conversation_id: str, findings: Iterable[Finding], *, replacing: str = "", path: str = ""
    ) -> int:
        """Keep findings; how many were new, changed or removed.

        With `replacing` the ids of all of them begin so, and others that do are removed. The file at `path` has
        then been looked at.
        """
        ...

    def add_session(self, source: str, conversation_id: str, session: Session | None, device_name: str) -> int:
        """Keep the turns of another device's session that is read at once, then that its source was read; how many
        were new. That device's log tells of them."""
        ...

    def add_imported(self, turns: Sequence[ImportedTurn]) -> tuple[int, Sequence[ImportedTurn]]:
        """Keep turns of a file, in their order; how many were new, and those that have another text here."""
        ...


class SearchTruth(Protocol):
    """What can be found, in the order in which it came to be known, and how far each index has come."""

    def turns(self, after: int, limit: int) -> Sequence[StoredTurn]:
        """Turns with a text that are no meta records, by their ids, from the one after `after`."""
        ...

    def turns_after(self, after: int) -> int:
        """About how many turns there are after that one."""
        ...

    def findings(self, after: int, kinds: Sequence[FindingKind], limit: int) -> Sequence[tuple[int, Finding]]:
        """Findings of these kinds by the number of their last change, from the one after `after`."""
        ...

    def changed_entities(self, after: int, limit: int) -> tuple[Sequence[str], int]:
        """Names of the entities that the next `limit` changes were made to, and the number of the last of them."""
        ...

    def entities(self, names: Iterable[str]) -> Sequence[tuple[Entity, datetime]]:
        """Those of the entities that there are, and when something was last added to each."""
        ...

    def forgotten(self, collection: Collection, limit: int) -> Sequence[str]:
        """Keys of items that are of nothing any more, since their conversation was erased."""
        ...

    def note_forgotten(self, keys: Sequence[str]) -> None:
        """The index has let go of these items."""
        ...

    def progress(self, generation: str) -> IndexProgress | None:
        """How far the index of that generation has come; None if it is new."""
        ...

    def save_progress(self, generation: str, collection: Collection, progress: IndexProgress) -> None:
        """Remember it, and forget those of earlier generations of the collection."""
        ...
