"""Fixtures that every suite shares."""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from dualmem_mcp.embedding.factory import open_embedder
from dualmem_mcp.embedding.onnx_embedder import OnnxEmbedder

# Derandomized: a red run is red again on the next machine.
settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ci")

# A shell without job control starts what runs in the background deaf to SIGINT, and every program started by the
# tests would be so, too: those that are told to end by it would not.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_transcripts() -> Path:
    """Real sessions laid beside the checkout where the project is developed; absent elsewhere."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "transcripts"
    if not folder.is_dir():
        pytest.skip("needs the real transcripts that lie beside a developer's checkout")
    return folder


# Read here, once: tests change the environment.
_MODEL_DIR = os.environ.get("DUALMEM_MODEL_DIR")


@pytest.fixture(scope="session")
def model_dir() -> Path:
    """The folder of models in which the embedding model lies; `scripts/test` fetches it."""
    folder = Path(_MODEL_DIR) if _MODEL_DIR else Path(__file__).resolve().parents[1] / ".cache" / "model"
    _, missing = open_embedder(folder)
    if missing:
        pytest.skip(f"needs the embedding model: {missing}")
    return folder


@pytest.fixture(scope="session")
def embedder(model_dir: Path) -> OnnxEmbedder:
    """The embedder of the base install, shared by all tests of a process: leave it loaded."""
    return OnnxEmbedder(model_dir)


class SteppingClock:
    """A clock that tests set: starts at a fixed instant and moves only when told, or by `step` per reading."""

    def __init__(self, start: datetime = datetime(2026, 3, 1, 12, tzinfo=UTC), step_seconds: float = 0.0) -> None:
        self.time = start
        self.step = timedelta(seconds=step_seconds)

    def now(self) -> datetime:
        reading = self.time
        self.time += self.step
        return reading

    def advance(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> SteppingClock:
    """A clock that stands still until a test moves it."""
    return SteppingClock()
