"""Items as points of a search service."""

from __future__ import annotations

import numpy as np
import pytest

from dualmem_mcp.crypto.vector_payload import open_payload
from dualmem_mcp.crypto.vectors import VectorKeys
from dualmem_mcp.model.ids import VaultId
from dualmem_mcp.model.search import Collection, Filter, SearchItem
from dualmem_mcp.search.passages import passages
from dualmem_mcp.stores.stems import Stemmer
from dualmem_mcp.tiers.at_hand import ItemPlaces, embedded_items
from dualmem_mcp.tiers.points import MOST_CHARACTERS, Embedded, PointMaker
from tests.tiers.home import TierDevice

KEYS = VectorKeys(bytes(range(32)), VaultId("0a" * 16), 7)
ITEM = SearchItem("turn/c/1", "turn", "the harbor, the harbor at night", "c", "1", "Ana")


def vectors(count: int, seed: int = 1) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=(count, 16))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def long_item(words: int, **changes: str) -> SearchItem:
    text = " ".join(f"word{number:05}" for number in range(words))
    return SearchItem("note/c/1", changes.pop("kind", "note"), text, "c", **changes)  # type: ignore[arg-type]


def test_an_item_has_a_point_for_each_of_its_vectors() -> None:
    item = long_item(400)
    count = len(passages(item, None))
    (points,) = PointMaker(KEYS, "m").points([Embedded(item, vectors(count), "turn/c/0")])
    assert [point.id for point in points] == [KEYS.point_id(item.key, number) for number in range(count)]
    assert {point.tenant for point in points} == {KEYS.tenant}
    opened = [open_payload(KEYS, point.id, point.payload) for point in points]
    assert [one.passage for one in opened] == list(range(count))
    assert {one.model_id for one in opened} == {"m"}
    assert {one.previous for one in opened} == {"turn/c/0"}
    assert opened[0].item == item
    assert " ".join(one.item.text for one in opened) == f"{item.text} " + " ".join(
        one.item.text for one in opened[1:]
    )
    assert "".join(one.item.text.replace(" ", "") for one in opened[1:]) in item.text.replace(" ", "")
    np.testing.assert_allclose(np.stack([one.vector for one in opened]), vectors(count), atol=1e-3)


def test_points_hold_the_stretches_that_were_embedded() -> None:
    for item in (long_item(400), long_item(400, kind="turn"), long_item(30, kind="turn"), long_item(3)):
        texts = passages(item, None)
        (points,) = PointMaker(KEYS, "m").points([Embedded(item, vectors(len(texts)))])
        for number, point in enumerate(points[1:], start=1):
            own = open_payload(KEYS, point.id, point.payload).item.text
            assert texts[number].endswith(own)
            assert own


def test_of_a_long_text_the_first_point_has_beginning_and_end() -> None:
    item = long_item(5_000)
    (points,) = PointMaker(KEYS, "m").points([Embedded(item, vectors(16))])
    text = open_payload(KEYS, points[0].id, points[0].payload).item.text
    assert len(text) <= MOST_CHARACTERS
    assert text.startswith("word00000 ")
    assert text.endswith(" word04999")
    assert max(len(point.payload) for point in points) < 70_000


def test_the_same_item_gives_the_same_points_alone_and_among_others() -> None:
    one, other = Embedded(ITEM, vectors(1)), Embedded(long_item(400), vectors(5, seed=2))
    maker = PointMaker(KEYS, "m", Stemmer())
    alone, among = maker.points([one])[0], maker.points([other, one])[1]
    assert [point.payload for point in alone] == [point.payload for point in among]
    np.testing.assert_array_equal(alone[0].vector, among[0].vector)


def test_words_are_those_of_the_whole_item_at_its_first_point_alone() -> None:
    stemmer = Stemmer()
    item = long_item(400)
    (points,) = PointMaker(KEYS, "m", stemmer).points([Embedded(item, vectors(4))])
    assert points[0].words is not None
    assert len(points[0].words.indices) == 400
    assert [point.words for point in points[1:]] == [None] * 3
    (points,) = PointMaker(KEYS, "m", stemmer).points([Embedded(ITEM, vectors(1))])
    assert points[0].words is not None
    expected = KEYS.word_weights(stemmer.frequencies("Ana", ITEM.text))
    np.testing.assert_array_equal(points[0].words.indices, expected[0])
    assert KEYS.word_index("ana") in points[0].words.indices.tolist()
    (points,) = PointMaker(KEYS, "m").points([Embedded(ITEM, vectors(1))])
    assert points[0].words is None


def test_what_cannot_be_sealed_has_no_points() -> None:
    unfit = SearchItem("entity/" + "n" * 70_000, "entity", "text")
    assert [len(points) for points in PointMaker(KEYS, "m").points([Embedded(unfit, vectors(1)), _one()])] == [0, 1]
    assert PointMaker(KEYS, "m").points([]) == []


def _one() -> Embedded:
    return Embedded(ITEM, vectors(1))


# What an index has at hand


def test_items_come_with_what_was_said_before_them(desk: TierDevice) -> None:
    first, second = desk.turn(1), desk.turn(2)
    other = desk.turn(1, chat="other")
    summary = desk.item("summary", "s1", "what was said so far")
    bare = desk.item("turn", "t9", "no vectors yet", embed=False)
    index = desk.indexes[Collection.CONVERSATIONS]
    found = embedded_items(index, index.columns().ids.tolist())
    assert {one.item.key: one.previous for one in found.values()} == {
        first.key: "",
        second.key: first.key,
        other.key: "",
        summary.key: "",
    }
    assert bare.key not in {one.item.key for one in found.values()}
    assert all(one.vectors.shape == (1, desk.embedder.dimensions) for one in found.values())
    assert embedded_items(index, [12345, -1]) == {}


def test_items_are_found_by_the_digests_of_their_keys(desk: TierDevice) -> None:
    desk.turn(1)
    desk.item("note", "n1", "the red one")
    columns = {collection: index.columns() for collection, index in desk.indexes.items()}
    places = ItemPlaces(columns)
    everything = np.concatenate([one.keys for one in columns.values()])
    assert places.there(everything).all()
    assert not places.there(everything + 1).any()
    found = places.ids([*everything.tolist(), 5])
    assert {name: sorted(ids) for name, ids in found.items()} == {
        name: sorted(one.ids.tolist()) for name, one in columns.items() if len(one.ids)
    }
    nothing = ItemPlaces({})
    assert not nothing.there(everything).any()
    assert nothing.ids([5]) == {}
    assert desk.indexes[Collection.CONTEXT].features(everything, Filter()).ids.size == 0


@pytest.mark.parametrize("kind", ["turn", "note"])
def test_a_point_of_every_passage_opens(desk: TierDevice, kind: str) -> None:
    desk.item(kind, "x1", " ".join(f"word{number}" for number in range(3_000)))  # type: ignore[arg-type]
    desk.apply()
    keys = {epoch: desk.tiers._service.keys(epoch) for epoch in desk.channel.vault.epochs()}
    points = [point for _, point in desk.all_points()]
    assert len(points) == 16
    for point in points:
        (of_epoch,) = [one for one in keys.values() if one.tenant == point.tenant]
        assert open_payload(of_epoch, point.id, point.payload).item.text
