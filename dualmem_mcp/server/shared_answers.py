"""One answer for all who ask the same at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Final

from dualmem_mcp.server.tool import Answer

# Between two answers to one question: made all the time, they would take the processor from those who wait.
_PAUSE_SECONDS: Final = 0.01

Make = Callable[[], Awaitable[Answer]]


class SharedAnswers:
    """Answers that are being made, by what was asked.

    Who comes while one is made waits for the next, together with all others who come meanwhile: what an answer is
    made from was read after everybody who gets it had asked, as if each had been answered alone.
    """

    def __init__(self) -> None:
        self._making: dict[Hashable, asyncio.Task[Answer]] = {}
        self._next: dict[Hashable, asyncio.Task[Answer]] = {}

    async def get(self, question: Hashable, make: Make) -> Answer:
        """The answer that `make` gives, called by this request or by another. One that is cancelled leaves the rest
        their answer."""
        task = self._next.get(question)
        if task is None:
            task = self._next[question] = asyncio.create_task(self._in_turn(question, make))
        return await asyncio.shield(task)

    async def _in_turn(self, question: Hashable, make: Make) -> Answer:
        if (before := self._making.get(question)) is not None:
            await asyncio.wait([before])
            await asyncio.sleep(_PAUSE_SECONDS)
        task = self._making[question] = self._next.pop(question)
        try:
            return await make()
        finally:
            if self._making.get(question) is task:
                del self._making[question]
