"""The safetensors format: a length, a JSON header, and the tensors' bytes.

Source: https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dualmem_mcp.errors import MalformedError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MAX_HEADER_BYTES: Final = 100_000_000  # the format's own limit


def read_float32_tensors(path: Path) -> dict[str, NDArray[np.float32]]:
    """The tensors of type F32 by name, in their shapes, mapped from the file and read-only.

    Tensors of other types are left out. Raises MalformedError for what is no safetensors file, OSError.
    """
    import numpy as np  # noqa: PLC0415

    data = np.memmap(path, dtype=np.uint8, mode="r") if path.stat().st_size else np.empty(0, np.uint8)
    try:
        (header_bytes,) = struct.unpack("<Q", data[:8].tobytes())
        if header_bytes > min(_MAX_HEADER_BYTES, data.size - 8):
            raise ValueError("the header is longer than the file")
        header = json.loads(data[8 : 8 + header_bytes].tobytes())
        body = data[8 + header_bytes :]
        return {
            name: _tensor(body, entry)
            for name, entry in header.items()
            if name != "__metadata__" and entry["dtype"] == "F32"
        }
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise MalformedError(
            f"{path.name} is not a safetensors file",
            operation="read weights",
            subject=str(path),
            hint="Give the file as it was published.",
        ) from error


def _tensor(body: NDArray[np.uint8], entry: dict[str, Any]) -> NDArray[np.float32]:
    import numpy as np  # noqa: PLC0415

    shape = [int(size) for size in entry["shape"]]
    start, end = (int(offset) for offset in entry["data_offsets"])
    if min(shape, default=0) < 0 or not 0 <= start <= end <= body.size or end - start != 4 * math.prod(shape):
        raise ValueError("a tensor lies outside the file, or has not the size of its shape")
    # "<f4": the format is little-endian on every machine.
    return np.frombuffer(body[start:end], dtype="<f4").reshape(shape)
