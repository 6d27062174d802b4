"""Claude Code's configuration folder: which session is meant, which files belong to it, what it says."""

from __future__ import annotations

import json
import os
import re
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from dualmem_mcp.errors import NotFoundError, UsageError
from dualmem_mcp.model.conversation import Session, SessionFile, Turn
from dualmem_mcp.model.ids import ConversationId, parse_conversation_id
from dualmem_mcp.transcripts.agents import AgentFile, agent_runs, sidechain_groups
from dualmem_mcp.transcripts.records import Transcript, object_of, read_transcript, text_of
from dualmem_mcp.transcripts.thread import Thread, build_thread

MAX_SLUG: Final = 200
"""Characters of a project folder's name before it is cut. Source: Claude Agent SDK, session storage."""


@dataclass(frozen=True, slots=True)
class SessionEntry:
    """A session file as the folder lists it; `mtime` is its last change in UTC."""

    path: Path
    mtime: datetime
    size_bytes: int


def project_slug(cwd: str) -> str:
    """The name of the project folder for a working directory, as Claude Code derives it.

    The caller resolves symbolic links. Source: every character but ASCII letters and digits becomes `-`;
    beyond 200 characters the name is cut and `-` and a hash of the whole are added. The hash is the one of
    the Agent SDK (32-bit, base 36); Claude Code's own binary may use another, so folders are looked up by prefix.
    """
    path = unicodedata.normalize("NFC", cwd)
    # JavaScript counts UTF-16 units: a character beyond the basic plane becomes two dashes.
    units = "".join(char if ord(char) < 0x10000 else "--" for char in path)
    slug = re.sub(r"[^a-zA-Z0-9]", "-", units)
    return slug if len(slug) <= MAX_SLUG else f"{slug[:MAX_SLUG]}-{_base36(_hash32(path))}"


def _hash32(text: str) -> int:
    value = 0
    encoded = text.encode("utf-16-le", "surrogatepass")
    for index in range(0, len(encoded), 2):
        value = (value * 31 + int.from_bytes(encoded[index : index + 2], "little")) & 0xFFFFFFFF
    return abs(value - 0x100000000 if value >= 0x80000000 else value)


def _base36(number: int) -> str:
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    text = ""
    while number:
        number, rest = divmod(number, 36)
        text = digits[rest] + text
    return text or "0"


