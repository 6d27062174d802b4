"""What is worth finding beside the turns of a session: decisions, agents, and what agents know of a project."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

from dualmem_mcp.handoff.digest.requests import answered_questions, extract_requests
from dualmem_mcp.handoff.digest.tasks import user_choices
from dualmem_mcp.handoff.digest.tool_calls import tool_calls
from dualmem_mcp.handoff.quoting import clean, cut_middle, one_line
from dualmem_mcp.model.conversation import AgentRun, Session
from dualmem_mcp.model.digest import Decision
from dualmem_mcp.model.project import ProjectFile
from dualmem_mcp.model.source import Finding

FROM_SESSION: Final = "session/"
GIVEN: Final = "given/"
QUOTED: Final = "quoted/"
USER: Final = "user/"
"""How the ids of findings begin: read in a session, given by the model at a handoff, quoted in a digest, written
by the user for all projects."""

_PROMPT_LIMIT: Final = 2_000
_AUTHORS: Final = {"user": "user", "model": "assistant", "extracted": "assistant"}


def session_findings(session: Session) -> list[Finding]:
    """The decisions that the user took when asked, and what each agent was launched for and reported."""
    turns = tuple(session.all_turns())
    calls = tool_calls(turns)
    decisions = [*user_choices(calls), *answered_questions(extract_requests(turns, calls))]
    agents = [found for agent in session.agents if (found := _agent(session, agent))]
    return [*decision_findings(session.conversation_id, decisions, FROM_SESSION), *agents]


def decision_findings(conversation_id: str, decisions: Iterable[Decision], source: str) -> list[Finding]:
    """Decisions as findings; `source` is how their ids begin."""
    numbers: dict[str, int] = {}
    found = []
    for one in decisions:
        text = clean(one.text)
        if not text:
            continue
        number = numbers[one.uuid] = numbers.get(one.uuid, 0) + 1
        found.append(
            Finding(
                "decision",
                # Those of no turn are named by what they say: given again, they are the same.
                f"{source}{one.uuid}/{number}" if one.uuid else f"{source}{_digest(text)}",
                f"{one_line(one.question)}\n{text}" if one.question else text,
                conversation_id=conversation_id,
                turn_uuid=one.uuid,
                author=_AUTHORS.get(one.origin, ""),
                timestamp=one.timestamp,
            )
        )
    return found


def knowledge_findings(files: Sequence[ProjectFile], source: str) -> list[Finding]:
    """What agents know: the files of a project's memory and its definitions of agents; with `USER` for `source`,
    the definitions that the user has for all projects."""
    found = []
    for file in files:
        if file.kind in {"memory", "agent_definition"} and file.name.startswith(USER) == (source == USER):
            name = one_line(file.name.removeprefix(USER))
            found.append(Finding("agent", source + name, f"{name}\n{clean(file.data.decode('utf-8', 'replace'))}"))
    return found


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def project_source(project: str) -> str:
    """How the ids of a project's findings begin."""
    return f"project/{project}/"


def _agent(session: Session, agent: AgentRun) -> Finding | None:
    report = clean(agent.result) or clean(agent.last_message)
    asked = one_line(agent.description)
    prompt = cut_middle(clean(agent.prompt), _PROMPT_LIMIT)
    if not (report or asked or prompt):
        return None
    head = f"{asked} ({one_line(agent.agent_type)})" if asked else one_line(agent.agent_type)
    return Finding(
        "agent",
        f"{FROM_SESSION}{agent.tool_use_id or agent.id}",
        "\n".join(part for part in (head, prompt, report) if part),
        conversation_id=session.conversation_id,
        turn_uuid=agent.launched_by,
        author=one_line(agent.agent_type),
        timestamp=agent.ended_at or agent.started_at,
    )
