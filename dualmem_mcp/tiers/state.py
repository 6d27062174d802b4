"""What this device keeps of its tiers between runs: whether they are switched on, and what was last seen there."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Final

from dualmem_mcp.crypto.canonical import canonical_json
from dualmem_mcp.model.service_location import shown_location
from dualmem_mcp.ports import BlobCache

_SWITCHES: Final = "local/tiers"
_SEEN: Final = "local/tiers/seen"


@dataclass(frozen=True, slots=True)
class Switches:
    """What the user has decided: whether vectors go to the service, and whether words do; since when, and to which
    (as it was shown when they agreed)."""

    enabled: bool = False
    words: bool = False
    enabled_at: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was last seen of the service: key epochs that have points there, beside those of the placements; when
    all was last checked; what went wrong at the last run, empty for nothing."""

    epochs: tuple[int, ...] = ()
    checked_at: str = ""
    problem: str = ""


class TierState:
    """Both, in the blob cache. Read afresh each time: other processes of the device change it."""

    def __init__(self, blobs: BlobCache) -> None:
        self._blobs = blobs

    def switches(self, url: str | None) -> Switches:
        """What the user has decided of the service at that place; off if nothing was, or only of another one."""
        kept = self._blobs.get(_SWITCHES)
        decided = Switches(**json.loads(kept)) if kept else Switches()
        return decided if url and decided.url == shown_location(url) else Switches()

    def switch(self, url: str | None, *, enabled: bool, words: bool, now: datetime) -> None:
        """Keep a decision on the service at that place."""
        at = now.isoformat(timespec="seconds") if enabled else ""
        self._blobs.put(_SWITCHES, canonical_json(asdict(Switches(enabled, words, at, shown_location(url or "")))))

    def seen(self) -> Seen:
        """What was last seen."""
        kept = self._blobs.get(_SEEN)
        if not kept:
            return Seen()
        fields = json.loads(kept)
        return Seen(**{**fields, "epochs": tuple(fields["epochs"])})

    def note_problem(self, problem: str) -> None:
        """Keep what went wrong, or that nothing did."""
        if (seen := self.seen()).problem != problem:
            self._keep(replace(seen, problem=problem))

    def note_checked(self, epochs: Iterable[int], now: datetime) -> None:
        """Keep in which epochs there are points, as of a look at all of them."""
        at = now.isoformat(timespec="seconds")
        self._keep(replace(self.seen(), epochs=tuple(sorted(epochs)), checked_at=at))

    def _keep(self, seen: Seen) -> None:
        self._blobs.put(_SEEN, canonical_json({**asdict(seen), "epochs": [*seen.epochs]}))
