"""Logins of remote clients in logins.db: who registered, what users granted, and their tokens as hashes.

What lies here opens nothing: of a token its SHA-256 is kept, and of a user's secret a wrap under a key that only
the token gives. Times are seconds since 1970, UTC.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self, cast

from dualmem_mcp.crypto.kdf import extract_and_expand
from dualmem_mcp.errors import StoreRefusedError, TamperedError
from dualmem_mcp.model.grant import SCOPES, Scope, UserId
from dualmem_mcp.stores.connection import Connection
from dualmem_mcp.stores.database import Database, DatabaseKind
from dualmem_mcp.stores.database_faults import Remedies
from dualmem_mcp.stores.keystore import Choice, open_device_secret

FILE_NAME: Final = "logins.db"
VERSION: Final = 1

TokenKind = Literal["access", "refresh"]

_TABLES: Final = (
    """CREATE TABLE state (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    revision INTEGER NOT NULL,         -- counts revocations, so that other processes see them
    cookie_key BLOB NOT NULL           -- 32 random bytes that sign what browsers carry
) STRICT""",
    """CREATE TABLE clients (              -- that registered themselves
    client_id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    redirect_uris TEXT NOT NULL,       -- JSON array
    registered_at INTEGER NOT NULL,
    used_at INTEGER NOT NULL           -- when it last registered or asked for a login
) STRICT, WITHOUT ROWID""",
    "CREATE INDEX clients_by_use ON clients (used_at)",
    """CREATE TABLE grants (
    grant_id TEXT PRIMARY KEY,
    user TEXT NOT NULL,
    client_id TEXT NOT NULL,
    client_name TEXT NOT NULL,         -- as the user saw it
    redirect_host TEXT NOT NULL,
    scopes TEXT NOT NULL,              -- separated by spaces
    resource TEXT NOT NULL,            -- the audience: the URL of the endpoint that it is for
    granted_at INTEGER NOT NULL,
    used_at INTEGER NOT NULL           -- of the last token
) STRICT, WITHOUT ROWID""",
    "CREATE INDEX grants_by_client ON grants (client_id)",
    """CREATE TABLE tokens (
    token_id BLOB PRIMARY KEY,         -- 16 bytes
    grant_id TEXT NOT NULL REFERENCES grants (grant_id) ON DELETE CASCADE,
    kind TEXT NOT NULL,                -- access, refresh
    digest BLOB NOT NULL,              -- SHA-256 of the whole token
    wrapped BLOB NOT NULL,             -- the user's secret under the token's; empty where the host keeps it
    expires_at INTEGER NOT NULL,
    rotated_at INTEGER                 -- of a refresh token that has been used
) STRICT, WITHOUT ROWID""",
    "CREATE INDEX tokens_by_grant ON tokens (grant_id)",
    "CREATE INDEX tokens_by_end ON tokens (expires_at)",
)


@dataclass(frozen=True, slots=True)
class RegisteredClient:
    """A client as it registered itself: nothing of it is proved."""

    client_id: str
    name: str
    redirect_uris: tuple[str, ...]
    registered_at: int
    used_at: int


@dataclass(frozen=True, slots=True)
class KeptGrant:
    """What a user allowed a client. `resource` is the endpoint's URL at that time."""

    grant_id: str
    user: UserId
    client_id: str
    client_name: str
    redirect_host: str
    scopes: frozenset[Scope]
    resource: str
    granted_at: int
    used_at: int


@dataclass(frozen=True, slots=True)
class NewToken:
    """What is kept of a token: an id of 16 bytes, its SHA-256, and the user's secret wrapped under it."""

    token_id: bytes
    digest: bytes
    wrapped: bytes
    expires_at: int


@dataclass(frozen=True, slots=True)
class KeptToken:
    """A token that was given out, with its grant. `rotated_at` is when a refresh token was used."""

    grant: KeptGrant
    digest: bytes
    wrapped: bytes
    expires_at: int
    rotated_at: int | None


def _set_up(connection: Connection, transaction: Callable[[], AbstractContextManager[None]], path: str) -> None:
    if _version(connection) == 0:
        with transaction():
            if _version(connection) == 0:
                for statement in _TABLES:
                    connection.execute(statement)
                connection.execute("INSERT INTO state VALUES (1, 0, ?)", (secrets.token_bytes(32),))
                connection.execute(f"PRAGMA user_version = {VERSION}")
    if _version(connection) > VERSION:
        raise StoreRefusedError(
            f"{FILE_NAME} was changed by a newer version of dualmem-mcp",
            operation="open logins",
            subject=path,
            hint="Update dualmem-mcp on this host; nothing was changed.",
        )


