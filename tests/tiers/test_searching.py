"""The whole way: one device places its vectors, another of the vault, which has nothing, finds what they are of."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from dualmem_mcp.model.search import Filter
from dualmem_mcp.ports.tier_search import PATIENCE_SECONDS
from dualmem_mcp.search.beyond import Beyond
from dualmem_mcp.search.search import Found, search
from dualmem_mcp.stores.stems import Stemmer
from tests.tiers.home import CHAT, TierDevice

TALK = (
    "where do we moor the cutter tonight",
    "at the north quay said the harbour master",
    "and the broken winch can it wait until spring",
    "the winch needs a new pawl from kiel",
    "the sails are dry and folded in the shed",
    "then we paint the hull on saturday",
)


def find(device: TierDevice, query: str, *, beyond: bool, limit: int = 3) -> Found:
    searcher = device.tiers.searcher()
    assert searcher is not None
    patience = dict.fromkeys(PATIENCE_SECONDS, 20.0)
    stemmer = Stemmer()
    found = search(
        query,
        Filter(),
        limit=limit,
        token_budget=10_000,
        indexes=device.indexes,
        working_set=None,
        embed=lambda text: device.embedder.embed([text])[0],
        now=datetime.now(UTC),
        beyond=Beyond(searcher, stemmer, lambda _: frozenset(), eager=True, patience=patience) if beyond else None,
    )
    stemmer.close()
    return found


def keys(found: Found) -> list[str]:
    assert [tier.problem for tier in found.tiers if tier.problem] == []
    return [result.item.key for result in found.results]


@pytest.mark.parametrize("words", [True, False])
@pytest.mark.parametrize("query", ["broken winch", "new pawl from kiel", "paint the hull"])
def test_a_device_without_anything_finds_what_another_placed(
    desk: TierDevice, phone: TierDevice, query: str, words: bool
) -> None:
    for device in (desk, phone):
        device.tiers.enable(words=words)
    for number, text in enumerate(TALK):
        desk.turn(number, text, days_ago=30)
    desk.item("note", "n1", "sell the broken winch", days_ago=1)
    desk.apply()
    expected = keys(find(desk, query, beyond=False))
    assert keys(find(phone, query, beyond=False)) == []
    found = find(phone, query, beyond=True)
    assert keys(found)[0] == expected[0]
    assert len(set(keys(found)) & set(expected)) >= 2
    # And what is shown is what the other device would show.
    texts = {result.item.key: result.item for result in find(desk, query, beyond=False).results}
    assert [result.item for result in found.results if result.item.key in texts] == [
        texts[key] for key in keys(found) if key in texts
    ]


def test_what_was_taken_from_the_service_is_not_found(desk: TierDevice, phone: TierDevice) -> None:
    for number, text in enumerate(TALK):
        desk.turn(number, text, days_ago=30)
    desk.apply()
    assert keys(find(phone, "broken winch", beyond=True))
    desk.erased.add(CHAT)
    desk.tiers.forget(CHAT)
    assert keys(find(phone, "broken winch", beyond=True)) == []
