"""The index within its bounds; junk in it is only ever TamperedError. Hostile indexes: test_envelope.py."""

from __future__ import annotations

import dataclasses
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp.crypto.index import Algorithm, SectionEntry, decode_index, encode_index
from dualmem_mcp.errors import TamperedError

ENTRY = SectionEntry("digest", Algorithm.AES_256_GCM, True, 9000, 300, 4112, 1296, bytes(32))


def test_round_trip_with_offsets_from_the_sizes():
    entries = [ENTRY, SectionEntry("b", Algorithm.CHACHA20_POLY1305, False, 5, 5, 4112, 1296 + 4112, bytes(32))]
    assert decode_index(encode_index(entries) + bytes(100), start=1296, subject="x") == entries


def test_the_most_entries_and_one_more():
    entries = [dataclasses.replace(ENTRY, name=f"{number:04x}") for number in range(4097)]
    assert len(decode_index(encode_index(entries[:4096]), start=0, subject="x")) == 4096
    with pytest.raises(TamperedError, match="number of sections"):
        decode_index(encode_index(entries), start=0, subject="x")


@given(st.binary(max_size=400))
def test_junk_is_refused_or_an_index(data):
    try:
        entries = decode_index(data, start=0, subject="x")
    except TamperedError:
        return
    assert encode_index(entries) == data.rstrip(b"\0").ljust(len(encode_index(entries)), b"\0")


@given(st.integers(0, 70), st.binary(min_size=1, max_size=8))
def test_a_damaged_entry_never_breaks_the_reader(position, junk):
    data = bytearray(encode_index([ENTRY]))
    data[position : position + len(junk)] = junk
    try:
        (entry,) = decode_index(bytes(data), start=0, subject="x")
    except TamperedError:
        return
    # What is taken for an entry stands as it was read: nothing was guessed or mended.
    assert encode_index([entry]) == bytes(data[: len(encode_index([entry]))])


@pytest.mark.parametrize("count", [1, 2, 4096, 4097, 2**31, 2**32 - 1])
def test_a_count_without_entries(count):
    with pytest.raises(TamperedError):
        decode_index(struct.pack(">I", count), start=0, subject="x")
