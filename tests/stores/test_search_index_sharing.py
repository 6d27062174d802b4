"""Items that are alike have one set of vectors on disk, which goes with the last of them."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualmem_mcp.model.ids import ConversationId
from dualmem_mcp.model.search import Collection, Filter, SearchItem, item_key
from dualmem_mcp.stores.connection import Connection
from dualmem_mcp.stores.search_index import SqliteSearchIndex, open_search_index
from dualmem_mcp.stores.search_index import snapshot as snapshots

MODEL = "model"
DIMENSIONS = 24
ALIKE = 7


def open_index(folder: Path) -> SqliteSearchIndex:
    opened = open_search_index(folder, bytes(32), Collection.CONVERSATIONS)
    opened.use_model(MODEL, DIMENSIONS)
    return opened


@pytest.fixture
def index(tmp_path: Path) -> Iterator[SqliteSearchIndex]:
    with contextlib.closing(open_index(tmp_path)) as opened:
        yield opened


def turn(number: int, text: str = "word", conversation: str = "c") -> SearchItem:
    key = item_key("turn", conversation, f"t{number}")
    return SearchItem(key, "turn", text, conversation, f"t{number}", "user")


def rows(seed: int, count: int = 2) -> np.ndarray:
    """Unit vectors, float32 (count, DIMENSIONS)."""
    made = np.random.default_rng(seed).normal(size=(count, DIMENSIONS))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def share(index: SqliteSearchIndex, *numbers: int, conversation: str = "c", likeness: int = ALIKE) -> None:
    """Turns that share the vectors of their likeness, which are made from it."""
    index.put([turn(number, conversation=conversation) for number in numbers])
    named = {f"t{number}" for number in numbers}
    alike = {one.id: likeness for one in index.unembedded(1_000) if one.item.turn_id in named}
    shared = index.share_vectors(MODEL, alike)
    index.put_vectors(MODEL, [(one, rows(likeness)) for one in alike if one not in shared], alike)


def stored(index: SqliteSearchIndex) -> tuple[int, int]:
    """How many vectors are on disk, by both tables."""
    return index._file.read(
        lambda connection: connection.execute(
            "SELECT (SELECT count(*) FROM vectors), (SELECT count(*) FROM bits)"
        ).fetchone()
    )


def found(index: SqliteSearchIndex, likeness: int = ALIKE) -> list[str]:
    """Which items are exactly there where the vectors of that likeness are, by both ways of asking."""
    index_ids = index.nearest(rows(likeness)[1], Filter(), 1_000)
    exact = index_ids.ids[index_ids.scores > 0.999]
    by_cosine = index.cosines(rows(likeness)[1], index_ids.ids) > 0.999
    assert index_ids.ids[by_cosine].tolist() == exact.tolist()
    for vectors in index.vectors(exact.tolist()).values():
        np.testing.assert_allclose(vectors, rows(likeness), atol=1e-3)
    return sorted(item.turn_id for item in index.items(exact.tolist()))


def assert_sound(index: SqliteSearchIndex) -> None:
    """Every vector on disk is of an item, every item's is there, and what shares is counted rightly."""
    ranges = index._file.read(
        lambda connection: connection.execute(
            "SELECT first_passage, passages, count(*), count(DISTINCT likeness) FROM items WHERE passages > 0 "
            "GROUP BY 1, 2"
        ).fetchall()
    )
    assert all(likenesses == 1 or items == 1 for _, _, items, likenesses in ranges)
    assert stored(index) == (sum(row[1] for row in ranges),) * 2
    assert index.counts().shared == sum(row[2] - 1 for row in ranges)


def test_what_is_alike_is_stored_once_and_found_as_often_as_it_is_there(index: SqliteSearchIndex) -> None:
    share(index, 0, 1)
    share(index, 2, 3, conversation="d")
    share(index, 4, likeness=8)
    assert stored(index) == (4, 4)
    assert found(index) == ["t0", "t1", "t2", "t3"]
    assert found(index, 8) == ["t4"]
    counts = index.counts()
    assert (counts.items, counts.embedded, counts.shared) == (5, 5, 3)
    columns = index.columns()
    assert sorted(columns.likenesses.tolist()) == [ALIKE] * 4 + [8]
    assert columns.passages.tolist() == [2] * 5
    where = Filter(conversation_id=ConversationId("d"))
    assert len(index.nearest(rows(ALIKE)[0], where, 10).ids) == 2
    assert_sound(index)


