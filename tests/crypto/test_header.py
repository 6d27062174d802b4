"""The clear header: encoded as laid down, decoded within bounds, never with another error than ours."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp.crypto.header import HEADER_BYTES, MAX_EPOCH, MAX_INDEX_BYTES, Header, ObjectKind
from dualmem_mcp.errors import TamperedError
from dualmem_mcp.model.ids import DeviceId, VaultId

HEADER = Header(
    kind=ObjectKind.SEGMENT,
    vault_id=VaultId("11" * 16),
    object_id=b"\x22" * 16,
    device_id=DeviceId("33" * 16),
    sequence=0x4444,
    previous_hash=b"\x55" * 32,
    index_bytes=0x0666,
    commitment=b"\x77" * 32,
    key_epoch=0x8888,
    key_id="master.9",
    wrap_salt=b"\xaa" * 24,
    wrapped_key=b"\xbb" * 48,
)


def test_the_layout_is_as_written_down():
    body = (
        b"DUALMEM\x1a"
        + bytes([1, 1, 6, 0])
        + b"\x11" * 16
        + b"\x22" * 16
        + b"\x33" * 16
        + (0x4444).to_bytes(8)
        + b"\x55" * 32
        + (0x0666).to_bytes(4)
        + b"\x77" * 32
        + (0x8888).to_bytes(8)
        + b"master.9".ljust(32, b"\0")
        + b"\xaa" * 24
        + b"\xbb" * 48
    )
    assert HEADER.encode() == body + hashlib.sha256(body).digest()[:8]
    assert len(HEADER.encode()) == HEADER_BYTES
    assert Header.decode(HEADER.encode() + b"what follows", subject="x") == HEADER


@pytest.mark.parametrize(
    "change",
    [
        {"index_bytes": 16},
        {"index_bytes": MAX_INDEX_BYTES + 1},
        {"key_epoch": MAX_EPOCH + 1},
        {"key_id": ""},
        {"key_id": "A"},
        {"key_id": "a\0b"},
        {"key_id": "../x"},
    ],
    ids=str,
)
def test_impossible_values_are_refused(change):
    with pytest.raises(TamperedError, match="impossible"):
        Header.decode(dataclasses.replace(HEADER, **change).encode(), subject="x")


@given(st.binary(max_size=300), st.booleans())
def test_junk_is_refused(data, with_magic):
    with pytest.raises(TamperedError):
        Header.decode(b"DUALMEM\x1a\x01\x01" + data if with_magic else data, subject="x")
