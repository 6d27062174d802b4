from __future__ import annotations

import subprocess
import sys
import weakref
from pathlib import Path

import pytest

from dualmem_mcp.embedding.native_memory import give_back_memory


class _Cycle:
    """Holds itself, so that only a collection lets it go."""

    def __init__(self) -> None:
        self.itself = self


def test_may_be_called_at_any_time_and_takes_nothing_that_is_in_use() -> None:
    kept = [bytes([number % 256]) * 4_096 for number in range(2_000)]
    weak = weakref.ref(cycle := _Cycle())
    del cycle
    give_back_memory()
    assert weak() is None  # garbage goes first: what it holds cannot be given back
    give_back_memory()
    assert all(set(data) == {number % 256} for number, data in enumerate(kept))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_model_that_is_let_go_gives_its_memory_back(model_dir: Path) -> None:
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from dualmem_mcp.embedding.onnx_embedder import OnnxEmbedder\n"
        "resident = lambda: int(Path('/proc/self/statm').read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE')\n"
        "embedder = OnnxEmbedder(Path(sys.argv[1]))\n"
        "embedder.embed(['a'])\n"
        "embedder.unload()\n"
        "libraries = resident()\n"
        "embedder.embed(['some words ' * 60] * 64)\n"
        "loaded = resident()\n"
        "embedder.unload()\n"
        "print(libraries, loaded, resident())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(model_dir)], check=True, capture_output=True, text=True
    )
    libraries, loaded, unloaded = map(int, done.stdout.split())
    assert loaded - libraries > 23_000_000  # the weights at least
    assert unloaded - libraries < (loaded - libraries) / 3
