"""A local session with everything that travels with it, taken at one moment."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from dualmem_mcp.errors import MalformedError, NotFoundError, TamperedError
from dualmem_mcp.model.conversation import Session, Turn
from dualmem_mcp.model.project import ProjectSnapshot
from dualmem_mcp.transcripts.claude_code import ClaudeCode, read_session
from dualmem_mcp.transcripts.project_files import collect_project_files, named_plans
from dualmem_mcp.transcripts.records import unreadable
from dualmem_mcp.transcripts.safe_names import split_session_names


@dataclass(frozen=True, slots=True)
class LocalSession:
    """A session as read, its files byte for byte, and the files of its project."""

    session: Session
    thread: tuple[tuple[str, bytes], ...]
    snapshot: ProjectSnapshot


@dataclass(frozen=True, slots=True)
class SessionSource:
    """Where this device's sessions come from, and which one is meant when none is named.

    `current_id` and `project_dir` are what Claude Code told this process. Protected files are the globs
    below `protected_root`, or below the session's own folder where that is None.
    """

    claude_dir: Path
    current_id: str = ""
    project_dir: str = ""
    protected_globs: Sequence[str] = ()
    protected_root: Path | None = None

    def read(self, conversation_id: str | None = None, *, transcript: Path | None = None) -> LocalSession:
        """The session of that id or file; else the current one, else the newest of the project, else of all.

        Raises NotFoundError, UsageError, MalformedError, StoreUnreachableError.
        """
        path = transcript or ClaudeCode(self.claude_dir).find(
            conversation_id, project_dir=self.project_dir or None, current_id=self.current_id or None
        )
        session = read_session(path.absolute())
        if conversation_id is not None and session.conversation_id != conversation_id:
            raise NotFoundError(
                f"{path.name} holds session {session.conversation_id}, not {conversation_id}",
                operation="read session",
                subject=str(path),
                hint="Leave the id out, or name the file that belongs to it.",
            )
        names = _carried_names(session, path)
        thread = tuple((name, _read(Path(file.path))) for name, file in zip(names, session.files, strict=True))
        cwd = _folder(session.cwd)
        snapshot = collect_project_files(
            cwd=cwd,
            claude_dir=self.claude_dir,
            project=session.project,
            plans=named_plans(session),
            protected_globs=self.protected_globs,
            protected_root=self.protected_root or cwd,
        )
        return LocalSession(session, thread, snapshot)

    def running(self, since: datetime) -> Path | None:
        """The file of the session that this process belongs to, if it has changed since then; None without one."""
        if not (self.current_id or self.project_dir):
            return None
        try:
            path = ClaudeCode(self.claude_dir).find(
                None, project_dir=self.project_dir or None, current_id=self.current_id or None
            )
            changed = path.stat().st_mtime
        except (NotFoundError, OSError):
            return None
        return path if changed >= since.timestamp() else None

    def newer_turns(self, conversation_id: str, *, last_turn_uuid: str, known_bytes: int) -> tuple[Turn, ...]:
        """The turns that the session of that id has on this device after the given one; all if it does not have
        that one, none if the session is not here.

        `known_bytes` is the size of the session file that holds the given turn last: a file that has not
        grown is not read.
        """
        try:
            path = ClaudeCode(self.claude_dir).find(conversation_id)
            if path.stat().st_size <= known_bytes:
                return ()
            session = read_session(path)
        except (NotFoundError, OSError):
            return ()
        turns = tuple(turn for turn in session.all_turns() if not turn.is_meta)
        last = next((index for index, turn in enumerate(turns) if turn.uuid == last_turn_uuid), -1)
        return turns[last + 1 :]

    def protected_root_for(self, cwd: str) -> Path | None:
        """The folder of the protected files of a session with that working directory, if it is on this device."""
        return self.protected_root or _folder(cwd)


def _carried_names(session: Session, path: Path) -> list[str]:
    """The names under which a session's files travel: always those of its id, whatever a given file is called.

    Raises MalformedError for a session that could be handed over, but never restored.
    """
    stem, conversation_id = path.stem, session.conversation_id
    names = [
        f"{conversation_id}.jsonl"
        if index == 0
        else f"{conversation_id}/{file.name.removeprefix(f'{stem}/')}"
        if file.name.startswith(f"{stem}/")
        else file.name
        for index, file in enumerate(session.files)
    ]
    try:
        split_session_names(names)
    except TamperedError:
        raise MalformedError(
            f"{path.name} is not named as a session is: it could not be restored",
            operation="read session",
            subject=str(path),
            hint="Hand over the session that an agent's transcript belongs to; copy any other to ID.jsonl first.",
        ) from None
    return names


def _folder(cwd: str) -> Path | None:
    if not cwd or "\0" in cwd:
        return None
    path = Path(cwd)
    # os.path: Path.is_dir raises for a name that is too long, or a folder that others keep to themselves.
    return path if path.is_absolute() and os.path.isdir(path) else None  # noqa: PTH112


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error
