"""Browsers that are logged in to the pages, in memory alone: when the server ends, so do they."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from dualmem_mcp.model.grant import ALL_SCOPES, Grant, UserId
from dualmem_mcp.ports import Clock
from dualmem_mcp.remote.interfaces import Caller, Unlocked

CLIENT_ID: Final = "browser"
IDLE_SECONDS: Final = 1_800
LONGEST_SECONDS: Final = 12 * 3_600
_MOST: Final = 4_096
_MOST_OF_ONE: Final = 64


@dataclass(slots=True)
class _Session:
    caller: Caller
    used_at: float
    began_at: float


class BrowserSessions:
    """Sessions by their cookie's SHA-256. For the event loop alone."""

    def __init__(self, clock: Clock, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._sessions: dict[bytes, _Session] = {}
        self._key = secrets.token_bytes(32)

    def open(self, unlocked: Unlocked) -> str:
        """The cookie of a new session: 43 characters. Of too many of the user's, or in all, that unused for longest
        ends."""
        now = self._monotonic()
        self.forget_ended()
        self._make_room(unlocked.user)
        cookie = secrets.token_urlsafe(32)
        expires_at = int(self._clock.now().timestamp()) + LONGEST_SECONDS
        grant = Grant(unlocked.user, CLIENT_ID, f"browser-{secrets.token_hex(8)}", ALL_SCOPES, expires_at)
        self._sessions[_digest(cookie)] = _Session(Caller(grant, unlocked.secret), now, now)
        return cookie

    def caller(self, cookie: str) -> Caller | None:
        """Whose session it is; None if it is unknown, was unused for 30 minutes or is 12 hours old."""
        session = self._sessions.get(_digest(cookie))
        now = self._monotonic()
        if session is None or not self._is_good(session, now):
            self.close(cookie)
            return None
        session.used_at = now
        return session.caller

    def forget_ended(self) -> None:
        """Keep nothing of sessions that have ended by themselves."""
        now = self._monotonic()
        self._sessions = {key: one for key, one in self._sessions.items() if self._is_good(one, now)}

    def _make_room(self, user: UserId) -> None:
        own = [key for key, one in self._sessions.items() if one.caller.grant.user == user]
        # Their own first: nobody logs others out by logging in often.
        for keys, most in ((own, _MOST_OF_ONE), (list(self._sessions), _MOST)):
            if len(keys) >= most:
                del self._sessions[min(keys, key=lambda key: self._sessions[key].used_at)]
                return

    def csrf(self, cookie: str) -> str:
        """The token that forms of that session carry: of no use without the cookie, which it does not tell."""
        return hmac.digest(self._key, b"csrf\0" + _digest(cookie), "sha256").hex()

    def close(self, cookie: str) -> None:
        """End the session, if there is one."""
        self._sessions.pop(_digest(cookie), None)

    @staticmethod
    def _is_good(session: _Session, now: float) -> bool:
        return now - session.used_at < IDLE_SECONDS and now - session.began_at < LONGEST_SECONDS


def _digest(cookie: str) -> bytes:
    return hashlib.sha256(cookie.encode("utf-8", "surrogatepass")).digest()
