"""Files that are replaced whole or not at all, and locks between processes."""

import errno
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dualmem_mcp.durable_files import file_lock, file_lock_if_free, remove_abandoned, write_durably
from dualmem_mcp.errors import DiskFullError, StoreUnreachableError


def test_replaces_the_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o644)
    write_durably(path, [b"new ", b"bytes"])
    assert path.read_bytes() == b"new bytes"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def parts() -> object:
        yield b"new"
        raise OSError(28, "No space left on device")

    with pytest.raises(DiskFullError, match="No space left"):
        write_durably(path, parts())  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(StoreUnreachableError, match="could not write"):
        write_durably(tmp_path / "missing" / "file", [b""])


def test_threads_take_turns(tmp_path: Path) -> None:
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        for _ in range(20):
            with file_lock(tmp_path / "lock"):
                inside.append(number)
                most.append(len(inside))
                inside.remove(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(most) == 80


def test_a_file_system_without_locks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(StoreUnreachableError, match="could not lock"), file_lock(tmp_path / "lock"):
        pass


HOLD = """
import sys
from pathlib import Path
from dualmem_mcp.durable_files import file_lock
with file_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_process_holds_it_until_it_dies(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(StoreUnreachableError, match="has held"), file_lock(path, timeout_seconds=0.05):
            pass
        holder.kill()
        holder.wait()
    with file_lock(path, timeout_seconds=5):
        pass


def test_a_lock_that_is_held_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with file_lock_if_free(path) as first, file_lock_if_free(path) as second:
        assert (first, second) == (True, False)
    with file_lock(path), file_lock_if_free(path) as held:
        assert not held
    with file_lock_if_free(path) as held:
        assert held


def test_a_lock_where_nothing_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(StoreUnreachableError, match="could not lock"), file_lock_if_free(tmp_path / "no" / "lock"):
        pass


def test_what_vanishes_while_the_abandoned_are_looked_for_is_no_fault(tmp_path: Path) -> None:
    for name in ("a.tmp", "b.tmp"):
        (tmp_path / name).write_bytes(b"")

    def vanishing(name: str) -> bool:
        (tmp_path / name).unlink()  # as another process puts it in its place
        return True

    assert remove_abandoned(tmp_path, vanishing) == 0
