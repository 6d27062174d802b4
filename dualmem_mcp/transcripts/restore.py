"""A session written back as Claude Code's own files, so that `claude --resume` opens it.

Byte for byte where nothing has to change. What may change is stated in `rewrite`; names come from a
package, so they are hostile until `safe_names` has seen them.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import time
import uuid
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dualmem_mcp.errors import ConflictError, DiskFullError, StoreUnreachableError, UsageError
from dualmem_mcp.failpoints import reach
from dualmem_mcp.model.ids import ConversationId, parse_conversation_id
from dualmem_mcp.transcripts.rewrite import Rewriting, count_records, record_cwds, rewrite_records
from dualmem_mcp.transcripts.safe_names import check_component, split_session_names
from dualmem_mcp.transcripts.session import session_cwd
from dualmem_mcp.transcripts.slug import project_slug

_WRITES_AT_ONCE: Final = 16
MAX_CONFLICTS: Final = 100
_STAGING: Final = ".restore-"
_ABANDONED_SECONDS: Final = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class RestoredSession:
    """A session as it lies in Claude Code's folder now.

    `records` counts lines that hold a JSON object, `sha256` is of the session file as written (hex).
    `rewritten` says whether any byte differs from what was given, `written` whether anything was
    written: the same session may have lain there already.
    """

    path: Path
    session_id: ConversationId
    records: int
    sha256: str
    rewritten: bool
    written: bool
    warnings: tuple[str, ...] = ()
    woven: int = 0
    """Turns of other devices that were added to it now."""
    devices: tuple[str, ...] = ()
    """Who went the way that it holds, as far as that is known."""


@dataclass(frozen=True, slots=True)
class SessionTarget:
    """The files of a session, and where and how they are to be written below `claude_dir`.

    `place` is the working directory that the session will name, `old_cwd` the one that its records do.
    """

    files: Mapping[str, bytes]
    main_name: str
    wanted: ConversationId
    claude_dir: Path
    slug: str
    old_cwd: str
    new_cwd: str | None
    place: str

    @property
    def folder(self) -> Path:
        """The project's folder."""
        return self.claude_dir / "projects" / self.slug

    def candidates(self) -> Iterable[ConversationId]:
        """Ids to write it under: the one wanted, then fresh UUIDs that depend only on the content."""
        return _candidates(self.wanted, self.files)

    def rewriting(self, session_id: str) -> Rewriting:
        """What changes in records that are written under that id."""
        return Rewriting(
            session_id=None if session_id == self.wanted else session_id,
            old_cwd=self.old_cwd,
            new_cwd=self.new_cwd,
        )

    def content(self, session_id: str) -> dict[str, bytes]:
        """Names and bytes of all files as they are written under that id, the session file first."""
        rewriting = self.rewriting(session_id)
        old_id = self.main_name.removesuffix(".jsonl")
        names = [self.main_name, *(name for name in self.files if name != self.main_name)]
        return {
            _renamed(name, old_id, session_id): rewrite_records(self.files[name], rewriting)
            if _is_transcript(name)
            else self.files[name]
            for name in names
        }

    def is_rewritten(self, session_id: str, content: Mapping[str, bytes]) -> bool:
        """Whether any byte differs from what was given."""
        old_id = self.main_name.removesuffix(".jsonl")
        return any(content[_renamed(name, old_id, session_id)] != data for name, data in self.files.items())

    def warnings(self, session_id: str) -> list[str]:
        """What the user has to know of a session written under that id."""
        warnings = []
        if session_id != self.wanted:
            warnings.append(f"another session holds the id {self.wanted}; this one is {session_id}")
        # os.path: Path.is_dir raises for a name that is too long, or a folder that others keep to themselves.
        if not self.place or "\0" in self.place or not os.path.isdir(self.place):  # noqa: PTH112
            warnings.append(f"the working directory {self.place!r} is not on this machine; --cwd names another")
        return warnings


