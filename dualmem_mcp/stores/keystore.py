"""Where a device's one secret is kept: the operating system's keyring, else a file that only its owner can read.

`device.key` in the data home holds the secret itself, or says which entry of the keyring does. It is made
once, by whichever process is first. From the secret comes the key of memory.db, which holds everything else.
The data home of a user of a host is *sealed*: its secret is kept nowhere, and handed in for whoever has shown the
passphrase or a token.
Source of the file's layout: docs/format.md, "On the device" and "Users of a host".
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import os
import re
import secrets
import stat
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from dualmem_mcp.crypto.keys import secret_check
from dualmem_mcp.durable_files import file_faults, sync_folder
from dualmem_mcp.errors import ConflictError, DualmemError, LockedError, StoreUnreachableError

SERVICE = "dualmem"
KEY_FILE = "device.key"
SECRET_BYTES = 32

Choice = Literal["auto", "keyring", "file"]

CREATE_TIMEOUT_SECONDS = 10.0
"""For a keyring on the first start: one that hangs, as D-Bus without a session does, is passed over."""

READ_TIMEOUT_SECONDS = 120.0
"""For a keyring that holds the secret: the user may be typing its password."""

_MAX_FILE_BYTES = 4096
_IN_FILE = re.compile(r"dualmem device key 1\n([0-9a-f]{64}) ([0-9a-f]{8})\n")
_IN_KEYRING = re.compile(r"dualmem device key 1 in keyring\n([0-9a-f]{32})\n")
_SEALED = re.compile(r"dualmem device key 1 sealed\n([0-9a-f]{64})\n")
_NO_LINKS = frozenset({errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.EACCES})

T = TypeVar("T")


class Keyring(Protocol):
    """What is used of a `keyring` backend."""

    def get_password(self, service: str, username: str) -> str | None: ...
    def set_password(self, service: str, username: str, password: str) -> None: ...
    def delete_password(self, service: str, username: str) -> None: ...


@dataclass(frozen=True, slots=True)
class DeviceSecret:
    """The device's 32 secret bytes, and where they are kept: the keyring, the file beside the database, or with
    whoever handed them in."""

    secret: bytes = field(repr=False)
    kept_in: Literal["keyring", "file", "login"]


def open_device_secret(
    home: Path,
    *,
    choice: Choice = "auto",
    database: Path | None = None,
    find_keyring: Callable[[], Keyring | None] | None = None,
) -> DeviceSecret:
    """The secret of this data home; made if neither it nor a database (default `memory.db`) exists.

    `choice` matters only when it is made: "auto" takes the keyring if one works, "keyring" insists on it,
    "file" never asks it. Raises LockedError if the secret is gone, damaged, readable by others, or the
    keyring does not answer; DiskFullError, StoreUnreachableError if it cannot be written.
    """
    database = database or home / "memory.db"
    find = find_keyring or usable_keyring
    path = home / KEY_FILE
    # Twice: another process may be making it at this moment.
    for _ in range(2):
        if path.is_symlink() or path.exists():
            return _read(path, find)
        if database.exists():
            raise LockedError(
                "the key of this data home is gone",
                operation="open data home",
                subject=str(home),
                hint=f"Put {KEY_FILE} back from a backup. Without it {database.name} cannot be read: then move it "
                "away, and run `dualmem join` for what is in the bucket.",
            )
        made = _make(path, choice, find)
        if made is not None:
            return made
    raise StoreUnreachableError(
        "the key of this data home cannot be made", operation="make device key", subject=str(home)
    )


def make_sealed(home: Path) -> bytes:
    """A new secret (32 bytes) for a new data home, kept nowhere: from now on it opens with that secret alone.

    Raises ConflictError if the data home has a key already, DiskFullError, StoreUnreachableError.
    """
    with file_faults("make", home):
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    secret = secrets.token_bytes(SECRET_BYTES)
    text = f"dualmem device key 1 sealed\n{secret_check(secret).hex()}\n"
    if (home / "memory.db").exists() or not _write_once(home / KEY_FILE, text):
        raise ConflictError(
            "this data home has a key already",
            operation="make device key",
            subject=str(home),
            hint="Choose another.",
        )
    return secret


def handed_in(home: Path, secret: bytes) -> DeviceSecret:
    """The secret of a sealed data home. Raises LockedError if it is another's, or the data home is not sealed."""
    match = _SEALED.fullmatch(_read_private(home / KEY_FILE))
    if match is None or not hmac.compare_digest(bytes.fromhex(match[1]), secret_check(secret)):
        raise LockedError(
            "this login does not open the data home",
            operation="open data home",
            subject=str(home),
            hint="Log in again.",
        )
    return DeviceSecret(secret, "login")


