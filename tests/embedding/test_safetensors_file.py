from __future__ import annotations

import contextlib
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp.embedding.safetensors_file import read_float32_tensors
from dualmem_mcp.errors import MalformedError
from tests.embedding.small_model import safetensors_bytes


def test_reads_what_was_written(tmp_path: Path) -> None:
    tensors = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.float32([[[7]]]), "none": np.float32([])}
    (tmp_path / "x").write_bytes(safetensors_bytes(tensors))
    read = read_float32_tensors(tmp_path / "x")
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(read[name], tensor)
        assert read[name].shape == tensor.shape


def test_leaves_other_types_out(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(safetensors_bytes({"positions": np.arange(3)}, kind="I64"))
    assert read_float32_tensors(tmp_path / "x") == {}


def document(header: object, body: bytes = b"") -> bytes:
    head = json.dumps(header).encode()
    return struct.pack("<Q", len(head)) + head + body


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"short",
        struct.pack("<Q", 1 << 60) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 3) + b"{{{",
        document({"a": 1}),
        document({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"1234"),
        document({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"12345678"),
        document({"a": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}}, b"12345678"),
        document({"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}, b"12345678"),
        document({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}, b"12345678"),
        document({"a": {"dtype": "F32", "shape": None, "data_offsets": [0, 4]}}, b"12345678"),
    ],
)
def test_anything_else_is_malformed(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(MalformedError, match="x is not a safetensors file"):
        read_float32_tensors(tmp_path / "x")


@given(cut=st.integers(0, 400), flip=st.integers(0, 399), bit=st.integers(0, 7))
def test_damage_is_read_or_malformed_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, cut: int, flip: int, bit: int
) -> None:
    path = tmp_path_factory.mktemp("weights") / "x"
    data = bytearray(safetensors_bytes({"a": np.zeros((4, 4), np.float32), "b": np.ones(9, np.float32)}))
    if flip < len(data):
        data[flip] ^= 1 << bit
    path.write_bytes(bytes(data[:cut] if cut < len(data) else data))
    with contextlib.suppress(MalformedError):
        assert {tensor.dtype for tensor in read_float32_tensors(path).values()} <= {np.dtype(np.float32)}
