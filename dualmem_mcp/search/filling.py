"""From the truth into the indexes: each index is told what it does not have yet, and the truth how far it came."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from dualmem_mcp.model.search import Collection, SearchItem
from dualmem_mcp.model.source import FindingKind, IndexProgress
from dualmem_mcp.ports import Progress, SearchIndex, no_progress
from dualmem_mcp.search.material import entity_item, entity_key, finding_item, finding_key, turn_item
from dualmem_mcp.search.sources import SearchTruth

_AT_ONCE: Final = 200
FINDINGS_OF: Final[Mapping[Collection, tuple[FindingKind, ...]]] = {
    Collection.AGENTS: ("agent",),
    Collection.CONTEXT: ("decision", "note"),
}

ShouldStop = Callable[[], bool]


def never() -> bool:
    """A ShouldStop for work that is done to its end."""
    return False


@dataclass(slots=True)
class Filled:
    """What was put into the indexes: turns that were new there, their conversations, and all other items."""

    turns: int = 0
    conversations: set[str] = field(default_factory=set)
    others: int = 0


def fill_indexes(
    truth: SearchTruth,
    indexes: Mapping[Collection, SearchIndex],
    *,
    should_stop: ShouldStop = never,
    progress: Progress = no_progress,
) -> Filled:
    """Put into each index what it lacks. Done again, or after a kill, it goes on where it was.

    Raises the errors of the truth and the indexes.
    """
    filled = Filled()
    for collection, index in indexes.items():
        _Filling(truth, collection, index, filled, progress, should_stop=should_stop).run()
    return filled


class _Filling:
    """One index being filled. What it has is remembered under its generation: one that is begun anew lacks all."""

    def __init__(
        self,
        truth: SearchTruth,
        collection: Collection,
        index: SearchIndex,
        filled: Filled,
        progress: Progress,
        *,
        should_stop: ShouldStop,
    ) -> None:
        self._truth = truth
        self._collection = collection
        self._index = index
        self._filled = filled
        self._progress = progress
        self._should_stop = should_stop
        self._generation = ""
        self._has = IndexProgress()

    def run(self) -> None:
        """Fill until nothing is lacking, or until it is to stop."""
        self._forget()
        step = self._turns if self._collection is Collection.CONVERSATIONS else self._others
        while not self._should_stop():
            if self._generation != self._index.generation:
                self._generation = self._index.generation
                self._has = self._truth.progress(self._generation) or IndexProgress()
            if not step():
                return
            time.sleep(0)  # other threads may have waited for the interpreter

    def _forget(self) -> None:
        """Let go of what was erased: only one process fills at a time, so nobody puts it back meanwhile."""
        while keys := self._truth.forgotten(self._collection, _AT_ONCE):
            self._index.remove(keys)
            self._truth.note_forgotten(keys)

    def _save(self, has: IndexProgress) -> None:
        # After the items, so that a kill between the two has them put again, which changes nothing.
        self._truth.save_progress(self._generation, self._collection, has)
        self._has = has

    def _turns(self) -> bool:
        turns = self._truth.turns(self._has.turns, _AT_ONCE)
        if not turns:
            return False
        items = [item for turn in turns if (item := turn_item(turn))]
        new = self._index.put(items)
        if new:
            self._filled.turns += new
            self._filled.conversations.update(item.conversation_id for item in items)
            self._progress(
                self._filled.turns, self._filled.turns + self._truth.turns_after(turns[-1].id), "indexing"
            )
        self._save(replace(self._has, turns=turns[-1].id))
        return True

    def _others(self) -> bool:
        found = self._findings()
        if self._collection is Collection.CONTEXT:
            found = self._entities() or found
        return found

    def _findings(self) -> bool:
        numbered = self._truth.findings(self._has.findings, FINDINGS_OF[self._collection], _AT_ONCE)
        if not numbered:
            return False
        items: dict[str, SearchItem | None] = {finding_key(one): finding_item(one) for _, one in numbered}
        self._put(items)
        self._save(replace(self._has, findings=numbered[-1][0]))
        return True

    def _entities(self) -> bool:
        names, last = self._truth.changed_entities(self._has.ops, _AT_ONCE)
        if last == self._has.ops:
            return False
        # As they are now, whatever the changes were: those that are no more go.
        items: dict[str, SearchItem | None] = {entity_key(name): None for name in names}
        items |= {entity_key(entity.name): entity_item(entity, at) for entity, at in self._truth.entities(names)}
        self._put(items)
        self._save(replace(self._has, ops=last))
        return True

    def _put(self, items: Mapping[str, SearchItem | None]) -> None:
        gone = [key for key, item in items.items() if item is None]
        if gone:
            self._index.remove(gone)
        self._filled.others += self._index.put([item for item in items.values() if item is not None])
