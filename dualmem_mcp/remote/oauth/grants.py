"""Tokens given out for grants, rotated, looked up and taken back."""

from __future__ import annotations

import hmac
import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dualmem_mcp.errors import LockedError, TamperedError
from dualmem_mcp.model.grant import SCOPES, Grant, Scope, UserId
from dualmem_mcp.ports import Clock
from dualmem_mcp.remote.interfaces import Caller, Unlocked
from dualmem_mcp.remote.oauth.errors import OAuthError
from dualmem_mcp.remote.oauth.redirects import Redirect
from dualmem_mcp.remote.oauth.registration import Client
from dualmem_mcp.remote.oauth.tokens import Token, mint, parse
from dualmem_mcp.remote.options import RemoteOptions
from dualmem_mcp.stores.login_store import KeptGrant, KeptToken, LoginStore, TokenKind

_log = logging.getLogger(__name__)

ACCESS_SECONDS: Final = 3_600
REFRESH_SECONDS: Final = 30 * 24 * 3_600

RETRY_SECONDS: Final = 30
"""For so long the very same refresh gets the very same answer: an answer may be lost, and several processes of
Claude Code share one refresh token and refresh at nearly the same moment (anthropics/claude-code issue 85236)."""

_LOOK_SECONDS: Final = 0.5
"""How often it is looked for revocations of other processes."""

