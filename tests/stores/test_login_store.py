"""Logins: what is kept of clients, grants and tokens, and what is not."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from dualmem_mcp.errors import LockedError, StoreRefusedError, TamperedError
from dualmem_mcp.model.grant import UserId
from dualmem_mcp.stores.database import Database
from dualmem_mcp.stores.login_store import (
    LOGINS,
    KeptGrant,
    LoginStore,
    NewToken,
    RegisteredClient,
    derive_logins_key,
    open_logins,
)

NOW = 1_795_000_000


@pytest.fixture
def store(tmp_path):
    with open_logins(tmp_path, choice="file") as made:
        yield made


def client(number: int = 1, used_at: int = NOW) -> RegisteredClient:
    return RegisteredClient(f"dm-{number}", f"Client {number}", ("http://localhost/cb",), used_at, used_at)


def grant(grant_id: str = "g1", **other) -> KeptGrant:
    return replace(
        KeptGrant(
            grant_id=grant_id,
            user=UserId("anna"),
            client_id="dm-1",
            client_name="Claude",
            redirect_host="claude.ai",
            scopes=frozenset({"read", "write"}),
            resource="https://memory.example/mcp",
            granted_at=NOW,
            used_at=NOW,
        ),
        **other,
    )


def token(name: str, ends: int = 3_600) -> NewToken:
    return NewToken(
        name.encode().ljust(16, b"."), name.encode().ljust(32, b"-"), b"wrap of " + name.encode(), NOW + ends
    )


def test_a_client_is_kept_and_stays_as_it_registered(store):
    assert store.client("dm-1") is None
    assert store.register(client(), most_unused=5) == client()
    again = store.register(replace(client(), name="Another", used_at=NOW + 60), most_unused=5)
    assert again.name == "Client 1"
    assert store.client("dm-1") == replace(client(), used_at=NOW + 60)


def test_unused_clients_go_by_age_and_granted_ones_stay(store):
    store.register(client(1, NOW - 900), most_unused=5)
    store.add_grant(grant(), token("a"), token("r"))
    for number in range(2, 12):
        store.register(client(number, NOW + number * 1_000), most_unused=5)
    assert [n for n in range(1, 12) if store.client(f"dm-{n}")] == [1, 7, 8, 9, 10, 11]


def test_clients_whose_login_may_be_under_way_are_not_pushed_out_by_a_few_others(store):
    for number in range(1, 26):
        store.register(client(number, NOW + number), most_unused=2)
    assert [n for n in range(1, 26) if store.client(f"dm-{n}")] == list(range(6, 26))
    store.register(client(26, NOW + 2_000), most_unused=2)
    assert [n for n in range(1, 27) if store.client(f"dm-{n}")] == [25, 26]


def test_a_client_that_asks_for_a_login_is_not_the_next_to_go(store):
    for number in range(1, 4):
        store.register(client(number, NOW + number * 1_000), most_unused=3)
    store.used_client("dm-1", NOW + 50_000)
    store.register(client(4, NOW + 4_000), most_unused=3)
    assert [n for n in range(1, 5) if store.client(f"dm-{n}")] == [1, 3, 4]


def test_tokens_are_found_by_id_and_kind(store):
    store.add_grant(grant(), token("a"), token("r"))
    kept = store.token(token("a").token_id, "access")
    assert (kept.grant, kept.digest, kept.wrapped) == (grant(), token("a").digest, b"wrap of a")
    assert store.token(token("a").token_id, "refresh") is None
    assert store.token(token("b").token_id, "access") is None


def test_a_refresh_token_is_rotated_once_and_remembered_without_its_wrap(store):
    store.add_grant(grant(), token("a"), token("r"))
    assert store.rotate(token("r").token_id, NOW + 5, token("a2"), token("r2", 9_000))
    used = store.token(token("r").token_id, "refresh")
    assert (used.rotated_at, used.wrapped, used.grant.used_at) == (NOW + 5, b"", NOW + 5)
    assert not store.rotate(token("r").token_id, NOW + 6, token("a3"), token("r3"))
    assert store.token(token("a3").token_id, "access") is None
    assert store.token(token("r2").token_id, "refresh").rotated_at is None


def test_of_many_that_rotate_at_once_one_succeeds(store, tmp_path):
    store.add_grant(grant(), token("a"), token("r"))
    done, start = [], threading.Barrier(6)

    def rotate(number: int, one: LoginStore) -> None:
        start.wait()
        if one.rotate(token("r").token_id, NOW, token(f"a{number}"), token(f"r{number}")):
            done.append(number)

    with open_logins(tmp_path, choice="file") as other:
        threads = [threading.Thread(target=rotate, args=(n, (store, other)[n % 2])) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(done) == 1
    kept = [n for n in range(6) if store.token(token(f"r{n}").token_id, "refresh")]
    assert kept == done


def test_a_refresh_token_that_has_ended_is_not_rotated(store):
    store.add_grant(grant(), token("a"), token("r", 60))
    assert not store.rotate(token("r").token_id, NOW + 60, token("a2"), token("r2"))


@pytest.mark.parametrize(
    ("named", "left"),
    [
        ({"grant_id": "g1"}, ["g2", "g3"]),
        ({"user": "anna"}, ["g3"]),
        ({"grant_id": "g3", "user": "anna"}, ["g1", "g2", "g3"]),
        ({}, []),
    ],
)
def test_what_is_revoked_is_gone_with_its_tokens(store, named, left):
    for number, user in (("1", "anna"), ("2", "anna"), ("3", "ben")):
        store.add_grant(
            grant(f"g{number}", user=UserId(user)), token(f"a{number}", 9_000), token(f"r{number}", 9_000)
        )
    before = store.revision()
    assert store.revoke(**named) == 3 - len(left)
    assert [one.grant_id for one in store.grants(NOW)] == left
    assert [f"g{n}" for n in "123" if store.token(token(f"a{n}").token_id, "access")] == left
    assert (store.revision() > before) == (len(left) < 3)


def test_what_has_ended_goes_and_a_used_refresh_token_stays_as_long_as_it_would_have_lasted(store):
    store.add_grant(grant("g1"), token("a1", 10), token("r1", 100))
    store.add_grant(grant("g2"), token("a2", 10), token("r2", 500))
    store.rotate(token("r2").token_id, NOW + 20, token("a3", 50), token("r3", 600))
    assert store.token(token("a1").token_id, "access") is None
    assert store.token(token("r2").token_id, "refresh").rotated_at == NOW + 20
    assert [one.grant_id for one in store.grants(NOW + 200)] == ["g2"]
    store.add_grant(grant("g4", granted_at=NOW + 550), token("a4", 9_000), token("r4", 9_000))
    assert store.token(token("r1").token_id, "refresh") is None
    assert store.token(token("r2").token_id, "refresh") is None
    assert store.token(token("r3").token_id, "refresh") is not None


def test_two_processes_see_one_another(store, tmp_path):
    with open_logins(tmp_path, choice="file") as other:
        store.add_grant(grant(), token("a"), token("r"))
        before = other.revision()
        assert other.token(token("a").token_id, "access") is not None
        store.revoke(grant_id="g1")
        assert other.token(token("a").token_id, "access") is None
        assert other.revision() == before + 1
        assert other.cookie_key() == store.cookie_key()


def test_the_file_tells_nothing_without_the_key(store, tmp_path):
    store.register(client(), most_unused=5)
    store.add_grant(grant(client_name="Marker of a name"), token("a"), token("r"))
    store.close()
    raw = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.name.startswith("logins.db"))
    assert raw
    for text in (b"Marker", b"claude.ai", b"SQLite", b"wrap of", b"CREATE TABLE"):
        assert text not in raw
    with pytest.raises(LockedError):
        Database.open(tmp_path / "logins.db", derive_logins_key(b"x" * 32), LOGINS)


def test_another_purpose_has_another_key():
    from dualmem_mcp.crypto.keys import derive_database_key

    assert derive_logins_key(b"s" * 32) != derive_database_key(b"s" * 32)


def test_logins_without_their_key_are_not_made_anew(store, tmp_path):
    store.add_grant(grant(), token("a"), token("r"))
    store.close()
    (tmp_path / "device.key").unlink()
    with pytest.raises(LockedError, match="key of this data home is gone"):
        open_logins(tmp_path, choice="file")


def test_logins_of_a_newer_version_are_left_alone(store, tmp_path):
    with store._database.write() as connection:
        connection.execute("PRAGMA user_version = 2")
    store.close()
    with pytest.raises(StoreRefusedError, match="newer version"):
        open_logins(tmp_path, choice="file")


def test_a_scope_of_a_newer_version_is_refused(store):
    store.add_grant(grant(scopes=frozenset({"read", "everything"})), token("a"), token("r"))
    with pytest.raises(TamperedError, match="does not know"):
        store.token(token("a").token_id, "access")
