"""/oauth/authorize: the page on which a user lets a client in, or not.

The form carries a token that fits its cookie and the very request that the page showed: neither another site's form
nor one of another login is taken for it. Wrong passphrases are answered with the page anew, and nothing is sent to
the client before the user has decided.
"""

from __future__ import annotations

import hmac
import re
import secrets
from typing import TYPE_CHECKING, Final, cast

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from dualmem_mcp.errors import DualmemError, LockedError
from dualmem_mcp.model.grant import SCOPES, Scope, UserId
from dualmem_mcp.remote.oauth.authorization_request import (
    AuthorizationRequest,
    RefusedError,
    ShownError,
    read_request,
)
from dualmem_mcp.remote.oauth.clients import Clients
from dualmem_mcp.remote.oauth.codes import Code, Codes
from dualmem_mcp.remote.oauth.consent_page import consent_page, notice_page
from dualmem_mcp.remote.oauth.errors import NO_STORE, OAuthError
from dualmem_mcp.remote.oauth.fields import Fields, read_form
from dualmem_mcp.remote.oauth.passphrases import DEVICE_SECONDS, PassphraseGate, TooManyAttemptsError
from dualmem_mcp.remote.options import RemoteOptions

if TYPE_CHECKING:
    from dualmem_mcp.remote.interfaces import Unlocked

_NONCE: Final = re.compile(r"[A-Za-z0-9_-]{43}")


class Authorization:
    """Shows the consent page and takes its answer. For the event loop."""

    def __init__(
        self,
        clients: Clients,
        codes: Codes,
        gate: PassphraseGate,
        options: RemoteOptions,
        *,
        key: bytes,
        several: bool,
    ) -> None:
        """`key`: 32 bytes that sign the forms."""
        self._clients = clients
        self._codes = codes
        self._gate = gate
        self._options = options
        self._key = key
        self._several = several

    async def show(self, request: Request) -> Response:
        """GET: the page, or why there is none."""
        try:
            asked = await self._read(request)
        except ShownError as error:
            return _noticed(error)
        except RefusedError as error:
            return RedirectResponse(error.target, 303, NO_STORE)
        return self._shown(request, asked, asked.scopes)

    async def decide(self, request: Request) -> Response:
        """POST: what the user decided, as the client is to be told."""
        try:
            asked = await self._read(request)
            form, ticked = await read_form(request, repeated="scope")
            self._check_form(request, form, asked)
        except ShownError as error:
            return _noticed(error)
        except OAuthError as error:
            return _noticed(ShownError(error.description, status=error.status))
        except RefusedError as error:
            return RedirectResponse(error.target, 303, NO_STORE)
        if form.get("decision") != "allow":
            denied = asked.answer(error="access_denied", error_description="The user did not allow it.")
            return RedirectResponse(denied, 303, NO_STORE)
        # Reading is what a login is for; the rest is as ticked on this page, whatever was asked for.
        scopes = cast("frozenset[Scope]", (frozenset(ticked) & frozenset(SCOPES)) | {"read"})
        return await self._unlocked(request, form, asked, scopes)

    async def _unlocked(
        self, request: Request, form: Fields, asked: AuthorizationRequest, scopes: frozenset[Scope]
    ) -> Response:
        name = form.get("name", "")[:64]
        try:
            unlocked = await self._gate.unlock(
                name,
                form.get("passphrase", ""),
                address=_address(request),
                client_id=asked.client.client_id,
                device=request.cookies.get(self._device_cookie, ""),
            )
        except TooManyAttemptsError as error:
            problem = f"The passphrase was tried too often. Wait {error.seconds} seconds, then try again."
            answer = self._shown(request, asked, scopes, problem=problem, name=name, status=429)
            answer.headers["Retry-After"] = str(error.seconds)
            return answer
        except LockedError as error:
            return self._shown(request, asked, scopes, problem=_sentences(error), name=name, status=403)
        except DualmemError as error:
            return self._shown(request, asked, scopes, problem=_sentences(error), name=name, status=503)
        return self._let_in(asked, scopes, unlocked)

    def _let_in(self, asked: AuthorizationRequest, scopes: frozenset[Scope], unlocked: Unlocked) -> Response:
        code = self._codes.give(Code(asked.client, asked.redirect, asked.challenge, scopes, unlocked))
        answer = RedirectResponse(asked.answer(code=code), 303, NO_STORE)
        device = self._gate.device_cookie(UserId(unlocked.user))
        self._set_cookie(answer, self._device_cookie, device, max_age=DEVICE_SECONDS)
        return answer

    async def _read(self, request: Request) -> AuthorizationRequest:
        query = request.scope["query_string"]
        try:
            return await read_request(query, self._clients, self._options, address=_address(request))
        except DualmemError as error:
            raise ShownError(_sentences(error), status=503, retry_after=10) from None

    def _shown(
        self,
        request: Request,
        asked: AuthorizationRequest,
        scopes: frozenset[Scope],
        *,
        problem: str = "",
        name: str = "",
        status: int = 200,
    ) -> Response:
        nonce = self._nonce(request) or secrets.token_urlsafe(32)
        answer = consent_page(
            asked,
            host=self._options.public_url.partition("://")[2],
            token=self._form_token(nonce, asked),
            # Whatever was asked for: what cannot be had back is the user's to tick, each time.
            ticked=scopes if problem else scopes - {"erase", "export"},
            several=self._several,
            problem=problem,
            name=name,
            status=status,
        )
        self._set_cookie(answer, self._nonce_cookie, nonce)
        return answer

    def _check_form(self, request: Request, form: Fields, asked: AuthorizationRequest) -> None:
        nonce = self._nonce(request)
        origin = request.headers.get("origin")
        foreign = origin is not None and origin.lower() != self._options.public_url
        expected = self._form_token(nonce, asked).encode()
        given = form.get("csrf", "").encode("utf-8", "replace")
        if foreign or not nonce or not hmac.compare_digest(given, expected):
            raise ShownError(
                "The form was not sent from the page that this browser was shown, or the browser does not keep "
                "cookies. Go back to the client and begin the login anew.",
                status=403,
            )

    def _form_token(self, nonce: str, asked: AuthorizationRequest) -> str:
        text = f"form\0{nonce}\0{asked.query}"
        return hmac.digest(self._key, text.encode("utf-8", "surrogatepass"), "sha256").hex()

    def _nonce(self, request: Request) -> str:
        nonce = request.cookies.get(self._nonce_cookie, "")
        return nonce if _NONCE.fullmatch(nonce) else ""

    @property
    def _nonce_cookie(self) -> str:
        return f"{self._prefix}dualmem-consent"

    @property
    def _device_cookie(self) -> str:
        return f"{self._prefix}dualmem-device"

    @property
    def _prefix(self) -> str:
        return "__Host-" if self._options.secure else ""

    def _set_cookie(self, answer: Response, name: str, value: str, *, max_age: int | None = None) -> None:
        answer.set_cookie(
            name, value, max_age=max_age, path="/", secure=self._options.secure, httponly=True, samesite="lax"
        )


def _noticed(error: ShownError) -> Response:
    answer = notice_page(error.message, status=error.status)
    if error.retry_after:
        answer.headers["Retry-After"] = str(error.retry_after)
    return answer


def _sentences(error: DualmemError) -> str:
    text = f"{error.message[:1].upper()}{error.message[1:]}. {error.hint}"
    return text.strip()


def _address(request: Request) -> str:
    return request.client.host if request.client else ""
