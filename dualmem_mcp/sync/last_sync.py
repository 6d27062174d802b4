"""How this device synced last, noted in the data home: so that not each process asks the bucket, and to be told."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from dualmem_mcp.errors import DualmemError
from dualmem_mcp.ports import Clock

LAST_SYNC_FILE: Final = ".last_sync"
_MOST_CHARACTERS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Ages:
    """Seconds since the last sync, and since the last that listed the bucket; None where that is not known."""

    synced: float | None = None
    listed: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """When a sync ended well last, and what the one after it met, empty if there was none; None where a time is not
    known. `away` says that the bucket could not be reached, which mends itself."""

    synced_at: datetime | None = None
    problem: str = ""
    problem_at: datetime | None = None
    away: bool = False


class LastSync:
    """The note of one data home. What cannot be read or written makes for more requests and less to tell."""

    def __init__(self, home: Path, clock: Clock) -> None:
        self._path = home / LAST_SYNC_FILE
        self._clock = clock

    def ages(self) -> Ages:
        """How long ago it was that one ended well."""
        noted = self._read()
        return Ages(self._age(noted.get("synced")), self._age(noted.get("listed")))

    def outcome(self) -> Outcome:
        """How the last one went, and when."""
        noted = self._read()
        problem = noted.get("problem")
        return Outcome(
            synced_at=_instant(noted.get("synced")),
            problem=problem if isinstance(problem, str) else "",
            problem_at=_instant(noted.get("problem_at")),
            away=noted.get("away") is True,
        )

    def note(self, *, listed: bool) -> None:
        """A sync has ended well just now."""
        now = self._clock.now().timestamp()
        times = {name: noted for name, noted in self._read().items() if name in ("synced", "listed")}
        self._write({**times, "synced": now, **({"listed": now} if listed else {})})

    def note_problem(self, problem: str, *, away: bool) -> None:
        """A sync has not ended well just now, for that reason."""
        now = self._clock.now().timestamp()
        self._write({**self._read(), "problem": problem[:_MOST_CHARACTERS], "problem_at": now, "away": away})

    def _read(self) -> dict[str, Any]:
        try:
            noted = json.loads(self._path.read_bytes())
        except (OSError, ValueError, RecursionError):  # never synced, or another process is writing it
            return {}
        return noted if isinstance(noted, dict) else {}

    def _write(self, noted: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError):
            self._path.write_text(json.dumps(noted), encoding="ascii")
            self._path.chmod(0o600)

    def _age(self, time: object) -> float | None:
        if not isinstance(time, int | float):
            return None
        age = self._clock.now().timestamp() - time
        return age if 0 <= age < math.inf else None  # the clock was set back, or that was no time


def problem_text(error: Exception) -> str:
    """What is noted of an error: what went wrong and what to do, without a word of what was synced."""
    if isinstance(error, DualmemError):
        return f"{error.message}. {error.hint}".strip()
    return f"an internal fault ({type(error).__name__})"


def _instant(time: object) -> datetime | None:
    try:
        return datetime.fromtimestamp(time, UTC) if isinstance(time, int | float) else None
    except (ValueError, OverflowError, OSError):  # no time that there is
        return None
