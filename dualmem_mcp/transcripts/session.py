"""A session put together from its transcript: thread, agents, title, folder, what was queued, what was not read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from dualmem_mcp.errors import UsageError
from dualmem_mcp.model.conversation import QueuedPrompt, Session, SessionFile, Turn
from dualmem_mcp.model.ids import ConversationId, parse_conversation_id
from dualmem_mcp.transcripts.agents import AgentFile, agent_runs, sidechain_groups
from dualmem_mcp.transcripts.prompt_queue import replay_queue
from dualmem_mcp.transcripts.records import Transcript
from dualmem_mcp.transcripts.slug import project_slug
from dualmem_mcp.transcripts.thread import build_thread

MAX_TITLE: Final = 200
MAX_QUEUED: Final = 1_000
"""Queued prompts looked at, the newest: each is searched for in all that was said."""


def assemble_session(
    path: Path,
    transcript: Transcript,
    *,
    files: tuple[SessionFile, ...],
    agent_files: Sequence[AgentFile],
    warnings: Sequence[str] = (),
) -> Session:
    """The session that `transcript`, read from `path`, and the files of its agents make up."""
    thread = build_thread(transcript.records)
    visible = (*thread.earlier, *thread.turns)
    shown = [turn for turn in visible if not turn.is_meta]
    times = [turn.timestamp for turn in visible if turn.timestamp]
    queue = replay_queue(transcript.queue_operations)
    return Session(
        conversation_id=conversation_id_of(path, transcript.session_id),
        project=path.parent.name,
        title=_title(transcript, visible),
        cwd=session_cwd([turn.cwd for turn in shown], path.parent.name),
        git_branch=next((turn.git_branch for turn in reversed(shown) if turn.git_branch), ""),
        version=transcript.version,
        model=next((turn.model for turn in reversed(visible) if turn.model and not turn.model.startswith("<")), ""),
        permission_mode=transcript.permission_mode,
        started_at=times[0] if times else None,
        ended_at=times[-1] if times else None,
        turns=thread.turns,
        earlier=thread.earlier,
        agents=agent_runs(
            [record for record in transcript.records if not record.sidechain],
            visible,
            [*sidechain_groups(transcript.records), *agent_files],
            progress=transcript.agent_progress,
            notices=[prompt.text for prompt in queue],
        ),
        files=files,
        pull_requests=tuple(transcript.pull_requests),
        queued_prompts=_queued_prompts(queue, visible),
        record_count=transcript.record_count,
        skipped_records=len(transcript.skipped_lines)
        + len(transcript.oversized_lines)
        + sum(map(len, transcript.unknown_types.values())),
        warnings=(*transcript_warnings(transcript), *warnings),
    )


def session_cwd(seen: Sequence[str], project: str) -> str:
    """The newest working directory that the project folder is named after, else the newest of all.

    A session that changes into a subfolder goes on in its project's folder, and is resumed from there.
    """
    newest_first = dict.fromkeys(cwd for cwd in reversed(seen) if cwd)
    return next((cwd for cwd in newest_first if project_slug(cwd) == project), next(iter(newest_first), ""))


def transcript_warnings(transcript: Transcript) -> list[str]:
    """What of a file was not read, by line number and never with content."""
    warnings = []
    if transcript.skipped_lines:
        warnings.append(f"{_lines(transcript.skipped_lines)}: not a record; kept in the file, not read")
    if transcript.oversized_lines:
        warnings.append(f"{_lines(transcript.oversized_lines)}: longer than 32 MiB; kept in the file, not read")
    known = [kind for kind in transcript.unknown_types if re.fullmatch(r"[A-Za-z0-9_-]{1,40}", kind)]
    for kind in known[:20]:
        lines = transcript.unknown_types[kind]
        warnings.append(f"{_lines(lines)}: of unknown type {kind}; kept in the file, not read")
    others = sorted(
        line for kind, lines in transcript.unknown_types.items() if kind not in known[:20] for line in lines
    )
    if others:
        warnings.append(f"{_lines(others)}: of other unknown types; kept in the file, not read")
    if transcript.duplicate_lines:
        warnings.append(f"{_lines(transcript.duplicate_lines)}: uuid of an earlier record; the first one counts")
    if transcript.torn_line:
        warnings.append(f"line {transcript.torn_line}: cut short, as in a session still being written; not read")
    return warnings


def _lines(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:5]))
    more = f" and {len(numbers) - 5} more" if len(numbers) > 5 else ""
    return f"line{'s' if len(numbers) > 1 else ''} {shown}{more}"


def conversation_id_of(path: Path, session_id: str) -> ConversationId:
    """The file's name without its ending, which is what the client resumes by; else the id its records state."""
    for candidate in (path.stem, session_id):
        try:
            return parse_conversation_id(candidate)
        except UsageError:
            continue
    return parse_conversation_id(re.sub(r"[^A-Za-z0-9_-]+", "-", f"session-{path.stem}")[:120])


def _title(transcript: Transcript, turns: Sequence[Turn]) -> str:
    """Source of the order: the client's own session list (docs/transcripts.md)."""
    uuids = {record.uuid for record in transcript.records}
    own = [summary for leaf, summary in transcript.summaries if leaf in uuids]
    # Old clients put summaries of other sessions of the folder first in the file; those name foreign leaves.
    others = [summary for leaf, summary in transcript.summaries if leaf not in uuids]
    requests = (
        turn.text
        for turn in turns
        if turn.role == "user" and not turn.is_meta and not turn.is_compact_summary and not turn.origin
    )
    candidates = (
        transcript.custom_title,
        transcript.ai_title,
        transcript.last_prompt,
        (own or others or [""])[-1],
        *requests,
    )
    title = next((text for candidate in candidates if (text := " ".join(candidate.split()))), "")
    return title if len(title) <= MAX_TITLE else title[: MAX_TITLE - 1] + "…"


def _queued_prompts(queue: Sequence[QueuedPrompt], visible: Sequence[Turn]) -> tuple[QueuedPrompt, ...]:
    """Prompts typed while the model worked that no turn of the thread holds.

    Some versions record only the queueing, and a turn that was delivered as the user interrupted can hang off
    the thread.
    """
    said = [" ".join(turn.text.split()) for turn in visible if turn.role == "user" and turn.text]
    whole = set(said)
    everything = "\n".join(said)
    kept: dict[str, QueuedPrompt] = {}
    for prompt in queue[-MAX_QUEUED:]:
        text = " ".join(prompt.text.split())
        command = text.split(" ")[0]
        if (
            text.startswith("<task-notification>")
            or text in whole
            # Several queued prompts are delivered as one turn; a short one is found in anything.
            or (len(text) >= 20 and text in everything)
            or (command.startswith("/") and f"<command-name>{command}</" in everything)
        ):
            continue
        kept.pop(prompt.text, None)  # each text once, as it was queued last
        kept[prompt.text] = prompt
    return tuple(kept.values())
