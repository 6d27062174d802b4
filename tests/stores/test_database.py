"""The encrypted database: keys, damage, full disks, several processes, newer versions."""

import contextlib
import os
import resource
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlcipher3 import dbapi2

from dualmem_mcp.errors import (
    DiskFullError,
    LockedError,
    StoreRefusedError,
    StoreUnreachableError,
    TamperedError,
    UsageError,
)
from dualmem_mcp.stores import migrations
from dualmem_mcp.stores.database import OLDEST_SQLITE, Database

KEY = bytes(range(32))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    with Database.open(path, KEY) as opened:
        yield opened


def put(database: Database, key: str, data: bytes) -> None:
    with database.write() as connection:
        connection.execute("INSERT INTO blobs VALUES (?, ?)", (key, data))


def keys(database: Database) -> list[str]:
    with database.read() as connection:
        return [row[0] for row in connection.execute("SELECT key FROM blobs ORDER BY key")]


def read_all(database: Database) -> None:
    with database.read() as connection:
        for _ in connection.execute("SELECT data FROM blobs"):
            pass


def fill(database: Database) -> None:
    for number in range(100):
        put(database, f"large {number}", os.urandom(40_000))


def filled(path: Path, pages: int = 200) -> bytes:
    """A closed database of that many pages; returns the file's bytes."""
    with Database.open(path, KEY) as database:
        for number in range(pages // 20):
            put(database, f"key {number}", os.urandom(20 * 4096))
    return path.read_bytes()


def test_keeps_what_was_written(path: Path) -> None:
    with Database.open(path, KEY) as database:
        put(database, "a", b"1")
    with Database.open(path, KEY) as database:
        assert keys(database) == ["a"]


def test_the_driver_has_no_reset_bug_of_the_write_ahead_log() -> None:
    assert dbapi2.sqlite_version_info >= OLDEST_SQLITE


def test_an_older_sqlite_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dbapi2, "sqlite_version_info", (3, 51, 2))
    with pytest.raises(StoreRefusedError, match="SQLite"):
        Database.open(path, KEY)
    assert not path.exists()


def test_a_driver_that_cannot_encrypt_is_refused_before_anything_is_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dbapi2, "connect", sqlite3.connect)
    with pytest.raises(StoreRefusedError, match="cannot encrypt"):
        Database.open(path, KEY)
    assert path.stat().st_size == 0


def test_a_write_inside_a_write_is_a_fault_of_the_program(database: Database) -> None:
    with database.write(), pytest.raises(RuntimeError, match="wait for itself"):
        put(database, "a", b"1")
    put(database, "b", b"1")
    assert keys(database) == ["b"]


def test_policy(database: Database) -> None:
    with database.read() as connection:
        pragmas = {
            name: connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "foreign_keys", "temp_store", "busy_timeout")
        }
    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "temp_store": 2,
        "busy_timeout": 30_000,
    }


def test_only_the_owner_can_read_it(database: Database, path: Path) -> None:
    put(database, "a", b"1")
    for file in path.parent.iterdir():
        assert file.stat().st_mode & 0o777 == 0o600, file.name


def test_nothing_is_in_clear(database: Database, path: Path) -> None:
    put(database, "the-key-in-clear", b"the-data-in-clear")
    files = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    assert len(files["memory.db-wal"]) > 0
    for name, data in files.items():
        for word in (b"in-clear", b"SQLite format", b"CREATE TABLE", b"observations"):
            assert word not in data, name


