"""The folder of a host's users: a sealed data home for each.

Source of the layout: docs/format.md, "Users of a host".
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from dualmem_mcp.crypto.canonical import MAX_JSON_BYTES
from dualmem_mcp.crypto.user_keys import USER_FILE, make_user_file, user_made_at
from dualmem_mcp.durable_files import file_faults, sync_folder, write_durably
from dualmem_mcp.errors import ConflictError, NotFoundError
from dualmem_mcp.model.grant import UserId, user_id
from dualmem_mcp.stores.keystore import KEY_FILE, make_sealed

_REMOVED: Final = ".removed-"
_UNFINISHED: Final = ".adding-"
_ABANDONED_AFTER_SECONDS: Final = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class UserFolder:
    """The users below `root`. Who is no user there is a NotFoundError."""

    root: Path

    def home(self, user: UserId) -> Path:
        """The data home of a user, whether it is there or not."""
        if user_id(user) != user:
            raise ValueError("no user can be called so")  # it would be a path
        return self.root / user

    def has(self, user: UserId) -> bool:
        """Whether there is such a user now. Raises StoreUnreachableError if the folder cannot be looked at."""
        with file_faults("look at", self.root):
            return user_id(user) == user and (self.root / user / USER_FILE).is_file()

    def check(self, user: UserId) -> None:
        """Raises NotFoundError unless there is a folder of that user."""
        if not self.home(user).is_dir():
            raise _no_user(user)

    def users(self) -> list[UserId]:
        """All users, sorted. Raises StoreUnreachableError if the folder cannot be read."""
        with file_faults("read", self.root):
            try:
                names = sorted(entry.name for entry in os.scandir(self.root) if entry.is_dir(follow_symlinks=False))
            except FileNotFoundError:
                return []
        return [UserId(name) for name in names if self.has(UserId(name))]

    def read(self, user: UserId) -> bytes:
        """A user's `user.json`, not checked. Raises NotFoundError, StoreUnreachableError."""
        with file_faults("read", self.home(user) / USER_FILE):
            try:
                with (self.home(user) / USER_FILE).open("rb") as file:
                    return file.read(MAX_JSON_BYTES + 1)
            except (FileNotFoundError, NotADirectoryError):
                raise _no_user(user) from None

    def made_at(self, user: UserId) -> datetime:
        """When the user was added. Raises NotFoundError, TamperedError."""
        return user_made_at(self.read(user), user=user)

    def begin(self, user: UserId) -> tuple[Path, bytes]:
        """A sealed data home for a new user, aside until `finish`, and its device secret (32 bytes).

        Raises ConflictError if there is such a user or folder, StoreUnreachableError, DiskFullError.
        """
        if self.home(user).exists():
            raise ConflictError(
                f"there is a user {user!r} already",
                operation="add user",
                subject=user,
                hint=f"Choose another name, or `dualmem users remove {user}` first.",
            )
        with file_faults("make", self.root):
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        aside = self.root / f"{_UNFINISHED}{user}-{secrets.token_hex(8)}"
        return aside, make_sealed(aside)

    def finish(self, user: UserId, aside: Path, secret: bytes, passphrase: str, *, now: datetime) -> None:
        """Make the user of the data home: from now on the passphrase opens it. Takes the KDF's time.

        Raises ConflictError if another process added one of that name meanwhile.
        """
        write_durably(aside / USER_FILE, [make_user_file(secret, passphrase, user=user, created_at=now)])
        with file_faults("make", self.home(user)):
            try:
                aside.rename(self.home(user))  # never replaces a folder that has something in it
            except OSError as error:
                if self.home(user).exists():
                    raise ConflictError(
                        f"there is a user {user!r} already", operation="add user", subject=user
                    ) from error
                raise
            sync_folder(self.root)

    def abandon(self, aside: Path) -> None:
        """Remove what `begin` made. Raises StoreUnreachableError."""
        _erase(aside)

    def remove(self, user: UserId) -> None:
        """Remove a user: first all at once from among the users, then the wrap of the key, then the data home.

        Raises NotFoundError, StoreUnreachableError; what is left then goes with `remove_leftovers`.
        """
        self.check(user)
        home = self.home(user)
        removed = self.root / f"{_REMOVED}{user}-{secrets.token_hex(8)}"
        with file_faults("remove", home):
            home.rename(removed)
            sync_folder(self.root)
        _erase(removed)

    def remove_leftovers(self) -> None:
        """Remove what runs that were killed left: of removed users, and, after a day, of users never added.

        Raises StoreUnreachableError.
        """
        oldest = time.time() - _ABANDONED_AFTER_SECONDS
        with file_faults("read", self.root):
            left = [path for path in self.root.glob(".*-*") if path.is_dir() and not path.is_symlink()]
            left = [
                path
                for path in left
                if path.name.startswith(_REMOVED)
                or (path.name.startswith(_UNFINISHED) and path.stat().st_mtime < oldest)
            ]
        for path in left:
            _erase(path)


def _erase(home: Path) -> None:
    with file_faults("remove", home):
        for name in (USER_FILE, KEY_FILE):
            _overwrite(home / name)
        with suppress(FileNotFoundError):  # another process removes it, too
            shutil.rmtree(home)


def _overwrite(path: Path) -> None:
    """Write over a small file before it is removed; disks may keep the old blocks all the same."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return
        with path.open("r+b") as file:
            file.write(bytes(path.stat().st_size))
            file.flush()
            os.fsync(file.fileno())
        path.unlink()
    except FileNotFoundError:
        return


def _no_user(user: UserId) -> NotFoundError:
    return NotFoundError(
        f"there is no user {user!r} here",
        operation="open user",
        subject=user,
        hint="`dualmem users list` shows them.",
    )
