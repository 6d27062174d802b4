"""The pages as Starlette routes: who asks, what they may, the view's work in a thread, its result as a response."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final
from urllib.parse import quote
from weakref import WeakKeyDictionary

from anyio import CapacityLimiter, from_thread, to_thread
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from dualmem_mcp.errors import DualmemError, LockedError, NotFoundError
from dualmem_mcp.model.grant import Scope
from dualmem_mcp.remote.interfaces import Accounts, Caller, Tenant, Tenants
from dualmem_mcp.remote.oauth.passphrases import PassphraseGate
from dualmem_mcp.remote.options import RemoteOptions
from dualmem_mcp.remote.pages.clients import clients, revoke_client
from dualmem_mcp.remote.pages.conflicts import conflicts, decide_conflict
from dualmem_mcp.remote.pages.conversations import brief, conversations, section
from dualmem_mcp.remote.pages.devices import devices, revoke_device, revoke_form
from dualmem_mcp.remote.pages.error_pages import error_page, fault_page, forbidden_page, stopping_page
from dualmem_mcp.remote.pages.export import export, export_form
from dualmem_mcp.remote.pages.forms import check_origin, check_token, read_form
from dualmem_mcp.remote.pages.login import LoginPages, Render
from dualmem_mcp.remote.pages.rendering import PRIVATE_HEADERS, Rendering
from dualmem_mcp.remote.pages.search import search
from dualmem_mcp.remote.pages.sessions import BrowserSessions, Connections
from dualmem_mcp.remote.pages.state import state, sync_now
from dualmem_mcp.remote.pages.visit import Download, Goto, Page, Result, View, Visit
from dualmem_mcp.server.faults import log_fault

THREADS_PER_USER: Final = 4
"""A user whose bucket is slow waits alone."""

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True, eq=False)
class _Seat:
    """What one user's requests share: their threads, and a lock for what must not be done twice at once."""

    threads: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(THREADS_PER_USER))
    alone: threading.Lock = field(default_factory=threading.Lock)


