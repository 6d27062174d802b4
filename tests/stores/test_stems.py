"""Stems are those of the index, whoever asks for them and however many texts at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dualmem_mcp.model.search import Collection, Filter, SearchItem
from dualmem_mcp.model.words import index_text_of
from dualmem_mcp.stores.search_index import open_search_index
from dualmem_mcp.stores.stems import Stemmer

ITEMS = (
    ("Jonas", "The harbour master moved the cutter, and moving it took the winch."),
    ("user", "user_id and userId are one name; 3.12 is a version."),
    ("Ines", "昨天我买了一只猫"),
    ("", ""),
    ("assistant", "\udcff half of a pair, Größe and GROSSE"),
)
TEXTS = [index_text_of(*item) for item in ITEMS]
WORDS = ("moves", "harbour", "userid", "3x12", "猫", "grosse", "jonas", "assistant", "\udcff")


@pytest.fixture
def stemmer():
    made = Stemmer()
    yield made
    made.close()


def test_a_text_holds_the_stems_by_which_an_index_finds_it(stemmer: Stemmer, tmp_path: Path) -> None:
    index = open_search_index(tmp_path, bytes(32), Collection.CONVERSATIONS)
    index.put(
        [SearchItem(f"turn/c/{n}", "turn", text, "c", str(n), author) for n, (author, text) in enumerate(ITEMS)]
    )
    found_any = 0
    for word in WORDS:
        found = {item.turn_id for item in index.items(index.lexical([word], Filter(), 10).ids.tolist())}
        stems = stemmer.stems_of([word])
        holding = np.flatnonzero(stemmer.occurrences(TEXTS, stems).sum(axis=1))
        assert {str(number) for number in holding} == found, word
        found_any += len(found)
    index.close()
    assert found_any >= 7


def test_frequencies_and_occurrences_agree(stemmer: Stemmer) -> None:
    counted = [stemmer.frequencies(*item) for item in ITEMS]
    stems = sorted({stem for one in counted for stem in one})
    expected = [[one.get(stem, 0) for stem in stems] for one in counted]
    assert stemmer.occurrences(TEXTS, stems).tolist() == expected
    assert counted[0]["move"] == 2
    assert counted[0]["jona"] == 1
    assert counted[3] == {}


def test_nothing_asked_is_nothing_found(stemmer: Stemmer) -> None:
    assert stemmer.stems_of([]) == []
    assert stemmer.occurrences([], ["x"]).shape == (0, 1)
    assert stemmer.occurrences(TEXTS, []).shape == (len(ITEMS), 0)
