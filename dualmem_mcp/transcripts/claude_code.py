"""Claude Code's configuration folder: which session is meant, which files belong to it, reading one."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from dualmem_mcp.errors import NotFoundError, UsageError
from dualmem_mcp.model.conversation import Session, SessionFile
from dualmem_mcp.model.ids import ConversationId, parse_conversation_id
from dualmem_mcp.transcripts.agents import AgentFile, agent_file
from dualmem_mcp.transcripts.json_values import object_of, text_of, time_of
from dualmem_mcp.transcripts.records import read_transcript
from dualmem_mcp.transcripts.safe_names import folded, is_portable
from dualmem_mcp.transcripts.session import assemble_session, transcript_warnings
from dualmem_mcp.transcripts.slug import MAX_SLUG, project_slug

_HEAD_BYTES: Final = 2**18
_TAIL_BYTES: Final = 2**14
_TIMESTAMP: Final = re.compile(rb'"timestamp"\s*:\s*"([0-9T:.Z+-]{10,35})"')
# A message of the user's that is this command, not one that quotes it.
_CLEAR: Final = re.compile(rb'"content"\s*:\s*"\s*<command-name>/clear</command-name>')
_MESSAGE: Final = re.compile(rb'"type"\s*:\s*"(?:user|assistant)"')


@dataclass(frozen=True, slots=True)
class SessionEntry:
    """A session file as the folder lists it; `mtime` is its last change in UTC."""

    path: Path
    mtime: datetime
    size_bytes: int


class ClaudeCode:
    """One configuration folder of Claude Code (`$CLAUDE_CONFIG_DIR` or `~/.claude`)."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def sessions(self, project_dir: str | None = None) -> list[SessionEntry]:
        """Session files, of one working directory or of all, newest first.

        Files of subagents, empty files and symbolic links are none.
        """
        entries = [entry for folder in self._project_folders(project_dir) for entry in _entries(folder)]
        return sorted(entries, key=lambda entry: (entry.mtime, str(entry.path)), reverse=True)

    def find(
        self, conversation_id: str | None = None, *, project_dir: str | None = None, current_id: str | None = None
    ) -> Path:
        """The session file meant: of the id given; else of `current_id`; else the newest of `project_dir`;
        else the newest of all.

        `current_id` is what the client told this server at its start. When the user clears the
        conversation it goes stale, and the session that began with that clearing is taken instead.
        Raises UsageError for an id that cannot be one, NotFoundError if there is no such session.
        """
        if conversation_id is not None:
            found = self._with_id(parse_conversation_id(conversation_id), project_dir)
            if found is None:
                raise NotFoundError(
                    f"there is no session {conversation_id} under {self.root / 'projects'}",
                    operation="find session",
                    subject=conversation_id,
                    hint="Its file is named ID.jsonl; set CLAUDE_CONFIG_DIR if Claude Code's folder is elsewhere.",
                )
            return found.path
        current = self._current(current_id, project_dir) if current_id else None
        newest = current or _newest(self.sessions(project_dir) if project_dir else []) or _newest(self.sessions())
        if newest is None:
            raise NotFoundError(
                f"there is no Claude Code session under {self.root / 'projects'}",
                operation="find session",
                subject=str(self.root),
                hint="Set CLAUDE_CONFIG_DIR to Claude Code's folder, or name a file with --transcript.",
            )
        return newest.path

    def _current(self, current_id: str, project_dir: str | None) -> SessionEntry | None:
        try:
            current = self._with_id(parse_conversation_id(current_id), project_dir)
        except UsageError:
            return None
        if current is None:
            return None
        seen = {current.path}
        while successors := [entry for entry in _successors(current) if entry.path not in seen]:
            current = successors[0]
            seen.add(current.path)
        return current

    def _with_id(self, conversation_id: ConversationId, project_dir: str | None) -> SessionEntry | None:
        preferred = self._project_folders(project_dir) if project_dir else []
        for folders in (preferred, self._project_folders(None)):
            hits = [entry for folder in folders for entry in _entries(folder) if entry.path.stem == conversation_id]
            if hits:
                return max(hits, key=lambda entry: entry.mtime)
        return None

    def _project_folders(self, project_dir: str | None) -> list[Path]:
        try:
            folders = sorted(path for path in (self.root / "projects").iterdir() if path.is_dir())
        except OSError:
            return []
        if project_dir is None:
            return folders
        slugs = {project_slug(project_dir), project_slug(os.path.realpath(project_dir))}
        cut = tuple(slug[: MAX_SLUG + 1] for slug in slugs if len(slug) > MAX_SLUG)
        return [folder for folder in folders if folder.name in slugs or folder.name.startswith(cut)]


def _entries(folder: Path) -> Iterator[SessionEntry]:
    try:
        paths = list(folder.iterdir())
    except OSError:
        return
    for path in paths:
        if path.suffix != ".jsonl" or path.name.startswith("agent-"):
            continue
        try:
            status = path.lstat()
        except OSError:
            continue
        if stat.S_ISREG(status.st_mode) and status.st_size > 0:
            yield SessionEntry(path, datetime.fromtimestamp(status.st_mtime, UTC), status.st_size)


def _newest(entries: list[SessionEntry]) -> SessionEntry | None:
    """The first entry that holds a message: a session just opened has only settings in its file."""
    return next((entry for entry in entries if _MESSAGE.search(_head(entry.path))), None)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES)
    except OSError:
        return b""


