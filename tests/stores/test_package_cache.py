"""Sealed packages kept on this device."""

import os
import time
from pathlib import Path

import pytest

from dualmem_mcp.errors import UsageError
from dualmem_mcp.model.ids import HandoffId
from dualmem_mcp.stores.package_cache import FilePackageCache

ID = HandoffId("ab" * 16)


@pytest.fixture
def cache(tmp_path: Path) -> FilePackageCache:
    for name in ("made", "fetched"):
        (tmp_path / name).mkdir()
    return FilePackageCache(tmp_path / "made", tmp_path / "fetched")


@pytest.mark.parametrize("made_here", [True, False])
def test_ranges_of_a_package(cache: FilePackageCache, tmp_path: Path, made_here: bool) -> None:
    assert cache.read(ID) is None
    cache.write(ID, b"0123456789", made_here=made_here)
    assert cache.read(ID) == b"0123456789"
    assert cache.read(ID, start=8, length=5) == b"89"
    assert cache.read(ID, start=20) == b""
    assert (tmp_path / ("made" if made_here else "fetched") / f"{ID}.pkg").stat().st_mode & 0o777 == 0o600
    cache.remove(ID)
    cache.remove(ID)
    assert cache.read(ID) is None


@pytest.mark.parametrize("hostile", ["../../x", "", "AB" * 16, "ab" * 15, "ab" * 16 + "\n"])
def test_other_ids_never_become_paths(cache: FilePackageCache, hostile: str) -> None:
    with pytest.raises(UsageError):
        cache.read(HandoffId(hostile))
    with pytest.raises(UsageError):
        cache.write(HandoffId(hostile), b"x", made_here=True)


def test_half_written_packages_are_removed_after_a_day(cache: FilePackageCache, tmp_path: Path) -> None:
    cache.write(ID, b"whole", made_here=True)
    for name in ("made/.old.pkg.1.tmp", "fetched/.old.pkg.1.tmp", "made/.fresh.pkg.1.tmp"):
        (tmp_path / name).write_bytes(b"half")
    old = time.time() - 2 * 86_400
    for path in tmp_path.glob("*/*"):
        if "fresh" not in path.name:
            os.utime(path, (old, old))
    assert cache.remove_abandoned() == 2
    assert sorted(path.name for path in tmp_path.glob("*/*")) == [".fresh.pkg.1.tmp", f"{ID}.pkg"]


def test_a_folder_that_was_deleted_holds_nothing(cache: FilePackageCache, tmp_path: Path) -> None:
    cache.write(ID, b"0123", made_here=True)
    (tmp_path / "fetched").rmdir()
    assert [one.handoff_id for one in cache.kept()] == [ID]


def test_what_is_kept_and_when_it_was_last_used(cache: FilePackageCache, tmp_path: Path) -> None:
    assert cache.kept() == []
    other = HandoffId("cd" * 16)
    cache.write(ID, b"0123", made_here=True)
    cache.write(other, b"012345", made_here=False)
    for name in ("made/notes.pkg", "fetched/.half.pkg.1.tmp", f"made/{ID}", f"fetched/{ID}.old"):
        (tmp_path / name).write_bytes(b"something else")
    for path in tmp_path.glob("*/*"):
        os.utime(path, (1_000, 1_000))
    by_id = {one.handoff_id: one for one in cache.kept()}
    assert {name: (one.size_bytes, one.used_ns) for name, one in by_id.items()} == {
        ID: (4, 1_000 * 10**9),
        other: (6, 1_000 * 10**9),
    }
    cache.read(ID, length=1)  # only asks whether it is there
    cache.read(ID, start=2)
    cache.read(other, start=0, length=4)
    used = {one.handoff_id: one.used_ns for one in cache.kept()}
    assert used[ID] == 1_000 * 10**9
    assert used[other] > 1_000 * 10**9