def usable_keyring() -> Keyring | None:
    """The operating system's keyring, or None where there is none that keeps secrets. Takes about 0.1 s."""
    # Not at the top: the import takes 0.1 s, and a data home with a key file never needs it.
    import keyring  # noqa: PLC0415
    from keyring.backends import chainer, fail, null  # noqa: PLC0415

    backend = keyring.get_keyring()
    if isinstance(backend, (fail.Keyring, null.Keyring)):
        return None
    if isinstance(backend, chainer.ChainerBackend) and not list(backend.backends):
        return None
    # keyring's own rule for what it recommends; below 1 are plaintext files and the like.
    return backend if backend.priority >= 1 else None


def _make(path: Path, choice: Choice, find: Callable[[], Keyring | None]) -> DeviceSecret | None:
    """A new secret, or None if another process made one meanwhile."""
    with file_faults("make", path.parent):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    secret = secrets.token_bytes(SECRET_BYTES)
    if choice != "file":
        account = secrets.token_hex(16)
        try:
            backend = _bounded(lambda: _put_in_keyring(find(), account, secret), CREATE_TIMEOUT_SECONDS)
        except LockedError as error:
            if choice == "keyring":
                raise LockedError(
                    f"the keyring cannot be used: {error.message}",
                    operation="make device key",
                    subject=str(path),
                    hint='Unlock it, or let the key lie in a file: DUALMEM_KEYSTORE=file, or "keystore": "file".',
                ) from error
        else:
            if _write_once(path, f"dualmem device key 1 in keyring\n{account}\n"):
                return DeviceSecret(secret, "keyring")
            _bounded(lambda: backend.delete_password(SERVICE, account), CREATE_TIMEOUT_SECONDS)
            return None
    if _write_once(path, f"dualmem device key 1\n{secret.hex()} {_check(secret)}\n"):
        return DeviceSecret(secret, "file")
    return None


def _put_in_keyring(backend: Keyring | None, account: str, secret: bytes) -> Keyring:
    if backend is None:
        raise LockedError("there is none that keeps secrets", operation="make device key")
    backend.set_password(SERVICE, account, secret.hex())
    # Some backends drop what they cannot keep, silently.
    if backend.get_password(SERVICE, account) != secret.hex():
        raise LockedError("it does not keep what it is given", operation="make device key")
    return backend


def _read(path: Path, find: Callable[[], Keyring | None]) -> DeviceSecret:
    text = _read_private(path)
    if match := _IN_KEYRING.fullmatch(text):
        return DeviceSecret(_read_keyring(path, match[1], find), "keyring")
    if _SEALED.fullmatch(text):
        raise LockedError(
            "this data home opens by its user's login alone",
            operation="open data home",
            subject=str(path.parent),
            hint="It belongs to a user of `dualmem serve --users`; nothing else can open it.",
        )
    match = _IN_FILE.fullmatch(text)
    if match is None or _check(secret := bytes.fromhex(match[1])) != match[2]:
        raise LockedError(
            f"{path.name} is damaged",
            operation="open data home",
            subject=str(path),
            hint="Put it back from a backup. Without it memory.db cannot be read.",
        )
    return DeviceSecret(secret, "file")


