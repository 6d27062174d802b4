"""When a process of this device synced last, noted in the data home so that not each of them asks the bucket."""

from __future__ import annotations

import contextlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dualmem_mcp.ports import Clock

LAST_SYNC_FILE: Final = ".last_sync"


@dataclass(frozen=True, slots=True)
class Ages:
    """Seconds since the last sync, and since the last that listed the bucket; None where that is not known."""

    synced: float | None = None
    listed: float | None = None


class LastSync:
    """The note of one data home. What cannot be read or written only makes for more requests."""

    def __init__(self, home: Path, clock: Clock) -> None:
        self._path = home / LAST_SYNC_FILE
        self._clock = clock

    def ages(self) -> Ages:
        """How long ago it was."""
        times = self._read()
        return Ages(self._age(times.get("synced")), self._age(times.get("listed")))

    def note(self, *, listed: bool) -> None:
        """A sync has ended well just now."""
        now = self._clock.now().timestamp()
        times = {**self._read(), "synced": now, **({"listed": now} if listed else {})}
        with contextlib.suppress(OSError):
            self._path.write_text(json.dumps(times), encoding="ascii")
            self._path.chmod(0o600)

    def _read(self) -> dict[str, float]:
        try:
            noted = json.loads(self._path.read_bytes())
            return {name: float(noted[name]) for name in ("synced", "listed") if name in noted}
        except (OSError, ValueError, TypeError):  # never synced, or another process is writing it
            return {}

    def _age(self, time: float | None) -> float | None:
        if time is None:
            return None
        age = self._clock.now().timestamp() - time
        return age if 0 <= age < math.inf else None  # the clock was set back, or that was no time
