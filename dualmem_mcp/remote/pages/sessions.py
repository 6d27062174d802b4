"""What the pages need of the login: sessions of browsers, and the clients that were let in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from dualmem_mcp.model.grant import Scope, UserId
from dualmem_mcp.remote.interfaces import Caller, Unlocked


class BrowserSessions(Protocol):
    """The browsers that are logged in, by their cookie's value. Quick, and for the event loop."""

    def open(self, unlocked: Unlocked) -> str:
        """The cookie of a new session."""
        ...

    def caller(self, cookie: str) -> Caller | None:
        """Whose session it is; None if it is unknown or has ended."""
        ...

    def csrf(self, cookie: str) -> str:
        """The token that forms of that session carry."""
        ...

    def close(self, cookie: str) -> None:
        """End the session; one that is not there is none to end."""
        ...


@dataclass(frozen=True, slots=True)
class Connection:
    """A client that the user let in. `name` is what the client calls itself: anything; None where it is not known
    when it was `used`."""

    grant_id: str
    name: str
    redirect_host: str
    scopes: frozenset[Scope]
    granted_at: datetime
    used_at: datetime | None


class Connections(Protocol):
    """The clients that users let in. Blocking."""

    def connections(self, user: UserId) -> Sequence[Connection]:
        """Those of the user, the one used last first."""
        ...

    def revoke(self, user: UserId, grant_id: str) -> bool:
        """End one of the user's: its tokens open nothing any more. Whether there was one."""
        ...


def session_cookie(*, secure: bool) -> str:
    """The name of the cookie of a session: over https one that only this very host can set."""
    return "__Host-dualmem" if secure else "dualmem"
