"""A whole session, or one of its turns, without the secrets in it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from dualmem_mcp.handoff.redact import is_suspicious, redact
from dualmem_mcp.model.conversation import AgentRun, Block, Session, Turn

# Tools whose results never enter a digest.
_READING_TOOLS = frozenset({"Read", "NotebookRead", "Grep", "Glob", "LS", "WebFetch", "WebSearch"})


def redact_session(session: Session) -> Session:
    """The session as a digest may quote it: redacted before anything is cut, so that no half of a key stays.

    Results of tools that only read are left as they are: a digest does not quote them.
    """
    names = {
        block.tool_use_id: block.tool_name
        for turn in session.all_turns()
        for block in turn.blocks
        if block.kind == "tool_use"
    }
    return replace(
        session,
        title=redact(session.title),
        turns=_redact_turns(session.turns, names),
        earlier=_redact_turns(session.earlier, names),
        agents=tuple(_redact_agent(agent) for agent in session.agents),
        queued_prompts=tuple(replace(one, text=redact(one.text)) for one in session.queued_prompts),
    )


def _redact_turns(turns: Sequence[Turn], names: Mapping[str, str]) -> tuple[Turn, ...]:
    found = []
    for turn in turns:
        blocks = tuple(_redact_block(block, names) for block in turn.blocks)
        changed = any(new is not old for new, old in zip(blocks, turn.blocks, strict=True))
        # The structured account of a result can hold what its text does not: answers, paths, a task's subject.
        read_only = all(names.get(block.tool_use_id) in _READING_TOOLS for block in turn.blocks)
        detail = turn.detail if turn.detail is None or (read_only and not changed) else _redact_value(turn.detail)
        found.append(replace(turn, blocks=blocks, detail=detail) if changed or detail != turn.detail else turn)
    return tuple(found)


def redact_turn(turn: Turn) -> Turn:
    """The turn with every secret in its texts, tool inputs and results replaced, what was only read included."""
    return _redact_turns((turn,), {})[0]


def _redact_block(block: Block, names: Mapping[str, str]) -> Block:
    if block.kind == "thinking" or not block.text:
        return block
    if block.kind == "tool_result" and not block.is_error and names.get(block.tool_use_id) in _READING_TOOLS:
        return block
    if not is_suspicious(block.text):
        return block
    given = _redact_value(block.tool_input) if block.tool_input else block.tool_input
    # The input's texts are looked at as they are: in its JSON quotes are escaped and hide assignments.
    shown = (
        block.text if given == block.tool_input else json.dumps(given, ensure_ascii=False, separators=(",", ":"))
    )
    text = redact(shown)
    return (
        block if text == block.text and given == block.tool_input else replace(block, text=text, tool_input=given)
    )


def _redact_value(value: Any) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {key: _redact_value(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_redact_value(one) for one in value]
    return value


def _redact_agent(agent: AgentRun) -> AgentRun:
    return replace(
        agent,
        description=redact(agent.description),
        prompt=redact(agent.prompt),
        result=redact(agent.result),
        last_message=redact(agent.last_message),
        edited_files=tuple((redact(path), tool) for path, tool in agent.edited_files),
    )
