"""The subagents of a session: what each was asked, how far it came, what came back.

Their messages lie in files of their own (`<id>/subagents/agent-*.jsonl`, before 2.1.2 beside the session),
in older sessions inside the session file as sidechains, or as progress records of the launching call.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from dualmem_mcp.model.conversation import AgentRun, AgentStatus, Block, Turn, estimate_tokens
from dualmem_mcp.transcripts.json_values import count_of, object_of, text_of
from dualmem_mcp.transcripts.records import Record, Transcript

LAUNCHING_TOOLS: Final = frozenset({"Task", "Agent"})
"""Tools that start a subagent. Source: Claude Code 1.0.98 to 2.1.36 call it Task, 2.1.108 and later Agent."""

EDITING_TOOLS: Final = frozenset({"Edit", "MultiEdit", "NotebookEdit", "Write"})
"""Tools that change the file they name. Source: Claude Code 1.0 to 2.1 transcripts."""

STOPPING_TOOLS: Final = frozenset({"TaskStop", "KillShell"})
"""Tools that end what runs in the background. Source: Claude Code documentation, "Tools available to Claude"."""

_NOTIFIED: Final[Mapping[str, AgentStatus]] = {
    "completed": "completed",
    "success": "completed",
    "failed": "failed",
    "error": "failed",
    "killed": "interrupted",
    "stopped": "interrupted",
    "cancelled": "interrupted",
    "canceled": "interrupted",
    "interrupted": "interrupted",
}
_INTERRUPTIONS: Final = ("interrupted by user", "doesn't want to", "was aborted", "User rejected")
_AGENT_ID: Final = re.compile(r"^agentId: ([A-Za-z0-9_-]{1,64})", re.MULTILINE)


@dataclass(slots=True)
class AgentFile:
    """One agent's messages, from wherever they were found, with what a `.meta.json` beside them says."""

    id: str
    records: list[Record]
    agent_type: str = ""
    description: str = ""
    tool_use_id: str = ""


@dataclass(slots=True)
class _Launch:
    """One call that started an agent, with its result and the notification of its end as far as there are any."""

    call: Block
    turn: Turn
    visible: bool
    result: Block | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    agent_id: str = ""
    notified: AgentStatus | None = None
    report: str = ""
    stated_tokens: int = 0
    stated_tool_uses: int = 0


def agent_file(stem: str, transcript: Transcript, meta: bytes) -> AgentFile:
    """The agent that a file `agent-<id>.jsonl` tells of, with what the `.meta.json` beside it says; a
    meta file that cannot be read says nothing."""
    try:
        said = object_of(json.loads(meta)) if meta else {}
    except (ValueError, RecursionError):
        said = {}
    return AgentFile(
        id=stem.removeprefix("agent-"),
        records=transcript.records,
        agent_type=text_of(said.get("agentType")),
        description=text_of(said.get("description")),
        tool_use_id=text_of(said.get("toolUseId")),
    )


def sidechain_groups(records: Sequence[Record]) -> list[AgentFile]:
    """Agents whose messages stand inside the session file: one for each agent id, or each root of a sidechain."""
    aside = {record.uuid: record for record in records if record.sidechain}
    root_of: dict[str, str] = {}
    groups: dict[str, list[Record]] = {}
    for record in aside.values():
        path = [record]
        while (parent := path[-1].parent_uuid) in aside and parent not in root_of and parent != path[-1].uuid:
            path.append(aside[parent])
            root_of[path[-2].uuid] = ""  # marks the way up, so that a cycle ends
        root = root_of.get(path[-1].parent_uuid or "") or path[-1].uuid
        root_of.update((step.uuid, root) for step in path)
        groups.setdefault(record.agent_id or root, []).append(record)
    return [AgentFile(id=chain[0].agent_id or group, records=chain) for group, chain in groups.items()]


def agent_runs(
    main: Sequence[Record],
    visible: Iterable[Turn],
    files: Sequence[AgentFile],
    *,
    progress: Mapping[str, Sequence[Record]],
    notices: Iterable[str] = (),
) -> tuple[AgentRun, ...]:
    """Every agent of the session in the order of launch; those on abandoned branches only if they left messages."""
    shown = {turn.uuid for turn in visible}
    launches = _launches([record for record in main if not record.sidechain], shown)
    for file in files:
        for launch in _launches(file.records, {record.uuid for record in file.records}).values():
            launches.setdefault(launch.call.tool_use_id, launch)
    _add_results(launches, [*main, *(record for file in files for record in file.records)])
    _add_ends(launches, main, notices)
    matched = _match(launches, files)
    pairs: list[tuple[_Launch | None, AgentFile | None]] = []
    for call_id, launch in launches.items():
        found = matched.get(call_id)
        if found is None and call_id in progress:
            messages = list(progress[call_id])
            found = AgentFile(id=launch.agent_id or messages[0].agent_id or call_id, records=messages)
        if launch.visible or found is not None:
            pairs.append((launch, found))
    used = {id(file) for _, file in pairs if file is not None}
    pairs += [(None, file) for file in files if id(file) not in used]
    return tuple(_run(order, launch, file) for order, (launch, file) in enumerate(pairs))