class ClaudeCode:
    """One configuration folder of Claude Code (`$CLAUDE_CONFIG_DIR` or `~/.claude`)."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def sessions(self, project_dir: str | None = None) -> list[SessionEntry]:
        """Session files, of one working directory or of all, newest first; files of subagents are none."""
        folders = self._project_folders(project_dir)
        entries = [entry for folder in folders for entry in _entries(folder)]
        return sorted(entries, key=lambda entry: (entry.mtime, str(entry.path)), reverse=True)

    def find(
        self, conversation_id: str | None = None, *, project_dir: str | None = None, current_id: str | None = None
    ) -> Path:
        """The session file meant: of the id given; else of `current_id`; else the newest of `project_dir`;
        else the newest of all.

        `current_id` is what the client told this server at its start, and goes stale when the user
        clears the conversation: a newer session of the same project folder is then preferred.
        Raises UsageError for an id that cannot be one, NotFoundError if there is no such session.
        """
        if conversation_id is not None:
            found = self._with_id(parse_conversation_id(conversation_id), project_dir)
            if found is None:
                raise NotFoundError(
                    f"there is no session {conversation_id} under {self.root / 'projects'}",
                    operation="find session",
                    subject=conversation_id,
                    hint="List them with `dualmem conversations`, or set CLAUDE_CONFIG_DIR to their folder.",
                )
            return found
        if current_id:
            current = self._current(current_id, project_dir)
            if current is not None:
                return current
        newest = self.sessions(project_dir) if project_dir else []
        newest = newest or self.sessions()
        if not newest:
            raise NotFoundError(
                f"there is no Claude Code session under {self.root / 'projects'}",
                operation="find session",
                subject=str(self.root),
                hint="Set CLAUDE_CONFIG_DIR to Claude Code's folder, or name a file with --transcript.",
            )
        return newest[0].path

    def _current(self, current_id: str, project_dir: str | None) -> Path | None:
        try:
            found = self._with_id(parse_conversation_id(current_id), project_dir)
        except UsageError:
            return None
        if found is None:
            return None
        beside = sorted(_entries(found.parent), key=lambda entry: (entry.mtime, entry.path != found), reverse=True)
        return beside[0].path if beside else found

    def _with_id(self, conversation_id: ConversationId, project_dir: str | None) -> Path | None:
        preferred = self._project_folders(project_dir) if project_dir else []
        for folders in (preferred, self._project_folders(None)):
            hits = [entry for folder in folders for entry in _entries(folder) if entry.path.stem == conversation_id]
            if hits:
                return max(hits, key=lambda entry: entry.mtime).path
        return None

    def _project_folders(self, project_dir: str | None) -> list[Path]:
        try:
            folders = sorted(path for path in (self.root / "projects").iterdir() if path.is_dir())
        except OSError:
            return []
        if project_dir is None:
            return folders
        slugs = {project_slug(project_dir), project_slug(os.path.realpath(project_dir))}
        cut = tuple(f"{slug[:MAX_SLUG]}-" for slug in slugs if len(slug) > MAX_SLUG)
        return [folder for folder in folders if folder.name in slugs or (cut and folder.name.startswith(cut))]


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
        if stat.S_ISREG(status.st_mode):
            yield SessionEntry(path, datetime.fromtimestamp(status.st_mtime, UTC), status.st_size)


def session_files(path: Path) -> tuple[SessionFile, ...]:
    """The session file first, then all regular files of its folder and the agent files beside it, by name.

    Symbolic links are not followed: a session must not carry along what lies outside its folder.
    """
    project = path.parent
    main = SessionFile(path.name, str(path), path.stat().st_size)
    found = [
        SessionFile(file.relative_to(project).as_posix(), str(file), size)
        for file, size in _regular_files(project / path.stem)
    ]
    for file in sorted(project.glob("agent-*.jsonl")):
        status = file.lstat()
        if stat.S_ISREG(status.st_mode) and _session_of(file) == path.stem:
            found.append(SessionFile(file.name, str(file), status.st_size))
    return (main, *sorted(found, key=lambda file: file.name))


def _regular_files(folder: Path) -> Iterator[tuple[Path, int]]:
    if folder.is_symlink():
        return
    for parent, folders, names in os.walk(folder, followlinks=False):
        folders[:] = sorted(name for name in folders if not (Path(parent) / name).is_symlink())
        for name in names:
            file = Path(parent) / name
            status = file.lstat()
            if stat.S_ISREG(status.st_mode):
                yield file, status.st_size


def _session_of(agent_file: Path) -> str:
    """The session that an agent file beside it names in its first record."""
    try:
        with agent_file.open("rb") as file:
            first = file.readline(2**20)
        return text_of(object_of(json.loads(first)).get("sessionId"))
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
    files = session_files(path)
    thread = build_thread(transcript.records)
    warnings = _warnings(transcript)
    agents = [*sidechain_groups(transcript.records), *_agent_files(files, warnings)]
    visible = (*thread.earlier, *thread.turns)
    main = [record for record in transcript.records if not record.sidechain]
    shown = [turn for turn in visible if not turn.is_meta]
    times = [turn.timestamp for turn in visible if turn.timestamp]
    return Session(
        conversation_id=_conversation_id(path, transcript),
        project=path.parent.name,
        title=_title(transcript, thread),
        cwd=_cwd(shown, path.parent.name),
        git_branch=next((turn.git_branch for turn in reversed(shown) if turn.git_branch), ""),
        version=transcript.version,
        model=next((turn.model for turn in reversed(visible) if turn.model and not turn.model.startswith("<")), ""),
        permission_mode=transcript.permission_mode,
        started_at=times[0] if times else None,
        ended_at=times[-1] if times else None,
        turns=thread.turns,
        earlier=thread.earlier,
        agents=agent_runs(main, visible, agents, progress=transcript.agent_progress, notices=transcript.enqueued),
        files=files,
        pull_requests=tuple(transcript.pull_requests),
        queued_prompts=_queued_prompts(transcript),
        record_count=transcript.record_count,
        skipped_records=len(transcript.skipped_lines)
        + len(transcript.oversized_lines)
        + sum(len(lines) for lines in transcript.unknown_types.values()),
        warnings=tuple(warnings),
    )


def _conversation_id(path: Path, transcript: Transcript) -> ConversationId:
    """The file's name without its ending, which is what the client resumes by; else the id its records state."""
    for candidate in (path.stem, transcript.session_id):
        try:
            return parse_conversation_id(candidate)
        except UsageError:
            continue
    return parse_conversation_id(re.sub(r"[^A-Za-z0-9_-]+", "-", f"session-{path.stem}")[:120])


