from __future__ import annotations

import subprocess
import sys
from typing import Any

from dualmem_mcp.server.faults import wordless_trace

LOGGING = """
import logging, threading
from dualmem_mcp.server.faults import log_to_stderr

def fail(words):
    raise ValueError(words)

log_to_stderr()
try:
    fail("private" + " words")
except ValueError:
    logging.getLogger("somebody").exception("the handler raised")
thread = threading.Thread(target=fail, args=("words of" + " a thread",))
thread.start()
thread.join()
fail("last" + " words")
"""


def test_neither_the_log_nor_the_end_shows_what_an_exception_says(own_environment: Any, tmp_path: Any) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", LOGGING], env=own_environment(tmp_path), capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert "dualmem-mcp: the handler raised" in ended.stderr
    assert "dualmem-mcp: ended by a fault" in ended.stderr
    assert "dualmem-mcp: a thread ended by a fault" in ended.stderr
    assert ended.stderr.splitlines().count("ValueError") == 3  # newer Pythons show source lines, too
    assert ended.stderr.count("in fail") == 3
    assert "words of a thread" not in ended.stderr
    assert "private words" not in ended.stderr
    assert "last words" not in ended.stderr


def test_causes_and_groups_are_traced() -> None:
    def raise_cause() -> None:
        raise KeyError("private")

    def raise_group() -> None:
        try:
            raise_cause()
        except KeyError as error:
            caught = OSError("private")
            caught.__cause__ = error
            raise ExceptionGroup("private", [caught, TypeError("private")]) from None

    try:
        raise_group()
    except ExceptionGroup as group:
        trace = wordless_trace(group)
    assert [line for line in trace.splitlines() if not line.startswith(" ")] == [
        "ExceptionGroup",
        "from",
        "OSError",
        "from",
        "KeyError",
        "from",
        "TypeError",
    ]
    assert "in raise_cause" in trace
