"""What a device with a small cache is to have at hand of a conversation: found where it is handed over, and taken
into the working set where it is taken up."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from dualmem_mcp.handoff.preload import PreloadEntry, PreloadSet, shortened
from dualmem_mcp.handoff.quoting import clean, one_line
from dualmem_mcp.model.search import Collection, Filter, SearchItem, key_digest
from dualmem_mcp.ports import SearchIndex, SearchReader
from dualmem_mcp.search.working_set import WorkingSet

if TYPE_CHECKING:
    from numpy.typing import NDArray

SECONDS: Final = 0.3
"""So long similar items are looked for; a question takes 1 to 10 ms. Whoever waits for them has other work."""

NEAR_EQUAL: Final = 0.98
"""Cosine from which on two items say the same, and one of them is enough."""

_CANDIDATES: Final = 30
"""Asked for of each collection for each item of the conversation: more than it can add to what a cache takes."""

_MOST: Final = 127


Embed = Callable[[str], "NDArray[np.float32] | None"]


@dataclass(frozen=True, slots=True)
class OwnItem:
    """One of the items that a conversation is at: its key, the digest of its text; the text itself where it may be
    embedded on its own, else ""; and whether what is near to it is looked for."""

    key: str
    contents: int
    text: str = ""
    is_seed: bool = True


@dataclass(frozen=True, slots=True)
class _Known:
    text: str
    vector: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Found:
    """An item of an index, with the vector that stands for it, and its nearness."""

    item: SearchItem
    vector: NDArray[np.float32]
    relevance: float


def find_preload(
    conversation_id: str,
    own: Sequence[OwnItem],
    indexes: Mapping[Collection, SearchIndex],
    *,
    model_id: str,
    embed: Embed,
    limit: int,
    threshold: float,
) -> tuple[PreloadSet, str]:
    """The conversation's own items with their vectors; then, up to `limit` with all of `own`, what is near to one
    of them, best first; and why something may lack, "" if nothing does.

    `embed` gives the vector of a text where that is quick, else None. Raises StoreUnreachableError.
    """
    deadline = time.monotonic() + SECONDS
    with ExitStack() as readings:
        readers = [readings.enter_context(index.reading()) for index in indexes.values()]
        known = _own(own, readers, embed, deadline)
        seeds = [known[one.key].vector for one in own if one.is_seed and one.key in known]
        scores, in_time = _scores(seeds, readers, threshold, deadline)
        near = _chosen([*known.values()], readers, scores, {one.key for one in own}, limit - len(own))
    problem = ""
    if not in_time:
        problem = "not all that is similar was looked for in time"
    elif own and not known:
        problem = "nothing of it has vectors yet, so it is found by words"
    entries = [
        *(PreloadEntry(key, 1.0, None, to_bytes(one.vector)) for key, one in known.items()),
        *(_entry(one, conversation_id) for one in near),
    ]
    dimensions = len(next(iter(known.values())).vector) if known else 0
    return PreloadSet(model_id, dimensions, entries), problem


def take_preload(
    preload: PreloadSet, cache: WorkingSet, indexes: Mapping[Collection, SearchIndex], model_id: str
) -> Sequence[tuple[str, float]]:
    """Put the set's items into the working set, the best last, as if they had been answers; keys and relevances of
    those that were not there.

    What comes without its item is taken from the indexes, and left out if it is not there: it was not synced yet,
    or it was erased. Vectors of another model than this device's are not taken. Raises StoreUnreachableError.
    """
    wanted = [entry.key for entry in preload.entries]
    known: dict[str, SearchItem] = {}
    for index in indexes.values():
        known.update((item.key, item) for item in index.items([*index.ids(wanted).values()]))
    before = frozenset(cache.keys())
    for entry in reversed(preload.entries):
        item = known.get(entry.key) or _cleaned(entry.item)
        if item is not None:
            usable = entry.vector and preload.model_id == model_id
            cache.use(item, from_bytes(entry.vector) if usable else None, entry.relevance)
    there = frozenset(cache.keys()) - before
    return [(entry.key, entry.relevance) for entry in preload.entries if entry.key in there]


def with_vectors(reader: SearchReader, ids: Sequence[int]) -> list[tuple[SearchItem, NDArray[np.float32]]]:
    """The items that are there and have vectors, each with the one that stands for it."""
    if not ids:
        return []
    vectors = reader.vectors(ids)
    found: list[tuple[SearchItem, NDArray[np.float32]]] = []
    for number in ids:
        passages = vectors.get(number)
        if passages is not None and len(passages) and passages.any():
            found += [(item, _middle(passages)) for item in reader.items([number])]
    return found


def _middle(passages: NDArray[np.float32]) -> NDArray[np.float32]:
    """The passage that is nearest to the mean of all."""
    nearest: NDArray[np.float32] = passages[int((passages @ passages.mean(axis=0)).argmax())]
    return nearest


def to_bytes(vector: NDArray[np.float32]) -> bytes:
    """The direction of the vector with a signed byte a component: the largest becomes 127 or -127."""
    direction: bytes = np.rint(vector * (_MOST / np.abs(vector).max())).astype(np.int8).tobytes()
    return direction


def from_bytes(data: bytes) -> NDArray[np.float32] | None:
    """The vector that `to_bytes` wrote, of length 1; None if it points nowhere."""
    vector = np.frombuffer(data, np.int8).astype(np.float32)
    length = np.linalg.norm(vector)
    return (vector / length).astype(np.float32) if length > 0 else None


def _own(
    own: Sequence[OwnItem], readers: Sequence[SearchReader], embed: Embed, deadline: float
) -> dict[str, _Known]:
    """The items that are indexed with these texts and have vectors, and what is quickly embedded of the others, in
    their order; all of the same length."""
    contents = {one.key: one.contents for one in own}
    found: dict[str, _Known] = {}
    for reader in readers:
        for item, vector in with_vectors(reader, [*reader.ids([*contents]).values()]):
            if contents[item.key] == key_digest(item.text):
                found[item.key] = _Known(item.text, vector)
    for one in own:
        if one.key not in found and one.text and time.monotonic() < deadline:
            made = embed(one.text)
            if made is not None:
                found[one.key] = _Known(one.text, made)
    return {one.key: found[one.key] for one in own if one.key in found}


def _scores(
    seeds: Sequence[NDArray[np.float32]], readers: Sequence[SearchReader], threshold: float, deadline: float
) -> tuple[dict[tuple[int, int], float], bool]:
    """For reader and id of what is near to one of the seeds the highest cosine; whether all was asked in time."""
    best: dict[tuple[int, int], float] = {}
    for seed in seeds:
        for place, reader in enumerate(readers):
            if time.monotonic() > deadline:
                return best, False
            scored = reader.nearest(seed, Filter(), _CANDIDATES)
            for number, score in zip(scored.ids.tolist(), scored.scores.tolist(), strict=True):
                if score >= threshold:
                    best[place, number] = max(score, best.get((place, number), 0.0))
    return best, True


def _chosen(
    known: Sequence[_Known],
    readers: Sequence[SearchReader],
    scores: Mapping[tuple[int, int], float],
    own: Set[str],
    room: int,
) -> list[_Found]:
    """As many of them as there is room for, the nearest first, without what says the same as another."""
    taken: list[_Found] = []
    vectors = [one.vector for one in known]
    texts = {_same(one.text) for one in known}
    for (place, number), score in sorted(scores.items(), key=lambda pair: (-pair[1], pair[0])):
        if len(taken) >= room:
            break
        for item, vector in with_vectors(readers[place], [number]):
            if item.key in own or _same(item.text) in texts:
                continue
            if max(float(vector @ other) for other in vectors) < NEAR_EQUAL:
                texts.add(_same(item.text))
                vectors.append(vector)
                taken.append(_Found(item, vector, score))
    return taken


def _entry(one: _Found, conversation_id: str) -> PreloadEntry:
    # A text of another conversation would outlive the erasure of that one.
    item = shortened(one.item) if one.item.conversation_id == conversation_id else None
    return PreloadEntry(one.item.key, one.relevance, item, to_bytes(one.vector))


def _cleaned(item: SearchItem | None) -> SearchItem | None:
    """The item as it would be if it had been indexed here: nothing in it reorders or hides what is shown."""
    if item is None:
        return None
    return replace(item, text=clean(item.text), author=one_line(item.author), device=one_line(item.device))


def _same(text: str) -> str:
    return " ".join(text.casefold().split())
