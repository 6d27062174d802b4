"""How errors are told: to the model with what to do next, to the log without a word of what the user keeps here."""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from types import TracebackType

from dualmem_mcp.errors import DualmemError

_log = logging.getLogger(__name__)

_ExceptionInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def error_text(error: DualmemError) -> str:
    """What went wrong and what to do now, as the command line prints it."""
    return f"error: {error.message}\nhint: {error.hint}" if error.hint else f"error: {error.message}"


def fault_text(error: Exception) -> str:
    """The text for a fault of this program."""
    return f"error: internal fault ({type(error).__name__})\nhint: The server's log says where; please report it."


def log_fault(where: str, error: Exception) -> None:
    """Log that something failed by a fault of this program, and at which line."""
    _log.error("%s failed\n%s", where, wordless_trace(error))


def wordless_trace(error: BaseException) -> str:
    """The error's type and stack, and those of its causes, without messages: they may quote the user."""
    own = "".join(traceback.format_tb(error.__traceback__)) + type(error).__name__
    inner = [*getattr(error, "exceptions", ()), *([error.__cause__] if error.__cause__ else [])]
    return "\nfrom\n".join((own, *map(wordless_trace, inner)))


class _WordlessFormatter(logging.Formatter):
    def formatException(self, ei: _ExceptionInfo) -> str:  # noqa: N802 - the name is the base class's
        return wordless_trace(ei[1]) if ei[1] else ""


def log_to_stderr() -> None:
    """Send every log, and what ends the process, to stderr, without the messages of exceptions."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_WordlessFormatter("dualmem-mcp: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    threading.excepthook = lambda fault: _log.critical("a thread ended by a fault", exc_info=fault.exc_value)
    sys.excepthook = lambda kind, error, stack: _log.critical("ended by a fault", exc_info=(kind, error, stack))
