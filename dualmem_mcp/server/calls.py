"""From a `tools/call` request to its answer: look the tool up, check the arguments, order, run, shape errors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol

import anyio
from anyio import from_thread, to_thread

from dualmem_mcp.errors import DualmemError
from dualmem_mcp.model.grant import Scope
from dualmem_mcp.ports import Progress
from dualmem_mcp.server.faults import error_text, fault_text, log_fault
from dualmem_mcp.server.lazy_app import LazyApp
from dualmem_mcp.server.shared_answers import SharedAnswers
from dualmem_mcp.server.tool import LOCAL, Answer, Call, Caller, Order, Tool
from dualmem_mcp.server.validation import InvalidArgumentsError, checked_arguments

ReportProgress = Callable[[float, float, str], Coroutine[Any, Any, None]]


class Activity(Protocol):
    """What hears of calls, to sync when it is of use."""

    def used(self) -> None:
        """A tool is called."""
        ...

    def changed(self, *, urgent: bool = False) -> None:
        """A tool changed something, which is to be sent soon, or at once."""
        ...

    def synced(self) -> None:
        """A tool has synced."""
        ...


class Calls:
    """The tools, the application they run on, and what hears of each call."""

    def __init__(self, tools: Iterable[Tool], app: LazyApp, activity: Activity) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._app = app
        self._activity = activity
        self._writing = anyio.Lock()
        self._shared = SharedAnswers()

    async def answer(
        self, name: str, arguments: Mapping[str, Any], report: ReportProgress, caller: Caller = LOCAL
    ) -> Answer:
        """The tool's answer; every failure is an answer too, with what to do next.

        Texts for unknown tools and unfit arguments are the reference memory server's.
        """
        tool = self._tools.get(name)
        if tool is None:
            return Answer(f"MCP error -32602: Tool {name} not found", is_error=True)
        try:
            fitting = checked_arguments(tool.input_schema, arguments)
        except InvalidArgumentsError as error:
            text = f"MCP error -32602: Input validation error: Invalid arguments for tool {name}: {error}"
            return Answer(text, is_error=True)
        if tool.shared:
            return await self._shared.get(tool.name, lambda: self._made(tool, fitting, report, LOCAL))
        return await self._made(tool, fitting, report, caller)

    async def _made(
        self, tool: Tool, arguments: Mapping[str, Any], report: ReportProgress, caller: Caller
    ) -> Answer:
        try:
            async with self._in_order(tool.order):
                call = Call(await self._app.get(), arguments, _from_worker_thread(report), caller)
                # Not abandoned when the request is cancelled: a write that has begun is finished.
                return await to_thread.run_sync(self._handled, tool, call)
        except DualmemError as error:
            return Answer(error_text(error), is_error=True)
        except Exception as error:  # noqa: BLE001 - one failing call must not end the connection
            log_fault(f"tool {tool.name}", error)
            return Answer(fault_text(error), is_error=True)

    def scope(self, name: str) -> Scope:
        """What a client must be allowed to do to call the tool; "read" for one that there is not."""
        tool = self._tools.get(name)
        return tool.scope if tool is not None else "read"

    def changes_something(self, name: str) -> bool:
        """Whether there is such a tool and it may change something."""
        tool = self._tools.get(name)
        return tool is not None and not tool.reads_only

    def _handled(self, tool: Tool, call: Call) -> Answer:
        self._activity.used()
        answer = tool.handler(call)
        if answer.updated:
            call.app.wake_edge()
            self._activity.changed(urgent=answer.urgent)
        if answer.synced:
            self._activity.synced()
        return answer

    @asynccontextmanager
    async def _in_order(self, order: Order) -> AsyncIterator[None]:
        """Wait for the writes that arrived earlier; the lock is fair, so they are in order of arrival."""
        if order == "free":
            yield
            return
        await self._writing.acquire()
        if order == "read":
            self._writing.release()
            yield
            return
        try:
            yield
        finally:
            self._writing.release()


def _from_worker_thread(report: ReportProgress) -> Progress:
    """A Progress for the handler's thread: sends each step on, and ends the work if its request was cancelled."""
    reported = -1

    def progress(done: int, total: int, message: str) -> None:
        nonlocal reported
        from_thread.check_cancelled()
        if done > reported:  # the protocol wants it to rise with every notification
            reported = done
            from_thread.run(report, done, total, message)

    return progress
