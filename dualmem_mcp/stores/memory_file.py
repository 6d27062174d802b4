"""The graph as a plain file in the reference server's form: imported, and kept current for other programs."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

from dualmem_mcp.durable_files import (
    TEMPORARY,
    file_faults,
    file_lock,
    remove_abandoned,
    sync_folder,
    write_durably,
)
from dualmem_mcp.errors import ConflictError, DualmemError, MalformedError, NotFoundError, StoreUnreachableError
from dualmem_mcp.model.graph import Entity, Graph, Relation
from dualmem_mcp.ports import Clock
from dualmem_mcp.reference_jsonl import (
    MAX_FILE_BYTES,
    MemoryFileContent,
    entity_line,
    parse_memory_file,
    relation_line,
    serialise_graph,
)
from dualmem_mcp.stores.graph_import import ImportCounts
from dualmem_mcp.stores.graph_store import GraphStore

SMALL_FILE_BYTES: Final = 1 << 20
_DELAY_SECONDS: Final = 0.5
_ATTEMPTS: Final = 5
_RECORD_BYTES: Final = 1024


# Size in bytes, time of the last change in nanoseconds, inode.
_Status = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What the import of a file added; `skipped` counts what could not be read, as the warnings say."""

    entities: int
    relations: int
    observations: int
    skipped: int
    warnings: tuple[str, ...]


def import_file(graph: GraphStore, path: Path) -> ImportReport:
    """Add the content of a memory file, in any of its forms, to the graph; doing it again changes nothing.

    Raises NotFoundError, StoreUnreachableError, or MalformedError if the file is no memory file at all.
    """
    return add_content(graph, parse_memory_file(read_memory_file(path)))


def add_content(graph: GraphStore, content: MemoryFileContent) -> ImportReport:
    """Add what a memory file holds to the graph."""
    return _report(content, graph.import_graph(content.graph))


def has_mirrored(path: Path) -> bool:
    """Whether a MemoryFile has written that file before."""
    return _lock_path(Path(os.path.realpath(path))).exists()


def export_file(graph: GraphStore, path: Path) -> Graph:
    """Write the graph in clear as a new file in the reference's form, mode 0600; returns what was written.

    Raises ConflictError rather than replace a file that is there, StoreUnreachableError, DiskFullError.
    """
    if os.path.lexists(path):  # a link that leads nowhere would be replaced, too
        raise ConflictError(
            f"{path} exists already and was left as it is",
            operation="export",
            subject=str(path),
            hint="Name a file that is not there.",
        )
    written = graph.read_graph()
    write_durably(path.absolute(), serialise_graph(written))
    return written


def keep_copy(path: Path, data: bytes, clock: Clock) -> Path:
    """A copy of the file's bytes beside it, `<name>.<date>[-n].bak`, mode 0600; an equal one of today is taken
    for it."""
    stem = f"{path.name}.{clock.now().date().isoformat()}"
    number = 1
    while True:
        copy = path.with_name(f"{stem}.bak" if number == 1 else f"{stem}-{number}.bak")
        with file_faults("write", copy):
            try:
                # Made exclusively: a copy that is there already is never written over.
                descriptor = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
            except FileExistsError:
                if copy.stat().st_size == len(data) and copy.read_bytes() == data:
                    return copy
                number += 1
                continue
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            except BaseException:
                copy.unlink(missing_ok=True)
                raise
            sync_folder(copy.parent)
            return copy


@dataclass(frozen=True, slots=True)
class _Record:
    """What a process of this data home last wrote; kept in the lock file, which holds no word of the graph."""

    owner: str
    version: int
    size: int
    mtime_ns: int
    inode: int
    sha256: str

    @classmethod
    def read(cls, descriptor: int) -> Self | None:
        """The record in the open lock file, None if there is none that can be read."""
        os.lseek(descriptor, 0, os.SEEK_SET)
        try:
            return cls(**json.loads(os.read(descriptor, _RECORD_BYTES)))
        except (ValueError, TypeError):
            return None

    def write(self, descriptor: int) -> None:
        """Replace the record in one write of always the same size: who dies leaves the old one or the new."""
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, json.dumps(asdict(self)).encode().ljust(_RECORD_BYTES))


