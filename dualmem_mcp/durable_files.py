"""Files on this device that survive a crash at any moment, and locks between the processes that share them."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from dualmem_mcp.errors import DiskFullError, StoreUnreachableError
from dualmem_mcp.failpoints import reach

TEMPORARY: Final = ".tmp"
"""How the names of files end that `write_durably` has not put in place yet."""

_ABANDONED_AFTER_SECONDS: Final = 24 * 3600.0
DISK_FULL: Final = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})
"""Error numbers by which an operating system says that there is no room for what is written."""


def write_durably(path: Path, parts: Iterable[bytes]) -> None:
    """Replace the file by these bytes at once, mode 0600, on the disk when this returns.

    A reader sees the old file or the new one. Raises DiskFullError or StoreUnreachableError; the old file is
    then as it was.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{TEMPORARY}")
    with file_faults("write", path):
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                reach("file: made")
                file.writelines(parts)
                file.flush()
                reach("file: written")
                os.fsync(file.fileno())
            reach("file: synced")
            temporary.replace(path)
            reach("file: in place")
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
        reach("file: folder synced")


def remove_abandoned(folder: Path, is_abandoned: Callable[[str], bool]) -> int:
    """Remove the files whose names are of the abandoned and which are a day old; returns how many.

    For what a process left that died while writing: none takes as long as a day.
    """
    oldest = time.time() - _ABANDONED_AFTER_SECONDS
    removed = 0
    with file_faults("clean", folder), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # put in place, or removed, by another process meanwhile
                if is_abandoned(entry.name) and entry.stat(follow_symlinks=False).st_mtime < oldest:
                    Path(entry.path).unlink()
                    removed += 1
    return removed


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the platform can."""
    if sys.platform == "win32":
        return  # a folder cannot be opened there; NTFS journals names itself
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as fault:
        # Some network and FUSE file systems know no fsync of folders.
        if fault.errno not in {errno.EINVAL, errno.ENOTSUP}:
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def file_lock(path: Path, *, timeout_seconds: float = 30.0) -> Iterator[int]:
    """Hold an exclusive lock on that file, made if it is not there; gives its descriptor, open for reading and
    writing.

    Holds between threads and processes of one machine, and ends with the process at the latest. Raises
    StoreUnreachableError when the time is over, or where files cannot be locked at all.
    """
    with file_faults("lock", path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
    try:
        deadline = time.monotonic() + timeout_seconds
        while True:
            with file_faults("lock", path):  # some network file systems have no locks
                if _try_lock(descriptor):
                    break
            if time.monotonic() > deadline:
                raise StoreUnreachableError(
                    f"another process has held {path} for {timeout_seconds:.0f} seconds",
                    operation="lock file",
                    subject=str(path),
                    hint="Wait for it to finish, or stop it if it hangs.",
                )
            time.sleep(0.002)
        yield descriptor
    finally:
        os.close(descriptor)  # ends the lock


@contextlib.contextmanager
def file_lock_if_free(path: Path) -> Iterator[bool]:
    """Hold an exclusive lock on that file, made if it is not there, if nobody else does; gives whether it is held.

    Ends with the process at the latest. Raises StoreUnreachableError or DiskFullError if the file cannot be made.
    """
    with file_faults("lock", path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
    try:
        with file_faults("lock", path):  # some network file systems have no locks
            held = _try_lock(descriptor)
        yield held
    finally:
        os.close(descriptor)  # ends the lock


@contextlib.contextmanager
def file_faults(operation: str, path: Path) -> Iterator[None]:
    """Turn the operating system's errors on that file into ours."""
    try:
        yield
    except OSError as fault:
        reason = os.strerror(fault.errno) if fault.errno else type(fault).__name__
        message = f"could not {operation} {path}: {reason}"
        if fault.errno in DISK_FULL:
            raise DiskFullError(
                message,
                operation=f"{operation} file",
                subject=str(path),
                hint=f"Free some space where {path.parent} lies.",
            ) from fault
        raise StoreUnreachableError(
            message,
            operation=f"{operation} file",
            subject=str(path),
            hint=f"Check your rights on {path.parent}, and that its disk is present.",
        ) from fault


if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
