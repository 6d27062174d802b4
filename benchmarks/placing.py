"""How long placing vectors in a search service takes: made into points, sealed and protected, and written.

    python benchmarks/placing.py [--share S] [--words] [--over memory|sqlite|engine ...]

Fills indexes with made-up turns and notes (`synthetic_turns.py`), about as many as fit into the three tiers
together (or a share of that), with vectors drawn at random, since what they say costs nothing here. Places them by
one plan, as `dualmem tiers apply` does; three weeks later moves what is no longer recent; checks all; erases a
conversation.
Over Qdrant's local mode in memory, tiers in SQLite files, and Qdrant's own engine in this process (qdrant-edge-py).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from retrieval_data import SHIPPED_DIALOGUES, load_locomo
from synthetic_turns import synthetic_dataset

from dualmem_mcp.model.search import COLLECTION_OF, Collection, ItemKind, SearchItem, item_key
from dualmem_mcp.model.tiers import ACTIVE_TURNS, Cluster, TierName
from dualmem_mcp.search.passages import passages
from dualmem_mcp.stores.objects import open_object_store
from dualmem_mcp.stores.qdrant import QdrantService
from dualmem_mcp.stores.qdrant_faults import qdrant_faults
from dualmem_mcp.stores.qdrant_tier import QdrantTier
from dualmem_mcp.tiers.service import Service
from tests.conftest import SteppingClock
from tests.search.home import WordEmbedder
from tests.tiers.home import SqliteService, TierDevice

DIMENSIONS = 384
AT_ONCE = 500

OLD, RECENT, IN_USE = 13_000, 4_900, 980
"""Items whose vectors fill `historical`, `context` and `critical`, but for the part that a plan leaves free."""


class EngineService:
    """Qdrant's own engine as a service."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._opened: dict[TierName, QdrantTier] = {}

    def collection(self, tier: TierName) -> str:
        return tier

    def create(self, tier: TierName, *, dimensions: int, **_: Any) -> QdrantTier:
        from tests.stores.edge_client import EdgeClient  # noqa: PLC0415  (not on every machine)

        if tier not in self._opened:
            client = EdgeClient(self.folder / tier, dimensions)

            @contextmanager
            def asking(operation: str) -> Iterator[Any]:
                with qdrant_faults(operation, tier, local=False):
                    yield client

            self._opened[tier] = QdrantTier(asking, tier, tier, dimensions)
        return self._opened[tier]

    tier = create

    def close(self) -> None:
        self._opened.clear()


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="of what fits into the tiers")
    parser.add_argument("--words", action="store_true", help="words as well")
    parser.add_argument(
        "--over", nargs="+", choices=["memory", "sqlite", "engine"], default=["memory", "sqlite", "engine"]
    )
    options = parser.parse_args()
    for name in options.over:
        with tempfile.TemporaryDirectory() as folder:
            measure(name, Path(folder), options.share, words=options.words)


def service_over(name: str, folder: Path) -> Service:
    """The service of that name."""
    if name == "memory":
        return QdrantService.open(":memory:")
    folder.mkdir()
    return SqliteService(folder) if name == "sqlite" else EngineService(folder)


def measure(name: str, folder: Path, share: float, *, words: bool) -> None:
    """Place, move, check and erase over one service."""
    service = service_over(name, folder / "service")
    clock = SteppingClock()
    desk = TierDevice(
        folder / "desk",
        open_object_store(str(folder / "bucket"), create=True),
        clock,
        lambda _: service,
        embedder=WordEmbedder("random-1", DIMENSIONS),
    )
    desk.tiers.init(Cluster())
    desk.tiers.enable(words=words)
    points = fill(desk, share)
    print(f"{name}: {points:,} vectors{', words' if words else ''}")
    handed = timed("one conversation placed, as at a handoff,", lambda: desk.tiers.place("now-0", max_seconds=60))
    print(f"    {handed['points']} points")
    placed = timed("placed", desk.apply)
    print(f"    {placed['points_written']:,} points, {placed['bytes'] / 1e6:,.0f} MB, left {placed['left']}")
    print(f"    {placed['done']}, stale {placed['stale']}, {placed['problem'] or 'no problem'}")
    clock.advance(20 * 86_400)
    moved = timed("moved", desk.apply)
    print(f"    {moved['done']}, {moved['points_written']:,} points")
    checked = timed("checked", lambda: desk.tiers.check(repair=False))
    print(f"    {checked['points']:,} points, missing {checked['missing']}, changed {checked['changed']}")
    timed("erased a conversation", lambda: desk.tiers.forget("old-0"))
    desk.close()


def fill(desk: TierDevice, share: float) -> int:
    """What fills all three tiers, or a share of it, with random vectors; how many these are."""
    dataset = synthetic_dataset(load_locomo(SHIPPED_DIALOGUES), int(OLD * share))
    texts = [turn.text for conversation in dataset.conversations for turn in conversation.turns]
    items = [an_item("turn", f"old-{place // 400}", place, text, 30, desk) for place, text in enumerate(texts)]
    items += [
        an_item("note", f"notes-{place // 50}", place, text, 2, desk)
        for place, text in enumerate(texts[: int(RECENT * share)])
    ]
    items += [
        an_item("turn", f"now-{place // ACTIVE_TURNS}", place, text, 0, desk)
        for place, text in enumerate(texts[: int(IN_USE * share)])
    ]
    return sum(filled(desk, collection, items) for collection in Collection)


def an_item(kind: ItemKind, chat: str, place: int, text: str, days_ago: int, desk: TierDevice) -> SearchItem:
    """An item of a conversation."""
    name, at = f"{place:06}", desk.clock.time - timedelta(days=days_ago)
    return SearchItem(item_key(kind, chat, name), kind, text, chat, name, "Ana", at)


def filled(desk: TierDevice, collection: Collection, items: Sequence[SearchItem]) -> int:
    """Put those of the collection into its index; how many vectors they have."""
    index, drawn = desk.indexes[collection], np.random.default_rng(5)
    own = [item for item in items if COLLECTION_OF[item.kind] is collection]
    for start in range(0, len(own), AT_ONCE):
        index.put(own[start : start + AT_ONCE])
    total = 0
    while waiting := index.unembedded(AT_ONCE):
        counts = [len(passages(one.item, one.previous)) for one in waiting]
        vectors = drawn.normal(size=(sum(counts), DIMENSIONS)).astype(np.float32)
        parts = np.split(vectors, np.cumsum(counts)[:-1])
        index.put_vectors(desk.embedder.model_id, list(zip([one.id for one in waiting], parts, strict=True)))
        total += sum(counts)
    return total


def timed(what: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What the work gives; prints how long it took."""
    began = time.perf_counter()
    done = work()
    print(f"  {what} in {time.perf_counter() - began:.1f} s")
    return done


if __name__ == "__main__":
    main()
