"""A handed-over session written back with what other devices added, into the session that is here or beside it.

What lies in a session file is never changed: turns are put after its last line. Where the session that is here and
another device both went on, the other's turns get a session of their own.
"""

from __future__ import annotations

import errno
import hashlib
import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dualmem_mcp.failpoints import reach
from dualmem_mcp.model.ids import ConversationId
from dualmem_mcp.transcripts.restore import (
    MAX_CONFLICTS,
    RestoredSession,
    SessionTarget,
    is_held_elsewhere,
    leads_away,
    place_files,
    session_target,
    too_many,
    wrapped,
    write_target,
)
from dualmem_mcp.transcripts.rewrite import count_records, record_cwds, rewrite_records
from dualmem_mcp.transcripts.session import session_cwd
from dualmem_mcp.transcripts.weave import Seam, SessionText, Strand


@dataclass(frozen=True, slots=True)
class Restored:
    """The session to go on with, and all that hold a part of the conversation: several where devices parted."""

    session: RestoredSession
    sessions: tuple[RestoredSession, ...]
    warnings: tuple[str, ...]


def restore_with(
    strands: Sequence[Strand],
    files: Mapping[str, bytes],
    *,
    claude_dir: Path,
    conversation_id: str,
    project: str = "",
    cwd: str | None = None,
) -> Restored:
    """The session of these files with the turns of the strands, the first of which is the one to go on with.

    Without anything to weave in it is `write_session`, but that a session that is here, and is the beginning of
    what was handed over, gets the rest. Turns that a session has already are not put there again. A session that is
    here, and begins with what was handed over, gets the turns after its end, unless its own user went on: then they
    go into a new session, which has what both have in common; its id follows from theirs, so that restoring again
    finds it. Without `cwd` the session stays in the folder that it has on this machine.

    Raises as `write_session` does; what was written by then stays, and is found again.
    """
    target = session_target(files, claude_dir=claude_dir, conversation_id=conversation_id, project=project, cwd=cwd)
    if cwd is None:
        target = _at_home(target)
    home = _home(target)
    if not any(strand.turns for strand in strands) and not home.is_behind:
        session = write_target(target)
        return Restored(session, (session,), session.warnings)
    was_here = home.is_here
    sessions = [_weave(target, home, strand) for strand in strands]
    if home.is_behind or (not home.is_here and all(one.session_id != home.session_id for one in sessions)):
        sessions.append(_weave(target, home, Strand((), (), ())))
    woven = next((one for one in sessions if one.woven), sessions[0])
    warnings = _warnings(target, home, woven, sessions, was_here=was_here)
    return Restored(woven, tuple(sessions), tuple(warnings))


def _at_home(target: SessionTarget) -> SessionTarget:
    """The target in the project folder where the session of that id lies on this machine, if it does in one."""
    try:
        held = list((target.claude_dir / "projects").glob(f"*/{target.wanted}.jsonl"))
        if len(held) != 1 or held[0].parent == target.folder or not held[0].is_file() or held[0].is_symlink():
            return target
        cwd = session_cwd(record_cwds(held[0].read_bytes()), held[0].parent.name)
    except OSError as error:
        raise wrapped(error, target.folder) from error
    moved = cwd if cwd and cwd != target.old_cwd else None
    return replace(target, slug=held[0].parent.name, new_cwd=moved, place=cwd or target.old_cwd)


@dataclass(slots=True)
class _File:
    """A session file as it is going to be. `size` is how much of `data` lies there, None if there is no file;
    `content` are all files of the session."""

    session_id: ConversationId
    path: Path
    data: bytes
    content: dict[str, bytes]
    size: int | None

    @property
    def is_here(self) -> bool:
        return self.size is not None

    @property
    def is_behind(self) -> bool:
        """Whether it is here and something of it lacks."""
        return self.size is not None and self.size < len(self.data)


def _home(target: SessionTarget) -> _File:
    """The session that has what was handed over, or its beginning: the one that is here, or one to be written."""
    for candidate in target.candidates():
        content = target.content(candidate)
        main = content[f"{candidate}.jsonl"]
        found = _standing(target, candidate, content)
        if found is None:
            continue
        if found.is_here and found.data and main.startswith(found.data):
            found.data = main
        if found.data.startswith(main):
            return found
    raise too_many(target)


def _standing(target: SessionTarget, session_id: ConversationId, content: dict[str, bytes]) -> _File | None:
    """The session file of that id, as it is here or as it would be written; None where it cannot be used."""
    path = target.folder / f"{session_id}.jsonl"
    try:
        if is_held_elsewhere(target.claude_dir, target.folder, session_id):
            return None
        if any(leads_away(target.folder, target.folder / name) for name in content):
            return None
        if not path.exists():
            beside = ((target.folder / name, data) for name, data in content.items())
            taken = any(file.exists() and file.read_bytes() != data for file, data in beside)
            return None if taken else _File(session_id, path, content[path.name], content, None)
        data = path.read_bytes() if path.is_file() else None
        return None if data is None else _File(session_id, path, data, content, len(data))
    except OSError as error:
        raise wrapped(error, target.folder) from error