def _tail(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            return file.read(_TAIL_BYTES)
    except OSError:
        return b""


def _successors(current: SessionEntry) -> list[SessionEntry]:
    """Sessions that the user cleared `current` for, the first one first.

    Being newer is not enough, another window may be at work in the same folder: a successor begins after the
    last record of `current`, and the clearing is on record at the end of the one or the start of the other.
    """
    cleared = _CLEAR.search(_tail(current.path)) is not None
    begun: list[tuple[datetime, SessionEntry]] = []
    for entry in _entries(current.path.parent):
        if entry.path == current.path or entry.mtime < current.mtime:
            continue
        head = _head(entry.path)
        first = _TIMESTAMP.search(head)
        began = time_of(first.group(1).decode("ascii")) if first else None
        if began is None or began < current.mtime - timedelta(seconds=5):
            continue
        if cleared or _CLEAR.search(head):
            begun.append((began, entry))
    return [entry for _, entry in sorted(begun, key=lambda pair: (pair[0], str(pair[1].path)))]


def session_files(path: Path) -> tuple[SessionFile, ...]:
    """The session file first, then all regular files of its folder and the agent files beside it, by name.

    Symbolic links are not followed: a session must not carry along what lies outside its folder.
    Raises NotFoundError if the session file has gone.
    """
    project = path.parent
    found = [
        SessionFile(file.relative_to(project).as_posix(), str(file), size)
        for file, size in _regular_files(project / path.stem)
    ]
    for file in project.glob("agent-*.jsonl"):
        size = _regular_size(file)
        if size is not None and _session_of(file) == path.stem:
            found.append(SessionFile(file.name, str(file), size))
    try:
        size = path.stat().st_size
    except OSError as error:
        raise NotFoundError(
            f"{path.name} has gone while it was being read",
            operation="read session",
            subject=str(path),
            hint="Try again; if it stays away, take another session.",
        ) from error
    return (
        SessionFile(path.name, str(path), size),
        *sorted(found, key=lambda file: file.name),
    )


def _regular_files(folder: Path) -> Iterator[tuple[Path, int]]:
    if folder.is_symlink():
        return
    for parent, _, names in os.walk(folder, followlinks=False):
        for name in names:
            file = Path(parent) / name
            size = _regular_size(file)
            if size is not None:
                yield file, size


def _regular_size(file: Path) -> int | None:
    """Bytes of a regular file; None for a link, a device, or what has gone meanwhile."""
    try:
        status = file.lstat()
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _session_of(agent_file: Path) -> str:
    """The session that an agent file beside it names in its first record."""
    try:
        with agent_file.open("rb") as file:
            return text_of(object_of(json.loads(file.readline(2**20))).get("sessionId"))
    except (OSError, ValueError, RecursionError):
        return ""


def read_session(path: Path, *, root: Path | None = None) -> Session:
    """The session in a file: its active thread, what compactions replaced, its agents and files.

    With `root`, a path that does not resolve to a place below it is refused. Raises NotFoundError,
    MalformedError (empty, or no session file), StoreUnreachableError (not readable); never because
    of what a record holds.
    """
    if root is not None and not path.resolve().is_relative_to(root.resolve()):
        raise UsageError(
            f"{path.name} does not lie under {root}",
            operation="read session",
            subject=str(path),
            hint="Name the file with --transcript if you mean one outside Claude Code's folder.",
        )
    transcript = read_transcript(path)
    files, warnings = _portable(session_files(path))
    agent_files: list[AgentFile] = []
    for file in files[1:]:
        if re.fullmatch(r"agent-.+\.jsonl", Path(file.path).name):
            agent, remarks = _read_agent(Path(file.path))
            agent_files.extend(agent)
            warnings.extend(f"{file.name}: {remark}" for remark in remarks)
    return assemble_session(path, transcript, files=files, agent_files=agent_files, warnings=warnings)


def _portable(files: tuple[SessionFile, ...]) -> tuple[tuple[SessionFile, ...], list[str]]:
    """Without the files that could not be written back on every system, since restoring takes all or nothing."""
    kept: dict[str, SessionFile] = {}
    warnings = []
    for file in files:
        # The session file goes first and always, and its folder whatever it is called: both travel under the id.
        relative = file.name.removeprefix(f"{Path(files[0].name).stem}/")
        if kept and (not is_portable(relative) or folded(file.name) in kept):
            warnings.append(f"{file.name!r} is left out: not every system can have a file of that name")
        else:
            kept[folded(file.name)] = file
    return tuple(kept.values()), warnings


def _read_agent(path: Path) -> tuple[list[AgentFile], list[str]]:
    """An agent's file with the `.meta.json` beside it, and what was not read; no agent if it holds nothing."""
    try:
        transcript = read_transcript(path)
    except (UsageError, NotFoundError) as error:
        return [], [f"{error.message}; what this agent did is unknown"]
    return [agent_file(path.stem, transcript, _meta_bytes(path))], transcript_warnings(transcript)


def _meta_bytes(path: Path) -> bytes:
    meta = path.with_name(f"{path.stem}.meta.json")
    try:
        return b"" if meta.is_symlink() or meta.stat().st_size > 2**20 else meta.read_bytes()
    except OSError:
        return b""