def session_target(
    files: Mapping[str, bytes] | Iterable[tuple[str, bytes]],
    *,
    claude_dir: Path,
    conversation_id: str,
    project: str = "",
    cwd: str | None = None,
) -> SessionTarget:
    """Where the session belongs. Raises TamperedError for a name that could lead outside, UsageError."""
    pairs = list(files.items() if isinstance(files, Mapping) else files)
    main_name, _ = split_session_names(name for name, _ in pairs)
    given = dict(pairs)
    wanted = parse_conversation_id(conversation_id)
    cwds = record_cwds(given[main_name])
    slug = project_slug(os.path.realpath(cwd)) if cwd else project or project_slug(session_cwd(cwds, ""))
    if not slug:
        raise UsageError(
            "the session names no working directory",
            operation="restore session",
            subject=wanted,
            hint="Name one with --cwd.",
        )
    check_component(slug)
    old_cwd = session_cwd(cwds, project)
    return SessionTarget(
        files=given,
        main_name=main_name,
        wanted=wanted,
        claude_dir=claude_dir,
        slug=slug,
        old_cwd=old_cwd,
        new_cwd=os.path.realpath(cwd) if cwd else None,
        place=cwd or old_cwd,
    )


def write_session(
    files: Mapping[str, bytes] | Iterable[tuple[str, bytes]],
    *,
    claude_dir: Path,
    conversation_id: str,
    project: str = "",
    cwd: str | None = None,
) -> RestoredSession:
    """The session written below `claude_dir`, all of it or nothing.

    `files` are named relative to the project folder, as in Session.files. With `cwd` the records'
    working directories change to it and the project folder follows; without, the folder is `project`,
    else the one that the records' working directory leads to. Where another session holds the id
    already, this one gets a fresh UUID, which depends only on the content: restoring again finds it.
    Raises TamperedError for a name that could lead outside, DiskFullError, StoreUnreachableError.
    """
    target = session_target(files, claude_dir=claude_dir, conversation_id=conversation_id, project=project, cwd=cwd)
    return write_target(target)


def write_target(target: SessionTarget) -> RestoredSession:
    """The session written where it belongs, all of it or nothing; see `write_session`."""
    for candidate in target.candidates():
        content = target.content(candidate)
        try:
            state = _compare(target.claude_dir, target.folder, candidate, content)
        except OSError as error:
            raise wrapped(error, target.folder) from error
        if state == "taken":
            continue
        if state == "free":
            place_files(target.folder, content, last=f"{candidate}.jsonl")
        main = content[f"{candidate}.jsonl"]
        already = [] if state == "free" else ["the same session lies there already; nothing was written"]
        return RestoredSession(
            path=target.folder / f"{candidate}.jsonl",
            session_id=candidate,
            records=count_records(main),
            sha256=hashlib.sha256(main).hexdigest(),
            rewritten=target.is_rewritten(candidate, content),
            written=state == "free",
            warnings=(*target.warnings(candidate), *already),
        )
    raise too_many(target)


def too_many(target: SessionTarget) -> ConflictError:
    """What to raise where every id that was tried is taken."""
    return ConflictError(
        f"{MAX_CONFLICTS} other sessions stand where {target.wanted} would be restored",
        operation="restore session",
        subject=str(target.folder),
        hint="Restore into another folder with --cwd, or remove earlier restored sessions.",
    )


def _candidates(wanted: ConversationId, files: Mapping[str, bytes]) -> Iterable[ConversationId]:
    yield wanted
    digest = hashlib.sha256(wanted.encode())
    for name in sorted(files):
        digest.update(hashlib.sha256(name.encode()).digest() + hashlib.sha256(files[name]).digest())
    for attempt in range(MAX_CONFLICTS):
        fresh = hashlib.sha256(digest.digest() + bytes([attempt])).digest()[:16]
        yield ConversationId(str(uuid.UUID(bytes=fresh, version=4)))


