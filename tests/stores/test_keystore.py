"""The device's secret: made once, kept apart from other users, never made anew over an existing database."""

from __future__ import annotations

import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dualmem_mcp.errors import ConflictError, LockedError, StoreUnreachableError
from dualmem_mcp.stores import keystore
from dualmem_mcp.stores.keystore import (
    KEY_FILE,
    SERVICE,
    handed_in,
    make_sealed,
    open_device_secret,
    usable_keyring,
)

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no permission bits")


class Ring:
    """A keyring in memory, of the shape of `keyring`'s backends."""

    def __init__(self) -> None:
        self.entries: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.entries.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.entries[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.entries[service, username]


class HangingRing(Ring):
    """A keyring that never answers, as D-Bus without a session does."""

    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()

    def get_password(self, service: str, username: str) -> str | None:
        self.released.wait(20)
        return None

    set_password = get_password  # type: ignore[assignment]


class BrokenRing(Ring):
    def get_password(self, service: str, username: str) -> str | None:
        raise OSError("the daemon is gone")

    set_password = get_password  # type: ignore[assignment]


class ForgetfulRing(Ring):
    def set_password(self, service: str, username: str, password: str) -> None:
        pass


def none() -> None:
    return None


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_file_where_there_is_no_keyring(tmp_path):
    first = open_device_secret(tmp_path / "home", find_keyring=none)
    again = open_device_secret(tmp_path / "home", find_keyring=none)
    assert first == again
    assert first.kept_in == "file"
    assert len(first.secret) == 32
    assert names(tmp_path / "home") == [KEY_FILE]
    assert first.secret.hex() not in repr(first)


def test_two_homes_have_two_secrets(tmp_path):
    one, other = (open_device_secret(tmp_path / name, find_keyring=none).secret for name in "ab")
    assert one != other


@posix_only
def test_the_file_is_private_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        open_device_secret(tmp_path / "home", find_keyring=none)
    finally:
        os.umask(before)
    assert (tmp_path / "home").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "home" / KEY_FILE).stat().st_mode & 0o777 == 0o600


def test_keyring_where_there_is_one(tmp_path):
    ring = Ring()
    first = open_device_secret(tmp_path, find_keyring=lambda: ring)
    assert first.kept_in == "keyring"
    assert open_device_secret(tmp_path, choice="file", find_keyring=lambda: ring) == first
    [((service, _), password)] = ring.entries.items()
    assert service == SERVICE
    assert password == first.secret.hex()
    assert password not in (tmp_path / KEY_FILE).read_text()


def test_the_folder_may_be_moved(tmp_path):
    ring = Ring()
    first = open_device_secret(tmp_path / "a", find_keyring=lambda: ring)
    (tmp_path / "a").rename(tmp_path / "b")
    assert open_device_secret(tmp_path / "b", find_keyring=lambda: ring) == first


def test_choice_of_a_file_never_asks_the_keyring(tmp_path):
    def ask() -> None:
        raise AssertionError("asked")

    assert open_device_secret(tmp_path, choice="file", find_keyring=ask).kept_in == "file"
    assert open_device_secret(tmp_path, find_keyring=ask).kept_in == "file"


@pytest.mark.parametrize("ring", [BrokenRing(), ForgetfulRing()])
def test_a_keyring_that_does_not_work_is_passed_over(tmp_path, ring):
    assert open_device_secret(tmp_path / "auto", find_keyring=lambda: ring).kept_in == "file"
    with pytest.raises(LockedError, match="keyring cannot be used") as caught:
        open_device_secret(tmp_path / "insists", choice="keyring", find_keyring=lambda: ring)
    assert "DUALMEM_KEYSTORE=file" in caught.value.hint
    assert list((tmp_path / "insists").iterdir()) == []


def test_a_keyring_that_hangs_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(keystore, "CREATE_TIMEOUT_SECONDS", 0.05)
    ring = HangingRing()
    started = time.monotonic()
    assert open_device_secret(tmp_path, find_keyring=lambda: ring).kept_in == "file"
    assert time.monotonic() - started < 10
    ring.released.set()


def test_a_keyring_that_hangs_or_fails_later_is_locked(tmp_path, monkeypatch):
    ring = Ring()
    open_device_secret(tmp_path, find_keyring=lambda: ring)
    monkeypatch.setattr(keystore, "READ_TIMEOUT_SECONDS", 0.05)
    hanging = HangingRing()
    for find in (lambda: hanging, BrokenRing, none):
        with pytest.raises(LockedError, match="keyring that holds") as caught:
            open_device_secret(tmp_path, find_keyring=find)
        assert "Unlock" in caught.value.hint
    hanging.released.set()
    with pytest.raises(LockedError, match="no longer holds") as caught:
        open_device_secret(tmp_path, find_keyring=Ring)
    assert "dualmem join" in caught.value.hint


