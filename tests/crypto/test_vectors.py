"""Protected vectors, point ids and words: as docs/format.md says, and near enough to search by."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualmem_mcp.crypto.obfuscation import orthogonal_matrix, steps
from dualmem_mcp.crypto.vectors import VectorKeys

GOLDEN: dict[str, Any] = json.loads(
    (Path(__file__).resolve().parents[1] / "golden" / "vectors-v1" / "expected.json").read_text(encoding="utf-8")
)
VAULT = "0a" * 16


@pytest.fixture(scope="module")
def golden_keys() -> VectorKeys:
    return VectorKeys(bytes.fromhex(GOLDEN["epoch_key"]), GOLDEN["vault_id"], GOLDEN["epoch"])


def keys(fill: int = 1, vault_id: str = VAULT, epoch: int = 1, beta: float = 2.0) -> VectorKeys:
    return VectorKeys(bytes([fill]) * 32, vault_id, epoch, beta=beta)


def unit_vectors(count: int, dimensions: int, seed: int = 1) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, dimensions))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


# As another program makes it


def test_ids_tenant_and_words_are_the_formats(golden_keys):
    assert golden_keys.tenant == GOLDEN["tenant"]
    assert [golden_keys.point_id(key, passage) for key, passage, _ in GOLDEN["ids"]] == [
        row[2] for row in GOLDEN["ids"]
    ]
    assert {stem: golden_keys.word_index(stem) for stem in GOLDEN["words"]} == GOLDEN["words"]
    for frequency, value in GOLDEN["word_values"].items():
        assert golden_keys.word_weights({"x": int(frequency)})[1] == pytest.approx([value], rel=1e-6)


@pytest.mark.parametrize("made", GOLDEN["vectors"], ids=lambda made: f"{len(made['exact'])} dimensions")
def test_protected_vectors_are_the_formats(golden_keys, made):
    exact = np.array(made["exact"], np.float32)
    assert golden_keys.protect(exact[np.newaxis], [made["id"]])[0] == pytest.approx(made["protected"], abs=2e-6)
    assert golden_keys.protect_query(exact) == pytest.approx(made["query"], abs=2e-6)


# Names


def test_ids_look_random_and_are_the_same_for_the_same_passage():
    ids = {keys().point_id(f"turn/c/{number}", passage) for number in range(50) for passage in range(4)}
    assert len(ids) == 200
    assert {(uuid.UUID(point).version, uuid.UUID(point).variant) for point in ids} == {(4, uuid.RFC_4122)}
    assert keys().point_id("turn/c/1", 0) == keys().point_id("turn/c/1", 0)


@pytest.mark.parametrize("other", [keys(2), keys(vault_id="0b" * 16), keys(epoch=2)], ids=["key", "vault", "epoch"])
def test_nothing_is_the_same_under_other_keys(other):
    own, vectors = keys(), unit_vectors(1, 16)
    assert own.tenant != other.tenant
    assert own.point_id("turn/c/1", 0) != other.point_id("turn/c/1", 0)
    assert own.word_index("harbor") != other.word_index("harbor")
    point = own.point_id("turn/c/1", 0)
    assert abs(float(own.protect(vectors, [point])[0] @ other.protect(vectors, [point])[0])) < 0.9


def test_a_key_of_another_length_is_refused():
    with pytest.raises(ValueError, match="32 bytes"):
        VectorKeys(b"short", VAULT, 1)


def test_words_of_one_index_are_added_up():
    own = keys()
    own._indices["quay"] = own.word_index("pier")
    indices, values = own.word_weights({"harbor": 3, "pier": 1, "quay": 2})
    assert indices.dtype == np.uint32
    assert list(indices) == sorted([own.word_index("harbor"), own.word_index("pier")])
    assert dict(zip(indices.tolist(), values.tolist(), strict=True)) == {
        own.word_index("harbor"): pytest.approx(6.6 / 4.2),
        own.word_index("pier"): pytest.approx(6.6 / 4.2),
    }
    assert [len(part) for part in own.word_weights({})] == [0, 0]


def test_no_text_gains_much_by_repeating_a_word():
    values = [float(keys().word_weights({"harbor": count})[1][0]) for count in (1, 2, 4, 1_000_000)]
    assert values[0] == pytest.approx(1)
    assert values == sorted(set(values))
    assert values[-1] <= 2.2


def test_a_query_asks_for_each_word_once():
    own = keys()
    indices, values = own.query_words(["pier", "harbor", "pier"])
    assert indices.tolist() == sorted([own.word_index("pier"), own.word_index("harbor")])
    assert values.tolist() == [1.0, 1.0]
    assert [len(part) for part in own.query_words([])] == [0, 0]


# Vectors


@given(dimensions=st.integers(1, 40), fill=st.integers(0, 255))
@settings(max_examples=30)
def test_rotations_keep_lengths_and_angles(dimensions, fill):
    rotation = orthogonal_matrix(bytes([fill]) * 32, dimensions)
    assert rotation @ rotation.T == pytest.approx(np.eye(dimensions), abs=1e-9)


def test_a_rotation_does_not_prefer_a_direction():
    """Of uniformly distributed matrices the entries have mean 0 and variance 1/d, on the diagonal as elsewhere."""
    diagonals = np.stack([np.diagonal(orthogonal_matrix(bytes([fill]) * 32, 24)) for fill in range(200)])
    assert abs(diagonals.mean()) < 0.02
    assert diagonals.var() == pytest.approx(1 / 24, rel=0.1)


@given(dimensions=st.integers(1, 20), beta=st.floats(0.1, 8))
@settings(max_examples=30)
def test_steps_stay_in_their_ball(dimensions, beta):
    drawn = steps([bytes([fill]) * 32 for fill in range(40)], dimensions, beta=beta)
    assert np.linalg.norm(drawn, axis=1).max() <= beta / 4 * (1 + 1e-9)


def test_steps_fill_their_ball_evenly():
    drawn = steps([number.to_bytes(32) for number in range(4000)], 2, beta=4.0)
    # In a disc a quarter of all lie within half the radius.
    assert float((np.linalg.norm(drawn, axis=1) < 0.5).mean()) == pytest.approx(0.25, abs=0.03)
    assert np.abs(drawn.mean(axis=0)).max() < 0.04


def test_without_steps_angles_are_exact():
    own, vectors = keys(beta=0.0), unit_vectors(30, 33)
    protected = own.protect(vectors, [own.point_id("item", number) for number in range(30)])
    assert protected @ protected.T == pytest.approx(vectors @ vectors.T, abs=1e-5)


def test_protecting_again_gives_the_same_however_many_at_once(monkeypatch):
    own, vectors = keys(), unit_vectors(25, 12)
    ids = [own.point_id("item", number) for number in range(25)]
    whole = own.protect(vectors, ids)
    monkeypatch.setattr("dualmem_mcp.crypto.vectors._AT_ONCE", 7)
    assert keys().protect(vectors, ids) == pytest.approx(whole, abs=1e-6)
    assert np.linalg.norm(whole, axis=1) == pytest.approx(np.ones(25), abs=1e-5)
    assert own.protect_query(vectors[0]) == pytest.approx(keys().protect_query(vectors[0]), abs=1e-7)


def test_one_vector_at_two_points_is_two():
    own, vectors = keys(), np.repeat(unit_vectors(1, 384), 2, axis=0)
    first, second = own.protect(vectors, [own.point_id("a", 0), own.point_id("b", 0)])
    # Steps of 0.5 at right angles: 1 / (1 + 0.25).
    assert float(first @ second) == pytest.approx(0.8, abs=0.03)


def test_neighbours_stay_among_the_candidates():
    own, vectors = keys(), unit_vectors(2000, 64, seed=3)
    queries = vectors[:40] + 0.1 * unit_vectors(40, 64, seed=4)
    protected = own.protect(vectors, [own.point_id("item", number) for number in range(2000)])
    for query, own_place in zip(queries, range(40), strict=True):
        candidates = np.argsort(-(protected @ own.protect_query(query)))[:200]
        assert own_place in candidates


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_what_is_no_vector_is_refused(broken):
    own, vectors = keys(), unit_vectors(2, 8)
    vectors[1, 3] = broken
    with pytest.raises(ValueError, match="finite"):
        own.protect(vectors, [own.point_id("a", 0), own.point_id("a", 1)])
    with pytest.raises(ValueError, match="finite"):
        own.protect_query(vectors[1])
    with pytest.raises(ValueError, match="2 vectors and 1 ids"):
        own.protect(unit_vectors(2, 8), [own.point_id("a", 0)])


def test_a_vector_of_zeros_becomes_noise_and_no_error():
    own = keys()
    protected = own.protect(np.zeros((1, 8), np.float32), [own.point_id("a", 0)])
    assert float(np.linalg.norm(protected)) == pytest.approx(1.0, abs=1e-5)
