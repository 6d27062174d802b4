"""How rare words are in a scope, as an index tells it: the figures that its own BM25 goes by."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from dualmem_mcp.model.ids import ConversationId
from dualmem_mcp.model.search import Collection, Filter, SearchItem
from dualmem_mcp.stores.search_index import SqliteSearchIndex, open_search_index

TEXTS = (
    ("boat", "The cutter has a new winch"),
    ("boat", "winch, winch and winch"),
    ("boat", "Nothing much"),
    ("kiln", "A cutter for clay"),
)
STEMS = ("winch", "unheard", "cutter")


@pytest.fixture
def index(tmp_path: Path):
    opened = open_search_index(tmp_path, bytes(32), Collection.CONVERSATIONS)
    opened.put([SearchItem(f"turn/{c}/{n}", "turn", text, c, str(n), "user") for n, (c, text) in enumerate(TEXTS)])
    yield opened
    opened.close()


def rarity(items: int, holding: int) -> float:
    return math.log(1 + (items - holding + 0.5) / (holding + 0.5))


def test_rarities_are_those_of_the_scope(index: SqliteSearchIndex) -> None:
    everywhere = index.statistics(STEMS, Filter())
    assert (everywhere.items, everywhere.mean_words) == (4, 4.0)
    assert everywhere.rarities == pytest.approx([rarity(4, 2), rarity(4, 0), rarity(4, 2)])
    boat = index.statistics(STEMS, Filter(conversation_id=ConversationId("boat")))
    assert boat.items == 3
    assert boat.rarities == pytest.approx([rarity(3, 2), rarity(3, 0), rarity(3, 1)])


def test_with_them_the_scores_of_the_index_can_be_worked_out(index: SqliteSearchIndex) -> None:
    known = index.statistics(STEMS, Filter())
    scored = index.lexical(["cutter", "winch"], Filter(), 10)
    frequencies = {"0": (1, 1, 6), "1": (3, 0, 4), "3": (0, 1, 4)}
    for item, score in zip(index.items(scored.ids.tolist()), scored.scores, strict=True):
        winch, cutter, words = frequencies[item.turn_id]
        norm = 1.2 * (1 - 0.75 + 0.75 * words / known.mean_words)
        parts = np.array([winch, 0, cutter])
        assert score == pytest.approx(float((known.rarities * parts * 2.2 / (parts + norm)).sum()), rel=1e-5)


def test_an_empty_scope_and_no_stems_have_figures_too(index: SqliteSearchIndex) -> None:
    nowhere = index.statistics(STEMS, Filter(conversation_id=ConversationId("unknown")))
    assert (nowhere.items, nowhere.mean_words, len(nowhere.rarities)) == (0, 0.0, 3)
    elsewhere = index.statistics(STEMS, Filter(collections=(Collection.AGENTS,)))
    assert (elsewhere.items, elsewhere.rarities.tolist()) == (0, [0.0, 0.0, 0.0])
    assert len(index.statistics([], Filter()).rarities) == 0