class MemoryFile:
    """The mirror of a graph in one file, which other programs may edit.

    Up to 1 MiB the file is current when the call that changed the graph returns, larger ones within a second
    and before the process ends. What others put into the file is added to the graph before the file is
    written again; what the file cannot keep is kept in a dated copy beside it. The file's bytes are those that
    the reference server writes, its mode is 0600.
    """

    def __init__(
        self, path: Path, graph: GraphStore, clock: Clock, *, owner: str, report: Callable[[str], None]
    ) -> None:
        """`owner` names the data home; `report` is told, in one sentence, what went wrong after a change."""
        # A symbolic link stays one: its target is what is replaced.
        self.path = Path(os.path.realpath(path))
        self._lock_path = _lock_path(self.path)
        self._graph = graph
        self._clock = clock
        self._owner = owner
        self._report = report
        self._lines: dict[str | tuple[str, str, str], tuple[Entity | Relation, bytes]] = {}
        self._size = 0
        self._holder = 0
        self._due = False  # a timer will write what is not written
        self._behind = False  # writing failed
        self._timer: threading.Timer | None = None
        self._timer_lock = threading.Lock()

    def start(self) -> list[str]:
        """Import the file, bring it up to date, and follow the graph from now on; returns notices for the user.

        Raises StoreUnreachableError if the file cannot be read or written, MalformedError if it is over 1 GiB
        or no regular file.
        """
        notices = self._synchronise()
        # What a process left that died while writing lies here in clear.
        remove_abandoned(
            self.path.parent, lambda name: name.startswith(f".{self.path.name}.") and name.endswith(TEMPORARY)
        )
        self._graph.on_change(self._changed)
        return notices

    def close(self) -> None:
        """Write what is not written yet."""
        with self._timer_lock:
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
            timer.join()
        if self._due or self._behind:
            self._due = False
            self._try_to_synchronise()

    def _changed(self) -> None:
        if self._holder == threading.get_ident():
            return  # an import from the file itself, which is written when it is done
        if self._size <= SMALL_FILE_BYTES:
            self._try_to_synchronise()
            return
        with self._timer_lock:
            if not self._due:
                self._due = True
                # Not a daemon: the interpreter waits for it, so that nothing is missing at the end.
                self._timer = threading.Timer(_DELAY_SECONDS, self._late)
                self._timer.start()

    def _late(self) -> None:
        with self._timer_lock:
            self._due = False
        self._try_to_synchronise()

    def _try_to_synchronise(self) -> None:
        try:
            notices = self._synchronise()
            self._behind = False
        except DualmemError as error:
            # Whatever it is: the change itself is safe in the database; the next one, or closing, tries again.
            self._behind = True
            notices = [f"{self.path} is not up to date: {error}. {error.hint}".rstrip()]
        for notice in notices:
            self._report(notice)

    def _synchronise(self) -> list[str]:
        _status(self.path)  # what is no file of the user's is refused before anything is made beside it
        with file_faults("make", self.path.parent):
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with file_lock(self._lock_path) as descriptor:
            self._holder = threading.get_ident()
            try:
                return self._synchronise_locked(descriptor)
            finally:
                self._holder = 0

    def _synchronise_locked(self, descriptor: int) -> list[str]:
        notices: list[str] = []
        for _ in range(_ATTEMPTS):
            record = _Record.read(descriptor)
            if record is not None and record.owner != self._owner:
                record = None  # another data home mirrors the same file: what it adds is added here, too
            found = _status(self.path)
            data = self._foreign(found, record)
            if data is not None:
                notices += self._take_in(data, record)
            elif self._is_current(found, record):
                return notices
            version, graph = self._graph.snapshot()
            wanted = self._render(graph)
            if _status(self.path) != found:
                continue  # edited while we were at it
            with file_faults("write", self.path):
                if wanted != data:
                    write_durably(self.path, [wanted])
                else:
                    self.path.chmod(0o600)
            written = _status(self.path)
            if written is not None:
                self._size = len(wanted)
                _Record(self._owner, version, *written, hashlib.sha256(wanted).hexdigest()).write(descriptor)
                return notices
        raise StoreUnreachableError(
            "another program keeps writing it",
            operation="write memory file",
            subject=str(self.path),
            hint="Let one program at a time write this file.",
        )

    def _is_current(self, found: _Status | None, record: _Record | None) -> bool:
        """Whether the file, which nobody else has written, has all of the graph."""
        version = self._graph.version()
        if found is None:
            return version == 0
        self._size = found[0]
        return record is not None and record.version == version

    def _foreign(self, found: _Status | None, record: _Record | None) -> bytes | None:
        """The file's bytes if others wrote them; None if we did, or if there is no file."""
        if found is None or (record and found == (record.size, record.mtime_ns, record.inode)):
            return None
        try:
            data = read_memory_file(self.path)
        except NotFoundError:
            return b""  # deleted at this moment, which its status tells before anything is written
        if record and hashlib.sha256(data).hexdigest() == record.sha256:
            return None
        return data

    def _take_in(self, data: bytes, record: _Record | None) -> list[str]:
        """Add to the graph what others wrote, keep a copy where the file could not; returns notices."""
        if not data.strip():
            return []
        try:
            content = parse_memory_file(data)
        except MalformedError as error:
            copy = keep_copy(self.path, data, self._clock)
            return [f"{self.path} could not be read ({error}); it is kept as {copy.name}"]
        counts = self._graph.import_graph(content.graph, edited_since=record.version if record else None)
        report = _report(content, counts)
        notices = [f"{self.path}: {warning}" for warning in report.warnings]
        if counts.entities or counts.relations or counts.observations:
            notices.insert(0, f"imported {summary(report)} from {self.path}")
        if not content.faithful or counts.other_types or counts.outdated:
            copy = keep_copy(self.path, data, self._clock)
            notices.append(f"the file as it was is kept, in clear, as {copy}")
        return notices

    def _render(self, graph: Graph) -> bytes:
        """The file's bytes; only what has changed since the last time is serialised."""
        kept = self._lines
        self._lines = {}
        for entity in graph.entities:
            line = kept.get(entity.name)
            self._lines[entity.name] = (
                line if line and line[0] is entity else (entity, entity_line(entity).encode())
            )
        for relation in graph.relations:
            line = kept.get(relation.triple)
            self._lines[relation.triple] = (
                line if line and line[0] is relation else (relation, relation_line(relation).encode())
            )
        return b"\n".join(line for _, line in self._lines.values())