def _agent_files(files: tuple[SessionFile, ...], warnings: list[str]) -> list[AgentFile]:
    agents: list[AgentFile] = []
    for file in files[1:]:
        path = Path(file.path)
        if path.suffix != ".jsonl" or not path.name.startswith("agent-"):
            continue
        try:
            transcript = read_transcript(path)
        except (UsageError, NotFoundError):
            warnings.append(f"{file.name}: holds no records; the agent's messages are unknown")
            continue
        warnings.extend(f"{file.name}: {warning}" for warning in _warnings(transcript))
        meta = _agent_meta(path.with_name(f"{path.stem}.meta.json"))
        agents.append(
            AgentFile(
                id=path.stem.removeprefix("agent-"),
                records=transcript.records,
                agent_type=text_of(meta.get("agentType")),
                description=text_of(meta.get("description")),
                tool_use_id=text_of(meta.get("toolUseId")),
            )
        )
    return agents


def _agent_meta(path: Path) -> dict[str, Any]:
    try:
        if path.is_symlink() or path.stat().st_size > 2**20:
            return {}
        return dict(object_of(json.loads(path.read_bytes())))
    except (OSError, ValueError, RecursionError):
        return {}


def _cwd(turns: list[Turn], project: str) -> str:
    """The newest working directory that the project folder is named after, else the newest of all."""
    seen = dict.fromkeys(turn.cwd for turn in reversed(turns) if turn.cwd)
    return next((cwd for cwd in seen if project_slug(cwd) == project), next(iter(seen), ""))


def _title(transcript: Transcript, thread: Thread) -> str:
    uuids = {record.uuid for record in transcript.records}
    own = [summary for leaf, summary in transcript.summaries if leaf in uuids]
    any_summary = [summary for _, summary in transcript.summaries]
    turns = (*thread.earlier, *thread.turns)
    candidates = (
        transcript.custom_title,
        transcript.ai_title,
        transcript.last_prompt,
        (own or any_summary or [""])[-1],
        *(
            turn.text
            for turn in turns
            if turn.role == "user" and not turn.is_meta and not turn.is_compact_summary and not turn.origin
        ),
    )
    title = next((text for candidate in candidates if (text := " ".join(candidate.split()))), "")
    return title if len(title) <= 200 else title[:199] + "…"


def _queued_prompts(transcript: Transcript) -> tuple[str, ...]:
    """Prompts typed while the model worked that stand in no turn: some versions record only the queueing."""
    said = [
        " ".join(record.turn.text.split())
        for record in transcript.records
        if record.turn is not None and record.turn.role == "user" and not record.sidechain
    ]
    lines = {line for text in said for line in (text, *text.split("\n"))}
    waiting: dict[str, None] = {}
    for prompt in transcript.enqueued:
        text = " ".join(prompt.split())
        if prompt.startswith("<task-notification>") or text in lines:
            continue
        if prompt.startswith("/") and any(f"<command-name>{prompt.split()[0]}</" in turn for turn in said):
            continue
        if len(text) >= 20 and any(text in turn for turn in said):
            continue
        waiting.setdefault(prompt)
    return tuple(waiting)


def _warnings(transcript: Transcript) -> list[str]:
    warnings = []
    if transcript.skipped_lines:
        warnings.append(f"{_lines(transcript.skipped_lines)}: not a record; kept in the file, not read")
    if transcript.oversized_lines:
        warnings.append(f"{_lines(transcript.oversized_lines)}: longer than 32 MiB; kept in the file, not read")
    for kind, lines in transcript.unknown_types.items():
        shown = kind if re.fullmatch(r"[A-Za-z0-9_-]{1,40}", kind) else "(unprintable)"
        warnings.append(f"{_lines(lines)}: of unknown type {shown}; kept in the file, not read")
    if transcript.torn_line:
        warnings.append(f"line {transcript.torn_line}: cut short, as of a session still being written; not read")
    return warnings


def _lines(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:5]))
    more = f" and {len(numbers) - 5} more" if len(numbers) > 5 else ""
    return f"line{'s' if len(numbers) > 1 else ''} {shown}{more}"
