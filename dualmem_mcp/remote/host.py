"""Everything of a host put together: its users, their login, MCP and pages behind one endpoint."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from dualmem_mcp.errors import UsageError
from dualmem_mcp.model.grant import OWNER, UserId
from dualmem_mcp.ports import SystemClock
from dualmem_mcp.remote.accounts import OwnAccount, UserAccounts
from dualmem_mcp.remote.endpoint import Endpoint, build_endpoint
from dualmem_mcp.remote.health import Readiness
from dualmem_mcp.remote.interfaces import Accounts, Tenants
from dualmem_mcp.remote.oauth.browser import BrowserSessions
from dualmem_mcp.remote.oauth.login import Login
from dualmem_mcp.remote.options import RemoteOptions
from dualmem_mcp.remote.pages.site import Pages
from dualmem_mcp.remote.tenant import McpTenant
from dualmem_mcp.remote.tenants import OwnTenant, UserTenants
from dualmem_mcp.settings import Settings
from dualmem_mcp.stores.login_store import open_logins
from dualmem_mcp.stores.user_folder import UserFolder

if TYPE_CHECKING:
    from dualmem_mcp.app import App

_log = logging.getLogger(__name__)

_FORGET_SECONDS: Final = 20.0


class RunningTenants(Tenants, Protocol):
    """Tenants that are served while a context is entered."""

    def running(self) -> AbstractAsyncContextManager[None]:
        """Serve; at the end all is pushed and closed."""
        ...


@asynccontextmanager
async def hosted(options: RemoteOptions, settings: Settings, users: Path | None = None) -> AsyncIterator[Endpoint]:
    """The endpoint of the data home of the settings, or of the users of that folder, while the context is entered.

    Raises UsageError if there is no such folder, and what opening the data home and the logins raises.
    """
    accounts, tenants, folder = _of_users(options, users) if users is not None else _of_owner(options, settings)
    clock = SystemClock()
    async with tenants.running():
        if isinstance(accounts, OwnAccount) and not accounts.has_passphrase:
            _log.warning(
                "nobody can log in: this data home belongs to no vault (`dualmem init`, `dualmem join BUCKET`)"
            )
        with open_logins(folder, choice=settings.keystore) as store:
            login = Login(store, accounts, options, clock)
            sessions = BrowserSessions(clock)
            if isinstance(tenants, UserTenants):
                tenants.on_close(login.forget)
            pages = Pages(tenants, sessions, accounts, options, gate=login.gate, connections=login)
            forgetting = asyncio.create_task(_forget_in_time(login.forget_ended, sessions.forget_ended))
            try:
                yield build_endpoint(
                    options,
                    callers=login,
                    tenants=tenants,
                    readiness=Readiness(folder),
                    routes=[*login.routes(), *pages.routes()],
                )
            finally:
                forgetting.cancel()


async def _forget_in_time(*forget: Callable[[], None]) -> None:
    """Keep no key for longer than the login that has it, though nobody comes any more."""
    while True:
        await asyncio.sleep(_FORGET_SECONDS)
        for each in forget:
            each()


def _of_owner(options: RemoteOptions, settings: Settings) -> tuple[Accounts, RunningTenants, Path]:
    tenant = McpTenant(OWNER, partial(_open_own, settings), options)
    return OwnAccount(tenant.app), OwnTenant(tenant), settings.home


def _of_users(options: RemoteOptions, root: Path) -> tuple[Accounts, RunningTenants, Path]:
    if not root.is_dir():
        raise UsageError(
            f"{root} is no folder",
            operation="serve",
            subject=str(root),
            hint=f"Make it by adding the first user: `dualmem users add NAME --users {root} --bucket B`.",
        )
    folder = UserFolder(root)

    def make(user: UserId, opener: Callable[[], App]) -> McpTenant:
        return McpTenant(user, opener, options)

    return UserAccounts(folder), UserTenants(folder, make), root


def _open_own(settings: Settings) -> App:
    from dualmem_mcp.app import open_app  # noqa: PLC0415  (with all that belongs to it 0.3 s to import)

    return open_app(settings, edge_process=True)