def _renamed(name: str, old_id: str, new_id: str) -> str:
    if name == f"{old_id}.jsonl":
        return f"{new_id}.jsonl"
    folder, slash, rest = name.partition("/")
    return f"{new_id}/{rest}" if slash and folder == old_id else name


def _is_transcript(name: str) -> bool:
    return name.endswith(".jsonl")


def _compare(claude_dir: Path, folder: Path, session_id: str, content: Mapping[str, bytes]) -> str:
    """What stands in the place: "free", "same" (all of it, byte for byte), or "taken"."""
    if is_held_elsewhere(claude_dir, folder, session_id):
        return "taken"
    standing = 0
    for name, data in content.items():
        path = folder / name
        if leads_away(folder, path):
            return "taken"
        if path.exists():
            if not path.is_file() or path.stat().st_size != len(data) or path.read_bytes() != data:
                return "taken"
            standing += 1
    return "same" if standing == len(content) else "free"


def is_held_elsewhere(claude_dir: Path, folder: Path, session_id: str) -> bool:
    """Whether another project has a session of that id: `claude --resume ID` finds an id outside the current folder
    only if one project alone holds it."""
    main = folder / f"{session_id}.jsonl"
    return any(path != main for path in (claude_dir / "projects").glob(f"*/{session_id}.jsonl"))


def leads_away(folder: Path, path: Path) -> bool:
    """Whether anything on the way from the folder to the path is a symbolic link."""
    return any(
        step.is_symlink() for step in (path, *path.parents) if step.is_relative_to(folder) and step != folder
    )


def place_files(folder: Path, content: Mapping[str, bytes], *, last: str) -> None:
    """Write all files beside their places first, then put them there, the session file last of all."""
    staging = folder / f"{_STAGING}{secrets.token_hex(8)}"
    placed: list[Path] = []
    try:
        for step in [*reversed(folder.parents), folder]:
            if not step.exists():
                step.mkdir(mode=0o700, exist_ok=True)
        _remove_abandoned(folder)
        staging.mkdir(mode=0o700)
        names = [*(name for name in content if name != last), last]
        # At once, since each waits for the disk: a session can have thousands of tool results beside it.
        with ThreadPoolExecutor(_WRITES_AT_ONCE) as pool:
            list(pool.map(lambda item: _write(staging / str(item[0]), content[item[1]]), enumerate(names)))
        for number, name in enumerate(names):
            target = folder / name
            if not target.exists():
                _make_folders(folder, target.parent)
                _move_unless_there(staging / str(number), target)
                placed.append(target)
                reach("session: file in place")
        for parent in {path.parent for path in placed} | {folder}:
            _sync_folder(parent)
    except OSError as error:
        for path in reversed(placed):
            path.unlink(missing_ok=True)
        raise wrapped(error, folder) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _remove_abandoned(folder: Path) -> None:
    """Remove what a restore left that did not come to its end a day ago or longer."""
    for left in folder.glob(f"{_STAGING}*"):
        if not left.is_symlink() and left.stat().st_mtime < time.time() - _ABANDONED_SECONDS:
            shutil.rmtree(left, ignore_errors=True)


def _move_unless_there(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links, as on SD cards
        source.rename(target)


def _make_folders(root: Path, folder: Path) -> None:
    for step in [*reversed(folder.relative_to(root).parents), folder.relative_to(root)]:
        (root / step).mkdir(mode=0o700, exist_ok=True)


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        reach("session: file written")
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows has no descriptors of folders; its rename is durable with the file's own flush
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def wrapped(error: OSError, folder: Path) -> StoreUnreachableError:
    """What to raise for a fault of the file system."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return DiskFullError(
            "there is no space left to restore the session; nothing was changed",
            operation="restore session",
            subject=str(folder),
            hint="Free some space, then restore again.",
        )
    return StoreUnreachableError(
        f"the session cannot be written: {error.strerror or type(error).__name__}; nothing was changed",
        operation="restore session",
        subject=str(folder),
        hint="Check the rights of the folder, or name another with --claude-dir.",
    )
