"""The digest of a session: extracted by rule, without a language model, each entry with its turn."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from dualmem_mcp.handoff.digest.agents import extract_agents
from dualmem_mcp.handoff.digest.commands import extract_commands, extract_tests, status_of
from dualmem_mcp.handoff.digest.decisions import extract_findings, lead_of
from dualmem_mcp.handoff.digest.errors_met import extract_errors
from dualmem_mcp.handoff.digest.files import change_log, extract_files
from dualmem_mcp.handoff.digest.git_history import (
    extract_actions,
    extract_commits,
    extract_pull_requests,
    git_state,
)
from dualmem_mcp.handoff.digest.requests import answered_questions, extract_requests, is_interruption, said_by_user
from dualmem_mcp.handoff.digest.tasks import extract_plan, extract_tasks, user_choices
from dualmem_mcp.handoff.digest.tool_calls import ToolCall, tool_calls
from dualmem_mcp.handoff.quoting import clean, cut, cut_middle, one_line, relative_path, squeeze
from dualmem_mcp.handoff.redact import redact
from dualmem_mcp.handoff.redact_session import redact_session
from dualmem_mcp.model.conversation import Session, Turn
from dualmem_mcp.model.digest import Decision, Digest, GitState, PendingTool, Quote, Request, Resumption

_STEPS = 40
_REPLY_LIMIT = 1_500
_SAME_COMPACTION = timedelta(minutes=2)
"""A summary that was kept so soon after one that stands in the session is that one, in whatever form."""
_UNSPOKEN = re.compile(r"\W*No response requested\W*", re.IGNORECASE)


def build_digest(
    session: Session,
    *,
    summary: str = "",
    decisions: Sequence[str] = (),
    next_steps: Sequence[str] = (),
    open_questions: Sequence[str] = (),
    kept_compaction: Quote | None = None,
) -> Digest:
    """The digest of a session, with secrets redacted.

    What the calling model passes is kept apart from what was extracted: `summary`, `next_steps`,
    `open_questions`, and decisions of origin "model". It changes nothing of files, tests and git.
    `kept_compaction` is the last compaction summary that was kept apart, for a session that has lost it.
    """
    session = redact_session(session)
    turns = tuple(session.all_turns())
    calls = tool_calls(turns)
    requests = extract_requests(turns, calls, session.queued_prompts)
    commits = extract_commits(calls)
    changes = change_log(calls, session.cwd)
    git = git_state(turns, calls, commits=commits, changes=changes, branch=session.git_branch)
    return Digest(
        conversation_id=session.conversation_id,
        title=one_line(session.title),
        cwd=one_line(session.cwd),
        version=one_line(session.version),
        model=one_line(session.model),
        permission_mode=one_line(session.permission_mode),
        started_at=session.started_at,
        ended_at=session.ended_at,
        message_count=session.message_count,
        visible_tokens=session.visible_tokens,
        active_tokens=session.active_tokens,
        resumption=_resumption(turns, calls, requests, git, session.cwd),
        requests=_with_outcomes(requests, turns),
        files=extract_files(calls, session.agents, session.cwd),
        commands=extract_commands(calls),
        tests=extract_tests(calls, changes),
        errors=extract_errors(calls, changes),
        commits=commits,
        pull_requests=extract_pull_requests(calls, session.pull_requests),
        actions=extract_actions(calls),
        tasks=extract_tasks(calls),
        plan=extract_plan(calls),
        agents=extract_agents(session.agents),
        decisions=(
            *(Decision(text=redact(clean(text)), origin="model") for text in decisions if clean(text)),
            *user_choices(calls),
            *answered_questions(requests),
            *extract_findings(turns),
        ),
        compaction_summary=_compaction_summary(turns, kept_compaction),
        summary=redact(clean(summary)),
        next_steps=tuple(redact(clean(text)) for text in next_steps if clean(text)),
        open_questions=tuple(redact(clean(text)) for text in open_questions if clean(text)),
    )


def _resumption(
    turns: Sequence[Turn], calls: Sequence[ToolCall], requests: Sequence[Request], git: GitState, cwd: str
) -> Resumption:
    last = _last_request(turns, calls)
    at = next((index for index in range(len(turns) - 1, -1, -1) if turns[index].uuid == last.uuid), -1)
    reply, reply_at = Quote(), -1
    for index in range(len(turns) - 1, at, -1):
        turn = turns[index]
        if (
            turn.role == "assistant"
            and turn.text.strip()
            and not turn.is_api_error
            and not _UNSPOKEN.fullmatch(turn.text.strip())
        ):
            reply, reply_at = Quote(text=squeeze(turn.text), uuid=turn.uuid, timestamp=turn.timestamp), index
            break
    if not last.text and requests and not requests[-1].uuid:
        last = Quote(text=requests[-1].text)
    final_prompt = next((index for index in range(len(turns) - 1, -1, -1) if said_by_user(turns[index])), -1)
    return Resumption(
        last_request=last,
        last_reply=reply,
        steps=_steps(turns, calls, at, reply_at, cwd),
        pending_tools=tuple(
            PendingTool(name=one_line(call.name), input=_short_input(call, cwd, 300), uuid=call.uuid)
            for call in calls
            if call.result is None and call.position > final_prompt
        ),
        interrupted=_is_interrupted(turns),
        git=git,
    )


def _last_request(turns: Sequence[Turn], calls: Sequence[ToolCall]) -> Quote:
    refusals = {call.result_uuid: call.feedback for call in calls if call.feedback}
    for turn in reversed(turns):
        text = clean(refusals.get(turn.uuid, "")) or said_by_user(turn)
        if text:
            return Quote(text=text, uuid=turn.uuid, timestamp=turn.timestamp)
    return Quote()


def _is_interrupted(turns: Sequence[Turn]) -> bool:
    for turn in reversed(turns):
        if turn.is_meta:
            continue
        if is_interruption(turn):
            return True
        if turn.role == "assistant" or said_by_user(turn):
            return False
    return False


def _steps(
    turns: Sequence[Turn], calls: Sequence[ToolCall], after: int, reply_at: int, cwd: str
) -> tuple[Quote, ...]:
    """What was done after a position, one line each: what the model said on the way, and its calls."""
    lines: list[tuple[int, Quote]] = []
    for position, turn in enumerate(turns):
        if position > after and position != reply_at and turn.role == "assistant" and turn.text.strip():
            lead = ("API error: " if turn.is_api_error else "") + turn.text.strip().split("\n")[0]
            lines.append((position, Quote(text=cut(one_line(lead), 200), uuid=turn.uuid, timestamp=turn.timestamp)))
    lines.extend(
        (call.position, Quote(text=_step_text(call, cwd), uuid=call.uuid, timestamp=call.timestamp))
        for call in calls
        if call.position > after and call.result is not None
    )
    lines.sort(key=lambda one: one[0])
    return tuple(quote for _, quote in lines[-_STEPS:])


def _step_text(call: ToolCall, cwd: str) -> str:
    status, code = status_of(call)
    ending = "" if status == "ok" else f" → {status}" + (f" (exit {code})" if code else "")
    return f"{one_line(call.name)} {_short_input(call, cwd, 140)}{ending}".strip()


def _short_input(call: ToolCall, cwd: str, limit: int) -> str:
    path = call.argument("file_path", "notebook_path")
    if path:
        return cut(relative_path(path, cwd), limit)
    plain = call.argument(
        "command", "description", "pattern", "query", "url", "skill", "prompt", "subject", "taskId"
    )
    if plain:
        return cut(one_line(plain), limit)
    parts = [f"{name}={value}" for name, value in call.input.items() if isinstance(value, (str, int, float, bool))]
    return cut(one_line(", ".join(parts)), limit)


def _with_outcomes(requests: Sequence[Request], turns: Sequence[Turn]) -> tuple[Request, ...]:
    """The requests, each with the sentence that says most of the model's last words before the next request."""
    ends: dict[str, Turn] = {}
    asked = ""
    by_uuid = {request.uuid for request in requests if request.uuid}
    for turn in turns:
        if turn.uuid in by_uuid:
            asked = turn.uuid
        elif turn.role == "assistant" and asked and turn.text.strip():
            ends[asked] = turn
    found = []
    for request in requests:
        end = ends.get(request.uuid)
        if end is None or _UNSPOKEN.fullmatch(end.text.strip()):
            found.append(request)
            continue
        reply, lead = squeeze(end.text), cut(lead_of(end.text), 320)
        found.append(
            replace(
                request,
                outcome=lead,
                reply=cut_middle(reply, _REPLY_LIMIT) if reply != lead else "",
                outcome_uuid=end.uuid,
            )
        )
    return tuple(found)


def _compaction_summary(turns: Sequence[Turn], kept: Quote | None) -> Quote:
    found = Quote()
    for turn in reversed(turns):
        if turn.is_compact_summary and turn.text.strip():
            found = Quote(text=squeeze(turn.text), uuid=turn.uuid, timestamp=turn.timestamp)
            break
    if kept is None or not kept.text.strip():
        return found
    is_lost = not found.text or bool(
        kept.timestamp and found.timestamp and kept.timestamp - found.timestamp > _SAME_COMPACTION
    )
    return Quote(text=redact(squeeze(kept.text)), timestamp=kept.timestamp) if is_lost else found