def test_a_key_that_is_gone_is_never_made_anew_over_a_database(tmp_path):
    (tmp_path / "memory.db").write_bytes(b"sealed")
    with pytest.raises(LockedError, match="key of this data home is gone") as caught:
        open_device_secret(tmp_path, find_keyring=none)
    assert "dualmem join" in caught.value.hint
    assert names(tmp_path) == ["memory.db"]


@posix_only
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o606, 0o644, 0o601])
def test_a_file_that_others_can_read_is_refused(tmp_path, mode):
    open_device_secret(tmp_path, find_keyring=none)
    (tmp_path / KEY_FILE).chmod(mode)
    with pytest.raises(LockedError, match="other users") as caught:
        open_device_secret(tmp_path, find_keyring=none)
    assert "chmod 600" in caught.value.hint


@posix_only
def test_a_pipe_in_its_place_is_damage_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / KEY_FILE, 0o600)
    with pytest.raises(LockedError, match="is damaged"):
        open_device_secret(tmp_path, find_keyring=none)


@posix_only
def test_a_symbolic_link_is_refused(tmp_path):
    open_device_secret(tmp_path / "a", find_keyring=none)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / KEY_FILE).symlink_to(tmp_path / "a" / KEY_FILE)
    with pytest.raises(LockedError, match="cannot be read"):
        open_device_secret(tmp_path / "b", find_keyring=none)


def test_every_changed_byte_and_every_cut_of_the_file_is_damage(tmp_path):
    secret = open_device_secret(tmp_path, find_keyring=none).secret
    path = tmp_path / KEY_FILE
    good = path.read_bytes()
    damaged = [good[:length] for length in range(len(good))]
    damaged += [good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :] for at in range(len(good))]
    damaged += [b"", b"\xff" * 5000, good + good]
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(LockedError) as caught:
            open_device_secret(tmp_path, find_keyring=none)
        assert secret.hex()[:16] not in str(caught.value) + caught.value.hint
    path.write_bytes(good)
    assert open_device_secret(tmp_path, find_keyring=none).secret == secret


@pytest.mark.parametrize("with_ring", [True, False])
def test_processes_that_start_at_once_agree(tmp_path, with_ring):
    ring = Ring() if with_ring else None
    barrier = threading.Barrier(8)

    def start(_: int) -> bytes:
        barrier.wait()
        return open_device_secret(tmp_path / "home", find_keyring=lambda: ring).secret

    with ThreadPoolExecutor(8) as pool:
        secrets = set(pool.map(start, range(8)))
    assert len(secrets) == 1
    assert names(tmp_path / "home") == [KEY_FILE]
    if ring:
        assert len(ring.entries) == 1


@posix_only
def test_file_systems_without_links(tmp_path, monkeypatch):
    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    first = open_device_secret(tmp_path, find_keyring=none)
    assert open_device_secret(tmp_path, find_keyring=none) == first
    assert names(tmp_path) == [KEY_FILE]


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreUnreachableError):
        open_device_secret(tmp_path / "file" / "home", find_keyring=none)


def test_backends_without_a_store_are_not_usable(monkeypatch):
    import keyring
    from keyring.backends import chainer, fail, null

    class Chain(chainer.ChainerBackend):
        backends = ()

    for backend in (fail.Keyring(), null.Keyring(), Chain()):
        monkeypatch.setattr(keyring, "get_keyring", lambda backend=backend: backend)
        assert usable_keyring() is None


def test_a_sealed_data_home_opens_with_what_is_handed_in_and_keeps_nothing(tmp_path):
    home = tmp_path / "ana"
    secret = make_sealed(home)
    assert len(secret) == 32
    assert names(home) == [KEY_FILE]
    kept = (home / KEY_FILE).read_bytes()
    assert secret not in kept
    assert secret.hex().encode() not in kept
    opened = handed_in(home, secret)
    assert (opened.secret, opened.kept_in) == (secret, "login")
    for other in (b"", secret[:31], bytes(32), secret + b"x"):
        with pytest.raises(LockedError):
            handed_in(home, other)
    with pytest.raises(LockedError, match="login alone"):
        open_device_secret(home, choice="file")


def test_a_sealed_data_home_is_made_once_and_over_nothing(tmp_path):
    secret = make_sealed(tmp_path)
    with pytest.raises(ConflictError):
        make_sealed(tmp_path)
    assert handed_in(tmp_path, secret).secret == secret
    other = tmp_path / "other"
    other.mkdir()
    (other / "memory.db").write_bytes(b"x")
    with pytest.raises(ConflictError):
        make_sealed(other)


def test_nothing_is_handed_in_to_a_data_home_that_keeps_its_secret(tmp_path):
    kept = open_device_secret(tmp_path, choice="file").secret
    with pytest.raises(LockedError):
        handed_in(tmp_path, kept)
    with pytest.raises(LockedError):
        handed_in(tmp_path / "nowhere", kept)


def test_every_changed_byte_of_a_sealed_homes_note_closes_it(tmp_path):
    secret = make_sealed(tmp_path)
    path = tmp_path / KEY_FILE
    data = path.read_bytes()
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(LockedError):
            handed_in(tmp_path, secret)
