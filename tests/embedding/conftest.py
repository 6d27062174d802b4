"""Models to embed with: the small one, built where a test can break it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dualmem_mcp.embedding import minilm
from dualmem_mcp.embedding.pull import pull_model
from tests.embedding import small_model as small


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the published files of the small model, which the package expects during the test."""
    for name in small.expectations():
        monkeypatch.setattr(minilm, name, getattr(minilm, name))  # so that it is put back
    return small.publish(tmp_path / "published")


@pytest.fixture
def models(published: Path, tmp_path: Path) -> Path:
    """A folder of models in which the small model is built."""
    pull_model(tmp_path / "models", source=published)
    return tmp_path / "models"
