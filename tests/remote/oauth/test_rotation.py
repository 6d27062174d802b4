"""The law of refresh tokens, held against whatever a client and a thief may do with all tokens they ever had."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from dualmem_mcp.model.grant import UserId
from dualmem_mcp.remote.interfaces import Unlocked
from dualmem_mcp.remote.oauth.errors import OAuthError
from dualmem_mcp.remote.oauth.grants import REFRESH_SECONDS, RETRY_SECONDS, Grants
from dualmem_mcp.remote.oauth.redirects import parse_redirect
from dualmem_mcp.remote.oauth.registration import Client
from dualmem_mcp.remote.options import RemoteOptions
from dualmem_mcp.stores.login_store import LoginStore, open_logins
from tests.remote.oauth.hosts import CLAUDE, URL, Turned

CLIENT = Client("dm-client", "Claude", (CLAUDE,))
SECRET = bytes(range(32))


@dataclass
class Chain:
    """What is to be: of each token since when it was used; all of them good as long as nobody was found out."""

    used: list[float | None]
    given: list[float]
    alive: bool = True

    def expected(self, index: int, now: float) -> int | None:
        """The token that is answered, by its number; None for a refusal, which may end the login."""
        if not self.alive or now - self.given[index] >= REFRESH_SECONDS:
            return None
        used = self.used[index]
        if used is None:
            self.used[index] = now
            self.used.append(None)
            self.given.append(now)
            return index + 1
        if now - used < RETRY_SECONDS and self.used[index + 1] is None:
            return index + 1
        self.alive = False
        return None


@given(
    st.lists(
        st.tuples(
            st.integers(0, 30),
            st.sampled_from([0.0, 0.0, 1.0, RETRY_SECONDS - 1.0, RETRY_SECONDS, 3_600.0, REFRESH_SECONDS - 5.0]),
        ),
        max_size=14,
    )
)
@settings(max_examples=40, deadline=None)
def test_there_is_one_chain_and_whoever_is_late_ends_it(steps):
    with tempfile.TemporaryDirectory() as folder, open_logins(Path(folder), choice="file") as store:
        clock = Turned()
        grants = Grants(store, RemoteOptions(public_url=URL), clock, clock.monotonic)
        _, answer = grants.issue(
            CLIENT, parse_redirect(CLAUDE), Unlocked(UserId("anna"), SECRET), frozenset({"read"})
        )
        tokens, access = [answer["refresh_token"]], [answer["access_token"]]
        chain = Chain([None], [clock.seconds])
        for number, pause in steps:
            clock.turn(pause)
            index = number % len(tokens)
            expected = chain.expected(index, clock.seconds)
            try:
                answer = grants.refresh(tokens[index], CLIENT.client_id)
            except OAuthError:
                assert expected is None
            else:
                assert expected is not None
                if expected == len(tokens):
                    tokens.append(answer["refresh_token"])
                    access.append(answer["access_token"])
                assert answer["refresh_token"] == tokens[expected]
                assert grants.caller(answer["access_token"]).secret == SECRET
            if not chain.alive:
                assert [grants.caller(token) for token in access] == [None] * len(access)
        assert unused(store) <= 1


def unused(store: LoginStore) -> int:
    with store._database.read() as connection:
        return connection.execute(
            "SELECT count(*) FROM tokens WHERE kind = 'refresh' AND rotated_at IS NULL"
        ).fetchone()[0]
