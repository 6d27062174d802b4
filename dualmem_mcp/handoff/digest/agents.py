"""The agents of a conversation as a digest names them: what each was launched for, how it ended, what it said."""

from __future__ import annotations

from collections.abc import Sequence

from dualmem_mcp.handoff.digest.decisions import lead_of
from dualmem_mcp.handoff.quoting import clean, cut, cut_middle, one_line
from dualmem_mcp.model.conversation import AgentRun
from dualmem_mcp.model.digest import AgentEntry

_PROMPT_LIMIT = 2_000
_REPORT_LIMIT = 6_000
_OUTCOME_LIMIT = 700


def extract_agents(agents: Sequence[AgentRun]) -> tuple[AgentEntry, ...]:
    """Every agent in order of launch; long prompts and reports lose their middle, a last message that only
    repeats the report is left out."""
    found = []
    for agent in sorted(agents, key=lambda one: one.order):
        result, last = clean(agent.result), clean(agent.last_message)
        found.append(
            AgentEntry(
                id=one_line(agent.id),
                type=one_line(agent.agent_type),
                description=one_line(agent.description),
                prompt=cut_middle(clean(agent.prompt), _PROMPT_LIMIT),
                status=agent.status,
                outcome=cut(lead_of(result or last) or one_line(result or last), _OUTCOME_LIMIT),
                result=cut_middle(result, _REPORT_LIMIT),
                last_message="" if last and last == result else cut_middle(last, _REPORT_LIMIT),
                context_tokens=agent.context_tokens,
                message_count=agent.message_count,
                tool_uses=agent.tool_uses,
                model=one_line(agent.model),
                order=agent.order,
                active_at=agent.ended_at or agent.started_at,
                uuid=agent.launched_by,
            )
        )
    return tuple(found)
