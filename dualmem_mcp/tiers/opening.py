"""Opening what tiers answer; what has opened once need not be opened again."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from dualmem_mcp.crypto.vector_payload import open_payload
from dualmem_mcp.errors import TamperedError
from dualmem_mcp.ports.tier_search import TierCandidate
from dualmem_mcp.ports.tiers import TierHit

if TYPE_CHECKING:
    from dualmem_mcp.crypto.vectors import VectorKeys

REMEMBERED: Final = 4_096
"""Candidates kept opened, some 4 KB each: those of the last four searches and more, as questions that follow each
other are about the same. Opening takes 0.05 ms, a thousand of them a quarter of what a search may take."""


class Openings:
    """Opens payloads, and remembers the last ones by point and content. Safe for use from several threads."""

    def __init__(self, most: int = REMEMBERED) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, str, bytes], TierCandidate] = OrderedDict()

    def opened(self, keys: VectorKeys, hits: Sequence[TierHit], dimensions: int) -> tuple[list[TierCandidate], int]:
        """What opens of the hits, and how many do not: changed, moved to another point, or of another vault; those,
        too, whose vector is of another length, or of none."""
        candidates, passed_over = [], 0
        for hit in hits:
            # The tenant stands for vault, epoch and key; that these bytes opened there, they do again.
            name = (keys.tenant, hit.id, hashlib.blake2b(hit.payload, digest_size=16).digest())
            with self._lock:
                candidate = self._known.get(name)
                if candidate is not None:
                    self._known.move_to_end(name)
            if candidate is None or candidate.vector.shape != (dimensions,):
                candidate = _opened(keys, hit, dimensions)
                if candidate is None:
                    passed_over += 1
                    continue
                self._keep(name, candidate)
            candidates.append(candidate)
        return candidates, passed_over

    def _keep(self, name: tuple[str, str, bytes], candidate: TierCandidate) -> None:
        with self._lock:
            self._known[name] = candidate
            while len(self._known) > self._most:
                self._known.popitem(last=False)


def _opened(keys: VectorKeys, hit: TierHit, dimensions: int) -> TierCandidate | None:
    try:
        payload = open_payload(keys, hit.id, hit.payload)
    except TamperedError:
        return None
    length = float(np.linalg.norm(payload.vector))
    if payload.vector.shape != (dimensions,) or not length:
        return None
    return TierCandidate(payload.item, payload.passage, payload.previous, payload.vector / length)
