"""save_progress ended at every point there is, and called again; run by test_progress in a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from dualmem_mcp.stores.database import Database
from dualmem_mcp.sync.progress import turn_uuid
from tests.conftest import SteppingClock
from tests.crashes import each_crash
from tests.sync.test_progress import CHAT, Phone

CALL: dict[str, Any] = {
    "messages": [{"role": "user", "text": "paint it"}, {"role": "assistant", "text": "red now"}],
    "summary": "it is painted",
    "decisions": ["red", "no green"],
    "tasks": ["buy paint", {"text": "measure", "status": "done"}],
    "notes": ["mind the wind"],
    "bookmarks": [turn_uuid(CHAT, None, "user", "paint it")],
}
KEPT = {"summary": 1, "decision": 2, "task": 2, "note": 1, "bookmark": 1}


def main(root: Path) -> int:
    """How many ends there were, after each of which the same call left everything once."""
    file = root / "memory.db"
    Database.open(file, bytes(32)).close()
    empty = file.read_bytes()
    ends = 0
    for _ in each_crash(lambda: save(root, more=False)):
        ends += 1
        with Database.open(file, bytes(32)) as database:
            texts = [text for _, text in Phone(database, SteppingClock(step_seconds=0.01)).chain()]
            assert texts in ([], ["paint it", "red now"]), texts
        save(root, more=True)
        for beside in root.glob("memory.db-*"):
            beside.unlink()
        file.write_bytes(empty)
    return ends


def save(root: Path, *, more: bool) -> None:
    """The call; with `more` a later one after it, and a look at what both left."""
    with Database.open(root / "memory.db", bytes(32)) as database:
        phone = Phone(database, SteppingClock(step_seconds=0.01))
        phone.save(**CALL)
        if not more:
            return
        phone.say("and the hook")
        assert phone.chain() == [(None, "paint it"), ("paint it", "red now"), ("red now", "and the hook")]
        counts = {kind: len(phone.fields(kind)) for kind in KEPT}  # type: ignore[arg-type]
        assert counts == KEPT, counts


if __name__ == "__main__":
    print(main(Path(sys.argv[1])))
