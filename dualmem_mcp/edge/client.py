"""The edge in a process of its own, as the MCP server uses it.

The model, its runtime and numpy take some 150 MB and, while they index, a core. In a process of their own they
never hold up a tool call, and when nobody searches the process ends and gives everything back, which a runtime
inside the server would not. It is started when it is first needed, and again when it has ended, died or hung.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Unpack

from dualmem_mcp.edge.interface import SearchOptions
from dualmem_mcp.edge.tier_results import nothing_moved, nothing_placed, problem_text
from dualmem_mcp.edge.worker_process import EndedError, WorkerProcess
from dualmem_mcp.errors import DualmemError, StoreUnreachableError

_log = logging.getLogger(__name__)

SEARCH_SECONDS: Final = 60.0
"""A search that takes longer is given up; 500,000 turns take less than one."""

RELATED_SECONDS: Final = 0.5
"""A brief does not wait longer for what is only beside it."""

PRELOAD_SECONDS: Final = 1.0
"""What a package takes along for searches is looked for while it is made, and waited for half of this at most."""

STATUS_SECONDS: Final = 2.0
"""Nor does a status, which can be had without the process."""

WAKE_SECONDS: Final = 3.0
"""A process that is not there is started so long after there was something new: more may come at once, a client
that has just started the server starts much else, and a server that lives for one call needs none."""

PLACING_SECONDS: Final = 10.0
"""So much longer than it may work a placement or a move is waited for: the process may have to be started, and a
request that it has begun goes on."""

FORGETTING_SECONDS: Final = 30.0

WORKER_MODULE: Final = "dualmem_mcp.server.edge_worker"


class EdgeProcess:
    """An EdgeInterface for a data home whose work is done by a child process, run by `module`.

    The process opens the data home by itself, as any other process does, keys included. Only the secret of a data
    home that keeps none is handed on, as the first line of the pipe: never as an argument, nor in the environment.
    """

    def __init__(
        self,
        home: Path,
        *,
        secret: bytes = b"",
        module: str = WORKER_MODULE,
        wake_seconds: float = WAKE_SECONDS,
    ) -> None:
        self._home = home
        self._secret = secret
        self._module = module
        self._wake_seconds = wake_seconds
        self._starting = threading.Lock()
        self._worker: WorkerProcess | None = None
        self._alarm: threading.Timer | None = None
        self._closed = False

    def search(self, query: str, **options: Unpack[SearchOptions]) -> dict[str, Any]:
        """As the interface says. Raises StoreUnreachableError if the process cannot be started or dies twice."""
        found: dict[str, Any] = self._ask("search", {"query": query, **options}, SEARCH_SECONDS)
        return found

    def related(self, query: str, *, conversation_id: str, cwd: str) -> Sequence[Mapping[str, Any]]:
        """As the interface says: nothing if the process is not running yet, or is busy."""
        params = {"query": query, "conversation_id": conversation_id, "cwd": cwd}
        try:
            found: list[dict[str, Any]] = self._at_once("related", params, RELATED_SECONDS)
        except (DualmemError, TimeoutError) as error:
            _log.info("no related material: %s", type(error).__name__)
            return []
        return found

    def preload_for(
        self, conversation_id: str, *, own: Sequence[Mapping[str, Any]], limit: int, threshold: float
    ) -> dict[str, Any]:
        """As the interface says: nothing if the process is not running yet, or is busy."""
        params = {"conversation_id": conversation_id, "own": [*own], "limit": limit, "threshold": threshold}
        try:
            found: dict[str, Any] = self._at_once("preload_for", params, PRELOAD_SECONDS)
        except (DualmemError, TimeoutError) as error:
            return {"section": "", "problem": getattr(error, "message", "the search process is not at hand")}
        return found

    def preload(self, conversation_id: str, section: str) -> int:
        """As the interface says; a process that is busy goes on with it."""
        params = {"conversation_id": conversation_id, "section": section}
        if self._at_hand() is None:
            threading.Thread(target=self._in_time, args=("preload", params), name="preload", daemon=True).start()
            return 0
        with suppress(EndedError, TimeoutError):
            return int(self._at_once("preload", params, PRELOAD_SECONDS))
        return 0

    def _at_once(self, method: str, params: Mapping[str, Any], seconds: float) -> Any:
        """The answer of the process, if it runs. Raises TimeoutError if there is none by then, or no process: it is
        then started in a moment."""
        worker = self._at_hand()
        if worker is None:
            self.wake()
            raise TimeoutError
        return worker.send(method, params, patience_seconds=seconds / 2).result(seconds / 2)

    def status(self) -> dict[str, Any] | None:
        """As the interface says; None if the process is not running or is busy: it is not started for this."""
        if self._at_hand() is None:
            return None
        try:
            status: dict[str, Any] = self._at_once("status", {}, STATUS_SECONDS)
        except (EndedError, TimeoutError):
            return None
        return status

    def wake(self) -> None:
        """As the interface says; a process that is not running is started in a moment."""
        worker = self._at_hand()
        if worker is not None:
            # It looks by itself every other moment, so nobody waits for one that does not read.
            if (worker.woken is None or worker.woken.done()) and not worker.lock.locked():
                with suppress(EndedError):
                    worker.woken = worker.send("wake", {})
            return
        with self._starting:
            if self._closed or self._alarm is not None:
                return
            self._alarm = threading.Timer(self._wake_seconds, self._wake)
            self._alarm.daemon = True
            self._alarm.start()

    def place(self, conversation_id: str, *, max_seconds: float) -> dict[str, Any]:
        """As the interface says; a process that is busy goes on with it."""
        params = {"conversation_id": conversation_id, "max_seconds": max_seconds}
        began = time.monotonic()
        try:
            placed: dict[str, Any] = self._within("place", params, max_seconds + PLACING_SECONDS)
        except DualmemError as error:
            return nothing_placed(problem_text("not placed in the search service", error), began=began)
        return placed

    def move_vectors(self, *, max_seconds: float) -> dict[str, Any]:
        """As the interface says; a process that is busy goes on with it."""
        began = time.monotonic()
        try:
            moved: dict[str, Any] = self._within(
                "move_vectors", {"max_seconds": max_seconds}, max_seconds + PLACING_SECONDS
            )
        except DualmemError as error:
            return nothing_moved(problem_text("vectors do not move", error), began=began)
        return moved

    def forget_vectors(self, conversation_id: str) -> dict[str, Any]:
        """As the interface says; a process that is busy goes on with it."""
        try:
            forgot: dict[str, Any] = self._within(
                "forget_vectors", {"conversation_id": conversation_id}, FORGETTING_SECONDS
            )
        except DualmemError as error:
            return {"removed": 0, "warnings": [problem_text("points are still in the search service", error)]}
        return forgot

    def close(self) -> None:
        """End the process; it writes what it has not written yet, and is killed if that takes long."""
        with self._starting:
            self._closed = True
            worker, self._worker = self._worker, None
            self._secret = b""
            if self._alarm is not None:
                self._alarm.cancel()
        if worker is None:
            return
        worker.close()

    def _at_hand(self) -> WorkerProcess | None:
        """The process if it runs and has answered before."""
        worker = self._worker
        return worker if worker is not None and worker.ready and not worker.gone else None

    def _wake(self) -> None:
        with self._starting:
            self._alarm = None
        self._in_time("wake", {})

    def _in_time(self, method: str, params: Mapping[str, Any]) -> None:
        """Have it done by a process that may have to be started; nobody waits for the answer."""
        try:
            self._ask(method, params, SEARCH_SECONDS)
        except DualmemError as error:
            if not self._closed:
                _log.warning("search: %s", error)

    def _ask(self, method: str, params: Mapping[str, Any], timeout_seconds: float) -> Any:
        """The answer of the process, which is started again once if it dies over the question."""
        for attempt in (1, 2):
            worker = self._running()
            try:
                # From outside: even the writing of a question may wait for a process that hangs.
                with worker.watchdog.watching(timeout_seconds):
                    return worker.send(method, params).result()
            except EndedError:
                if worker.hung:
                    raise self._unanswered(method, timeout_seconds) from None
                if attempt == 2:
                    raise
                _log.info("the search process ended; starting another")
        raise AssertionError("unreachable")

    def _within(self, method: str, params: Mapping[str, Any], seconds: float) -> Any:
        """The answer, if it comes within that time; a process that takes longer is left to it.

        Raises StoreUnreachableError, and what the process answers.
        """
        began = time.monotonic()
        try:
            asked = self._running().send(method, params, patience_seconds=seconds)
            return asked.result(max(0.0, seconds - (time.monotonic() - began)))
        except TimeoutError:
            raise self._busy(method, seconds) from None

    def _running(self) -> WorkerProcess:
        with self._starting:
            if self._closed:
                raise self._unavailable("the server is stopping")
            if self._worker is None or self._worker.gone:
                try:
                    self._worker = WorkerProcess.start(self._home, self._module, self._secret)
                except OSError as error:
                    raise self._unavailable(f"it cannot be started: {error.strerror}") from None
            return self._worker

    def _unanswered(self, method: str, waited_seconds: float) -> StoreUnreachableError:
        return StoreUnreachableError(
            f"the search process has not answered for {waited_seconds:.0f} seconds",
            operation=method,
            subject=str(self._home),
            hint="Try again; another one is started for that.",
        )

    def _busy(self, method: str, waited_seconds: float) -> StoreUnreachableError:
        return StoreUnreachableError(
            f"the search process is busy (for more than {waited_seconds:.0f} seconds)",
            operation=method,
            subject=str(self._home),
            hint="It goes on with it.",
        )

    def _unavailable(self, why: str) -> StoreUnreachableError:
        return StoreUnreachableError(
            f"the search process is not there: {why}",
            operation="search",
            subject=str(self._home),
            hint="`dualmem search` in a terminal works without it.",
        )
