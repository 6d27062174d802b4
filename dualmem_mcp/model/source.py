"""What is read from the files of sessions, bit by bit, and what is kept of it for search."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from dualmem_mcp.model.conversation import Turn
from dualmem_mcp.model.ids import ConversationId

ImportFormat = Literal["auto", "graph", "turns"]
"""Of a file to import: what it looks like, a memory file of the reference server, or a file of turns."""

IMPORTED = "import"
"""The `origin` of turns that came from a file of turns: what they say is taken as it stands."""

PROGRESS = "progress"
"""The `origin` of turns that a client saved by itself, where no session file is: on the phone."""

API_ERROR = "api-error"
"""The `origin` under which an error of the API is kept that the client wrote down as if the model had said it."""


@dataclass(frozen=True, slots=True)
class ReadMark:
    """How far one session file has been read, and what has to be known to go on from there.

    `offset` is the first byte not read, the beginning of a line; `lines` how many lines stand before it.
    `fingerprint` is of the file's beginning and of what stands before the offset: one that differs tells of a
    file that was rewritten. `size_bytes`, `mtime_ns` and `inode` are the file's as it was looked at last, -1 as
    long as it has not been read to its end. `open_calls` are ids of calls whose results `findings` wait for.
    `link` is the last record of the thread that is no message, `linked_to` the message that it follows on.
    """

    path: str
    conversation_id: ConversationId
    offset: int = 0
    lines: int = 0
    fingerprint: bytes = b""
    size_bytes: int = -1
    mtime_ns: int = -1
    inode: int = -1
    messages: int = 0
    title: str = ""
    title_rank: int = 0
    cwd: str = ""
    open_calls: tuple[str, ...] = ()
    link: str = ""
    linked_to: str = ""


@dataclass(frozen=True, slots=True)
class SessionChunk:
    """Some lines of a session file: the turns in them, and the mark after them.

    `turns` are those of the main thread that have a text and are no meta records, in file order. `ended_at` is
    the time of the last message. `findings_due` says that the lines hold what may change the decisions or
    agents of the session. `skipped` counts lines that are no record.
    """

    mark: ReadMark
    turns: tuple[Turn, ...] = ()
    ended_at: datetime | None = None
    findings_due: bool = False
    skipped: int = 0


FindingKind = Literal["decision", "agent", "note"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What is worth finding beside the turns: a decision, what an agent did or knows, a note.

    `finding_id` names it within its conversation and kind. `conversation_id` is empty for what belongs to a
    project as a whole, `text` for what has been removed.
    """

    kind: FindingKind
    finding_id: str
    text: str
    conversation_id: str = ""
    turn_uuid: str = ""
    author: str = ""
    timestamp: datetime | None = None
    device: str = ""


@dataclass(frozen=True, slots=True)
class StoredTurn:
    """A turn as it is kept: with its place (`id` grows), and the text as it was said or written."""

    id: int
    conversation_id: str
    uuid: str
    role: str
    text: str
    timestamp: datetime | None = None
    author: str = ""
    device: str = ""
    origin: str = ""
    is_compact_summary: bool = False


@dataclass(frozen=True, slots=True)
class ImportedTurn:
    """One line of a file of turns. `author` is empty where only the role is known."""

    conversation_id: ConversationId
    id: str
    role: str
    text: str
    author: str = ""
    timestamp: datetime | None = None


@dataclass(frozen=True, slots=True)
class IndexProgress:
    """How much of the truth an index has: the greatest turn, finding and op that are in it."""

    turns: int = 0
    findings: int = 0
    ops: int = 0
