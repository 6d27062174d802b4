"""What whoever watches over the server is told, and strangers with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dualmem_mcp.remote.health import Readiness
from tests.remote.http_host import listening


class Seconds:
    """A clock that counts only when it is told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_ready_while_the_folder_can_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "home"
    folder.mkdir()
    seconds = Seconds()
    readiness = Readiness(folder, clock=seconds)
    assert await readiness.is_ready()
    assert list(folder.iterdir()) == []  # what was written to see whether it can be is gone
    folder.rmdir()
    assert await readiness.is_ready()  # strangers may ask as often as they like: the disk is not asked each time
    seconds.now += 5
    assert not await readiness.is_ready()
    folder.mkdir()
    seconds.now += 5
    assert await readiness.is_ready()


async def test_not_ready_while_stopping(tmp_path: Path) -> None:
    readiness = Readiness(tmp_path)
    readiness.stopping = True
    assert not await readiness.is_ready()


async def test_why_it_is_not_ready_is_in_the_log_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with listening(tmp_path / "missing") as host, host.client() as client:
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()) == (503, {"status": "unavailable"})
        assert (await client.get("/healthz")).json() == {"status": "ok"}
    assert "cannot be written" in caplog.text


async def test_they_answer_to_any_name_and_say_nothing_else(tmp_path: Path) -> None:
    async with listening(tmp_path) as host, host.client() as client:
        for path in ("/healthz", "/readyz"):
            for headers in (
                {"Host": "10.0.0.7:8787"},
                {"Origin": "https://evil.example"},
                {"Host": "evil.example"},
            ):
                answer = await client.get(path, headers=headers)
                assert (answer.status_code, answer.text) == (200, '{"status":"ok"}')
                assert "access-control-allow-origin" not in answer.headers
            head = await client.head(path)
            assert (head.status_code, head.text) == (200, "")
            posted = await client.post(path, content=b"{}")
            assert (posted.status_code, posted.headers["allow"]) == (405, "GET, HEAD")
