"""Prompts typed while the model worked, replayed from what the client wrote of its queue."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Final, NamedTuple

from dualmem_mcp.model.conversation import QueuedPrompt, QueuedState

# Source: Claude Code 2.1 transcripts: `dequeue` gives the next prompt to the model as a turn, `remove` gives it to
# the model between two tool calls, `popAll` (one record for each prompt) puts it back into the user's input line.
_ENDS: Final[dict[str, QueuedState]] = {"dequeue": "delivered", "remove": "delivered", "popAll": "withdrawn"}


class QueueOperation(NamedTuple):
    """One `queue-operation` record; only `enqueue` and `popAll` say which prompt they are about."""

    name: str
    text: str
    timestamp: datetime | None


def replay_queue(operations: Iterable[QueueOperation]) -> list[QueuedPrompt]:
    """Every prompt that was queued, in order, with what became of it.

    An operation that names no prompt is about the one that waits longest; one that names a prompt which does not
    wait changes nothing.
    """
    prompts: list[QueuedPrompt] = []
    waiting: dict[int, None] = {}
    places: dict[str, deque[int]] = {}
    for operation in operations:
        if operation.name == "enqueue":
            if operation.text:
                waiting[len(prompts)] = None
                places.setdefault(operation.text, deque()).append(len(prompts))
                prompts.append(QueuedPrompt(operation.text, operation.timestamp))
            continue
        state = _ENDS.get(operation.name)
        if state is None:
            continue
        same = places.get(operation.text, deque())
        while same and same[0] not in waiting:
            same.popleft()
        place = (same[0] if same else None) if operation.text else next(iter(waiting), None)
        if place is not None:
            del waiting[place]
            prompts[place] = replace(prompts[place], state=state)
    return prompts
