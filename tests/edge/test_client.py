"""The edge in a process of its own: it answers, dies, hangs, ends, and nothing is lost or left behind."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dualmem_mcp.app import open_app
from dualmem_mcp.edge import client, worker_process
from dualmem_mcp.edge.client import EdgeProcess
from dualmem_mcp.errors import LockedError, StoreUnreachableError, UsageError
from dualmem_mcp.model.graph import Entity
from dualmem_mcp.settings import load_hosted_settings
from dualmem_mcp.stores.keystore import make_sealed
from tests.edge.conftest import StartEdge, children, texts, until


def process_of(edge: EdgeProcess) -> int:
    assert edge._worker is not None
    return edge._worker.process.pid


def module(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> str:
    """A module in the place of the edge process's own."""
    (folder / "other_worker.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return "other_worker"


def halt(process: int) -> None:
    """Stop a process where it is, as if it hung."""
    os.kill(process, signal.SIGSTOP)
    until(lambda: ") T " in Path(f"/proc/{process}/stat").read_text())


QUICKLY = """
from dualmem_mcp.server import edge_worker
edge_worker.UNUSED_SECONDS = edge_worker.USED_SECONDS = 0.1
edge_worker.LOOK_SECONDS = 0.02
edge_worker.main()
"""


def test_one_process_answers_all_questions_and_ends_with_its_client(start_edge: StartEdge) -> None:
    edge = start_edge()
    first = edge.search("who sails the boat to the shipyard?")
    process = process_of(edge)
    assert "shipyard" in texts(first)[0]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(edge.search, ["glaze kiln", "anchor winch", "blue card"] * 8))
    assert [any(word in texts(found)[0] for word in ("glaze", "anchor", "blue")) for found in answers] == [
        True
    ] * 24
    status = edge.status()
    assert status is not None
    assert status["indexed"]["conversation_embeddings"] == 6
    assert process_of(edge) == process
    edge.close()
    assert process not in children()


def test_what_does_not_fit_is_the_same_error_as_in_this_process(start_edge: StartEdge) -> None:
    edge = start_edge()
    with pytest.raises(UsageError, match="since") as raised:
        edge.search("x", since="the other day")
    assert "7d" in raised.value.hint
    with pytest.raises(UsageError, match="since"):
        edge.search("x", since="2026-02-02", until="2026-02-01")


def test_another_process_takes_over_from_one_that_was_killed(start_edge: StartEdge) -> None:
    edge = start_edge()
    before = edge.search("glaze")
    os.kill(process_of(edge), signal.SIGKILL)
    assert texts(edge.search("glaze")) == texts(before)


def test_a_kill_in_the_middle_of_a_search_costs_nothing_but_time(start_edge: StartEdge) -> None:
    edge = start_edge()
    before = edge.search("glaze")
    process = process_of(edge)
    halt(process)  # the question waits in the pipe
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(edge.search, "glaze")
        until(lambda: edge._worker is not None and edge._worker.waiting)
        os.kill(process, signal.SIGKILL)
        assert texts(asked.result(30)) == texts(before)
    assert process not in children()