_MOST_CALLERS: Final = 10_000
_ENDED: Final = "This login has ended or was revoked: log in again."


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a refresh was answered, kept in memory alone."""

    tokens: dict[str, Any]
    successor: bytes
    expires_at: int
    forget_at: float


class Grants:
    """What users granted, on the store. All but `caller` block."""

    def __init__(
        self,
        store: LoginStore,
        options: RemoteOptions,
        clock: Clock,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._options = options
        self._clock = clock
        self._monotonic = monotonic
        self._refreshing = threading.Lock()
        self._answers: dict[bytes, _Answer] = {}
        self._callers: dict[bytes, Caller] = {}
        self._revision = store.revision()
        self._look_at = 0.0

    def issue(
        self, client: Client, redirect: Redirect, unlocked: Unlocked, scopes: frozenset[Scope]
    ) -> tuple[str, dict[str, Any]]:
        """A new grant's id, and what the client is answered."""
        now = self._now()
        grant = KeptGrant(
            grant_id=secrets.token_hex(8),
            user=unlocked.user,
            client_id=client.client_id,
            client_name=client.name,
            redirect_host=redirect.place,
            scopes=scopes,
            resource=self._options.resource,
            granted_at=now,
            used_at=now,
        )
        access, refresh = mint(grant.user), mint(grant.user)
        self._store.add_grant(
            grant,
            access.kept(unlocked.secret, now + ACCESS_SECONDS),
            refresh.kept(unlocked.secret, now + REFRESH_SECONDS),
        )
        return grant.grant_id, _tokens(access, refresh, scopes, ACCESS_SECONDS)

    def refresh(self, text: str, client_id: str) -> dict[str, Any]:
        """What the client is answered for its refresh token, which is used up by that.

        A used token that comes again tells that two have it, one of them a thief: the grant ends. Only within some
        seconds, and while its successor is unused, it is answered as before: whoever has stolen it then shares one
        chain with the client, and the first of the two to be late at the next refresh ends it for both.
        Raises OAuthError.
        """
        token = parse(text)
        if token is None:
            raise OAuthError("invalid_grant", _ENDED)
        with self._refreshing:
            kept = self._good(token, client_id)
            if kept.rotated_at is None:
                return self._rotated(token, kept)
            return self._again(token, kept)

    def revoke(self, *, grant_id: str | None = None, user: UserId | None = None) -> int:
        """End grants as the store does; no request is answered by them any more."""
        ended = self._store.revoke(grant_id=grant_id, user=user)
        self._look_at = 0.0
        return ended

    def revoke_token(self, text: str, client_id: str) -> None:
        """End the grant of that access or refresh token, if it is that client's."""
        token = parse(text)
        if token is None:
            return
        kinds: tuple[TokenKind, ...] = ("refresh", "access")
        for kind in kinds:
            kept = self._store.token(token.token_id, kind)
            if kept and hmac.compare_digest(kept.digest, token.digest) and kept.grant.client_id == client_id:
                self.revoke(grant_id=kept.grant.grant_id)

    def granted(self, user: UserId) -> Sequence[KeptGrant]:
        """The user's, the one used last first."""
        return self._store.grants(self._now(), user)

    def forget(self, user: UserId) -> None:
        """Keep nothing of the user's in memory: the next request brings its token, which opens it again. For the
        event loop."""
        self._callers = {key: one for key, one in self._callers.items() if one.grant.user != user}

    def forget_ended(self) -> None:
        """Keep nothing in memory of tokens that have ended. For the event loop."""
        now = self._now()
        self._callers = {key: one for key, one in self._callers.items() if one.grant.expires_at > now}
        self._forget_answers()

    def caller(self, text: str) -> Caller | None:
        """Whose access token that is; None if it is unknown, has ended, was revoked or is for another endpoint.

        For the event loop: from memory, after the first time. Raises DualmemError if the store cannot be read: what
        was revoked cannot be known then, and a client that was told "unknown" would throw its tokens away.
        """
        token = parse(text)
        if token is None:
            return None
        digest = token.digest
        self._look_for_revocations()
        caller = self._callers.get(digest) or self._looked_up(token)
        if caller is None or caller.grant.expires_at <= self._now():
            self._callers.pop(digest, None)
            return None
        return caller

    def _looked_up(self, token: Token) -> Caller | None:
        kept = self._store.token(token.token_id, "access")
        if kept is None or not self._fits(token, kept):
            return None
        try:
            secret = token.unwrap(kept.wrapped)
        except (LockedError, TamperedError) as error:
            _log.warning("a token opens nothing: %s", error)
            return None
        grant = kept.grant
        given = Grant(grant.user, grant.client_id, grant.grant_id, grant.scopes, kept.expires_at, grant.client_name)
        caller = Caller(given, secret)
        while len(self._callers) >= _MOST_CALLERS:
            self._callers.pop(next(iter(self._callers)))
        self._callers[token.digest] = caller
        return caller

    def _look_for_revocations(self) -> None:
        now = self._monotonic()
        if now < self._look_at:
            return
        revision = self._store.revision()
        self._look_at = now + _LOOK_SECONDS
        if revision != self._revision:
            self._revision = revision
            self._callers.clear()

    def _fits(self, token: Token, kept: KeptToken) -> bool:
        return (
            hmac.compare_digest(kept.digest, token.digest)
            and kept.grant.user == token.user
            and kept.grant.resource == self._options.resource
        )

    def _good(self, token: Token, client_id: str) -> KeptToken:
        kept = self._store.token(token.token_id, "refresh")
        if kept is None or not self._fits(token, kept) or kept.grant.client_id != client_id:
            raise OAuthError("invalid_grant", _ENDED)
        if kept.expires_at <= self._now():
            raise OAuthError("invalid_grant", _ENDED)
        return kept

    def _rotated(self, token: Token, kept: KeptToken) -> dict[str, Any]:
        try:
            secret = token.unwrap(kept.wrapped)
        except (LockedError, TamperedError) as error:
            raise OAuthError("invalid_grant", _ENDED) from error
        now, user = self._now(), kept.grant.user
        access, refresh = mint(user), mint(user)
        kept_access = access.kept(secret, now + ACCESS_SECONDS)
        kept_refresh = refresh.kept(secret, now + REFRESH_SECONDS)
        if not self._store.rotate(token.token_id, now, kept_access, kept_refresh):
            raise OAuthError("invalid_grant", _ENDED)  # another process was faster, or it has just ended
        answer = _tokens(access, refresh, kept.grant.scopes, ACCESS_SECONDS)
        self._forget_answers()
        self._answers[token.digest] = _Answer(
            answer, refresh.token_id, now + ACCESS_SECONDS, self._monotonic() + RETRY_SECONDS
        )
        return answer

    def _forget_answers(self) -> None:
        now = self._monotonic()
        for key in [key for key, one in self._answers.copy().items() if one.forget_at <= now]:
            self._answers.pop(key, None)

    def _again(self, token: Token, kept: KeptToken) -> dict[str, Any]:
        now = self._now()
        answer = self._answers.get(token.digest)
        if answer is not None and answer.forget_at > self._monotonic():
            successor = self._store.token(answer.successor, "refresh")
            if successor is not None and successor.rotated_at is None:
                return {**answer.tokens, "expires_in": max(1, answer.expires_at - now)}
        elif kept.rotated_at is not None and abs(now - kept.rotated_at) < RETRY_SECONDS:
            # Used in another process or before a restart: nothing is given out, and nobody is accused. A clock that
            # was set back by more is no excuse: reuse would go unnoticed until it has caught up.
            raise OAuthError("invalid_grant", _ENDED)
        _log.warning("a used refresh token came again: the login of %s has been ended", kept.grant.client_name)
        self.revoke(grant_id=kept.grant.grant_id)
        raise OAuthError("invalid_grant", _ENDED)

    def _now(self) -> int:
        return int(self._clock.now().timestamp())


def _tokens(access: Token, refresh: Token, scopes: frozenset[Scope], seconds: int) -> dict[str, Any]:
    return {
        "access_token": access.text,
        "token_type": "Bearer",
        "expires_in": seconds,
        "refresh_token": refresh.text,
        "scope": " ".join(scope for scope in SCOPES if scope in scopes),
    }
