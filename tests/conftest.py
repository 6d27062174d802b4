"""Fixtures that every suite shares."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Derandomized: a red run is red again on the next machine.
settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ci")


@pytest.fixture(scope="session")
def shared_transcripts() -> Path:
    """Real sessions laid beside the checkout where the project is developed; absent elsewhere."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "transcripts"
    if not folder.is_dir():
        pytest.skip("needs the real transcripts that lie beside a developer's checkout")
    return folder


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
