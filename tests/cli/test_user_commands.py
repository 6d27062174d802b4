"""dualmem users, as whoever runs a host uses it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dualmem_mcp.app import open_app
from dualmem_mcp.errors import StoreUnreachableError
from dualmem_mcp.model.grant import UserId
from dualmem_mcp.remote.accounts import UserAccounts
from dualmem_mcp.settings import load_hosted_settings
from dualmem_mcp.stores.bucket_access import kept_bucket_access
from dualmem_mcp.stores.login_store import KeptGrant, NewToken, open_logins
from dualmem_mcp.stores.user_folder import UserFolder
from tests.remote.user_host import UserHost

Run = Callable[..., subprocess.CompletedProcess[str]]
PASSPHRASE = "correct horse battery staple"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    environment = {
        **{
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("DUALMEM_", "CLAUDE_", "AWS_"))
        },
        "DUALMEM_PASSPHRASE": PASSPHRASE,
        "DUALMEM_KEYSTORE": "file",
        "DUALMEM_HOME": str(tmp_path / "operator"),
        "DUALMEM_BUCKET": str(tmp_path / "operators bucket"),
        "HOME": str(tmp_path),
    }

    def command(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "dualmem_mcp.cli", "users", *arguments],
            env={**environment, **changes},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return command


@pytest.fixture
def folder(tmp_path: Path) -> UserFolder:
    return UserFolder(tmp_path / "users")


def names(folder: UserFolder) -> list[str]:
    return sorted(path.name for path in folder.root.iterdir()) if folder.root.exists() else []


def test_users_are_added_listed_and_removed(run: Run, folder: UserFolder, tmp_path: Path) -> None:
    made = run("add", "ana", "--users", "users", "--bucket", "bucket", "--new", "--json")
    assert made.returncode == 0, made.stderr
    vault = json.loads(made.stdout)
    assert vault["user"] == "ana"
    assert vault["bucket"] == str(tmp_path / "bucket")
    assert vault["recovery_key"].startswith("DMR1-")
    # The same vault for a second user of this host: by joining it.
    joined = run("add", "ben", "--users", "users", "--bucket", "bucket", "--device-name", "host of ben")
    assert joined.returncode == 0, joined.stderr
    listed = json.loads(run("list", "--users", "users", "--json").stdout)["users"]
    assert [one["user"] for one in listed] == ["ana", "ben"]
    assert UserAccounts(folder).unlock("ben", PASSPHRASE).user == "ben"

    removed = run("remove", "ana", "--users", "users", "--yes", "--json")
    assert removed.returncode == 0, removed.stderr
    assert json.loads(removed.stdout)["logins_ended"] == 0
    assert names(folder) == ["ben"]
    again = run("remove", "ana", "--users", "users", "--yes")
    assert (again.returncode, again.stdout) == (3, "")
    assert not (tmp_path / "operator").exists()  # nothing of it is the operator's own


def test_a_new_user_opens_by_the_secret_that_the_passphrase_gives_and_by_nothing_else(
    run: Run, folder: UserFolder
) -> None:
    assert run("add", "ana", "--users", "users", "--bucket", "bucket", "--new").returncode == 0
    secret = UserAccounts(folder).unlock("ana", PASSPHRASE).secret
    with open_app(load_hosted_settings(folder.home(UserId("ana"))), secret=secret) as app:
        assert app.status()["vault_id"] is not None
    plain = subprocess.run(
        [sys.executable, "-m", "dualmem_mcp.cli", "--home", str(folder.home(UserId("ana"))), "status"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert plain.returncode == 4
    assert "login alone" in plain.stderr


REFUSED = [
    (["Ana", "--bucket", "bucket"], PASSPHRASE, 2, "lower-case"),
    (["../ana", "--bucket", "bucket"], PASSPHRASE, 2, "lower-case"),
    (["cy", "--bucket", "nowhere"], PASSPHRASE, 6, "nowhere"),
    (["cy", "--bucket", "bucket"], "wrong horse", 4, "passphrase"),
    (["cy", "--bucket", "bucket"], "DMR1-AAAAA", 2, "recovery key"),
    (["cy", "--bucket", "bucket", "--new"], PASSPHRASE, 7, "there is a vault"),
    (["ana", "--bucket", "bucket"], PASSPHRASE, 7, "already"),
    (["cy", "--bucket", "bucket", "--own-credentials"], PASSPHRASE, 2, "AWS_ACCESS_KEY_ID"),
]


def test_what_cannot_be_added_leaves_nothing_behind(run: Run, folder: UserFolder) -> None:
    assert run("add", "ana", "--users", "users", "--bucket", "bucket", "--new").returncode == 0
    for arguments, passphrase, status, told in REFUSED:
        changes = {"DUALMEM_PASSPHRASE": passphrase, "AWS_EC2_METADATA_DISABLED": "true"}
        refused = run("add", *arguments, "--users", "users", **changes)
        assert (refused.returncode, refused.stdout) == (status, ""), (arguments, refused.stderr)
        assert told in refused.stderr
        assert "Traceback" not in refused.stderr
        assert names(folder) == ["ana"], arguments


def test_own_credentials_lie_in_the_users_database_alone(run: Run, folder: UserFolder) -> None:
    keys = {
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLEOFANA",
        "AWS_SECRET_ACCESS_KEY": "the secret access key of ana",
        "AWS_DEFAULT_REGION": "eu-north-1",
        "AWS_ENDPOINT_URL_S3": "https://s3.example.org",
    }
    made = run("add", "ana", "--users", "users", "--bucket", "bucket", "--new", "--own-credentials", **keys)
    assert made.returncode == 0, made.stderr
    secret = UserAccounts(folder).unlock("ana", PASSPHRASE).secret
    with open_app(load_hosted_settings(folder.home(UserId("ana"))), secret=secret) as app:
        kept = kept_bucket_access(app.blobs)
    assert kept is not None
    assert (kept.access_key_id, kept.secret_access_key) == (
        keys["AWS_ACCESS_KEY_ID"],
        keys["AWS_SECRET_ACCESS_KEY"],
    )
    assert (kept.region, kept.endpoint_url) == ("eu-north-1", "https://s3.example.org")
    assert keys["AWS_SECRET_ACCESS_KEY"] not in repr(kept)
    for path in folder.root.rglob("*"):
        if path.is_file():
            assert b"ANA" not in path.read_bytes(), path


def test_removing_a_user_ends_their_logins_and_no_others(run: Run, folder: UserFolder) -> None:
    host = UserHost(folder.root.parent)
    host.add("ana")
    host.add("ben")
    with open_logins(folder.root, choice="file") as logins:
        for name in ("ana", "ben"):
            grant = KeptGrant(
                f"of {name}", UserId(name), "client", "Claude", "claude.ai", frozenset({"read"}), "r", 1, 1
            )
            tokens = [NewToken(f"{name} {kind}".encode().ljust(16), bytes(32), bytes(80), 2**40) for kind in "ar"]
            logins.add_grant(grant, *tokens)
    removed = run("remove", "ana", "--users", "users", "--yes", "--json")
    assert json.loads(removed.stdout)["logins_ended"] == 1
    with open_logins(folder.root, choice="file") as logins:
        assert (logins.revoke(user=UserId("ana")), logins.revoke(user=UserId("ben"))) == (0, 1)


def test_removing_asks_first(run: Run, folder: UserFolder) -> None:
    UserHost(folder.root.parent).add("ana")
    asked = run("remove", "ana", "--users", "users")
    assert asked.returncode == 2
    assert "--yes" in asked.stderr
    assert names(folder) == ["ana"]


def test_what_killed_runs_left_goes_with_the_next(folder: UserFolder) -> None:
    folder.root.mkdir()
    fresh, _ = folder.begin(UserId("ana"))
    left, _ = folder.begin(UserId("ben"))
    os.utime(left, (0, 0))
    (folder.root / ".removed-cy-00").mkdir()
    (folder.root / ".removed-cy-00" / "device.key").write_text("x")
    (folder.root / "kept").mkdir()
    folder.remove_leftovers()
    assert names(folder) == sorted([fresh.name, "kept"])
    assert folder.users() == []


def test_a_removal_that_does_not_get_to_its_end_has_removed_the_user(
    folder: UserFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = UserHost(folder.root.parent)
    host.add("ana")
    with monkeypatch.context() as patch:

        def fails(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        patch.setattr("shutil.rmtree", fails)
        with pytest.raises(StoreUnreachableError):
            folder.remove(UserId("ana"))
    assert folder.users() == []
    [left] = folder.root.iterdir()
    assert not (left / "user.json").exists()
    assert not (left / "device.key").exists()
    host.add("ana")
    folder.remove_leftovers()
    assert names(folder) == ["ana"]


def test_one_damaged_user_does_not_hide_the_others(run: Run, folder: UserFolder) -> None:
    host = UserHost(folder.root.parent)
    host.add("ana")
    host.add("ben")
    (folder.root / "ana" / "user.json").write_text("{}")
    told = run("list", "--users", "users")
    assert told.returncode == 0
    ana, ben = told.stdout.splitlines()
    assert "damaged" in ana
    assert "added 2026-03-01" in ben
    # And who is damaged can be removed.
    assert run("remove", "ana", "--users", "users", "--yes").returncode == 0
    assert names(folder) == ["ben"]


def test_an_empty_or_missing_folder_has_no_users(run: Run) -> None:
    told = run("list", "--users", "nowhere")
    assert (told.returncode, told.stderr) == (0, "")
    assert "users add" in told.stdout