def _launches(records: Iterable[Record], shown: set[str]) -> dict[str, _Launch]:
    launches: dict[str, _Launch] = {}
    for record in records:
        turn = record.turn
        if turn is None or turn.role != "assistant":
            continue
        for block in turn.blocks_of("tool_use"):
            if block.tool_name in LAUNCHING_TOOLS and block.tool_use_id:
                known = launches.get(block.tool_use_id)
                if known is None or (turn.uuid in shown and not known.visible):
                    launches[block.tool_use_id] = _Launch(block, turn, visible=turn.uuid in shown)
    return launches


def _add_results(launches: Mapping[str, _Launch], records: Iterable[Record]) -> None:
    for record in records:
        if record.turn is None or record.turn.role != "user":
            continue
        for block in record.turn.blocks_of("tool_result"):
            launch = launches.get(block.tool_use_id)
            if launch is not None and launch.result is None:
                launch.result = block
                launch.detail = object_of(record.turn.detail)
                named = _AGENT_ID.search(block.text)
                launch.agent_id = text_of(launch.detail.get("agentId")) or (named.group(1) if named else "")


def _add_ends(launches: Mapping[str, _Launch], main: Iterable[Record], undelivered: Iterable[str]) -> None:
    """How agents in the background ended: by a notification, by what was asked of them, by being stopped.

    What stands in `main` reached the thread and brings the report along; `undelivered` notifications only
    tell the end.
    """
    by_agent = {launch.agent_id: launch for launch in launches.values() if launch.agent_id}
    stops: dict[str, _Launch] = {}
    for turn in (record.turn for record in main if record.turn is not None):
        if turn.origin == "task-notification":
            _add_notices(turn.text, by_agent, launches, reached=True)
        for block in turn.blocks:
            if block.kind == "tool_use" and block.tool_name in STOPPING_TOOLS:
                asked = block.tool_input.get("task_id") or block.tool_input.get("shell_id")
                if (launch := by_agent.get(text_of(asked))) is not None:
                    stops[block.tool_use_id] = launch
            elif block.kind == "tool_result" and not block.is_error:
                if block.tool_use_id in stops:
                    stops[block.tool_use_id].notified = "interrupted"
                elif block.text.startswith("<retrieval_status>"):
                    _add_end(by_agent.get(_tag(block.text, "task_id")), block.text, "output", reached=True)
    for text in undelivered:
        _add_notices(text, by_agent, launches, reached=False)


def _add_notices(
    text: str, by_agent: Mapping[str, _Launch], launches: Mapping[str, _Launch], *, reached: bool
) -> None:
    for notice in text.split("<task-notification>")[1:]:
        launch = by_agent.get(_tag(notice, "task-id")) or launches.get(_tag(notice, "tool-use-id"))
        _add_end(launch, notice, "result", reached=reached)


def _add_end(launch: _Launch | None, text: str, report: str, *, reached: bool) -> None:
    status = _NOTIFIED.get(_tag(text, "status").lower())
    if launch is None or status is None:
        return
    usage = text[max(0, text.rfind("<usage>")) :]
    launch.stated_tokens = _number(_tag(usage, "total_tokens")) or launch.stated_tokens
    launch.stated_tool_uses = _number(_tag(usage, "tool_uses")) or launch.stated_tool_uses
    if reached:
        launch.report = _tag(text, report) or launch.report
        launch.notified = status
    elif launch.notified is None:
        launch.notified = status


def _number(text: str) -> int:
    return int(text) if len(text) < 16 and text.isascii() and text.isdigit() else 0


def _tag(text: str, name: str) -> str:
    start = text.find(f"<{name}>")
    if start < 0:
        return ""
    start += len(name) + 2
    # A report may itself quote the closing tag, so its last one counts; the other tags are single words.
    end = text.rfind(f"</{name}>") if name in {"result", "output"} else text.find(f"</{name}>", start)
    return text[start : end if end >= start else len(text)].strip()