def _read_keyring(path: Path, account: str, find: Callable[[], Keyring | None]) -> bytes:
    def read() -> str | None:
        backend = find()
        if backend is None:
            raise LockedError("there is no keyring in this session", operation="read device key")
        return backend.get_password(SERVICE, account)

    try:
        kept = _bounded(read, READ_TIMEOUT_SECONDS)
    except LockedError as error:
        raise LockedError(
            f"the keyring that holds this data home's key cannot be read: {error.message}",
            operation="open data home",
            subject=str(path),
            hint="Unlock the keyring, or start from the desktop session in which the data home was made.",
        ) from error
    if kept is None or not re.fullmatch(r"[0-9a-f]{64}", kept):
        raise LockedError(
            "the keyring no longer holds this data home's key",
            operation="open data home",
            subject=str(path),
            hint=f"Restore the keyring's entry {SERVICE}/{account}. Without it memory.db cannot be read: then move "
            f"it and {KEY_FILE} away, and run `dualmem join` for what is in the bucket.",
        )
    return bytes.fromhex(kept)


def _read_private(path: Path) -> str:
    """The text of a small file that only its owner can read. Raises LockedError if others can, too."""
    try:
        # O_NONBLOCK: a pipe in its place would be waited on for ever.
        flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        descriptor = os.open(path, os.O_RDONLY | flags)
        with open(descriptor, "rb") as file:  # noqa: PTH123 - the descriptor, so that what is checked is what is read
            status = os.fstat(file.fileno())
            data = file.read(_MAX_FILE_BYTES)
    except OSError as error:
        raise LockedError(
            f"the key file cannot be read: {error.strerror}",
            operation="open data home",
            subject=str(path),
            hint="Check that it is a file of yours and no symbolic link.",
        ) from None
    # Windows has no such bits; there the profile folder's rights protect the file.
    if sys.platform != "win32" and status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise LockedError(
            "other users of this machine can read the key file",
            operation="open data home",
            subject=str(path),
            hint=f"Run `chmod 600 {path}`. Whoever read it and memory.db has what is in them.",
        )
    return data.decode("ascii", "replace")


def _write_once(path: Path, text: str) -> bool:
    """Write a file 0600, whole or not at all, unless there is one; returns whether it was written."""
    with file_faults("write", path):
        temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
        try:
            _write_new(temporary, text)
            try:
                # A link, not a rename: exactly one of several processes makes it, and nothing is overwritten.
                os.link(temporary, path)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                # FAT has no links; there the file is made in place, and a torn one is refused as damaged.
                _write_new(path, text)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)
    return True


def _write_new(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - created exclusively and private from the start
        file.write(text.encode("ascii"))
        file.flush()
        os.fsync(file.fileno())


def _bounded(call: Callable[[], T], timeout_seconds: float) -> T:
    """The call's result. Raises LockedError if it raises or does not return in time.

    On a daemon thread, since a backend that hangs cannot be interrupted.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:  # noqa: BLE001 - handed over to the caller below, whatever it is
            errors.append(error)

    thread = threading.Thread(target=run, name="dualmem-keyring", daemon=True)
    thread.start()
    thread.join(timeout_seconds)
    if results:
        return results[0]
    if not errors:
        raise LockedError(f"it did not answer within {timeout_seconds:g} s", operation="use keyring")
    if isinstance(errors[0], DualmemError):
        raise errors[0]
    # Backends raise errors of many libraries (D-Bus, Win32, keyring's own); their texts hold no secrets.
    raise LockedError(f"{type(errors[0]).__name__}: {errors[0]}", operation="use keyring") from errors[0]


def _check(secret: bytes) -> str:
    """Tells a damaged key file from one that does not fit the database; says nothing useful about the key."""
    return hashlib.sha256(secret).hexdigest()[:8]