class Pages:
    """The user's pages on a host; `routes` are what the endpoint serves.

    `gate` is the one that other logins of the host go through, so that guesses are counted together; by default one
    of its own. Without `connections` the page of clients says that there are none.
    """

    def __init__(
        self,
        tenants: Tenants,
        sessions: BrowserSessions,
        accounts: Accounts,
        options: RemoteOptions,
        *,
        gate: PassphraseGate | None = None,
        connections: Connections | None = None,
    ) -> None:
        self._tenants = tenants
        self._sessions = sessions
        self._accounts = accounts
        self._options = options
        self._connections = connections
        self._rendering = Rendering()
        gate = gate or PassphraseGate(accounts, os.urandom(32))
        self._login = LoginPages(sessions, accounts, gate, options, self._render_for)
        self._seats: WeakKeyDictionary[Tenant, _Seat] = WeakKeyDictionary()

    def routes(self) -> list[Route]:
        """The routes of all pages, the last for every other path; who is not logged in is sent to `/login`."""
        shown = [
            ("/", conversations),
            ("/c/{conversation_id}", brief),
            ("/c/{conversation_id}/{section:path}", section),
            ("/search", search),
            ("/devices", devices),
            ("/clients", clients),
            ("/conflicts", conflicts),
            ("/state", state),
        ]
        done: list[tuple[str, View, Scope]] = [
            ("/clients/revoke", revoke_client, "write"),
            ("/conflicts/decide", decide_conflict, "write"),
            ("/state/sync", sync_now, "write"),
            ("/devices/revoke", revoke_device, "erase"),
            ("/export", export, "export"),
        ]
        every_other = Route("/{path:path}", self._nothing, methods=["GET"])
        every_other.path_regex = re.compile("/(?P<path>.*)", re.DOTALL)  # Starlette's own ends at a line's end
        return [
            Route("/static/{name:path}", self._static, methods=["GET"]),
            *self._login.routes(),
            Route("/export", self._shown(export_form, "export"), methods=["GET"]),
            Route("/devices/revoke", self._shown(revoke_form, "erase"), methods=["GET"]),
            *(Route(path, self._done(view, scope), methods=["POST"]) for path, view, scope in done),
            *(Route(path, self._shown(view, "read"), methods=["GET"]) for path, view in shown),
            every_other,
        ]

    async def _static(self, request: Request) -> Response:
        return self._rendering.static_file(request.path_params["name"]) or await self._nothing(request)

    async def _nothing(self, request: Request) -> Response:
        error = NotFoundError("there is no such page", hint="The address may have been cut or typed wrong.")
        return self._render_for(request)(error_page(error))

    def _shown(self, view: View, scope: Scope) -> Handler:
        """A page for whoever is logged in; others are sent to the login, and come back from there."""

        async def handle(request: Request) -> Response:
            caller = self._caller(request)
            if caller is None:
                return self._login.required(request)
            return await self._answer(request, caller, view, scope, {})

        return handle

    def _done(self, view: View, scope: Scope) -> Handler:
        """What a form does, for whoever is logged in and sent it from a page of their own session."""

        async def handle(request: Request) -> Response:
            caller = self._caller(request)
            if caller is None:
                return self._login.required(None)
            try:
                check_origin(request, self._options.public_url)
                form = dict(await read_form(request))
                check_token(form, self._sessions.csrf(self._login.cookie(request)))
            except DualmemError as error:
                return self._render_for(request)(error_page(error))
            return await self._answer(request, caller, view, scope, form)

        return handle

    def _caller(self, request: Request) -> Caller | None:
        cookie = self._login.cookie(request)
        return self._sessions.caller(cookie) if cookie else None

    async def _answer(
        self, request: Request, caller: Caller, view: View, scope: Scope, form: dict[str, str]
    ) -> Response:
        render = self._render_for(request)
        if scope not in caller.grant.scopes:
            return render(forbidden_page(scope))
        try:
            tenant = await self._tenants.tenant(caller)
            with tenant.under_way():
                return await self._viewed(request, tenant, caller, view, form)
            return render(stopping_page())
        except LockedError:  # the passphrase was changed, or the user was removed: this session opens nothing
            self._sessions.close(self._login.cookie(request))
            return self._login.required(request)
        except DualmemError as error:
            return render(error_page(error))

    async def _viewed(
        self, request: Request, tenant: Tenant, caller: Caller, view: View, form: dict[str, str]
    ) -> Response:
        app = await tenant.app.get()
        seat = self._seats.setdefault(tenant, _Seat())
        visit = Visit(
            caller=caller,
            app=app,
            alone=seat.alone,
            check_passphrase=lambda given: from_thread.run(self._login.check, request, caller.grant.user, given),
            connections=self._connections,
            path=request.path_params,
            query=request.query_params,
            form=form,
        )
        respond = partial(_respond, view, visit, self._render_for(request))
        return await to_thread.run_sync(respond, limiter=seat.threads)

    def _render_for(self, request: Request | None) -> Render:
        """Makes responses of results for that request: with the session's token, and where one is."""
        cookie = self._login.cookie(request) if request is not None else ""
        caller = self._sessions.caller(cookie) if cookie else None
        common: dict[str, Any] = {
            "here": request.url.path if request is not None else "",
            "csrf": self._sessions.csrf(cookie) if caller else "",
            "user": caller.grant.user if caller and self._accounts.several else "",
            "logged_in": caller is not None,
            "may_export": caller is not None and "export" in caller.grant.scopes,
        }
        return partial(_response, self._rendering, common)


def _respond(view: View, visit: Visit, render: Render) -> Response:
    """The view's response, from its thread; what it raises as a page that says what to do."""
    try:
        return render(view(visit))
    except DualmemError as error:
        return render(error_page(error))
    except Exception as error:  # noqa: BLE001 - one failing page must not end the connection
        log_fault("page", error)
        return render(fault_page())


def _response(rendering: Rendering, common: dict[str, Any], result: Result) -> Response:
    match result:
        case Goto(path):
            return RedirectResponse(path, 303, headers=PRIVATE_HEADERS)
        case Download(name, media_type, parts):
            disposition = f"attachment; filename*=UTF-8''{quote(name)}"
            headers = {**PRIVATE_HEADERS, "Content-Disposition": disposition}
            return StreamingResponse(iter(parts), media_type=media_type, headers=headers)
        case Page():
            return rendering.html(result, common)
