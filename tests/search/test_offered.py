"""What tiers offer, as items: each once, with its whole text if that was found."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from dualmem_mcp.model.search import SearchItem
from dualmem_mcp.model.words import Trait
from dualmem_mcp.ports.tier_search import TierAnswer, TierCandidate
from dualmem_mcp.search.offered import Offered, facts_of, gathered

ITEM = SearchItem("turn/c/1", "turn", "The whole text", "c", "1", "Ada", datetime(2026, 3, 1, tzinfo=UTC))
PART = replace(ITEM, text="A stretch")
EAST, NORTH = np.eye(2, dtype=np.float32)


def candidate(item: SearchItem, passage: int, vector: np.ndarray = EAST, previous: str = "") -> TierCandidate:
    return TierCandidate(item, passage, previous, vector)


def test_the_first_passage_has_the_text_wherever_it_comes() -> None:
    for order in ((1, 0, 2), (0, 1, 2), (2, 1, 0)):
        made = [candidate(ITEM if passage == 0 else PART, passage) for passage in order]
        (offered,) = gathered([TierAnswer("critical", made)]).values()
        assert (offered.item, offered.passage, len(offered.vectors)) == (ITEM, 0, 3)
    (offered,) = gathered([TierAnswer("critical", [candidate(PART, 2)])]).values()
    assert offered.item == PART


def test_of_two_texts_the_newer_one_counts_and_the_tier_that_came_first() -> None:
    assert ITEM.timestamp is not None
    newer = replace(ITEM, text="Changed", timestamp=ITEM.timestamp + timedelta(days=1))
    for answers in (("critical", ITEM, "historical", newer), ("critical", newer, "historical", ITEM)):
        first, one, second, other = answers
        found = gathered([TierAnswer(first, [candidate(one, 0)]), TierAnswer(second, [candidate(other, 0)])])
        assert (found[ITEM.key].item, found[ITEM.key].source) == (newer, "critical")
    timeless = replace(ITEM, text="No time", timestamp=None)
    found = gathered([TierAnswer("critical", [candidate(ITEM, 0), candidate(timeless, 0)])])
    assert found[ITEM.key].item == ITEM


def test_the_nearest_passage_counts_and_what_was_said_before_is_known_from_any() -> None:
    made = [candidate(ITEM, 0), candidate(PART, 1, NORTH, previous="turn/c/0")]
    offered = gathered([TierAnswer("context", made)])[ITEM.key]
    assert offered.previous == "turn/c/0"
    assert offered.cosine(NORTH) == pytest.approx(1.0)
    assert offered.cosine((EAST + NORTH) / np.sqrt(2)) == pytest.approx(np.sqrt(0.5))
    assert np.isnan(offered.cosine(None))
    assert np.isnan(Offered(ITEM, 0, "", "context").cosine(EAST))


@pytest.mark.parametrize("filler", ["", " and so on" * 1_000], ids=["short", "long"])
def test_facts_are_those_of_an_index(filler: str) -> None:
    facts = facts_of("Ada", f"user_id was 3 yesterday{filler}")
    assert facts.searched.startswith("ada userid user id was 3 yesterday")
    assert facts.words == len(facts.searched.split())
    assert facts.terms == 3
    assert facts.traits == Trait.TIME | Trait.NUMBER
    assert facts_of("user", "x").searched == facts_of("", "x").searched == "x"
    assert facts_of("", "").words == 0
