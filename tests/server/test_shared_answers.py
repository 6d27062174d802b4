"""One answer for all who ask at the same time, made after each of them had asked."""

from __future__ import annotations

import asyncio

import pytest

from dualmem_mcp.server.shared_answers import SharedAnswers
from dualmem_mcp.server.tool import Answer


class Making:
    """Makes numbered answers, each when it is let."""

    def __init__(self) -> None:
        self.begun = 0
        self.go_on = asyncio.Semaphore(0)

    async def __call__(self) -> Answer:
        self.begun += 1
        number = self.begun
        await self.go_on.acquire()
        return Answer(str(number))


async def turns(number: int = 5) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_who_comes_while_one_is_made_shares_the_next() -> None:
    answers, making = SharedAnswers(), Making()
    first = asyncio.create_task(answers.get("status", making))
    await turns()
    later = [asyncio.create_task(answers.get("status", making)) for _ in range(100)]
    await turns()
    assert making.begun == 1  # not before it is their turn, and never two at once
    making.go_on.release()
    assert (await first).text == "1"
    await turns()
    assert making.begun == 1  # not one after the other without a pause
    await asyncio.sleep(0.05)
    assert making.begun == 2
    latest = asyncio.create_task(answers.get("status", making))
    await turns()
    making.go_on.release()
    making.go_on.release()
    assert {(await each).text for each in later} == {"2"}
    assert (await latest).text == "3"
    assert (answers._making, answers._next) == ({}, {})


async def test_other_questions_do_not_wait() -> None:
    answers, making, other = SharedAnswers(), Making(), Making()
    first = asyncio.create_task(answers.get("status", making))
    other.go_on.release()
    assert (await answers.get("else", other)).text == "1"
    making.go_on.release()
    assert (await first).text == "1"


async def test_who_is_cancelled_leaves_the_others_their_answer() -> None:
    answers, making = SharedAnswers(), Making()
    asking = [asyncio.create_task(answers.get("status", making)) for _ in range(3)]
    await turns()
    asking[0].cancel()
    await turns()
    making.go_on.release()
    assert [(await each).text for each in asking[1:]] == ["1", "1"]
    with pytest.raises(asyncio.CancelledError):
        await asking[0]


async def test_a_failure_is_everybodys_and_no_later_ones() -> None:
    answers = SharedAnswers()

    async def failing() -> Answer:
        await asyncio.sleep(0)
        raise OSError("no disk")

    asking = [asyncio.create_task(answers.get("status", failing)) for _ in range(2)]
    for each in asking:
        with pytest.raises(OSError, match="no disk"):
            await each
    making = Making()
    making.go_on.release()
    assert (await answers.get("status", making)).text == "1"
