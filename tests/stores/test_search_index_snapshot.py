"""What an index keeps in memory is what its file says, however it came to be."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualmem_mcp.model.search import Collection, Filter, SearchItem, item_key
from dualmem_mcp.stores.search_index import SqliteSearchIndex, open_search_index
from dualmem_mcp.stores.search_index import snapshot as snapshots
from dualmem_mcp.stores.search_index.layout import KEPT_CHANGES
from dualmem_mcp.stores.search_index.snapshot import Snapshot, refreshed

MODEL = "model"
DIMENSIONS = 40


@pytest.fixture
def index(tmp_path: Path) -> Iterator[SqliteSearchIndex]:
    opened = open_search_index(tmp_path, bytes(32), Collection.CONVERSATIONS)
    opened.use_model(MODEL, DIMENSIONS)
    yield opened
    opened.close()


def item(number: int, text: str = "word", conversation: str = "c") -> SearchItem:
    return SearchItem(item_key("turn", conversation, str(number)), "turn", text, conversation, str(number))


def embed(
    index: SqliteSearchIndex, limit: int, passages: int, chance: np.random.Generator, likenesses: int = 0
) -> None:
    """Give items vectors, of which some items share theirs where there are likenesses."""
    waiting = index.unembedded(limit)
    alike = {one.id: int(chance.integers(1, likenesses + 1)) for one in waiting} if likenesses else {}
    shared = index.share_vectors(MODEL, alike)
    vectors = [
        (one.id, chance.normal(size=(passages, DIMENSIONS)).astype(np.float32))
        for one in waiting
        if one.id not in shared
    ]
    index.put_vectors(MODEL, vectors, alike)


def read(index: SqliteSearchIndex, known: Snapshot | None) -> Snapshot:
    return index._file.read(lambda connection: refreshed(connection, known))


def assert_equal(one: Snapshot, other: Snapshot) -> None:
    for field in dataclasses.fields(Snapshot):
        ours, theirs = getattr(one, field.name), getattr(other, field.name)
        if isinstance(ours, np.ndarray):
            assert ours.dtype == theirs.dtype, field.name
            np.testing.assert_array_equal(ours, theirs, err_msg=field.name)
        else:
            assert ours == theirs, field.name


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["put", "change", "remove", "embed", "embed alike", "model"]),
            st.lists(st.integers(0, 30), max_size=8),
            st.sampled_from(["c", "d"]),
        ),
        max_size=25,
    ),
    seed=st.integers(0, 1000),
)
@settings(max_examples=30, deadline=None)
def test_changes_that_are_read_again_make_what_reading_it_whole_makes(
    steps: list[tuple[str, list[int], str]], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    chance = np.random.default_rng(seed)
    index = open_search_index(tmp_path_factory.mktemp("index"), bytes(32), Collection.CONVERSATIONS)
    index.use_model(MODEL, DIMENSIONS)
    known = read(index, None)
    for number, (step, numbers, conversation) in enumerate(steps):
        if step == "put":
            index.put([item(one, conversation=conversation) for one in numbers])
        elif step == "change":
            index.put([item(one, f"changed {number}", conversation) for one in numbers])
        elif step == "remove":
            index.remove([item(one, conversation=conversation).key for one in numbers])
        elif step == "embed":
            embed(index, len(numbers), int(chance.integers(0, 4)), chance)
        elif step == "embed alike":
            embed(index, len(numbers), int(chance.integers(0, 4)), chance, likenesses=3)
        else:
            index.use_model("another", 8)
            index.use_model(MODEL, DIMENSIONS)
        if chance.random() < 0.7:
            known = read(index, known)
            assert_equal(known, read(index, None))
    index.close()


def test_vectors_that_went_from_one_item_to_another_meanwhile_stay(index: SqliteSearchIndex) -> None:
    chance = np.random.default_rng(4)
    for number in range(4):
        index.put([item(number)])
        embed(index, 1, 2, chance, likenesses=1 if number in {0, 2} else 0)
    known = read(index, None)
    index.put([item(7)])
    embed(index, 1, 2, chance, likenesses=1)
    index.remove([item(0).key, item(2).key])
    patched = read(index, known)
    assert_equal(patched, read(index, None))
    assert patched.passages.tolist() == [0, 1, 2, 3, 4, 5]
    assert patched.owners.tolist() == [2, 2, 0, 0, 1, 1]


@pytest.mark.parametrize("count", [3_000, KEPT_CHANGES + 500])
def test_too_many_changes_are_read_as_a_whole(index: SqliteSearchIndex, count: int) -> None:
    index.put([item(0)])
    known = read(index, None)
    index.put([item(number) for number in range(count)])
    known = read(index, known)
    assert len(known.ids) == count
    assert_equal(known, read(index, None))


def test_nothing_new_is_nothing_read(index: SqliteSearchIndex) -> None:
    index.put([item(0)])
    known = read(index, None)
    assert read(index, known) is known


def test_the_chunks_of_sqlite_vec_hold_what_its_table_says(index: SqliteSearchIndex) -> None:
    chance = np.random.default_rng(1)
    index.put([item(number) for number in range(700)])
    embed(index, 700, 1, chance)
    index.remove([item(number).key for number in range(0, 700, 3)])
    passages, bits = index._file.read(lambda connection: snapshots._all_bits(connection, 1))
    by_table = index._file.read(lambda connection: connection.execute("SELECT passage, bits FROM bits").fetchall())
    assert dict(zip(passages.tolist(), bits[:, 0].tolist(), strict=True)) == {
        passage: int.from_bytes(data, "little") for passage, data in by_table
    }
    assert len(by_table) == 466


@pytest.mark.parametrize("held", [0, 10_000])
def test_few_of_the_nearest_are_missed_by_their_bits(
    tmp_path: Path, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "_HELD_PASSAGES", held)
    chance = np.random.default_rng(2)
    index = open_search_index(tmp_path, bytes(32), Collection.CONVERSATIONS)
    index.use_model(MODEL, 384)
    centres = chance.normal(size=(40, 384)) + 0.3
    rows = centres[chance.integers(40, size=4_000)] + chance.normal(size=(4_000, 384)) * 1.2
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    index.put([item(number) for number in range(len(rows))])
    index.put_vectors(MODEL, [(entry.id, rows[[int(entry.item.turn_id)]]) for entry in index.unembedded(len(rows))])
    found = 0
    for query in rows[:50] + chance.normal(size=(50, 384)).astype(np.float32) * 0.02:
        exact = set(np.argsort(-(rows @ query))[:10].tolist())
        nearest = index.nearest(query, Filter(), 10)
        found += len(exact & {int(entry.turn_id) for entry in index.items(nearest.ids.tolist())})
    index.close()
    assert found / 500 >= 0.97


def test_scores_are_the_same_whether_vectors_are_held_or_read(
    index: SqliteSearchIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = np.random.default_rng(3)
    monkeypatch.setattr(snapshots, "_HELD_PASSAGES", 60)
    index.put([item(number) for number in range(40)])
    embed(index, 20, 3, chance)
    query = chance.normal(size=DIMENSIONS).astype(np.float32)
    ids = index.lexical(["word"], Filter(), 100).ids
    assert read(index, None).vectors is not None
    held = index.nearest(query, Filter(), 40), index.cosines(query, ids)
    known = read(index, None)
    embed(index, 1, 1, chance)  # one more than are held
    assert read(index, known).vectors is None
    index.remove(
        [waiting.key for waiting in index.items(ids.tolist()) if waiting not in _embedded(index, held[0].ids)]
    )
    there = np.isin(ids, held[0].ids)
    nearest, cosines = index.nearest(query, Filter(), 40), index.cosines(query, ids)
    assert nearest.ids.tolist() == held[0].ids.tolist()
    np.testing.assert_allclose(nearest.scores, held[0].scores, atol=1e-6)
    np.testing.assert_allclose(cosines[there], held[1][there], atol=1e-6)


def _embedded(index: SqliteSearchIndex, ids: np.ndarray) -> list[SearchItem]:
    return list(index.items(ids.tolist()))
