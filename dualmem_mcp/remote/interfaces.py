"""What the parts of the remote endpoint know of each other: accounts, callers, tenants."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from dualmem_mcp.model.grant import Grant, UserId
from dualmem_mcp.server.lazy_app import LazyApp

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

CALLER_KEY: Final = "dualmem.caller"
"""Where an ASGI scope holds the `Caller`, once the request's token or cookie was checked."""


@dataclass(frozen=True, slots=True)
class Unlocked:
    """A user who has just shown the passphrase. `secret` opens their data home on this host: 32 bytes, or none
    where the host keeps the key itself."""

    user: UserId
    secret: bytes = field(repr=False)


class Accounts(Protocol):
    """The users of this host."""

    @property
    def several(self) -> bool:
        """Whether a login has to say whose it is."""
        ...

    def unlock(self, name: str, passphrase: str) -> Unlocked:
        """The user of that name, if the passphrase is theirs; `name` counts only where there are several.

        Blocking: takes a key derivation, as long for a name that there is not. Raises LockedError, with one text
        for a wrong name and a wrong passphrase; StoreUnreachableError.
        """
        ...


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a request is from, by its access token or browser session, with what opens that user's data home."""

    grant: Grant
    secret: bytes = field(repr=False)


class Callers(Protocol):
    """The tokens that are good now."""

    def caller(self, token: str) -> Caller | None:
        """Whose token that is; None if it is unknown, has ended or was revoked. Quick, and for the event loop.

        Raises DualmemError if that cannot be known now.
        """
        ...


class Tenant(Protocol):
    """One user's application and the MCP server on it; ASGI applications for its three paths."""

    @property
    def user(self) -> UserId:
        """Whose it is."""
        ...

    @property
    def app(self) -> LazyApp:
        """The user's application."""
        ...

    def under_way(self) -> AbstractContextManager[None]:
        """For whoever works on the application beside the three paths: while it is entered the tenant is busy, so
        that it is not closed. Ends early, without an error, if the tenant cannot wait any longer."""
        ...

    async def streamable_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Streamable HTTP, all methods of one path. The scope holds the request's `Caller`."""
        ...

    async def sse(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The stream of HTTP+SSE."""
        ...

    async def messages(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What clients of HTTP+SSE post."""
        ...


class Tenants(Protocol):
    """The applications of this host's users, each opened by its user's own request alone."""

    async def tenant(self, caller: Caller) -> Tenant:
        """The caller's own application and MCP server, opened if it is not.

        Raises LockedError if the caller's secret does not open it (or no longer), StoreUnreachableError,
        OverBudgetError if too many users are at it.
        """
        ...
