"""The login of remote clients, put together: its routes, and whose a token is."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response

from dualmem_mcp.errors import DualmemError
from dualmem_mcp.model.grant import UserId
from dualmem_mcp.ports import Clock
from dualmem_mcp.remote.interfaces import Accounts, Caller
from dualmem_mcp.remote.oauth import metadata
from dualmem_mcp.remote.oauth.attempts import Attempts, Rate, network_of
from dualmem_mcp.remote.oauth.authorization import Authorization
from dualmem_mcp.remote.oauth.client_documents import ClientDocuments
from dualmem_mcp.remote.oauth.clients import Clients
from dualmem_mcp.remote.oauth.codes import Codes
from dualmem_mcp.remote.oauth.errors import OAuthError, json_answer, too_many
from dualmem_mcp.remote.oauth.fields import json_object, read_body
from dualmem_mcp.remote.oauth.grants import Grants
from dualmem_mcp.remote.oauth.passphrases import USUAL_PACE, Pace, PassphraseGate
from dualmem_mcp.remote.oauth.registration import MOST_UNUSED, register
from dualmem_mcp.remote.options import RemoteOptions
from dualmem_mcp.stores.login_store import LoginStore

if TYPE_CHECKING:
    from starlette.routing import Route

    from dualmem_mcp.remote.pages.sessions import Connection

    Answer = Callable[[Request], Awaitable[Response]]

_REGISTRATIONS: Final = Rate(30, 10.0)
_METADATA_HEADERS: Final = {"Cache-Control": "public, max-age=300"}


class Login:
    """The `Callers` of this host's tokens, the `Connections` of its pages, and the authorization server's routes.

    `gate` is where users try their passphrase; the pages' login goes through it, too.
    """

    def __init__(
        self,
        store: LoginStore,
        accounts: Accounts,
        options: RemoteOptions,
        clock: Clock,
        *,
        pace: Pace = USUAL_PACE,
        documents: ClientDocuments | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`pace` and `documents` are for tests to put others in place of; `monotonic` counts seconds."""
        key = store.cookie_key()
        self.gate = PassphraseGate(accounts, key, pace, monotonic)
        self._store = store
        self._options = options
        self._clock = clock
        self._grants = Grants(store, options, clock, monotonic)
        self._codes = Codes(monotonic)
        self._monotonic = monotonic
        self._clients = Clients(store, documents or ClientDocuments(monotonic=monotonic), self._now)
        self._registrations = Attempts(_REGISTRATIONS, monotonic=monotonic)
        self._authorization = Authorization(
            self._clients, self._codes, self.gate, options, key=key, several=accounts.several
        )

    def caller(self, token: str) -> Caller | None:
        """Whose access token that is; None if it is unknown, has ended or was revoked (by any process: within a
        second). Raises DualmemError if the store cannot be read."""
        return self._grants.caller(token)

    def forget(self, user: UserId) -> None:
        """Keep nothing in memory that opens the user's data home, which has just been closed: their next request
        brings it again. For the event loop."""
        self._grants.forget(user)
        self.forget_ended()

    def forget_ended(self) -> None:
        """Keep nothing in memory of what has ended by itself. For the event loop."""
        self._grants.forget_ended()
        self._codes.forget_ended()

    def connections(self, user: UserId) -> Sequence[Connection]:
        """The clients that the user let in, the one used last first. Blocking."""
        from dualmem_mcp.remote.pages.sessions import Connection  # noqa: PLC0415  (the pages need templates)

        return [
            Connection(
                grant_id=one.grant_id,
                name=one.client_name,
                redirect_host=one.redirect_host,
                scopes=one.scopes,
                granted_at=datetime.fromtimestamp(one.granted_at, UTC),
                used_at=datetime.fromtimestamp(one.used_at, UTC),
            )
            for one in self._grants.granted(user)
        ]

    def revoke(self, user: UserId, grant_id: str | None = None) -> bool:
        """End one of the user's logins, or all of them; whether there was one. Blocking."""
        return self._grants.revoke(grant_id=grant_id, user=user) > 0

    def routes(self) -> list[Route]:
        """Metadata, registration, authorization, tokens and their revocation."""
        from starlette.routing import Route  # noqa: PLC0415

        from dualmem_mcp.remote.oauth.token_endpoint import TokenEndpoint  # noqa: PLC0415

        tokens = TokenEndpoint(self._clients, self._codes, self._grants, self._options, self._monotonic)
        options = self._options
        documents = dict.fromkeys(metadata.SERVER_PATHS, metadata.server_metadata(options))
        for path, resource in metadata.RESOURCE_PATHS.items():
            documents[path] = metadata.resource_metadata(options, resource)
        return [
            *(_public(path, _document(document), "GET") for path, document in documents.items()),
            _public(metadata.REGISTER_PATH, self._register, "POST"),
            _public(metadata.TOKEN_PATH, tokens.token, "POST"),
            _public(metadata.REVOKE_PATH, tokens.revoke, "POST"),
            Route(metadata.AUTHORIZE_PATH, self._authorization.show, methods=["GET"]),
            Route(metadata.AUTHORIZE_PATH, self._authorization.decide, methods=["POST"]),
        ]

    async def _register(self, request: Request) -> Response:
        try:
            if wait := self._registrations.take(network_of(request.client.host if request.client else "")):
                raise too_many(wait)
            client, answer = register(json_object(await read_body(request)), self._options, self._now())
            await to_thread.run_sync(lambda: self._store.register(client, most_unused=MOST_UNUSED))
        except OAuthError as error:
            return error.answer()
        except DualmemError as error:
            return OAuthError("temporarily_unavailable", error.message, status=503, retry_after=10).answer()
        return json_answer(answer, status=201)

    def _now(self) -> int:
        return int(self._clock.now().timestamp())


def _document(document: Any) -> Answer:
    async def answer(_: Request) -> Response:
        return json_answer(document, headers=_METADATA_HEADERS)

    return answer


def _public(path: str, answer: Answer, method: str) -> Route:
    """A route that browsers' clients of any origin may use: it knows no cookies."""
    from starlette.middleware.cors import CORSMiddleware  # noqa: PLC0415
    from starlette.routing import Route, request_response  # noqa: PLC0415

    application = CORSMiddleware(
        request_response(answer),
        allow_origins=["*"],
        allow_methods=[method],
        allow_headers=["content-type", "authorization", "mcp-protocol-version"],
        max_age=3_600,
    )
    return Route(path, application, methods=[method, "OPTIONS"])
