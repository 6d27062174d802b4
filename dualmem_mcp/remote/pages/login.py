"""Logging in by the passphrase, and out again."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from typing import Final
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from dualmem_mcp.errors import DualmemError, LockedError
from dualmem_mcp.model.grant import UserId
from dualmem_mcp.remote.interfaces import Accounts, Unlocked
from dualmem_mcp.remote.oauth.passphrases import DEVICE_SECONDS, PassphraseGate
from dualmem_mcp.remote.options import RemoteOptions
from dualmem_mcp.remote.pages.error_pages import error_page
from dualmem_mcp.remote.pages.forms import check_origin, check_token, read_form
from dualmem_mcp.remote.pages.rendering import PRIVATE_HEADERS
from dualmem_mcp.remote.pages.sessions import BrowserSessions, session_cookie
from dualmem_mcp.remote.pages.visit import Page, Result

Render = Callable[[Result], Response]

# Pages that a login may lead on to: of this host, and none that only a form may ask for.
_NEXT: Final = re.compile(
    r"/((c/[A-Za-z0-9._~%/-]{1,400}|search|devices|clients|conflicts|state|export)?(\?[A-Za-z0-9._~%=&+-]{0,2000})?)"
)
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{43}")


class LoginPages:
    """The login's form, what it does, and the logout."""

    def __init__(
        self,
        sessions: BrowserSessions,
        accounts: Accounts,
        gate: PassphraseGate,
        options: RemoteOptions,
        render_for: Callable[[Request | None], Render],
    ) -> None:
        self._sessions = sessions
        self._accounts = accounts
        self._gate = gate
        self._options = options
        self._render_for = render_for
        self._cookie = session_cookie(secure=options.secure)

    def routes(self) -> list[Route]:
        """`/login` and `/logout`."""
        return [
            Route("/login", self._form, methods=["GET"]),
            Route("/login", self._log_in, methods=["POST"]),
            Route("/logout", self._log_out, methods=["POST"]),
        ]

    def cookie(self, request: Request) -> str:
        """The value of the session's cookie; empty if the request has none."""
        return request.cookies.get(self._cookie, "")

    def required(self, request: Request | None) -> Response:
        """The way to the login, and from there to the page that was asked for."""
        wanted = ""
        if request is not None and request.method == "GET":
            wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        path = f"/login?{urlencode({'next': wanted})}" if _NEXT.fullmatch(wanted) and wanted != "/" else "/login"
        return RedirectResponse(path, 303, headers=PRIVATE_HEADERS)

    async def _form(self, request: Request) -> Response:
        cookie = self.cookie(request)
        wanted = _safe_next(request.query_params.get("next", ""))
        if cookie and self._sessions.caller(cookie):
            return RedirectResponse(wanted, 303, headers=PRIVATE_HEADERS)
        note = "You are logged out." if "out" in request.query_params else ""
        return self._shown(request, wanted, note=note)

    def _shown(
        self, request: Request, wanted: str, *, problem: str = "", note: str = "", name: str = ""
    ) -> Response:
        # What the form carries and what the cookie holds must be one: no other site can set the cookie.
        token = request.cookies.get(self._token_cookie, "")
        token = token if _TOKEN.fullmatch(token) else secrets.token_urlsafe(32)
        context = {
            "token": token,
            "next": wanted,
            "problem": problem,
            "note": note,
            "name": name,
            "several": self._accounts.several,
        }
        title = "Log in: try again" if problem else "Log in"
        response = self._render_for(None)(Page("login.html", title, context, 403 if problem else 200))
        self._set(response, self._token_cookie, token)
        return response

    async def _log_in(self, request: Request) -> Response:
        render = self._render_for(None)
        try:
            check_origin(request, self._options.public_url)
            form = await read_form(request)
            token = request.cookies.get(self._token_cookie, "")
            check_token(form, token if _TOKEN.fullmatch(token) else "")
        except DualmemError as error:
            return render(error_page(error))
        wanted = _safe_next(form.get("next", ""))
        name = form.get("name", "").strip()[:64]
        try:
            unlocked = await self._unlocked(request, name, form.get("passphrase", ""))
        except LockedError as error:
            problem = f"{error.message[:1].upper()}{error.message[1:]}. {error.hint}"
            return self._shown(request, wanted, problem=problem, name=name)
        except DualmemError as error:
            return render(error_page(error))
        self._sessions.close(self.cookie(request))
        response = RedirectResponse(wanted, 303, headers=PRIVATE_HEADERS)
        self._set(response, self._cookie, self._sessions.open(unlocked))
        self._set(response, self._device_cookie, self._gate.device_cookie(unlocked.user), seconds=DEVICE_SECONDS)
        return response

    async def check(self, request: Request, user: UserId, passphrase: str) -> None:
        """Raises LockedError unless it is that user's passphrase, TooManyAttemptsError, StoreUnreachableError."""
        unlocked = await self._unlocked(request, user, passphrase)
        if unlocked.user != user:
            raise LockedError("the passphrase is another user's", operation="check passphrase")

    async def _unlocked(self, request: Request, name: str, passphrase: str) -> Unlocked:
        address = request.client.host if request.client else ""
        device = request.cookies.get(self._device_cookie, "")
        return await self._gate.unlock(name, passphrase, address=address, device=device)

    async def _log_out(self, request: Request) -> Response:
        cookie = self.cookie(request)
        if cookie and self._sessions.caller(cookie):
            try:
                check_origin(request, self._options.public_url)
                check_token(await read_form(request), self._sessions.csrf(cookie))
            except DualmemError as error:
                return self._render_for(request)(error_page(error))
            self._sessions.close(cookie)
        response = RedirectResponse("/login?out=1", 303, headers=PRIVATE_HEADERS)
        response.delete_cookie(self._cookie, path="/", secure=self._options.secure, httponly=True, samesite="lax")
        return response

    @property
    def _device_cookie(self) -> str:
        return f"{self._cookie}-device"

    @property
    def _token_cookie(self) -> str:
        return f"{self._cookie}-login"

    def _set(self, response: Response, name: str, value: str, *, seconds: int | None = None) -> None:
        secure = self._options.secure
        response.set_cookie(name, value, seconds, path="/", secure=secure, httponly=True, samesite="lax")


def _safe_next(path: str) -> str:
    """The path, if a login may lead on to it; else the first page."""
    return path if _NEXT.fullmatch(path) else "/"
