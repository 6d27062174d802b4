"""Numbers for items that no index has, such that what was said one after the other has numbers one after the other,
as ranking wants it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from dualmem_mcp.model.search import Filter
from dualmem_mcp.ports import SearchReader
from dualmem_mcp.search.offered import Offered
from dualmem_mcp.search.weights import WEIGHTS

if TYPE_CHECKING:
    from numpy.typing import NDArray

FIRST: Final = 1 << 62
"""Above all numbers that an index gives."""

_GAP: Final = len(WEIGHTS.context) + 1
"""Between what does not follow each other."""


def numbered(
    offered: Sequence[Offered], reader: SearchReader | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A number for each, and for its conversation, int64 (n,) both.

    Turns that go on where a conversation ends in the index (`reader`) have the numbers that they would get there.
    """
    numbers = np.zeros(len(offered), np.int64)
    conversations = np.array(_conversations(offered), np.int64)
    chains = _chains(offered)
    ends = _ends([offered[chain[0]].previous for chain in chains], reader)
    free = FIRST
    for chain in chains:
        end = ends.get(offered[chain[0]].previous)
        if end is not None and reader is not None:
            del ends[offered[chain[0]].previous]  # of two that go on from there the second goes its own way
            first = end + 1
            if not len(reader.features(np.arange(first, first + len(chain)), Filter()).ids):
                numbers[chain] = np.arange(first, first + len(chain))
                conversations[chain] = reader.features(np.array([end], np.int64), Filter()).conversations[0]
                continue
        numbers[chain] = np.arange(free, free + len(chain))
        free += len(chain) + _GAP
    return numbers, conversations


def _conversations(offered: Sequence[Offered]) -> list[int]:
    """Below 0, where no index has any."""
    known: dict[str, int] = {"": 0}
    return [known.setdefault(one.item.conversation_id, -len(known)) for one in offered]


def _chains(offered: Sequence[Offered]) -> list[list[int]]:
    """The items' places, those of turns that follow each other together, in their order."""
    following: dict[str, int] = {}
    for place, one in enumerate(offered):
        if one.item.kind == "turn" and one.previous:
            following.setdefault(one.previous, place)
    keys = {one.item.key for one in offered}
    begins = [
        place
        for place, one in enumerate(offered)
        if one.previous not in keys or following.get(one.previous) != place
    ]
    left = set(range(len(offered)))
    chains = []
    # Those that are left after all that begin one stand in a ring, which only a wrong program writes.
    for begin in (*begins, *range(len(offered))):
        chain: list[int] = []
        turn: int | None = begin
        while turn is not None and turn in left:
            left.discard(turn)
            chain.append(turn)
            turn = following.get(offered[turn].item.key)
        if chain:
            chains.append(chain)
    return chains


def _ends(previous: Sequence[str], reader: SearchReader | None) -> dict[str, int]:
    """Those of the keys that are in the index, with their numbers."""
    wanted = [key for key in previous if key]
    return dict(reader.ids(wanted)) if reader is not None and wanted else {}
