"""Hosts to log in to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.remote.oauth.hosts import Host, host


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Host]:
    """The host of one user."""
    with host(tmp_path) as made:
        yield made
