"""Padmé with a floor: monotonic, at most 12 % more, few lengths."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp.crypto.padding import INDEX_FLOOR_BYTES, SECTION_FLOOR_BYTES, padded_length

LENGTHS = st.integers(min_value=1, max_value=1 << 40)


@pytest.mark.parametrize(
    ("length", "padded"),
    # Worked by hand from the definition: E = floor(log2 L), S = floor(log2 E) + 1, multiple of 2^(E - S).
    [(9, 10), (15, 16), (17, 18), (100, 104), (1000, 1024), (4097, 4352), (5000, 5120), (1_000_000, 1_015_808)],
)
def test_known_lengths(length, padded):
    assert padded_length(length, floor=0) == padded


@given(LENGTHS)
def test_never_shorter_and_at_most_12_percent_longer(length):
    padded = padded_length(length, floor=0)
    assert length <= padded <= length * 1.12


@given(LENGTHS, LENGTHS)
def test_monotonic(one, other):
    shorter, longer = sorted((one, other))
    assert padded_length(shorter, floor=4096) <= padded_length(longer, floor=4096)


@given(LENGTHS)
def test_padding_again_changes_nothing(length):
    padded = padded_length(length, floor=4096)
    assert padded_length(padded, floor=4096) == padded


def test_the_floor_hides_short_lengths_and_the_smallest_step_is_256_bytes():
    assert {padded_length(length, floor=SECTION_FLOOR_BYTES) for length in range(4097)} == {4096}
    lengths = sorted({padded_length(length, floor=SECTION_FLOOR_BYTES) for length in range(40_000)})
    assert min(later - earlier for earlier, later in pairwise(lengths)) == 256
    assert padded_length(0, floor=INDEX_FLOOR_BYTES) == INDEX_FLOOR_BYTES
