"""The edge process: answers searches, indexes what is new, and ends when there is nothing more to do.

Started by the MCP server as `python -m dualmem_mcp.server.edge_worker DATA_HOME`, with pipes on standard input and
output; it ends when the server does. With a second argument, `sealed`, the first line of its input is the secret of
the data home.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, Final

from dualmem_mcp.app import App, open_app
from dualmem_mcp.edge.messages import SEALED, error_fields, read_message, read_secret, write_message
from dualmem_mcp.errors import DualmemError, UsageError
from dualmem_mcp.server.faults import log_fault, log_to_stderr
from dualmem_mcp.settings import load_hosted_settings, load_settings

_log = logging.getLogger(__name__)

UNUSED_SECONDS: Final = 20.0
"""With nothing to index and no search yet, the process waits so long before it ends."""

USED_SECONDS: Final = 600.0
"""After a search it stays for the next one: starting takes most of a second."""

LOOK_SECONDS: Final = 2.0
"""Between two looks whether sessions or the memory have something new."""

FIRST_LOOK_SECONDS: Final = 1.0
"""Searches wait so long, once, for what is new since the process before, which then can be found by words."""

_ENDING_SECONDS: Final = 2.0
"""Once the server has gone the process ends by then, whatever it is doing: nothing of that is lost."""

_SEARCHING_THREADS: Final = 2

_PLACING_THREADS: Final = 2
"""Of their own: what goes to a search service outside may take long, and searches do not wait for it. Nor does a
conversation that is handed over wait for vectors that move."""

_INDEXING_NICENESS: Final = 10

_GARBAGE_THRESHOLDS: Final = (50_000, 20, 20)


def main() -> None:
    """Serve the process that started this one, until it closes the pipe or nothing is left to do."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # Whatever a library prints must not get among the answers.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    log_to_stderr()
    # A Ctrl-C in a terminal reaches every process there: the server ends by it, and by that closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        app = _open(Path(sys.argv[1]), requests, sealed=sys.argv[2:] == [SEALED])
    except DualmemError as error:
        _refuse(requests, answers, error)
    else:
        worker = Worker(app, answers)
        # What was imported stays: looking through all of it for garbage, again and again, would be in vain.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GARBAGE_THRESHOLDS)
        worker.serve(requests)


def _open(home: Path, requests: IO[bytes], *, sealed: bool) -> App:
    if sealed:
        return open_app(load_hosted_settings(home), secret=read_secret(requests))
    # The mirror of memory.json is the server's own to keep.
    return open_app(replace(load_settings(home), memory_file=None))


def _refuse(requests: IO[bytes], answers: IO[bytes], error: DualmemError) -> None:
    """Answer the first request with the reason why nothing could be opened; the next one starts another process."""
    message = read_message(requests)
    if message is not None:
        write_message(answers, {"id": message["id"], "error": error_fields(error)})


