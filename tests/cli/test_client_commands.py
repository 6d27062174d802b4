"""dualmem clients and clients revoke, as a user runs them."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from dualmem_mcp.cli import main
from dualmem_mcp.model.grant import UserId
from dualmem_mcp.stores.login_store import KeptGrant, NewToken, open_logins


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs a command on a data home; its exit code, what it said, and what it complained of."""
    monkeypatch.setenv("DUALMEM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DUALMEM_KEYSTORE", "file")

    def command(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        said = capsys.readouterr()
        return ended.value.code or 0, said.out, said.err

    return command


def let_in(folder: Path, grant_id: str, *, user: str = "owner", name: str = "Claude", ended: bool = False) -> None:
    now = int(time.time())
    folder.mkdir(exist_ok=True, parents=True)
    grant = KeptGrant(
        grant_id=grant_id,
        user=UserId(user),
        client_id="dm-client",
        client_name=name,
        redirect_host="claude.ai",
        scopes=frozenset({"read", "write"}),
        resource="https://memory.example/mcp",
        granted_at=now - 90_000,
        used_at=now - 90_000,
    )
    tokens = [
        NewToken(f"{grant_id}{kind}".encode()[:16].ljust(16), b"d" * 32, b"", now + (-9 if ended else 9_000))
        for kind in "ar"
    ]
    with open_logins(folder, choice="file") as logins:
        logins.add_grant(grant, *tokens)


def test_without_logins_nothing_is_made(run, tmp_path):
    code, out, err = run("clients")
    assert (code, out, err) == (0, "no remote client has been let in\n", "")
    assert run("clients", "--json")[1] == '{\n  "clients": []\n}\n'
    assert not (tmp_path / "home" / "logins.db").exists()


def test_clients_are_listed_with_what_they_may_do(run, tmp_path):
    let_in(tmp_path / "home", "aa11")
    let_in(tmp_path / "home", "bb22", name="An old one", ended=True)
    code, out, _ = run("clients")
    assert code == 0
    assert out.startswith("aa11  Claude at claude.ai  (read, write; since ")
    assert "bb22" not in out
    (one,) = json.loads(run("clients", "--json")[1])["clients"]
    assert {name: one[name] for name in ("id", "user", "name", "client_id", "redirect_host", "scopes")} == {
        "id": "aa11",
        "user": "owner",
        "name": "Claude",
        "client_id": "dm-client",
        "redirect_host": "claude.ai",
        "scopes": ["read", "write"],
    }
    assert one["granted_at"].endswith("+00:00")


def test_one_client_is_shut_out_by_the_beginning_of_its_id(run, tmp_path):
    let_in(tmp_path / "home", "aa11")
    let_in(tmp_path / "home", "aa22")
    code, _, err = run("clients", "revoke", "aa")
    assert code == 3
    assert "several clients" in err
    assert run("clients", "revoke", "zz")[0] == 3
    code, out, _ = run("clients", "revoke", "aa1")
    assert (code, out) == (0, "1 client shut out\n")
    assert [one["id"] for one in json.loads(run("clients", "--json")[1])["clients"]] == ["aa22"]


def test_all_are_shut_out(run, tmp_path):
    let_in(tmp_path / "home", "aa11")
    let_in(tmp_path / "home", "bb22")
    assert json.loads(run("clients", "revoke", "--all", "--json")[1]) == {"revoked": 2}
    assert json.loads(run("clients", "--json")[1]) == {"clients": []}


@pytest.mark.parametrize("arguments", [(), ("aa11", "--all")])
def test_revoke_wants_one_or_all(run, tmp_path, arguments):
    let_in(tmp_path / "home", "aa11")
    code, _, err = run("clients", "revoke", *arguments)
    assert code == 2
    assert "hint:" in err
    assert len(json.loads(run("clients", "--json")[1])["clients"]) == 1


def test_clients_of_a_host_of_several_users(run, tmp_path):
    let_in(tmp_path / "users", "aa11", user="anna")
    let_in(tmp_path / "users", "bb22", user="ben")
    folder = str(tmp_path / "users")
    assert "aa11  anna  Claude" in run("clients", "--users", folder)[1]
    assert run("clients", "--users", folder, "revoke", "aa11")[1] == "1 client shut out\n"
    assert run("clients", "revoke", "bb22", "--users", folder)[1] == "1 client shut out\n"
    assert run("clients", "--users", str(tmp_path / "none"))[0] == 3
