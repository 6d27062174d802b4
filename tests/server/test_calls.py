"""What becomes of a call: order, threads, progress, cancellation, and every kind of failure."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from anyio import to_thread

from dualmem_mcp.errors import DiskFullError, LockedError
from dualmem_mcp.server.calls import Calls
from dualmem_mcp.server.lazy_app import LazyApp
from dualmem_mcp.server.sync_worker import SyncWorker
from dualmem_mcp.server.tool import LOCAL, Answer, Call, Caller, Order, Tool


def tool(name: str, handler: Callable[[Call], Answer], order: Order = "free") -> Tool:
    schema = {"type": "object", "properties": {"text": {"type": "string"}}}
    return Tool(name, name, name, schema, {"type": "object"}, {}, handler, order)


def calls_of(*tools: Tool, opener: Callable[[], Any] | None = None) -> Calls:
    return Calls(tools, LazyApp(opener or (lambda: SimpleNamespace(notices=[], close=lambda: None))), SyncWorker())


async def no_report(done: float, total: float, message: str) -> None:
    raise AssertionError("nothing was to be reported")


async def test_a_slow_call_holds_no_other_up() -> None:
    release = threading.Event()

    def slow(call: Call) -> Answer:
        assert release.wait(10)
        return Answer("slow")

    calls = calls_of(tool("slow", slow), tool("quick", lambda call: Answer("quick"), "write"))
    answers = []

    async def note(name: str) -> None:
        answers.append((await calls.answer(name, {}, no_report)).text)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(note, "slow")
            await anyio.wait_all_tasks_blocked()
            await note("quick")
            release.set()
    assert answers == ["quick", "slow"]


async def test_writes_run_alone_in_order_of_arrival_and_reads_after_earlier_writes() -> None:
    running: list[str] = []
    history: list[str] = []

    def write(call: Call) -> Answer:
        running.append("write")
        assert running == ["write"]
        history.append(call.arguments["text"])
        running.remove("write")
        return Answer("")

    def read(call: Call) -> Answer:
        return Answer(",".join(history))

    calls = calls_of(tool("write", write, "write"), tool("read", read, "read"))
    seen: dict[int, list[str]] = {}

    async def read_after(number: int) -> None:
        seen[number] = (await calls.answer("read", {}, no_report)).text.split(",")

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(calls.answer, "write", {"text": str(number)}, no_report)
                tasks.start_soon(read_after, number)
    assert history == [str(number) for number in range(20)]
    for number in range(20):
        assert str(number) in seen[number]


async def test_progress_only_rises() -> None:
    def work(call: Call) -> Answer:
        for done in (0, 1, 1, 3):
            call.progress(done, 3, f"step {done}")
        return Answer("done")

    reported: list[tuple[float, float, str]] = []

    async def report(done: float, total: float, message: str) -> None:
        reported.append((done, total, message))

    await calls_of(tool("work", work)).answer("work", {}, report)
    assert reported == [(0, 3, "step 0"), (1, 3, "step 1"), (3, 3, "step 3")]


async def test_a_cancelled_call_ends_at_its_next_step_and_leaves_the_thread() -> None:
    started, cancelled = threading.Event(), threading.Event()
    ended_by: list[type[BaseException]] = []

    def work(call: Call) -> Answer:
        started.set()
        assert cancelled.wait(10)
        try:
            call.progress(1, 2, "step")
        except BaseException as error:
            ended_by.append(type(error))
            raise
        return Answer("not cancelled")

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(calls_of(tool("work", work)).answer, "work", {}, no_report)
            await to_thread.run_sync(started.wait)
            tasks.cancel_scope.cancel()
            cancelled.set()
    assert ended_by == [anyio.get_cancelled_exc_class()]


async def test_a_cancelled_write_that_has_begun_is_finished() -> None:
    started, go_on = threading.Event(), threading.Event()
    written: list[str] = []

    def write(call: Call) -> Answer:
        started.set()
        assert go_on.wait(10)
        written.append("all of it")
        return Answer("")

    calls = calls_of(tool("write", write, "write"))
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(calls.answer, "write", {}, no_report)
            await to_thread.run_sync(started.wait)
            tasks.cancel_scope.cancel()
            go_on.set()
    assert written == ["all of it"]
    assert (await calls.answer("write", {}, no_report)).is_error is False  # the lock was given back


async def test_errors_of_use_tell_what_to_do() -> None:
    def full(call: Call) -> Answer:
        raise DiskFullError("no space is left", hint="Free some.")

    def locked(call: Call) -> Answer:
        raise LockedError("the key is missing")

    calls = calls_of(tool("full", full), tool("locked", locked))
    answer = await calls.answer("full", {}, no_report)
    assert (answer.text, answer.is_error) == ("error: no space is left\nhint: Free some.", True)
    assert (await calls.answer("locked", {}, no_report)).text == "error: the key is missing"


async def test_a_fault_is_logged_with_its_place_and_without_its_words(caplog: pytest.LogCaptureFixture) -> None:
    def faulty(call: Call) -> Answer:
        raise KeyError("what the user wrote")

    answer = await calls_of(tool("faulty", faulty)).answer("faulty", {}, no_report)
    assert answer.is_error
    assert "KeyError" in answer.text
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "in faulty" in record.getMessage()
    assert "what the user wrote" not in answer.text + record.getMessage().replace(
        'raise KeyError("what the user wrote")', ""
    )


async def test_opening_is_tried_again_after_a_failure_and_done_once_after_a_success() -> None:
    attempts: list[int] = []

    def opener() -> Any:
        attempts.append(1)
        if len(attempts) == 1:
            raise LockedError("the keyring is locked", hint="Unlock it.")
        return SimpleNamespace(notices=[], close=lambda: None)

    calls = calls_of(tool("work", lambda call: Answer("done")), opener=opener)
    assert (await calls.answer("work", {}, no_report)).text == "error: the keyring is locked\nhint: Unlock it."
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(calls.answer, "work", {}, no_report)
    assert len(attempts) == 2
    assert (await calls.answer("nope", {}, no_report)).text == "MCP error -32602: Tool nope not found"
    assert len(attempts) == 2


async def test_an_application_opened_for_a_cancelled_request_is_kept_and_closed() -> None:
    opening, go_on = threading.Event(), threading.Event()
    closed: list[int] = []

    def opener() -> Any:
        opening.set()
        assert go_on.wait(10)
        return SimpleNamespace(notices=[], close=lambda: closed.append(1))

    app = LazyApp(opener)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(app.get)
            await to_thread.run_sync(opening.wait)
            tasks.cancel_scope.cancel()
            go_on.set()
    app.close()
    app.close()
    assert closed == [1]


@pytest.mark.parametrize("urgent", [True, False])
async def test_who_calls_reaches_the_tool_and_what_is_urgent_the_sync(urgent: bool) -> None:
    heard: list[bool] = []
    callers: list[Caller] = []
    activity = SimpleNamespace(
        used=lambda: None, changed=lambda *, urgent: heard.append(urgent), synced=lambda: None
    )

    def handler(call: Call) -> Answer:
        callers.append(call.caller)
        return Answer("", updated=("memory://x",), urgent=urgent)

    app = SimpleNamespace(notices=[], close=lambda: None, wake_edge=lambda: None)
    calls = Calls([tool("save", handler)], LazyApp(lambda: app), activity)  # type: ignore[arg-type, return-value]
    phone = Caller("grant", "ios")
    assert not (await calls.answer("save", {}, no_report, phone)).is_error
    await calls.answer("save", {}, no_report)
    assert heard == [urgent, urgent]
    assert callers == [phone, LOCAL]
