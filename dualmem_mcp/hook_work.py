"""What hooks leave to a process of its own: indexing, keeping a compaction's summary, sealing a handoff.

Started by `dualmem-hook` as `python -m dualmem_mcp.hook_work WORK DATA_HOME`, with what it needs as JSON on
standard input; nobody waits for it, and nobody reads what it prints. What went wrong stands in `.hook_problem` in
the data home, without a word of the user's, until the same work succeeds.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    # Before anything else is imported: the hook that writes it waits.
    _GIVEN = sys.stdin.buffer.read(64 << 20)

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dualmem_mcp.durable_files import file_lock_if_free, write_durably
from dualmem_mcp.errors import DualmemError
from dualmem_mcp.hook import INDEXED_FILE, PROBLEM_FILE
from dualmem_mcp.model.ids import ConversationId

if TYPE_CHECKING:
    from dualmem_mcp.app import App

_NICENESS: Final = 15
_INDEXING_SECONDS: Final = 300.0
"""Then what is left waits for the next time, or for the server."""

_LAST_WORDS_SECONDS: Final = 10

Given = Mapping[str, Any]


def main(arguments: list[str], given: bytes) -> None:
    """Do the work that the arguments name; what goes wrong is noted in the data home."""
    work, home = arguments[0], Path(arguments[1])
    try:
        _WORKS[work](home, json.loads(given))
    except DualmemError as error:
        _note(home, work, f"{error.message}. {error.hint}".strip())
    except Exception as error:
        _note(home, work, f"an internal fault ({type(error).__name__})")
        raise
    else:
        _forget(home, work)


def _index(home: Path, given: Given) -> None:
    """Index what is new in the project's sessions, unless another process does so for a hook."""
    with file_lock_if_free(home / INDEXED_FILE) as free:
        if not free:
            return
        with _opened(home, claude_project_dir=_text(given, "project")) as app:
            over = threading.Timer(_INDEXING_SECONDS, (ended := threading.Event()).set)
            over.daemon = True
            over.start()
            app.local_edge.catch_up(should_stop=ended.is_set)
            over.cancel()


def _keep_compaction(home: Path, given: Given) -> None:
    with _opened(home) as app:
        conversation_id = ConversationId(_text(given, "conversation_id"))
        if not app.sharing.erased.is_erased(conversation_id):
            app.keep_compaction(conversation_id, _text(given, "text"), trigger=_text(given, "trigger"))


def _hand_over(home: Path, given: Given) -> None:
    """Seal the ended session into the queue; nothing if the last handoff has all of it or nothing was said."""
    from dualmem_mcp.transcripts.claude_code import read_session  # noqa: PLC0415

    path = Path(_text(given, "transcript"))
    _wait_until_written(path)
    if not path.is_file() or not path.stat().st_size:
        return
    with _opened(home, claude_project_dir=_text(given, "project")) as app:
        if app.joined_channel() is None:
            return
        session = read_session(path)
        if not session.turns or app.sharing.erased.is_erased(session.conversation_id):
            return
        last = next(iter(app.catalogue.handoffs(session.conversation_id)), None)
        if last is None or last.last_turn_uuid != session.turns[-1].uuid:
            app.prepare_handoff(transcript=path, deliver=False)


def _wait_until_written(path: Path) -> None:
    """Claude Code writes a session behind its end: wait until the file has been left alone for a second."""
    for _ in range(_LAST_WORDS_SECONDS * 5):
        if not path.is_file() or abs(time.time() - path.stat().st_mtime) > 1.0:
            return
        time.sleep(0.2)


def _opened(home: Path, **changes: Any) -> App:
    from dualmem_mcp.app import open_app  # noqa: PLC0415
    from dualmem_mcp.settings import load_settings  # noqa: PLC0415

    # The mirror of memory.json is the server's own to keep.
    return open_app(replace(load_settings(home), memory_file=None, **changes))


def _note(home: Path, work: str, problem: str) -> None:
    with contextlib.suppress(DualmemError):  # there is nowhere else to say it
        write_durably(home / PROBLEM_FILE, [f"{work}: {problem}\n".encode("utf-8", "replace")])


def _forget(home: Path, work: str) -> None:
    with contextlib.suppress(OSError):
        if (home / PROBLEM_FILE).read_text(encoding="utf-8").startswith(f"{work}: "):
            (home / PROBLEM_FILE).unlink()


def _text(given: Given, name: str) -> str:
    value = given.get(name)
    return value if isinstance(value, str) else ""


_WORKS: Final[Mapping[str, Callable[[Path, Given], None]]] = {
    "index": _index,
    "compaction": _keep_compaction,
    "handoff": _hand_over,
}

if __name__ == "__main__":
    if hasattr(os, "nice"):  # Windows has no such thing
        os.nice(_NICENESS)
    main(sys.argv[1:], _GIVEN)
