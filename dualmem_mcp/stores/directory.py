"""An object store in a folder, which may lie on a USB drive or be synchronised by another program.

What lies in it:

    <root>/packages/3f…      one file for each object, under its key
    <root>/.dualmem/store    marks the folder as a store; made once, by `create`
    <root>/.dualmem/lock     held while a write is put in place
    <root>/.dualmem/tmp/     files being written; renamed or linked into place when complete
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from io import BufferedReader
from pathlib import Path

from dualmem_mcp.durable_files import DISK_FULL, file_lock, sync_folder
from dualmem_mcp.errors import (
    ConflictError,
    DiskFullError,
    NotFoundError,
    StoreRefusedError,
    StoreUnreachableError,
)
from dualmem_mcp.failpoints import reach
from dualmem_mcp.ports import ObjectInfo
from dualmem_mcp.stores.object_keys import check_key, check_prefix, check_range, is_key

_ABANDONED_AFTER_SECONDS = 24 * 3600.0

_REFUSALS = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV})


class DirectoryObjectStore:
    """An ObjectStore in a folder, safe for many threads and processes of one machine at once.

    A tag is the SHA-256 of the content in hexadecimal. `if_absent` is a hard link, which also on network
    file systems exactly one writer makes; every write is put in place under one lock of the folder, which
    holds between processes of one machine only. Files are written 0600, folders 0700. Symbolic links and
    other special files inside the store are refused. A folder that has vanished, such as a drive that is
    not mounted, is never made anew: operations raise StoreUnreachableError until it is back.
    """

    def __init__(self, root: Path, *, lock_timeout_seconds: float = 30.0) -> None:
        self._root = root
        self._lock_timeout_seconds = lock_timeout_seconds
        self._own = root / ".dualmem"
        self._marker = self._own / "store"

    @classmethod
    def create(cls, root: Path) -> DirectoryObjectStore:
        """The store in that folder, made and marked if it is not one yet.

        Raises StoreUnreachableError or one of its kinds if it cannot be made.
        """
        store = cls(root)
        with store._faults("make bucket folder", str(root), made=False):
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in (store._own, store._own / "tmp"):
                _refuse_link(folder)
                folder.mkdir(mode=0o700, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                descriptor = os.open(store._marker, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(descriptor, "w") as marker:
                    marker.write("dualmem object store, format 1\n")
                    marker.flush()
                    os.fsync(descriptor)
            sync_folder(store._own)
            sync_folder(root)
        store._remove_abandoned()
        return store

    @property
    def location(self) -> str:
        return str(self._root)

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        check_range(start, length)
        with self._faults("read object", key), self._open(key) as file:
            file.seek(start)
            return file.read() if length is None else file.read(length)

    def stat(self, key: str) -> ObjectInfo:
        with self._faults("look up object", key), self._open(key) as file:
            return ObjectInfo(key, os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest())

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        if if_absent and if_match is not None:
            raise ValueError("a write is conditional on absence or on a version, not both")
        with self._faults("write object", key):
            path = self._path(key)
            self._check_present()
            temporary = self._write_temporary(data)
            reach("bucket: written")
            try:
                with self._lock():
                    self._make_folders(key)
                    if if_absent:
                        self._link(temporary, path, key)
                    else:
                        if if_match is not None:
                            self._check_version(key, if_match)
                        temporary.replace(path)
                    reach("bucket: in place")
                    sync_folder(path.parent)
                    reach("bucket: folder synced")
            finally:
                temporary.unlink(missing_ok=True)
        return hashlib.sha256(data).hexdigest()

    def list(self, prefix: str = "", *, start_after: str = "") -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        check_prefix(start_after)
        for key, entry in self._walk(self._root, "", prefix, start_after):
            with self._faults("list objects", key):
                try:
                    size_bytes = entry.stat(follow_symlinks=False).st_size
                except FileNotFoundError:
                    continue  # deleted since its folder was read
            # Its tag would take reading all of it.
            yield ObjectInfo(key, size_bytes, "")

    def delete(self, key: str) -> None:
        with self._faults("delete object", key):
            path = self._path(key)
            self._check_present()
            with self._lock():
                try:
                    reach("bucket: before deletion")
                    path.unlink()
                except (FileNotFoundError, NotADirectoryError):
                    return
                reach("bucket: deleted")
                sync_folder(path.parent)

    def server_time(self) -> datetime | None:
        """None: a folder has no clock but this machine's."""
        return None

    def _path(self, key: str) -> Path:
        """Where the object lies. Raises StoreRefusedError if a symbolic link stands anywhere on the way."""
        path = self._root
        for component in check_key(key).split("/"):
            path = path / component
            _refuse_link(path)
        return path

    @contextlib.contextmanager
    def _open(self, key: str) -> Iterator[BufferedReader]:
        path = self._path(key)
        # O_NONBLOCK: a named pipe put there would otherwise be waited on for ever.
        flags = (
            os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        )
        try:
            descriptor = os.open(path, flags)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            self._check_present()
            raise self._not_found(key) from None
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            os.close(descriptor)
            if stat.S_ISDIR(mode):
                raise self._not_found(key)
            raise StoreRefusedError(
                f"{path} is not a regular file",
                operation="read object",
                subject=key,
                hint="Remove it; the store holds regular files only.",
            )
        with os.fdopen(descriptor, "rb") as file:
            yield file

    def _not_found(self, key: str) -> NotFoundError:
        return NotFoundError(f"there is no object {key} in {self._root}", operation="read object", subject=key)

    def _check_present(self) -> None:
        """Raises StoreUnreachableError if the folder is gone or is not the one that was marked."""
        for path in (self._own, self._own / "tmp"):
            _refuse_link(path)
        if not self._marker.is_file():
            what = "is not there" if not self._root.is_dir() else "is not marked as a bucket"
            raise StoreUnreachableError(
                f"the bucket folder {self._root} {what}",
                operation="open bucket",
                subject=str(self._root),
                hint="Mount the drive or put the folder back. If the folder is right and only its mark was lost, "
                f"make an empty file {self._marker}.",
            )

    def _write_temporary(self, data: bytes) -> Path:
        path = self._own / "tmp" / secrets.token_hex(16)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        try:
            descriptor = os.open(path, flags, 0o600)
        except FileNotFoundError:
            # A synchronising program may carry no empty folders.
            path.parent.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(path, flags, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                reach("bucket: part written")
                os.fsync(descriptor)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return path

    def _make_folders(self, key: str) -> None:
        """Make the folders above an object, each durable before its child; never the root itself."""
        folder = self._root
        for component in key.split("/")[:-1]:
            parent, folder = folder, folder / component
            try:
                folder.mkdir(mode=0o700)
            except FileExistsError:
                if not folder.is_dir():
                    raise self._in_the_way(folder, key) from None
            else:
                reach("bucket: folder made")
                sync_folder(parent)
        if (self._root / key).is_dir():
            raise self._in_the_way(self._root / key, key)

    def _in_the_way(self, path: Path, key: str) -> StoreRefusedError:
        return StoreRefusedError(
            f"{path} is in the way of the object {key}: a name is either an object or a folder of objects",
            operation="write object",
            subject=key,
            hint="Remove what is in the way, if it is not the vault's.",
        )

    def _link(self, temporary: Path, path: Path, key: str) -> None:
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            raise _exists(key) from None
        except OSError as fault:
            if fault.errno not in _NO_HARD_LINKS:
                raise
            # FAT and some network file systems have no hard links: the lock that is held must do.
            if path.exists():
                raise _exists(key) from None
            temporary.replace(path)

    def _check_version(self, key: str, tag: str) -> None:
        try:
            current = self.stat(key).etag
        except NotFoundError:
            current = None
        if current != tag:
            state = "does not exist" if current is None else "was changed by somebody else"
            raise ConflictError(
                f"the object {key} {state}",
                operation="write object",
                subject=key,
                hint="Read it again, and repeat the change on what is there now.",
            )

    def _walk(
        self, folder: Path, above: str, prefix: str, start_after: str
    ) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """Keys below a folder in order of their bytes, and where they lie; `above` is the folder's own key with its
        `/`."""

        def is_asked(key: str) -> bool:
            if key.endswith("/"):
                return (key.startswith(prefix) or prefix.startswith(key)) and (
                    key > start_after or start_after.startswith(key)
                )
            return key.startswith(prefix) and key > start_after

        found: dict[str, os.DirEntry[str]] = {}
        with self._faults("list objects", above), contextlib.ExitStack() as stack:
            self._check_present()
            try:
                entries = stack.enter_context(os.scandir(folder))
            except (FileNotFoundError, NotADirectoryError):
                return  # an emptied folder that somebody removed
            for entry in entries:
                key = above + entry.name
                # By name first: of a log with thousands of segments nearly all are behind the reader.
                if (is_asked(key) or is_asked(key + "/")) and is_key(key):
                    # A folder sorts as its name followed by `/`, which is how its objects' keys begin.
                    if entry.is_dir(follow_symlinks=False):
                        found[key + "/"] = entry
                    elif entry.is_file(follow_symlinks=False):
                        found[key] = entry
        for key, entry in sorted(found.items()):
            if not is_asked(key):
                continue
            if key.endswith("/"):
                yield from self._walk(folder / entry.name, key, prefix, start_after)
            else:
                yield key, entry

    def _lock(self) -> AbstractContextManager[int]:
        """Hold the folder's lock, against other threads and other processes of this machine."""
        return file_lock(self._own / "lock", timeout_seconds=self._lock_timeout_seconds)

    def _remove_abandoned(self) -> None:
        """Remove what processes left that died while writing; a day is longer than any write takes."""
        oldest = time.time() - _ABANDONED_AFTER_SECONDS
        with self._faults("clean bucket folder", str(self._root)):
            for path in (self._own / "tmp").iterdir():
                with contextlib.suppress(FileNotFoundError):
                    if path.lstat().st_mtime < oldest:
                        path.unlink()

    @contextlib.contextmanager
    def _faults(self, operation: str, subject: str, *, made: bool = True) -> Iterator[None]:
        """Turn the operating system's errors into ours; where the folder was `made`, look first if it is gone."""
        try:
            yield
        except OSError as fault:
            reason = os.strerror(fault.errno) if fault.errno else type(fault).__name__
            message = f"could not {operation} {subject}: {reason}"
            if fault.errno in DISK_FULL:
                raise DiskFullError(
                    message, operation=operation, subject=subject, hint=f"Free some space where {self._root} lies."
                ) from fault
            if fault.errno in _REFUSALS:
                raise StoreRefusedError(
                    message, operation=operation, subject=subject, hint=f"Check your rights on {self._root}."
                ) from fault
            if made:
                self._check_present()
            raise StoreUnreachableError(
                message,
                operation=operation,
                subject=subject,
                hint=f"Check that the drive or network share with {self._root} is there and sound.",
            ) from fault


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise StoreRefusedError(
            f"{path} is a symbolic link; the store could be led outside its folder",
            operation="follow path",
            subject=str(path),
            hint="Remove the link, or move what it points to into its place.",
        )


def _exists(key: str) -> ConflictError:
    return ConflictError(
        f"the object {key} exists already",
        operation="write object",
        subject=key,
        hint="Somebody else wrote it first; read it before you go on.",
    )
