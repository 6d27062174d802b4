"""Objects waiting to be uploaded survive crashes, in order."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dualmem_mcp.errors import ConflictError, DualmemError, NotFoundError, TamperedError
from dualmem_mcp.stores.database import Database
from dualmem_mcp.stores.outbox import FileOutbox


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database.open(tmp_path / "memory.db", bytes(32)) as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "sync_queue"
    folder.mkdir()
    return folder


@pytest.fixture
def outbox(database: Database, folder: Path) -> FileOutbox:
    return FileOutbox(database, folder)


def test_objects_wait_in_the_order_they_were_added(outbox: FileOutbox, database: Database, folder: Path) -> None:
    for key in ("packages/b", "keys/c/a", "manifests/z"):
        outbox.add(key, key.encode())
    again = FileOutbox(database, folder)
    assert again.pending() == ["packages/b", "keys/c/a", "manifests/z"]
    assert [again.read(key) for key in again.pending()] == [b"packages/b", b"keys/c/a", b"manifests/z"]
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}


def test_names_of_files_say_nothing(outbox: FileOutbox, folder: Path) -> None:
    outbox.add("packages/secret-name", b"x")
    assert "secret" not in "".join(file.name for file in folder.iterdir())


def test_adding_the_same_again_changes_nothing(outbox: FileOutbox, folder: Path) -> None:
    outbox.add("a", b"1")
    outbox.add("b", b"2")
    outbox.add("a", b"1")
    assert outbox.pending() == ["a", "b"]
    assert len(list(folder.iterdir())) == 2


def test_what_cannot_be_queued_leaves_nothing(outbox: FileOutbox, database: Database, folder: Path) -> None:
    outbox.add("a", b"1")
    with database.write() as connection:
        connection.execute("CREATE TEMP TRIGGER full BEFORE INSERT ON outbox BEGIN SELECT RAISE(ABORT, 'x'); END")
    with pytest.raises(DualmemError):
        outbox.add("b", b"2")
    assert outbox.pending() == ["a"]
    assert len(list(folder.iterdir())) == 1


def test_other_bytes_under_a_waiting_key_are_refused(outbox: FileOutbox) -> None:
    outbox.add("a", b"1")
    with pytest.raises(ConflictError):
        outbox.add("a", b"2")
    assert outbox.read("a") == b"1"


def test_removing_forgets_key_and_file(outbox: FileOutbox, folder: Path) -> None:
    outbox.add("a", b"1")
    outbox.remove("a")
    outbox.remove("a")
    assert outbox.pending() == []
    assert list(folder.iterdir()) == []
    with pytest.raises(NotFoundError):
        outbox.read("a")


@pytest.mark.parametrize("damage", ["change", "delete"])
def test_a_file_that_was_changed_is_not_uploaded(outbox: FileOutbox, folder: Path, damage: str) -> None:
    outbox.add("a", b"12345")
    (file,) = folder.iterdir()
    if damage == "change":
        file.write_bytes(b"12346")
    else:
        file.unlink()
    with pytest.raises(TamperedError):
        outbox.read("a")
    assert outbox.pending() == ["a"]


@pytest.mark.parametrize("damage", ["change", "delete"])
def test_adding_again_makes_a_damaged_object_whole(outbox: FileOutbox, folder: Path, damage: str) -> None:
    outbox.add("a", b"12345")
    (file,) = folder.iterdir()
    if damage == "change":
        file.write_bytes(b"12346")
    else:
        file.unlink()
    outbox.add("a", b"12345")
    assert outbox.read("a") == b"12345"
    assert list(folder.iterdir()) == [file]


def test_what_a_crash_left_is_removed_after_a_day(outbox: FileOutbox, folder: Path) -> None:
    outbox.add("a", b"1")
    for name in ("left.sealed", ".left.tmp", "fresh.sealed", "somebody's file"):
        (folder / name).write_bytes(b"x")
    old = time.time() - 2 * 86_400
    for file in folder.iterdir():
        if not file.name.startswith("fresh"):
            os.utime(file, (old, old))
    assert outbox.remove_abandoned() == 2
    assert {"fresh.sealed", "somebody's file"} < {file.name for file in folder.iterdir()}
    assert outbox.read("a") == b"1"


def test_threads_that_add_the_same_keep_it_once(outbox: FileOutbox, folder: Path) -> None:
    threads = [threading.Thread(target=outbox.add, args=("a", b"1")) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outbox.pending() == ["a"]
    assert len(list(folder.iterdir())) == 1