class Worker:
    """The answers of one edge process, and its indexing."""

    def __init__(self, app: App, answers: IO[bytes]) -> None:
        self._app = app
        self._edge = app.local_edge
        self._answers = answers
        self._writing = threading.Lock()
        self._stopping = threading.Event()
        self._new = threading.Event()
        self._looked = threading.Event()
        self._counting = threading.Lock()
        self._unanswered = 0
        self._searched = False
        self._busy_at = time.monotonic()
        self._told = ""
        self._methods: dict[str, Callable[..., Any]] = {
            "search": self._search,
            "related": self._edge.related,
            "preload_for": self._edge.preload_for,
            "preload": self._edge.preload,
            "status": self._edge.status,
            "wake": self._new.set,
        }
        self._slow_methods: dict[str, Callable[..., Any]] = {
            "place": self._edge.place,
            "move_vectors": self._edge.move_vectors,
            "forget_vectors": self._edge.forget_vectors,
        }

    def serve(self, requests: IO[bytes]) -> None:
        """Answer requests and index, until the pipe closes or nothing is left to do; ends the process."""
        threading.Thread(target=self._read, args=(requests,), name="requests", daemon=True).start()
        self._edge.warm_up()
        self._index()
        try:
            self._app.close()
        except DualmemError as error:
            _log.warning("search: %s", error)
        with self._writing:
            self._answers.close()
        # The thread that reads the pipe cannot be interrupted, so there is no waiting for it.
        os._exit(0)

    def _read(self, requests: IO[bytes]) -> None:
        with (
            ThreadPoolExecutor(_SEARCHING_THREADS, thread_name_prefix="request") as searching,
            ThreadPoolExecutor(_PLACING_THREADS, thread_name_prefix="placing") as placing,
        ):
            try:
                while (message := read_message(requests)) is not None:
                    self._count(1)
                    pool = placing if message.get("method") in self._slow_methods else searching
                    pool.submit(self._answer, message)
            finally:  # also when what came was no message: without requests there is nothing to stay for
                timer = threading.Timer(_ENDING_SECONDS, os._exit, (0,))
                timer.daemon = True
                timer.start()
                self._stopping.set()
                self._new.set()

    def _count(self, change: int) -> None:
        with self._counting:
            self._unanswered += change
            self._busy_at = time.monotonic()

    def _answer(self, message: dict[str, Any]) -> None:
        name = message["method"]
        try:
            method = self._methods.get(name) or self._slow_methods.get(name)
            if method is None:
                raise UsageError(f"there is no method {name!r}", operation="edge", subject=name)
            answer = {"id": message["id"], "result": method(**message["params"])}
        except DualmemError as error:
            answer = {"id": message["id"], "error": error_fields(error)}
        except Exception as error:  # noqa: BLE001 - one failing request must not end the process
            log_fault(f"edge {name}", error)
            fault = DualmemError("search failed by a fault of this program", operation=name, hint="See the log.")
            answer = {"id": message["id"], "error": error_fields(fault)}
        self._write(answer)
        self._count(-1)

    def _search(self, **given: Any) -> dict[str, Any]:
        self._searched = True
        self._looked.wait(FIRST_LOOK_SECONDS)
        self._looked.set()  # if it takes longer, the next ones do not wait
        return self._edge.search(**given)

    def _index(self) -> None:
        """Index what is new, again and again; return when there is nothing to do and nobody asks."""
        _step_back()
        # What is new can be found by words in milliseconds; its vectors take their time.
        self._catch_up(embed=False)
        self._looked.set()
        while not self._stopping.is_set():
            self._new.clear()
            self._catch_up(embed=True)
            if self._is_over():
                return
            self._new.wait(LOOK_SECONDS)

    def _catch_up(self, *, embed: bool) -> None:
        try:
            if self._edge.catch_up(should_stop=self._stopping.is_set, embed=embed):
                self._busy_at = time.monotonic()
            self._edge.flush()
        except DualmemError as error:
            if error.message != self._told:  # once, and not again at every look
                _log.warning("indexing: %s", error)
            self._told = error.message
        except Exception as error:  # noqa: BLE001 - search goes on with what is indexed
            if (fault := type(error).__name__) != self._told:
                log_fault("indexing", error)
            self._told = fault
        else:
            self._told = ""

    def _is_over(self) -> bool:
        with self._counting:
            patience = USED_SECONDS if self._searched else UNUSED_SECONDS
            return not self._unanswered and time.monotonic() - self._busy_at > patience

    def _write(self, answer: dict[str, Any]) -> None:
        with self._writing:
            try:
                write_message(self._answers, answer)
            except (OSError, ValueError):  # whoever asked has gone; so will this process
                self._stopping.set()
                self._new.set()


def _step_back() -> None:
    """Let everything else on the machine go before this thread and those that it starts: searches, tool calls.

    Linux has a priority for each thread; elsewhere it is the process's, and searches would step back with it.
    """
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _INDEXING_NICENESS)


if __name__ == "__main__":
    main()
