"""The child process that searches, from this side: its pipes, the questions it owes answers to, and its end."""

from __future__ import annotations

import itertools
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, Self

from dualmem_mcp.edge.messages import SEALED, error_of, parse_message, write_message, write_secret
from dualmem_mcp.edge.watchdog import Watchdog
from dualmem_mcp.errors import StoreUnreachableError

_log = logging.getLogger(__name__)

CLOSING_SECONDS: Final = 3.0
"""A process that was told to end and takes longer is killed."""


class EndedError(StoreUnreachableError):
    """The process ended while an answer was owed."""


@dataclass(slots=True)
class WorkerProcess:
    """An edge process, the answers it owes, whether it has answered anything yet, and whether it ever will again:
    its pipes close a moment before the system knows that it has ended. One that hung was killed for that."""

    home: Path
    process: subprocess.Popen[bytes]
    requests: IO[bytes]
    answers: IO[bytes]
    watchdog: Watchdog = field(init=False)
    waiting: dict[int, Future[Any]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    ready: bool = False
    gone: bool = False
    hung: bool = False
    woken: Future[Any] | None = None
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.watchdog = Watchdog(self._give_up)

    @classmethod
    def start(cls, home: Path, module: str, secret: bytes) -> Self:
        """A process of that module on the data home. Raises OSError if it cannot be started."""
        # -P: the server is started in the user's folders, whose json.py or numpy.py are none of the process's.
        command = [sys.executable, "-P", "-m", module, str(home), *([SEALED] if secret else [])]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603
        if process.stdin is None or process.stdout is None:
            raise AssertionError("pipes were asked for")
        worker = cls(home, process, process.stdin, process.stdout)
        if secret:
            with suppress(OSError):  # a process that has ended already is noticed by whoever asks it
                write_secret(worker.requests, secret)
        threading.Thread(target=worker._listen, name="edge answers", daemon=True).start()
        return worker

    def send(self, method: str, params: Mapping[str, Any], *, patience_seconds: float = -1) -> Future[Any]:
        """The answer to come. Raises EndedError, and TimeoutError if others have not written their questions by
        then."""
        number = next(self._numbers)
        answer: Future[Any] = Future()
        if not self.lock.acquire(timeout=patience_seconds):
            raise TimeoutError
        try:
            self.waiting[number] = answer
            try:
                write_message(self.requests, {"id": number, "method": method, "params": dict(params)})
            except (OSError, ValueError):  # its end of the pipe is gone, or ours was closed
                self.gone = True
                del self.waiting[number]
            else:
                if not self.gone:
                    return answer
                self.waiting.pop(number, None)
        finally:
            self.lock.release()
        raise self._ended()

    def close(self) -> None:
        """End the process; it is killed if that takes long."""
        # Whoever holds the lock for long writes to a process that does not read.
        if self.lock.acquire(timeout=CLOSING_SECONDS):
            try:
                with suppress(OSError):  # the process has gone before
                    self.requests.close()
            finally:
                self.lock.release()
        else:
            self.process.kill()
        self._reap()

    def _give_up(self) -> None:
        self.hung = True
        self.process.kill()

    def _listen(self) -> None:
        with suppress(OSError):
            while (line := self.answers.readline()).endswith(b"\n"):
                self._take(line)
        self._fail_all()
        self._reap()  # nothing stays behind of a process that has ended by itself
        self.answers.close()
        with self.lock, suppress(OSError):
            self.requests.close()

    def _take(self, line: bytes) -> None:
        try:
            message = parse_message(line)
        except ValueError:
            _log.warning("skipped %d bytes from the search process that are no answer", len(line))
            return
        self.ready = True
        with self.lock:
            answer = self.waiting.pop(message["id"], None)
        if answer is None:
            return
        if "error" in message:
            answer.set_exception(error_of(message["error"]))
        else:
            answer.set_result(message["result"])

    def _fail_all(self) -> None:
        self.watchdog.stop()
        with self.lock:
            self.gone = True
            unanswered, self.waiting = self.waiting, {}
        for answer in unanswered.values():
            answer.set_exception(self._ended())

    def _reap(self) -> None:
        """Wait for a process that is about to end, and kill it if it takes too long over that."""
        try:
            self.process.wait(CLOSING_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _ended(self) -> EndedError:
        return EndedError(
            "the search process ended before it answered",
            operation="search",
            subject=str(self.home),
            hint="Try again; what it wrote to the log says why. Memory and handoffs work without it.",
        )
