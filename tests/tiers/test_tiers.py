"""The tiers as the rest of the product uses them."""

from __future__ import annotations


from tests.tiers.home import TierDevice


def test_a_turn_of_a_conversation_in_use_is_placed_in_critical(desk: TierDevice) -> None:
    item = desk.turn(1)
    done = desk.apply()
    assert done["done"] == {"place": 1}
    assert desk.where() == {item.key: ["critical"]}
    assert desk.tier_of(item) == "critical"
    assert desk.apply()["done"] == {}