def test_a_process_that_dies_over_every_question_is_an_error_that_says_so(
    start_edge: StartEdge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge = start_edge(module=module(tmp_path, monkeypatch, "import sys; sys.stdin.readline(); sys.exit(3)"))
    with pytest.raises(StoreUnreachableError, match="ended before it answered"):
        edge.search("glaze")


# More than a pipe holds: whoever asks the second is held up while it writes already.
@pytest.mark.parametrize("query", ["glaze", "glaze " * 50_000], ids=["short", "long"])
def test_one_that_hangs_is_given_up_and_the_next_search_answered(
    start_edge: StartEdge, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    edge = start_edge()
    edge.search("glaze")
    hanging = process_of(edge)
    halt(hanging)
    monkeypatch.setattr(client, "SEARCH_SECONDS", 0.2)
    with pytest.raises(StoreUnreachableError, match="has not answered"):
        edge.search(query)
    monkeypatch.setattr(client, "SEARCH_SECONDS", 60.0)
    assert edge.search("glaze")["results"]
    assert process_of(edge) != hanging


def test_closing_does_not_wait_for_one_that_hangs(start_edge: StartEdge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_process, "CLOSING_SECONDS", 0.2)
    edge = start_edge()
    edge.search("glaze")
    process = process_of(edge)
    halt(process)
    # More than a pipe holds: whoever asks is held up while it writes.
    failed: list[StoreUnreachableError] = []

    def ask() -> None:
        try:
            edge.search("glaze " * 50_000)
        except StoreUnreachableError as error:
            failed.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    until(lambda: edge._worker is not None and edge._worker.lock.locked())
    edge.wake()  # nor does this wait
    edge.close()
    asking.join(20)
    assert len(failed) == 1
    assert process not in children()
    with pytest.raises(StoreUnreachableError, match="stopping"):
        edge.search("glaze")


def test_it_is_woken_once_and_a_moment_later(start_edge: StartEdge) -> None:
    edge = start_edge(wake_seconds=0.05)
    for _ in range(5):
        edge.wake()
    assert edge._worker is None
    until(lambda: edge._worker is not None and edge._worker.ready)
    process = process_of(edge)
    edge.wake()
    edge.search("glaze")
    assert process_of(edge) == process


def test_what_is_closed_before_that_moment_never_starts(start_edge: StartEdge) -> None:
    edge = start_edge(wake_seconds=0.05)
    edge.wake()
    alarm = edge._alarm
    assert alarm is not None
    edge.close()
    edge.wake()
    alarm.join(10)
    assert edge._worker is None


def test_status_and_related_start_nothing_and_wait_for_nothing(
    start_edge: StartEdge, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge = start_edge()
    assert edge.status() is None
    assert edge.related("glaze", conversation_id="x", cwd="/x") == []
    assert edge._worker is None
    edge.search("glaze")
    monkeypatch.setattr(client, "STATUS_SECONDS", 0.1)
    monkeypatch.setattr(client, "RELATED_SECONDS", 0.1)
    halt(process_of(edge))
    assert edge.status() is None
    assert edge.related("glaze", conversation_id="x", cwd="/x") == []
    os.kill(process_of(edge), signal.SIGCONT)


def test_modules_of_the_folder_it_is_started_in_are_not_run(
    start_edge: StartEdge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    for name in ("json", "numpy", "dualmem_mcp"):
        (project / f"{name}.py").write_text("raise SystemExit('a module of the project was run')")
    monkeypatch.chdir(project)
    assert start_edge().search("glaze")["results"]


def test_with_nothing_to_do_it_ends_by_itself_and_nothing_stays_behind(
    start_edge: StartEdge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(children())
    edge = start_edge(module=module(tmp_path, monkeypatch, QUICKLY))
    first = edge.search("glaze")
    until(lambda: set(children()) <= before)
    assert edge.status() is None
    assert texts(edge.search("glaze")) == texts(first)


def test_what_a_library_prints_is_no_answer(
    start_edge: StartEdge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = "import sys; print('hello'); print('[1]'); print('{}', flush=True)\n"
    edge = start_edge(module=module(tmp_path, monkeypatch, noise + QUICKLY))
    assert edge.search("glaze")["results"]


def test_a_home_that_it_cannot_open_is_told_as_such(start_edge: StartEdge, home: Path) -> None:
    (home / "device.key").write_bytes(b"another key, of no use here......")
    edge = start_edge()
    with pytest.raises(LockedError):
        edge.search("glaze")
    with pytest.raises(LockedError):
        edge.search("glaze")


def test_the_secret_of_a_sealed_home_goes_through_the_pipe_alone(tmp_path: Path) -> None:
    home = tmp_path / "ana"
    secret = make_sealed(home)
    with open_app(load_hosted_settings(home), secret=secret, edge_process=True) as app:
        app.graph.create_entities([Entity("kiln", "oven", ("blistered glaze",))])
        assert app.edge.search("glaze")["results"]
        assert isinstance(app.edge, EdgeProcess)
        process = Path(f"/proc/{process_of(app.edge)}")
        for told in ("cmdline", "environ"):
            data = (process / told).read_bytes()
            assert secret not in data
            assert secret.hex().encode() not in data
        os.kill(process_of(app.edge), signal.SIGKILL)
        assert app.edge.search("glaze")["results"]  # handed on again to the next one


@pytest.mark.parametrize("secret", [b"\1" * 32, b"short"])
def test_a_process_with_another_secret_opens_nothing(tmp_path: Path, secret: bytes) -> None:
    home = tmp_path / "ana"
    make_sealed(home)
    edge = EdgeProcess(home, secret=secret)
    try:
        with pytest.raises(LockedError):
            edge.search("glaze")
    finally:
        edge.close()
    assert [path.name for path in home.iterdir()] == ["device.key"]


# Vectors in a search service


def test_without_a_service_nothing_is_placed_moved_or_forgotten(start_edge: StartEdge) -> None:
    edge = start_edge()
    placed = edge.place("boat", max_seconds=5)
    assert (placed["ok"], placed["points"], placed["warnings"]) == (True, 0, [])
    moved = edge.move_vectors(max_seconds=5)
    assert (moved["done"], moved["problem"], moved["warnings"]) == ({}, "", [])
    assert edge.forget_vectors("boat") == {"removed": 0, "warnings": []}


def test_a_process_that_dies_over_a_placement_is_a_warning(
    start_edge: StartEdge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge = start_edge(module=module(tmp_path, monkeypatch, "import sys; sys.stdin.readline(); sys.exit(3)"))
    placed = edge.place("boat", max_seconds=5)
    assert (placed["ok"], placed["points"]) == (False, 0)
    assert "ended before it answered" in placed["warnings"][0]
    moved = edge.move_vectors(max_seconds=5)
    assert "ended before it answered" in moved["problem"]
    assert not moved["away"]  # of the service nothing is known
    assert "ended before it answered" in edge.forget_vectors("boat")["warnings"][0]


def test_a_process_that_is_busy_is_left_to_it(start_edge: StartEdge, monkeypatch: pytest.MonkeyPatch) -> None:
    edge = start_edge()
    edge.search("glaze")
    busy = process_of(edge)
    halt(busy)
    monkeypatch.setattr(client, "PLACING_SECONDS", 0.1)
    monkeypatch.setattr(client, "FORGETTING_SECONDS", 0.1)
    placed = edge.place("boat", max_seconds=0.1)
    assert "busy" in placed["warnings"][0]
    assert placed["duration_ms"] >= 200
    assert "busy" in edge.move_vectors(max_seconds=0.1)["problem"]
    assert "busy" in edge.forget_vectors("boat")["warnings"][0]
    os.kill(busy, signal.SIGCONT)
    assert edge.search("glaze")["results"]
    assert process_of(edge) == busy