def _match(launches: Mapping[str, _Launch], files: Sequence[AgentFile]) -> dict[str, AgentFile]:
    """Which agent's messages belong to which call: by the call's id, the agent's id, then by the same prompt."""
    matched: dict[str, AgentFile] = {}
    by_agent = {launch.agent_id: call for call, launch in launches.items() if launch.agent_id}
    by_prompt: dict[str, deque[AgentFile]] = defaultdict(deque)
    for file in files:
        call = file.tool_use_id if file.tool_use_id in launches else by_agent.get(file.id, "")
        if call and call not in matched:
            matched[call] = file
        else:
            by_prompt[_prompt(file.records).strip()].append(file)
    for call, launch in launches.items():
        prompt = text_of(launch.call.tool_input.get("prompt")).strip()
        if call not in matched and prompt and by_prompt[prompt]:
            matched[call] = by_prompt[prompt].popleft()
    return matched


def _prompt(records: Sequence[Record]) -> str:
    first = next((record.turn for record in records if record.turn and record.turn.role == "user"), None)
    return first.text if first else ""


def _run(order: int, launch: _Launch | None, file: AgentFile | None) -> AgentRun:
    turns = [record.turn for record in file.records if record.turn] if file else []
    asked = launch.call.tool_input if launch else {}
    detail = launch.detail if launch else {}
    spoken = [turn.text for turn in turns if turn.role == "assistant" and turn.text.strip()]
    report = _report(launch)
    last_message = spoken[-1] if spoken else report
    usage = (
        next((record.usage_tokens for record in reversed(file.records) if record.usage_tokens), 0) if file else 0
    )
    model = next((turn.model for turn in reversed(turns) if turn.model and not turn.model.startswith("<")), "")
    times = [turn.timestamp for turn in turns if turn.timestamp]
    return AgentRun(
        id=(file.id if file else "") or (launch.agent_id or launch.call.tool_use_id if launch else ""),
        agent_type=text_of(asked.get("subagent_type")) or (file.agent_type if file else "") or "general-purpose",
        description=text_of(asked.get("description")) or (file.description if file else ""),
        prompt=text_of(asked.get("prompt")) or (_prompt(file.records) if file else ""),
        status=_status(launch, turns),
        order=order,
        tool_use_id=launch.call.tool_use_id if launch else (file.tool_use_id if file else ""),
        launched_by=launch.turn.uuid if launch else "",
        result=report,
        last_message=last_message,
        context_tokens=usage
        or count_of(detail.get("totalTokens"))
        or (launch.stated_tokens if launch else 0)
        or estimate_tokens(last_message),
        message_count=len(turns),
        model=model or text_of(asked.get("model")),
        tool_uses=sum(1 for turn in turns for _ in turn.blocks_of("tool_use"))
        or count_of(detail.get("totalToolUseCount"))
        or (launch.stated_tool_uses if launch else 0),
        started_at=times[0] if times else (launch.turn.timestamp if launch else None),
        ended_at=times[-1] if times else None,
        edited_files=_edited_files(turns),
    )


def _edited_files(turns: Sequence[Turn]) -> tuple[tuple[str, str], ...]:
    """Paths that the agent's editing calls changed, with the last tool; calls that failed changed nothing."""
    failed = {block.tool_use_id for turn in turns for block in turn.blocks_of("tool_result") if block.is_error}
    found: dict[str, str] = {}
    for turn in turns:
        for block in turn.blocks_of("tool_use"):
            path = block.tool_input.get("file_path") or block.tool_input.get("notebook_path")
            if block.tool_name in EDITING_TOOLS and block.tool_use_id not in failed and isinstance(path, str):
                found[path] = block.tool_name
    return tuple(found.items())


def _is_async(launch: _Launch) -> bool:
    return launch.detail.get("isAsync") is True or launch.detail.get("status") == "async_launched"


def _report(launch: _Launch | None) -> str:
    if launch is None or launch.report:
        return launch.report if launch else ""
    if launch.result is None or launch.result.is_error or _is_async(launch):
        return ""
    return launch.result.text


def _status(launch: _Launch | None, turns: Sequence[Turn]) -> AgentStatus:
    if launch is not None and launch.notified is not None:
        return launch.notified
    if launch is not None and launch.result is not None and not _is_async(launch):
        if not launch.result.is_error:
            return "completed"
        stopped = any(phrase in launch.result.text for phrase in _INTERRUPTIONS)
        return "interrupted" if stopped else "failed"
    ended = _own_end(turns)
    if ended != "unknown" or launch is None:
        return ended
    # An agent in the background may still be at work; one that the thread waited for was cut off with it.
    return "running" if launch.result is not None else "interrupted"


def _own_end(turns: Sequence[Turn]) -> AgentStatus:
    """How an agent's own messages end: with an interruption, with an answer, or in the middle."""
    if not turns:
        return "unknown"
    last = turns[-1]
    if last.origin == "interruption":
        return "interrupted"
    if last.role == "assistant" and last.text.strip() and not any(last.blocks_of("tool_use")):
        return "completed"
    return "unknown"
