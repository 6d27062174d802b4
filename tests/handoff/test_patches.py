"""Patches: new bytes said by earlier ones, and refused where they do not fit."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp.errors import TamperedError
from dualmem_mcp.handoff.patches import MAX_DICTIONARY_BYTES, MAX_PATCH_EXPANSION, apply_patch, make_patch


@given(st.binary(max_size=2_000), st.binary(max_size=2_000))
def test_what_was_patched_comes_back(earlier: bytes, new: bytes) -> None:
    assert apply_patch(earlier, make_patch(earlier, new), size=len(new), subject="s") == new


def test_a_repetition_costs_next_to_nothing() -> None:
    earlier = os.urandom(300_000)
    assert len(make_patch(earlier, earlier[1_000:200_000])) < 100


def test_only_the_end_of_what_is_long_has_to_be_at_hand() -> None:
    earlier = os.urandom(2 * MAX_DICTIONARY_BYTES)
    new = earlier[-5_000:] + b"more"
    patch = make_patch(earlier, new)
    assert len(patch) < 200
    assert apply_patch(earlier[-MAX_DICTIONARY_BYTES:], patch, size=len(new), subject="s") == new


@pytest.mark.parametrize("size", [1, 1 << 17, (1 << 17) + 1, 8 << 20])
def test_a_patch_gives_no_more_than_the_bound_however_much_it_repeats(size: int) -> None:
    for earlier, new in ((b"", bytes(size)), (bytes(size), bytes(size)), (b"ab" * size, (b"ab" * size)[:size])):
        patch = make_patch(earlier, new)
        assert size <= MAX_PATCH_EXPANSION * len(patch)
        assert apply_patch(earlier, patch, size=size, subject="s") == new


@pytest.mark.parametrize("size", [0, 4_999, 5_001, 2**50])
def test_a_patch_of_another_size_than_stated_is_refused(size: int) -> None:
    patch = make_patch(b"", os.urandom(5_000))
    with pytest.raises(TamperedError):
        apply_patch(b"", patch, size=size, subject="s")


@given(st.binary(max_size=300))
def test_what_is_no_patch_is_refused(data: bytes) -> None:
    with pytest.raises(TamperedError):
        apply_patch(b"earlier", data, size=10, subject="s")


def test_a_patch_on_other_bytes_never_passes_for_the_right_ones() -> None:
    earlier = b"".join(b"line %d of the crane\n" % number for number in range(2_000))
    new = earlier[500:9_000]
    patch = make_patch(earlier, new)
    assert apply_patch(earlier.replace(b"crane", b"derek"), patch, size=len(new), subject="s") != new