def _version(connection: Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


_LOGIN_SECONDS: Final = 600
"""From a client's registration to the end of the login that it registered for, a slow user's too."""

_START_ANEW: Final = "Move it away to start anew: remote clients then have to log in again; nothing else is lost."

LOGINS: Final = DatabaseKind(
    salt_label=b"dualmem logins.db salt\0",
    set_up=_set_up,
    # A revocation that was acknowledged stays; what is deleted is written over.
    pragmas=("synchronous = FULL", "secure_delete = ON", "journal_size_limit = 16777216"),
    remedies=Remedies(does_not_open=_START_ANEW, damaged=_START_ANEW, cut=_START_ANEW),
)


def open_logins(folder: Path, *, choice: Choice = "auto") -> LoginStore:
    """The logins of the data home (one user) or of the folder with users, made if there are none.

    Raises LockedError if the host's key is gone or does not open them, StoreUnreachableError, TamperedError.
    """
    path = folder / FILE_NAME
    several = not (folder / "memory.db").exists()
    device = open_device_secret(folder, choice=choice, database=path if several else None)
    return LoginStore(Database.open(path, derive_logins_key(device.secret), LOGINS))


def derive_logins_key(host_secret: bytes) -> bytes:
    """The raw key (32 bytes) of logins.db, from the 32 bytes that the host's keystore holds.

    Source: docs/oauth.md, "What is kept".
    """
    return extract_and_expand(host_secret, salt=None, info=b"dualmem/1/host/logins")


class LoginStore:
    """Logins, for use from any thread, beside other processes on the same file."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def cookie_key(self) -> bytes:
        """32 random bytes of this host, which sign what browsers carry."""
        with self._database.read() as connection:
            (key,) = connection.execute("SELECT cookie_key FROM state").fetchone()
        return bytes(key)

    def revision(self) -> int:
        """A number that every revocation raises, in whatever process."""
        with self._database.read() as connection:
            (revision,) = connection.execute("SELECT revision FROM state").fetchone()
        return int(revision)

    # Clients

    def register(self, client: RegisteredClient, *, most_unused: int) -> RegisteredClient:
        """The client as it is kept from now on; of those that nobody granted anything, the `most_unused` used last
        are kept, and ten times as many while they are younger than a login takes: others who register in great
        numbers do not push out one whose user is at the consent page. One that registers again under its id stays
        as it was."""
        with self._database.write() as connection:
            connection.execute(
                "INSERT INTO clients VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET used_at = excluded.used_at",
                (
                    client.client_id,
                    client.name,
                    json.dumps(client.redirect_uris),
                    client.registered_at,
                    client.used_at,
                ),
            )
            connection.execute(
                "DELETE FROM clients WHERE client_id IN ("
                " SELECT client_id FROM clients"
                " WHERE NOT EXISTS (SELECT 1 FROM grants WHERE grants.client_id = clients.client_id)"
                " ORDER BY used_at DESC, registered_at DESC, client_id LIMIT -1 OFFSET ?1)"
                " AND (used_at <= ?2 OR client_id IN ("
                " SELECT client_id FROM clients"
                " WHERE NOT EXISTS (SELECT 1 FROM grants WHERE grants.client_id = clients.client_id)"
                " ORDER BY used_at DESC, registered_at DESC, client_id LIMIT -1 OFFSET ?3))",
                (most_unused, client.used_at - _LOGIN_SECONDS, 10 * most_unused),
            )
            return next(_clients(connection, client.client_id), client)

    def client(self, client_id: str) -> RegisteredClient | None:
        """The client of that id, if it registered here."""
        with self._database.read() as connection:
            return next(_clients(connection, client_id), None)

    def used_client(self, client_id: str, now: int) -> None:
        """Note that a registered client asks for a login: it goes after those that never did."""
        with self._database.write() as connection:
            connection.execute("UPDATE clients SET used_at = ? WHERE client_id = ?", (now, client_id))

    # Grants and tokens

    def add_grant(self, grant: KeptGrant, access: NewToken, refresh: NewToken) -> None:
        """Keep a grant with its first tokens; what has ended by then goes."""
        with self._database.write() as connection:
            _remove_ended(connection, grant.granted_at)
            connection.execute(
                "INSERT INTO grants VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    grant.grant_id,
                    grant.user,
                    grant.client_id,
                    grant.client_name,
                    grant.redirect_host,
                    " ".join(sorted(grant.scopes)),
                    grant.resource,
                    grant.granted_at,
                    grant.used_at,
                ),
            )
            _add_token(connection, grant.grant_id, "access", access)
            _add_token(connection, grant.grant_id, "refresh", refresh)

    def token(self, token_id: bytes, kind: TokenKind) -> KeptToken | None:
        """What is kept of the token of that id; None if there is none, or its grant was revoked."""
        with self._database.read() as connection:
            row = connection.execute(
                f"SELECT {_GRANT_COLUMNS}, digest, wrapped, expires_at, rotated_at"  # noqa: S608
                " FROM tokens JOIN grants USING (grant_id) WHERE token_id = ? AND kind = ?",
                (token_id, kind),
            ).fetchone()
        if row is None:
            return None
        *grant, digest, wrapped, expires_at, rotated_at = row
        return KeptToken(_grant(grant), digest, wrapped, expires_at, rotated_at)

    def rotate(self, token_id: bytes, now: int, access: NewToken, refresh: NewToken) -> bool:
        """Put new tokens in the place of a refresh token; False if it is not good any more, and nothing changed.

        Of several that try at once, in whatever processes, exactly one succeeds. The used one is remembered,
        without what it opened.
        """
        with self._database.write() as connection:
            changed = connection.execute(
                "UPDATE tokens SET rotated_at = ?, wrapped = x''"
                " WHERE token_id = ? AND kind = 'refresh' AND rotated_at IS NULL AND expires_at > ?"
                " RETURNING grant_id",
                (now, token_id, now),
            ).fetchone()
            if changed is None:
                return False
            connection.execute("UPDATE grants SET used_at = ? WHERE grant_id = ?", (now, changed[0]))
            _add_token(connection, changed[0], "access", access)
            _add_token(connection, changed[0], "refresh", refresh)
            _remove_ended(connection, now)
            return True

    def grants(self, now: int, user: UserId | None = None) -> Sequence[KeptGrant]:
        """All grants that a token still opens, or those of one user, the one used last first."""
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT {_GRANT_COLUMNS} FROM grants WHERE (?1 IS NULL OR user = ?1)"  # noqa: S608
                " AND EXISTS (SELECT 1 FROM tokens WHERE tokens.grant_id = grants.grant_id"
                "  AND rotated_at IS NULL AND expires_at > ?2)"
                " ORDER BY used_at DESC, granted_at DESC, grant_id",
                (user, now),
            )
            return [_grant(row) for row in rows]

    def revoke(self, *, grant_id: str | None = None, user: UserId | None = None) -> int:
        """End the grant of that id, those of that user, or (without either) all: how many it were.

        With both, a grant is ended only if it is that user's.
        """
        with self._database.write() as connection:
            ended = connection.execute(
                "DELETE FROM grants WHERE (?1 IS NULL OR grant_id = ?1) AND (?2 IS NULL OR user = ?2)"
                " RETURNING grant_id",
                (grant_id, user),
            ).fetchall()
            if ended:
                connection.execute("UPDATE state SET revision = revision + 1")
            return len(ended)


_GRANT_COLUMNS: Final = (
    "grants.grant_id, user, client_id, client_name, redirect_host, scopes, resource, granted_at, used_at"
)


def _clients(connection: Connection, client_id: str) -> Iterator[RegisteredClient]:
    rows = connection.execute(
        "SELECT client_id, name, redirect_uris, registered_at, used_at FROM clients WHERE client_id = ?",
        (client_id,),
    )
    for identity, name, uris, registered_at, used_at in rows.fetchall():
        yield RegisteredClient(identity, name, tuple(json.loads(uris)), registered_at, used_at)


def _add_token(connection: Connection, grant_id: str, kind: TokenKind, token: NewToken) -> None:
    connection.execute(
        "INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, NULL)",
        (token.token_id, grant_id, kind, token.digest, token.wrapped, token.expires_at),
    )


def _remove_ended(connection: Connection, now: int) -> None:
    """A used refresh token stays until it would have ended by itself: as long as that, its reuse is noticed."""
    connection.execute("DELETE FROM tokens WHERE expires_at <= ?", (now,))
    connection.execute(
        "DELETE FROM grants WHERE granted_at < ?"
        " AND NOT EXISTS (SELECT 1 FROM tokens WHERE tokens.grant_id = grants.grant_id AND rotated_at IS NULL)",
        (now,),
    )


def _grant(row: Sequence[Any]) -> KeptGrant:
    grant_id, user, client_id, client_name, redirect_host, scopes, resource, granted_at, used_at = row
    named = frozenset(scopes.split())
    if not named <= frozenset(SCOPES):
        raise TamperedError(
            "a login allows what this version does not know",
            operation="read logins",
            subject=grant_id,
            hint="Update dualmem-mcp on this host, or end the login: `dualmem clients revoke`.",
        )
    return KeptGrant(
        grant_id=grant_id,
        user=UserId(user),
        client_id=client_id,
        client_name=client_name,
        redirect_host=redirect_host,
        scopes=cast("frozenset[Scope]", named),
        resource=resource,
        granted_at=granted_at,
        used_at=used_at,
    )
