"""Who gets in: by the vault's passphrase alone, and without a word of who else there is."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest

from dualmem_mcp.app import App, open_app
from dualmem_mcp.errors import LockedError, StoreUnreachableError, TamperedError
from dualmem_mcp.model.grant import OWNER, UserId
from dualmem_mcp.remote.accounts import OwnAccount, UserAccounts
from dualmem_mcp.server.lazy_app import LazyApp
from dualmem_mcp.settings import Settings, load_settings
from tests.remote.user_host import UserHost, passphrase_of

PASSPHRASE = "correct horse battery staple"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in list(os.environ):
        if name.startswith(("DUALMEM_", "CLAUDE_")):
            monkeypatch.delenv(name)
    return replace(load_settings(tmp_path / "home"), keystore="file", bucket=str(tmp_path / "bucket"))


@pytest.fixture
async def own(settings: Settings) -> LazyApp:
    opened = open_app(settings)
    opened.init(PASSPHRASE)
    lazy = LazyApp(lambda: opened)
    await lazy.get()
    return lazy


@pytest.fixture
def closing(own: LazyApp) -> Iterator[App]:
    assert own.opened is not None
    with own.opened as app:
        yield app


def test_the_vaults_passphrase_lets_its_one_user_in(own: LazyApp, closing: App) -> None:
    unlocked = OwnAccount(own).unlock("whoever", PASSPHRASE)
    assert (unlocked.user, unlocked.secret) == (OWNER, b"")
    for wrong in ("", "correct horse battery", PASSPHRASE + " ", "\ud800"):
        with pytest.raises(LockedError, match="passphrase is wrong"):
            OwnAccount(own).unlock("owner", wrong)


def test_the_copy_on_the_device_will_do_while_the_bucket_is_away(
    own: LazyApp, closing: App, tmp_path: Path
) -> None:
    (tmp_path / "bucket").rename(tmp_path / "unplugged")
    assert OwnAccount(own).unlock("", PASSPHRASE).user == OWNER
    with pytest.raises(LockedError, match="passphrase is wrong"):
        OwnAccount(own).unlock("", "another one")


def test_a_vault_json_of_somebody_else_in_the_bucket_lets_nobody_in(
    own: LazyApp, closing: App, settings: Settings, tmp_path: Path
) -> None:
    other = replace(settings, home=tmp_path / "other", bucket=str(tmp_path / "others bucket"))
    with open_app(other) as app:
        app.init("the passphrase of another")
    (tmp_path / "bucket" / "vault.json").write_bytes((tmp_path / "others bucket" / "vault.json").read_bytes())
    with pytest.raises(TamperedError):
        closing.sync()
    with pytest.raises(LockedError, match="passphrase is wrong"):
        OwnAccount(own).unlock("", "the passphrase of another")
    assert OwnAccount(own).unlock("", PASSPHRASE).user == OWNER


def test_a_recovery_key_is_no_login(settings: Settings) -> None:
    with open_app(settings) as app:
        made = app.init(PASSPHRASE)
        with pytest.raises(LockedError):
            app.check_passphrase(made["recovery_key"])


async def test_a_host_without_a_vault_says_what_to_do(settings: Settings) -> None:
    lazy = LazyApp(lambda: open_app(settings))
    with pytest.raises(StoreUnreachableError):
        OwnAccount(lazy).unlock("", PASSPHRASE)
    with await lazy.get(), pytest.raises(LockedError) as refused:
        OwnAccount(lazy).unlock("", PASSPHRASE)
    assert "dualmem init" in refused.value.hint


def test_each_user_gets_in_by_their_own_passphrase(tmp_path: Path) -> None:
    host = UserHost(tmp_path)
    host.add("ana")
    host.add("ben")
    accounts = UserAccounts(host.folder)
    assert accounts.several
    for name in ("ana", "ben"):
        unlocked = accounts.unlock(name, passphrase_of(name))
        assert (unlocked.user, unlocked.secret) == (name, host.secrets[UserId(name)])
        assert repr(unlocked.secret) not in repr(unlocked)
    assert accounts.unlock(" Ana ", passphrase_of("ana")).user == "ana"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "cy",
        "ANA ANA",
        ".",
        "..",
        "../users/ana",
        "ana/",
        "ana/../ana",
        "/",
        "ana\0",
        "ana.json",
        "a" * 33,
        "-ana",
        "ána",
    ],
)
def test_whoever_is_not_there_is_told_the_same_as_one_who_mistyped(tmp_path: Path, name: str) -> None:
    host = UserHost(tmp_path)
    host.add("ana")
    accounts = UserAccounts(host.folder)
    with pytest.raises(LockedError) as wrong:
        accounts.unlock("ana", passphrase_of("ben"))
    with pytest.raises(LockedError) as unknown:
        accounts.unlock(name, passphrase_of("ana"))
    for field in ("message", "hint", "operation", "subject"):
        assert getattr(wrong.value, field) == getattr(unknown.value, field)


def test_the_time_of_an_answer_does_not_tell_who_is_there(tmp_path: Path) -> None:
    host = UserHost(tmp_path)
    host.add("ana")
    accounts = UserAccounts(host.folder)
    seconds: dict[str, list[float]] = {"ana": [], "cy": [], "../": []}
    for _ in range(5):
        for name, taken in seconds.items():
            start = time.process_time()
            with pytest.raises(LockedError):
                accounts.unlock(name, "wrong")
            taken.append(time.process_time() - start)
    known, unknown, impossible = (median(taken) for taken in seconds.values())
    # One derivation each: to leave it out, or to do it twice, would show.
    assert 0.6 < unknown / known < 1.7
    assert 0.6 < impossible / known < 1.7


def test_a_damaged_user_file_is_told_to_the_hosts_log_and_not_to_strangers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    host = UserHost(tmp_path)
    host.add("ana")
    path = host.folder.home(UserId("ana")) / "user.json"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(LockedError) as refused:
        UserAccounts(host.folder).unlock("ana", passphrase_of("ana"))
    assert refused.value.message == "the name or the passphrase is wrong"
    assert "user.json of ana is damaged" in caplog.text
    assert passphrase_of("ana") not in caplog.text


def test_nobody_gets_in_by_anothers_file(tmp_path: Path) -> None:
    host = UserHost(tmp_path)
    host.add("ana")
    host.add("ben")
    ana, ben = (host.folder.home(UserId(name)) / "user.json" for name in ("ana", "ben"))
    ana.write_bytes(ben.read_bytes())
    with pytest.raises(LockedError):
        UserAccounts(host.folder).unlock("ana", passphrase_of("ben"))
