"""/oauth/token and /oauth/revoke: from codes and refresh tokens to tokens, and their end."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response

from dualmem_mcp.errors import DualmemError
from dualmem_mcp.remote.oauth.attempts import Attempts, Rate, network_of
from dualmem_mcp.remote.oauth.clients import Clients
from dualmem_mcp.remote.oauth.codes import Code, Codes, Use, proves
from dualmem_mcp.remote.oauth.errors import OAuthError, invalid_client, json_answer, too_many
from dualmem_mcp.remote.oauth.fields import Fields, read_form
from dualmem_mcp.remote.oauth.grants import Grants
from dualmem_mcp.remote.oauth.metadata import is_resource
from dualmem_mcp.remote.options import RemoteOptions

_log = logging.getLogger(__name__)

_Work = Callable[[Fields, str], Awaitable[dict[str, Any]]]

_FAILURES: Final = Rate(60, 1.0)
_NO_CODE: Final = "The code is unknown, has ended, was used before, or is not this client's: begin the login anew."


class TokenEndpoint:
    """Answers clients. For the event loop."""

    def __init__(
        self,
        clients: Clients,
        codes: Codes,
        grants: Grants,
        options: RemoteOptions,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clients = clients
        self._codes = codes
        self._grants = grants
        self._options = options
        self._failures = Attempts(_FAILURES, monotonic=monotonic)

    async def token(self, request: Request) -> Response:
        """RFC 6749, sections 4.1.3 and 6."""
        return await self._answered(request, self._given)

    async def revoke(self, request: Request) -> Response:
        """RFC 7009: an unknown token is no error."""
        return await self._answered(request, self._revoked)

    async def _answered(self, request: Request, work: _Work) -> Response:
        address = network_of(request.client.host if request.client else "")
        try:
            if wait := self._failures.wait_seconds(address):
                raise too_many(wait)
            fields, _ = await read_form(request)
            client_id = fields.get("client_id", "")
            if not client_id:
                raise invalid_client("Name the client_id.")
            await self._clients.check(client_id)
            return json_answer(await work(fields, client_id))
        except OAuthError as error:
            self._failures.take(address)
            return error.answer()
        except DualmemError as error:
            _log.warning("a login failed: %s", error)
            return OAuthError("temporarily_unavailable", error.message, status=503, retry_after=10).answer()

    async def _given(self, fields: Fields, client_id: str) -> dict[str, Any]:
        resource = fields.get("resource")
        if resource is not None and not is_resource(resource, self._options):
            raise OAuthError("invalid_target", f"This server gives tokens for {self._options.resource} alone.")
        match fields.get("grant_type"):
            case "authorization_code":
                return await self._exchanged(fields, client_id)
            case "refresh_token":
                return await to_thread.run_sync(self._grants.refresh, fields.get("refresh_token", ""), client_id)
            case None:
                raise OAuthError("invalid_request", "Name the grant_type.")
            case _:
                raise OAuthError("unsupported_grant_type", "It is authorization_code or refresh_token.")

    async def _exchanged(self, fields: Fields, client_id: str) -> dict[str, Any]:
        code, use = self._codes.take(fields.get("code", ""))
        if use is None:
            raise OAuthError("invalid_grant", _NO_CODE)
        if code is None:
            await self._end(use)
            raise OAuthError("invalid_grant", _NO_CODE)
        if not _fits(code, fields, client_id):
            raise OAuthError("invalid_grant", _NO_CODE)
        use.grant_id, answer = await to_thread.run_sync(
            self._grants.issue, code.client, code.redirect, code.unlocked, code.scopes
        )
        if use.twice:
            await self._end(use)
            raise OAuthError("invalid_grant", _NO_CODE)
        return answer

    async def _end(self, use: Use) -> None:
        """A code that came twice was seen by somebody else: what it gave ends. Source: OAuth 2.1, section 4.1.3."""
        if use.grant_id:
            _log.warning("a code came twice: the login that it gave has been ended")
            await to_thread.run_sync(lambda: self._grants.revoke(grant_id=use.grant_id))

    async def _revoked(self, fields: Fields, client_id: str) -> dict[str, Any]:
        await to_thread.run_sync(self._grants.revoke_token, fields.get("token", ""), client_id)
        return {}


def _fits(code: Code, fields: Fields, client_id: str) -> bool:
    """OAuth 2.1 leaves the redirect out of this request; a client that sends it must send the same."""
    return (
        code.client.client_id == client_id
        and fields.get("redirect_uri", code.redirect.uri) == code.redirect.uri
        and proves(fields.get("code_verifier", ""), code.challenge)
    )
