"""The folder store beyond the common contract: rights, links, vanished folders, full disks, crashes."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dualmem_mcp.durable_files import file_lock
from dualmem_mcp.errors import ConflictError, DiskFullError, StoreRefusedError, StoreUnreachableError
from dualmem_mcp.stores.directory import DirectoryObjectStore
from dualmem_mcp.stores.objects import open_object_store


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cloud" / "bucket"


@pytest.fixture
def store(root: Path) -> DirectoryObjectStore:
    return DirectoryObjectStore.create(root)


def temporary_files(root: Path) -> list[Path]:
    return list((root / ".dualmem" / "tmp").iterdir())


# What lies in the folder


def test_objects_lie_under_their_keys(store: DirectoryObjectStore, root: Path) -> None:
    store.put("packages/3f", b"x")
    assert (root / "packages" / "3f").read_bytes() == b"x"
    assert temporary_files(root) == []


def test_only_the_owner_may_read(store: DirectoryObjectStore, root: Path) -> None:
    store.put("a/b/c", b"x")
    modes = {path.relative_to(root): stat.S_IMODE(path.stat().st_mode) for path in [root, *root.rglob("*")]}
    for path, mode in modes.items():
        assert mode == (0o600 if (root / path).is_file() else 0o700), path


def test_the_rights_of_a_folder_of_the_users_are_left(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    DirectoryObjectStore.create(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_creating_again_keeps_what_is_there(store: DirectoryObjectStore, root: Path) -> None:
    store.put("a", b"x")
    assert DirectoryObjectStore.create(root).get("a") == b"x"


def test_path_with_home_and_relative_path(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    open_object_store("~/one", create=True).put("k", b"1")
    assert open_object_store("one").get("k") == b"1"
    assert open_object_store("one").location == str(tmp_path / "one")


def test_listing_skips_what_others_put_there(store: DirectoryObjectStore, root: Path) -> None:
    store.put("a/one", b"x")
    (root / ".DS_Store").write_bytes(b"x")
    (root / "a" / "two (conflicted copy)").write_bytes(b"x")
    (root / "a" / "ümlaut").write_bytes(b"x")
    (root / "a" / "link").symlink_to(root / "a" / "one")
    (root / "a" / "folder").symlink_to(root / "a")
    (root / "a" / "empty").mkdir()
    os.mkfifo(root / "a" / "pipe")
    deep = root
    for _ in range(300):
        deep = deep / "d"
        deep.mkdir()
    (deep / "x").write_bytes(b"x")
    assert [info.key for info in store.list()] == ["a/one"]


def test_folders_made_by_others_may_vanish_while_listing(store: DirectoryObjectStore, root: Path) -> None:
    for key in ("a/1", "b/1", "c/1"):
        store.put(key, b"x")
    listing = store.list()
    assert next(listing).key == "a/1"
    (root / "b" / "1").unlink()
    (root / "b").rmdir()
    assert [info.key for info in listing] == ["c/1"]


# Links and special files


def test_links_do_not_lead_out(store: DirectoryObjectStore, root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (root / "a").symlink_to(outside)
    (root / "b").symlink_to(outside / "secret")
    for key in ("a/secret", "b"):
        for operation in (store.get, store.stat, store.delete, lambda key: store.put(key, b"x")):
            with pytest.raises(StoreRefusedError, match="symbolic link"):
                operation(key)
    with pytest.raises(StoreRefusedError, match="symbolic link"):
        store.put("a/new", b"x", if_absent=True)
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert (outside / "secret").read_bytes() == b"secret"


def test_its_own_folder_may_not_lead_out(store: DirectoryObjectStore, root: Path, tmp_path: Path) -> None:
    for path in (root / ".dualmem" / "tmp", root / ".dualmem"):
        outside = tmp_path / f"outside{path.name}"
        path.rename(outside)
        path.symlink_to(outside)
        with pytest.raises(StoreRefusedError, match="symbolic link"):
            store.put("k", b"x")
        with pytest.raises(StoreRefusedError, match="symbolic link"):
            DirectoryObjectStore.create(root)
        path.unlink()
        outside.rename(path)
    store.put("k", b"x")


def test_the_root_itself_may_be_a_link(store: DirectoryObjectStore, root: Path, tmp_path: Path) -> None:
    store.put("a", b"x")
    (tmp_path / "link").symlink_to(root)
    assert DirectoryObjectStore(tmp_path / "link").get("a") == b"x"


def test_a_pipe_is_not_waited_on(store: DirectoryObjectStore, root: Path) -> None:
    os.mkfifo(root / "pipe")
    with pytest.raises(StoreRefusedError, match="not a regular file"):
        store.get("pipe")


def test_a_name_is_an_object_or_a_folder(store: DirectoryObjectStore, root: Path) -> None:
    store.put("a", b"x")
    with pytest.raises(StoreRefusedError, match="in the way"):
        store.put("a/b", b"y")
    store.put("f/g", b"x")
    for options in ({}, {"if_absent": True}):
        with pytest.raises(StoreRefusedError, match="in the way"):
            store.put("f", b"y", **options)
    assert store.get("a") == b"x"
    assert temporary_files(root) == []


# The folder goes away


def test_a_vanished_folder_is_not_made_anew(store: DirectoryObjectStore, root: Path, tmp_path: Path) -> None:
    store.put("a", b"x")
    root.rename(tmp_path / "unplugged")
    for operation in (
        lambda: store.get("a"),
        lambda: store.stat("a"),
        lambda: store.put("a", b"y"),
        lambda: store.put("b/c", b"y", if_absent=True),
        lambda: list(store.list()),
        lambda: store.delete("a"),
    ):
        with pytest.raises(StoreUnreachableError, match="is not there") as raised:
            operation()
        assert "Mount" in raised.value.hint
    assert not root.exists()
    (tmp_path / "unplugged").rename(root)
    assert store.get("a") == b"x"


def test_an_empty_mount_point_is_not_the_store(store: DirectoryObjectStore, root: Path, tmp_path: Path) -> None:
    store.put("a", b"x")
    root.rename(tmp_path / "unplugged")
    root.mkdir()
    for operation in (lambda: store.get("a"), lambda: store.put("a", b"y"), lambda: list(store.list())):
        with pytest.raises(StoreUnreachableError, match="not marked"):
            operation()
    assert list(root.iterdir()) == []


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreUnreachableError, match="make bucket folder"):
        DirectoryObjectStore.create(tmp_path / "file")
    with pytest.raises(StoreUnreachableError):
        DirectoryObjectStore(tmp_path / "file").get("a")


def test_lost_temporary_folder_is_made_again(store: DirectoryObjectStore, root: Path) -> None:
    (root / ".dualmem" / "tmp").rmdir()
    store.put("a", b"x")
    assert store.get("a") == b"x"


# Disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", path], check=False, capture_output=True
    )
    if mount.returncode:
        pytest.skip("needs the right to mount a file system")
    yield path
    subprocess.run(["umount", "--lazy", path], check=False, capture_output=True)


def test_full_disk(small_disk: Path) -> None:
    store = DirectoryObjectStore.create(small_disk / "bucket")
    tag = store.put("kept", b"x" * 100_000)
    for options in ({}, {"if_absent": True}):
        with pytest.raises(DiskFullError, match="could not write object big") as raised:
            store.put("big", b"y" * 300_000, **options)
        assert "space" in raised.value.hint
    with pytest.raises(DiskFullError):
        store.put("kept", b"y" * 300_000, if_match=tag)
    assert temporary_files(small_disk / "bucket") == []
    assert [info.key for info in store.list()] == ["kept"]
    assert store.get("kept") == b"x" * 100_000
    store.put("small", b"z" * 50_000)


def test_unmounted_drive(small_disk: Path) -> None:
    store = DirectoryObjectStore.create(small_disk)
    store.put("a", b"x")
    subprocess.run(["umount", small_disk], check=True)
    with pytest.raises(StoreUnreachableError, match="not marked"):
        store.put("a", b"y")
    assert list(small_disk.iterdir()) == []


def test_no_rights(store: DirectoryObjectStore, root: Path) -> None:
    store.put("a/b", b"x")
    (root / "a").chmod(0o500)
    if os.access(root / "a", os.W_OK):
        pytest.skip("root may write everywhere")
    with pytest.raises(StoreRefusedError, match="Permission denied"):
        store.put("a/c", b"x")
    (root / "a").chmod(0o000)
    for operation in (store.get, store.stat, store.delete, lambda key: store.put(key, b"x")):
        with pytest.raises(StoreRefusedError, match="Permission denied"):
            operation("a/b")
    with pytest.raises(StoreRefusedError, match="Permission denied"):
        list(store.list())
    (root / "a").chmod(0o700)


def test_read_only_disk(small_disk: Path) -> None:
    store = DirectoryObjectStore.create(small_disk)
    store.put("a", b"x")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(StoreRefusedError, match="Read-only") as raised:
        store.put("a", b"y")
    assert "rights" in raised.value.hint
    assert store.get("a") == b"x"


def test_file_systems_without_hard_links(store: DirectoryObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    store.put("a", b"first", if_absent=True)
    with pytest.raises(ConflictError):
        store.put("a", b"second", if_absent=True)
    assert store.get("a") == b"first"


# Processes


def test_a_killed_writer_leaves_the_old_version(store: DirectoryObjectStore, root: Path) -> None:
    """Kill a process that writes over an object again and again; what is there is always one whole version."""
    code = (
        "import sys; from pathlib import Path; from dualmem_mcp.stores.directory import DirectoryObjectStore\n"
        "store = DirectoryObjectStore(Path(sys.argv[1]))\n"
        "for number in range(1 << 30): store.put('k', bytes([number % 256]) * 300_000); print(flush=True)"
    )
    store.put("k", b"\0" * 300_000)
    for pause in (0.0, 0.003, 0.01):
        writer = subprocess.Popen([sys.executable, "-c", code, str(root)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(pause)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        data = store.get("k")
        assert len(data) == 300_000
        assert len(set(data)) == 1
        store.put("k", data)  # the dead process holds no lock
    assert [info.key for info in store.list()] == ["k"]


def test_abandoned_files_go_after_a_day(store: DirectoryObjectStore, root: Path) -> None:
    now = time.time()
    for name, age_seconds in (("old", 25 * 3600), ("new", 3600)):
        path = root / ".dualmem" / "tmp" / name
        path.write_bytes(b"x")
        os.utime(path, (now - age_seconds, now - age_seconds))
    DirectoryObjectStore.create(root)
    assert [path.name for path in temporary_files(root)] == ["new"]


def test_a_lock_that_is_held_is_waited_for_within_bounds(store: DirectoryObjectStore, root: Path) -> None:
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with file_lock(root / ".dualmem" / "lock"):
            entered.set()
            leave.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    entered.wait(10)
    with pytest.raises(StoreUnreachableError, match="another process has held"):
        DirectoryObjectStore(root, lock_timeout_seconds=0.05).put("k", b"x")
    threading.Timer(0.05, leave.set).start()
    store.put("k", b"x")
    holder.join()
    assert store.get("k") == b"x"