def _lock_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def _report(content: MemoryFileContent, counts: ImportCounts) -> ImportReport:
    warnings = list(content.warnings)
    if counts.other_types:
        warnings.append(f"{counts.other_types:,} entities have another type here, which they keep")
    if counts.outdated:
        warnings.append(f"{counts.outdated:,} items have been deleted here in the meantime; not taken")
    return ImportReport(counts.entities, counts.relations, counts.observations, content.skipped, tuple(warnings))


def summary(report: ImportReport) -> str:
    """What an import added, as part of a sentence."""
    return f"{report.entities:,} entities, {report.observations:,} observations and {report.relations:,} relations"


def _status(path: Path) -> _Status | None:
    with file_faults("look at", path):
        try:
            status = path.stat()
        except FileNotFoundError:
            return None
    _refuse_special(path, status.st_mode)
    return status.st_size, status.st_mtime_ns, status.st_ino


def _refuse_special(path: Path, mode: int) -> None:
    """A pipe would be waited on for ever, a device may have no end, and neither may be replaced by a file."""
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise MalformedError(
            f"{path} is {what}, not a memory file",
            operation="read memory file",
            subject=str(path),
            hint="Name a file, in MEMORY_FILE_PATH or as the argument.",
        )


def read_memory_file(path: Path) -> bytes:
    """The file's bytes. Raises NotFoundError, StoreUnreachableError, or MalformedError if it is over 1 GiB or
    no regular file."""
    with file_faults("read", path):
        try:
            status = path.stat()
            _refuse_special(path, status.st_mode)
            if status.st_size > MAX_FILE_BYTES:
                raise MalformedError(
                    f"the file is larger than {MAX_FILE_BYTES >> 30} GiB",
                    operation="read memory file",
                    subject=str(path),
                    hint="Split it by lines, and import the parts one after the other.",
                )
            return path.read_bytes()
        except FileNotFoundError:
            raise NotFoundError(
                f"there is no file {path}",
                operation="read memory file",
                subject=str(path),
                hint="Name a memory file, such as the memory.json or memory.jsonl of the reference server.",
            ) from None
