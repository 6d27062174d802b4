"""Which agents of a conversation a device takes up: those at work first, as many as it bears."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from dualmem_mcp.model.device import DeviceProfile
from dualmem_mcp.model.digest import AgentEntry

BYTES_PER_TOKEN: Final = 4
"""Of an agent's context, which is what taking it up brings into memory. Source: tokens are characters / 4 here."""


def by_activation(agents: Sequence[AgentEntry]) -> list[tuple[int, AgentEntry]]:
    """The agents with their places, in the order in which they are taken up.

    Unfinished ones first; among both kinds the one that did something last. Where no time is known of an agent, it
    comes after those with one, the one launched last first.
    """

    def key(pair: tuple[int, AgentEntry]) -> tuple[bool, float, int]:
        at = pair[1].active_at
        return pair[1].status == "completed", -at.timestamp() if at is not None else 0.0, -pair[1].order

    return sorted(enumerate(agents), key=key)


def taken_up(agents: Sequence[AgentEntry], profile: DeviceProfile) -> int:
    """How many of them the device takes up, in that order: at most its number, and no more than whose contexts
    together fit its memory."""
    room = profile.memory_mb << 20
    number = 0
    for _, agent in by_activation(agents)[: profile.max_agents]:
        room -= agent.context_tokens * BYTES_PER_TOKEN
        if room < 0:
            break
        number += 1
    return number