def _weave(target: SessionTarget, file: _File, strand: Strand) -> RestoredSession:
    for _ in range(MAX_CONFLICTS):
        seam, lines = _seam(file, strand)
        if not seam.parted:
            written = _write(target, file, lines)
            return RestoredSession(
                path=file.path,
                session_id=file.session_id,
                records=count_records(file.data),
                sha256=hashlib.sha256(file.data).hexdigest(),
                rewritten=file.data != target.files[target.main_name],
                written=written,
                woven=len(seam.missing),
                devices=strand.devices,
            )
        file = _apart(target, file, seam)
    raise too_many(target)


def _seam(file: _File, strand: Strand) -> tuple[Seam, bytes]:
    """How the strand meets the file, and the bytes to put after its end."""
    text = SessionText(file.data)
    seam = text.seam(strand)
    if seam.parted:
        return seam, b""
    if not seam.missing:
        return seam, b"\n" if text.ends_within(strand) else b""
    if not text.is_torn or file.data == file.content.get(file.path.name):
        new = text.woven(seam.missing, seam.below, file.session_id)
        return seam, new if not file.data or file.data.endswith(b"\n") else b"\n" + new
    # What stands after the last whole line is the beginning of what was woven when the machine stopped; or else
    # somebody is writing there now.
    end = file.data.rfind(b"\n") + 1
    whole, rest = SessionText(file.data[:end]), file.data[end:]
    new = whole.woven(seam.missing, seam.below, file.session_id)
    if new.startswith(rest):
        return seam, new[len(rest) :]
    return replace(seam, parted=True, cut_lines=file.data.count(b"\n")), b""


def _write(target: SessionTarget, file: _File, lines: bytes) -> bool:
    """Put the lines after the end of the file, or write it with them; whether anything was written."""
    file.data += lines
    if file.size is None:
        file.content[file.path.name] = file.data
        place_files(target.folder, file.content, last=file.path.name)
        file.size = len(file.data)
        return True
    written = _bring_up(target, file.content, file.path.name)
    if file.is_behind:
        _append(file.path, file.data, file.size)
        file.size = len(file.data)
        written = True
    return written


def _bring_up(target: SessionTarget, content: Mapping[str, bytes], main_name: str) -> bool:
    """Write the files beside the session that are not here, and the rest of those of which the beginning is."""
    missing: dict[str, bytes] = {}
    written = False
    for name, data in content.items():
        path = target.folder / name
        if name == main_name:
            continue
        if not path.exists():
            missing[name] = data
        elif path.stat().st_size < len(data) and data.startswith(here := path.read_bytes()):
            _append(path, data, len(here))
            written = True
    if missing:
        place_files(target.folder, missing, last=next(reversed(missing)))
    return written or bool(missing)


def _append(path: Path, data: bytes, size: int) -> None:
    """Add to a file of `size` bytes, the first of the data, the rest of them. Raises DiskFullError or
    StoreUnreachableError, with the file as it was unless somebody else wrote to it meanwhile."""
    written = 0
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0))
        try:
            if os.fstat(descriptor).st_size != size:
                raise OSError(errno.EBUSY, "another program is writing to it")
            while size + written < len(data):
                written += os.write(descriptor, data[size + written :])
                reach("session: appended")
            os.fsync(descriptor)
            reach("session: appended and synced")
        except OSError:
            if written and os.fstat(descriptor).st_size == size + written:
                os.ftruncate(descriptor, size)
            raise
        finally:
            os.close(descriptor)
    except OSError as error:
        raise wrapped(error, path.parent) from error


def _apart(target: SessionTarget, file: _File, seam: Seam) -> _File:
    """The session for a strand that left the file's thread: with the lines that both have."""
    lines = SessionText(file.data).first_lines(seam.cut_lines)
    for session_id in _ids_apart(target, file.session_id, seam.missing[0].uuid):
        content = target.content(session_id)
        rewriting = replace(target.rewriting(session_id), session_id=session_id)
        content[f"{session_id}.jsonl"] = rewrite_records(lines, rewriting)
        found = _standing(target, session_id, content)
        if found is not None:
            return found
    raise too_many(target)


def _ids_apart(target: SessionTarget, session_id: str, first: str) -> Iterable[ConversationId]:
    for attempt in range(MAX_CONFLICTS):
        name = "\0".join((session_id, first, target.slug, str(attempt))).encode("utf-8", "surrogatepass")
        yield ConversationId(str(uuid.UUID(bytes=hashlib.sha256(name).digest()[:16], version=4)))


def _warnings(
    target: SessionTarget,
    home: _File,
    woven: RestoredSession,
    sessions: Sequence[RestoredSession],
    *,
    was_here: bool,
) -> Iterable[str]:
    yield from target.warnings(home.session_id)
    devices = {home.session_id: "this device" if was_here else "the handoff"}
    devices.update({one.session_id: ", ".join(one.devices) for one in sessions if one.devices})
    if len(devices) > 1:
        named = "; ".join(f"{who or 'another device'} in {session_id}" for session_id, who in devices.items())
        yield f"the conversation went on in {len(devices)} ways, each a session of its own: {named}"
    elif woven.woven and was_here:
        yield (
            f"if session {woven.session_id} is open in Claude Code, leave it without another prompt and resume it: "
            f"{woven.woven} turn{'s' if woven.woven > 1 else ''} of {', '.join(woven.devices)} came after its end"
        )
    if not any(one.written for one in sessions):
        yield "the session lies there already, with all turns of other devices; nothing was written"