def test_a_wrong_key_is_locked_and_changes_nothing(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = filled(path)
    with pytest.raises(LockedError, match="does not open with this device's key") as caught:
        Database.open(path, bytes(32))
    assert caught.value.hint
    assert path.read_bytes() == before
    assert capfd.readouterr() == ("", "")


def test_a_key_of_another_length_is_a_fault_of_the_program(path: Path) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        Database.open(path, bytes(16))


def test_another_file_is_locked_and_left_alone(path: Path) -> None:
    path.write_bytes(b"some other program's file" * 1000)
    with pytest.raises(LockedError):
        Database.open(path, KEY)
    assert path.read_bytes() == b"some other program's file" * 1000


def test_a_short_file_is_locked_and_left_alone(path: Path) -> None:
    path.write_bytes(filled(path)[:1000])
    with pytest.raises((LockedError, TamperedError)):
        Database.open(path, KEY)
    assert path.stat().st_size == 1000


def test_a_database_without_encryption_is_named_so(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as plain:
        plain.execute("CREATE TABLE t (x)")
    with pytest.raises(LockedError, match="without encryption"):
        Database.open(path, KEY)


def test_an_emptied_file_beside_its_log_is_not_taken_for_a_new_one(path: Path) -> None:
    log = path.with_name("memory.db-wal")
    log.write_bytes(b"x" * 5000)
    path.touch()
    with pytest.raises(TamperedError, match="has been cut"):
        Database.open(path, KEY)
    assert log.stat().st_size == 5000


@pytest.mark.parametrize("where", [0.4, 0.6, 0.9])
def test_a_changed_byte_is_found(path: Path, where: float) -> None:
    data = bytearray(filled(path))
    data[int(len(data) * where)] ^= 1
    path.write_bytes(data)
    with Database.open(path, KEY) as database:
        assert len(database.damaged_pages()) == 1
        with pytest.raises(TamperedError) as caught:
            read_all(database)
    assert "doctor" in caught.value.hint
    assert path.read_bytes() == data


def test_a_sound_database_has_no_damaged_pages(path: Path) -> None:
    filled(path)
    with Database.open(path, KEY) as database:
        assert database.damaged_pages() == []


def test_a_file_cut_short_is_damaged(path: Path) -> None:
    data = filled(path)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(TamperedError), Database.open(path, KEY) as database:
        read_all(database)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreUnreachableError, match="cannot be opened"):
        Database.open(tmp_path / "missing" / "memory.db", KEY)


def test_what_is_no_file_is_refused(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(StoreUnreachableError, match="cannot be opened: it is not a file"):
        Database.open(path, KEY)


def test_a_file_that_vanishes_is_not_made_anew(database: Database, path: Path) -> None:
    database.close()
    with contextlib.closing(Database(path, KEY)) as other:
        path.unlink()
        with pytest.raises(StoreUnreachableError), other.read():
            pass
    assert not path.exists()


def test_after_closing_it_cannot_be_used(database: Database) -> None:
    database.close()
    with pytest.raises(StoreUnreachableError, match="closed"), database.read():
        pass


def test_an_exception_rolls_back(database: Database) -> None:
    def fail() -> None:
        with database.write() as connection:
            connection.execute("INSERT INTO blobs VALUES ('a', x'00')")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert keys(database) == []


def test_a_reader_sees_one_state_and_blocks_no_writer(database: Database) -> None:
    with database.read() as connection:
        assert connection.execute("SELECT count(*) FROM blobs").fetchone() == (0,)
        put(database, "a", b"1")
        assert connection.execute("SELECT count(*) FROM blobs").fetchone() == (0,)
    assert keys(database) == ["a"]


def test_threads_lose_no_write(database: Database) -> None:
    def write(thread: int) -> None:
        for number in range(20):
            put(database, f"{thread}/{number}", b"")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys(database)) == 160


def test_a_full_database_changes_nothing(database: Database) -> None:
    put(database, "a", b"1")
    with database.read() as connection:  # the only connection so far, so the next write has it too
        connection.execute("PRAGMA max_page_count = 50")
    with pytest.raises(DiskFullError, match="no space") as caught:
        put(database, "b", bytes(1_000_000))
    assert "Free some space" in caught.value.hint
    assert keys(database) == ["a"]


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounts a small file system")
def test_a_full_disk_changes_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=False)
    if mounted.returncode:
        pytest.skip("may not mount a small file system here")
    try:
        with Database.open(disk / "memory.db", KEY) as database:
            put(database, "first", b"1")
            with pytest.raises(DiskFullError):
                fill(database)
            kept = keys(database)
            assert "first" in kept
        with Database.open(disk / "memory.db", KEY) as database:
            assert keys(database) == kept
            assert database.damaged_pages() == []
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounts a small file system")
def test_a_disk_without_room_for_another_file_is_full(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "nr_inodes=3", "tmpfs", disk], check=False)
    if mounted.returncode:
        pytest.skip("may not mount a small file system here")
    try:
        with pytest.raises(DiskFullError):
            Database.open(disk / "memory.db", KEY)
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_disk_that_refuses_to_write_changes_nothing(database: Database, path: Path) -> None:
    put(database, "a", b"1")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.with_name("memory.db-wal").stat().st_size + 50_000, hard))
    try:
        with pytest.raises(StoreUnreachableError):
            put(database, "b", bytes(1_000_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert keys(database) == ["a"]
    put(database, "c", b"")
    assert keys(database) == ["a", "c"]


def test_a_value_over_the_limit_is_refused(database: Database) -> None:
    with pytest.raises(UsageError, match="too large"):
        put(database, "a", bytes(1_000_000_001))


def test_a_newer_schema_is_refused_and_left_alone(path: Path) -> None:
    with Database.open(path, KEY) as database, database.write() as connection:
        connection.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('dualmem', '9999_later', '')"
        )
    before = path.read_bytes()
    with pytest.raises(StoreRefusedError, match="newer version") as caught:
        Database.open(path, KEY)
    assert "Update" in caught.value.hint
    assert path.read_bytes() == before


def test_an_older_schema_is_brought_up_to_date(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = migrations.SCRIPTS[:1]
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "SCRIPTS", first)
        with Database.open(path, KEY) as database, database.write() as connection:
            connection.execute("INSERT INTO tombstones VALUES (x'00', x'00')")
    with Database.open(path, KEY) as database:
        put(database, "a", b"1")
        with database.read() as connection:
            assert connection.execute("SELECT count(*) FROM tombstones").fetchone() == (1,)


def test_a_migration_that_fails_leaves_no_trace(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = (*migrations.SCRIPTS, ("9998_broken", "CREATE TABLE half (x);\nCREATE TABLE blobs (x);\n"))
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "SCRIPTS", broken)
        with pytest.raises(Exception, match="blobs"):
            Database.open(path, KEY)
    with Database.open(path, KEY) as database, database.read() as connection:
        names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
        assert "half" not in names
        assert "blobs" in names


OPEN_AND_WRITE = """
import sys
from pathlib import Path
from dualmem_mcp.stores.database import Database
with Database.open(Path(sys.argv[1]), bytes(range(32))) as database:
    with database.write() as connection:
        connection.execute("INSERT INTO blobs VALUES (?, x'00')", (sys.argv[2],))
"""


def test_processes_that_make_one_database_at_once_all_succeed(path: Path) -> None:
    for round_number in range(3):
        file = path.with_name(f"{round_number}.db")
        started = [
            subprocess.Popen([sys.executable, "-c", OPEN_AND_WRITE, str(file), str(number)], stderr=subprocess.PIPE)
            for number in range(4)
        ]
        for process in started:
            assert process.communicate()[1] == b""
            assert process.returncode == 0
        with Database.open(file, KEY) as database:
            assert keys(database) == ["0", "1", "2", "3"]


LOCK = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 510, 0x40000002)  # SQLite's shared lock range
    except OSError:
        print("in use")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX locks")
def test_a_database_opened_twice_in_one_process_stays_locked_for_others(database: Database, path: Path) -> None:
    put(database, "a", b"1")
    Database.open(path, KEY).close()
    tried = subprocess.run([sys.executable, "-c", LOCK, str(path)], check=True, capture_output=True, text=True)
    assert tried.stdout == "in use\n"


def test_the_write_ahead_log_is_emptied_where_nobody_reads(database: Database, path: Path) -> None:
    log = path.with_name(path.name + "-wal")
    with database.write() as connection:
        connection.execute("INSERT INTO blobs VALUES ('a', zeroblob(100000))")
    assert log.stat().st_size > 100_000
    with database.read() as reader:
        reader.execute("SELECT count(*) FROM blobs").fetchone()
        with database.write() as connection:
            connection.execute("DELETE FROM blobs")
        assert not database.empty_log()
    assert database.empty_log()
    assert log.stat().st_size == 0
    with database.write() as connection:
        connection.execute("INSERT INTO blobs VALUES ('b', X'00')")