@pytest.mark.parametrize("held", [0, 10_000])
def test_each_item_counts_where_many_share_and_only_bits_are_compared(
    index: SqliteSearchIndex, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "_HELD_PASSAGES", held)
    for likeness in range(1, 16):
        numbers = range(likeness * 100, likeness * 100 + 60)
        share(index, *numbers, conversation="c" if likeness > 3 else "d", likeness=likeness)
    assert stored(index) == (30, 30)
    for likeness, where in itertools.product((4, 8, 15), (Filter(), Filter(conversation_id=ConversationId("c")))):
        assert len(found(index, likeness)) == 60
        nearest = index.nearest(rows(likeness)[0], where, 500)  # more than are scored exactly at first
        assert len(set(nearest.ids.tolist())) == 500
        assert nearest.scores[:60] == pytest.approx(np.ones(60), abs=1e-3)
    known = index._snapshot
    assert known is not None
    assert (known.vectors is None, len(known.passages), len(known.owners)) == (held == 0, 30, 1_800)


@given(
    order=st.permutations(range(4)),
    ways=st.lists(st.sampled_from(["remove", "change", "embed alone"]), min_size=4, max_size=4),
    again=st.integers(0, 4),
)
@settings(max_examples=20, deadline=None)
def test_vectors_stay_until_the_last_that_uses_them_is_gone(
    order: list[int], ways: list[str], again: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with contextlib.closing(open_index(tmp_path_factory.mktemp("index"))) as index:
        share(index, 0, 1, 2, 3)
        ids = {item.turn_id: item_id for item_id in index.columns().ids.tolist() for item in index.items([item_id])}
        left = set(range(4))
        for step, (number, way) in enumerate(zip(order, ways, strict=True)):
            if way == "remove":
                index.remove([turn(number).key])
            elif way == "change":
                index.put([turn(number, "changed")])
            else:
                index.put_vectors(MODEL, [(ids[f"t{number}"], rows(99))])
            left.remove(number)
            assert found(index) == [f"t{one}" for one in sorted(left)]
            assert_sound(index)
            if step + 1 == again:
                share(index, 9)
                left.add(9)
                assert "t9" in found(index)
                assert_sound(index)
        alone = sum(way == "embed alone" for way in ways)
        assert len(found(index, 99)) == alone
        index.remove([turn(9).key])
        assert ALIKE not in index.columns().likenesses
        assert stored(index)[0] <= 2 * (alone + 4)
        assert_sound(index)


def test_another_model_shares_nothing_with_the_one_before(index: SqliteSearchIndex) -> None:
    share(index, 0, 1)
    index.use_model("another", DIMENSIONS)
    assert (stored(index), index.counts().shared) == ((0, 0), 0)
    assert index.columns().likenesses.tolist() == [0, 0]
    alike = {one.id: ALIKE for one in index.unembedded(10)}
    assert index.share_vectors("another", alike) == set()
    assert index.share_vectors(MODEL, alike) == set()
    index.put_vectors("another", [(min(alike), rows(1))], alike)
    assert index.share_vectors(MODEL, alike) == set()
    assert index.share_vectors("another", alike) == {max(alike)}
    assert_sound(index)


def test_an_item_that_changed_or_has_gone_or_has_vectors_gets_none_of_anothers(index: SqliteSearchIndex) -> None:
    share(index, 0)
    index.put([turn(1), turn(2), turn(3)])
    alike = {one.item.turn_id: one.id for one in index.unembedded(10)}
    index.put_vectors(MODEL, [(alike["t3"], rows(5))])
    index.put([turn(1, "changed")])
    index.remove([turn(2).key])
    asked = dict.fromkeys([*alike.values(), 1 << 50], ALIKE)
    assert index.share_vectors(MODEL, asked) == set()
    assert found(index) == ["t0"]
    (waiting,) = index.unembedded(9)
    assert index.share_vectors(MODEL, {waiting.id: ALIKE}) == {alike["t1"]}
    assert found(index) == ["t0", "t1"]
    assert found(index, 5) == ["t3"]


def test_no_passages_are_shared_with_nobody(index: SqliteSearchIndex) -> None:
    index.put([turn(0), turn(1)])
    one, other = sorted(entry.id for entry in index.unembedded(2))
    alike = {one: ALIKE, other: ALIKE}
    index.put_vectors(MODEL, [(one, rows(1, 0)), (other, rows(ALIKE))], alike)
    assert index.counts().shared == 0
    index.remove([turn(0).key])
    assert found(index) == ["t1"]
    index.remove([turn(1).key])
    assert stored(index) == (0, 0)


# Faults


@pytest.mark.parametrize("table", ["vectors", "bits"])
def test_shared_vectors_that_are_missing_have_the_index_made_anew(index: SqliteSearchIndex, table: str) -> None:
    share(index, 0, 1, 2)
    generation = index.generation
    index._file.write(lambda connection: connection.execute(f"DELETE FROM {table} WHERE passage = 1"))
    assert len(index.nearest(rows(ALIKE)[0], Filter(), 5).ids) == 0
    assert index.generation != generation
    index.use_model(MODEL, DIMENSIONS)
    share(index, 0, 1, 2)
    assert found(index) == ["t0", "t1", "t2"]


@pytest.mark.parametrize("numbers", [(0,), (0, 1)])
def test_vectors_of_nobody_have_the_index_made_anew(index: SqliteSearchIndex, numbers: tuple[int, ...]) -> None:
    share(index, *numbers)
    generation = index.generation

    def leave_some(connection: Connection) -> None:
        connection.execute("INSERT INTO vectors SELECT passage - 9, vector FROM vectors")
        connection.execute(
            "INSERT INTO bits (passage, bits) VALUES (-9, vec_bit(?)), (-8, vec_bit(?))", 2 * (bytes(8),)
        )

    index._file.write(leave_some)
    assert found(index) == []
    assert index.generation != generation


def test_a_use_of_vectors_that_were_never_there_has_the_index_made_anew(index: SqliteSearchIndex) -> None:
    share(index, 0, 1)
    assert found(index) == ["t0", "t1"]
    generation = index.generation
    index.put([turn(2)])
    index._file.write(
        lambda connection: connection.execute(
            "UPDATE items SET first_passage = 5, passages = 2 WHERE passages IS NULL"
        )
    )
    assert found(index) == []
    assert index.generation != generation


@pytest.mark.parametrize("seed", range(6))
def test_changed_bytes_anywhere_never_raise_and_never_lie(tmp_path: Path, seed: int) -> None:
    with contextlib.closing(open_index(tmp_path)) as index:
        share(index, *range(40))
        for likeness in range(20, 60):
            share(index, likeness * 10, likeness * 10 + 1, likeness=likeness)
        generation = index.generation
        index.release()
        chance = random.Random(seed)
        data = bytearray((tmp_path / "index.db").read_bytes())
        for _ in range(chance.choice([1, 3, 20])):
            data[chance.randrange(16, len(data))] ^= 1 << chance.randrange(8)
        (tmp_path / "index.db").write_bytes(data)
        for _ in range(2):
            there = len(index.nearest(rows(ALIKE)[0], Filter(), 1_000).ids)
            assert there == (120 if index.generation == generation else 0)
        index.use_model(MODEL, DIMENSIONS)
        share(index, 1_000, 1_001)
        index.use_model(MODEL, DIMENSIONS)
        share(index, 1_000, 1_001)  # a page that nobody had read may have shown only now
        assert {"t1000", "t1001"} <= set(found(index))


def work(folder: Path) -> None:
    """Writes that share vectors and end it; each commits."""
    with contextlib.closing(open_index(folder)) as index:
        share(index, 0, 1, 2)
        share(index, 3, 4, likeness=8)
        share(index, 5)
        index.remove([turn(0).key, turn(3).key])
        index.put([turn(1, "changed")])
        index.remove([turn(4).key, turn(2).key])


_CRASHES = """
import sys
from pathlib import Path
from tests.crashes import each_crash
from tests.stores.test_search_index_sharing import work
number = 0
for number in each_crash(lambda: work(Path(sys.argv[1]) / str(number + 1))):
    print(number)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks a process for each point")
def test_a_kill_between_any_two_steps_leaves_no_vector_without_its_items(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", _CRASHES, str(tmp_path)], env=environment, check=True, capture_output=True, text=True
    )
    assert len(done.stdout.split()) >= 20  # before and after each of the transactions
    shared = set()
    for number in done.stdout.split():
        with contextlib.closing(open_index(tmp_path / number)) as index:
            assert_sound(index)
            shared.add(index.counts().shared)
            share(index, 0, 1, 2)
            assert {"t0", "t2"} <= set(found(index))
            assert_sound(index)
    assert shared >= {0, 1, 2, 3}
