"""What a client asks for at /oauth/authorize, checked.

What is wrong with the client or with where it wants to be answered is shown to the person, and leads nowhere: an
address that is not known to be the client's must not be sent to. Everything else the client is told.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast
from urllib.parse import urlencode

from dualmem_mcp.model.grant import DEFAULT_SCOPES, SCOPES, Scope
from dualmem_mcp.remote.oauth.clients import Clients
from dualmem_mcp.remote.oauth.codes import CHALLENGE
from dualmem_mcp.remote.oauth.errors import OAuthError
from dualmem_mcp.remote.oauth.fields import Fields, once, parse_pairs
from dualmem_mcp.remote.oauth.metadata import is_resource
from dualmem_mcp.remote.oauth.redirects import Redirect, allowed_redirect, is_registered, parse_redirect
from dualmem_mcp.remote.oauth.registration import Client
from dualmem_mcp.remote.options import RemoteOptions

_LONGEST_QUERY: Final = 8_192
_KNOWN: Final = (
    "response_type",
    "client_id",
    "redirect_uri",
    "scope",
    "state",
    "code_challenge",
    "code_challenge_method",
    "resource",
    "response_mode",
)


class ShownError(Exception):
    """Shown to the person, and the client is told nothing."""

    def __init__(self, message: str, *, status: int = 400, retry_after: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.retry_after = retry_after


class RefusedError(Exception):
    """The client is told, at the address that is its own."""

    def __init__(self, target: str, error: str) -> None:
        super().__init__(error)
        self.target = target


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """A request that a person may answer. `query` has its parameters in one fixed form."""

    client: Client
    redirect: Redirect
    scopes: frozenset[Scope]
    state: str | None
    challenge: str
    query: str
    issuer: str

    def answer(self, **parameters: str) -> str:
        """The address that the browser is sent to: with the parameters, the state, and who answers (RFC 9207)."""
        state = [] if self.state is None else [("state", self.state)]
        return self.redirect.with_parameters([*parameters.items(), *state, ("iss", self.issuer)])


async def read_request(
    query: bytes, clients: Clients, options: RemoteOptions, *, address: str
) -> AuthorizationRequest:
    """The request in a query; `address` is who asks. Raises ShownError, RefusedError."""
    fields = _fields(query)
    client = await _client(fields, clients, address)
    redirect = _redirect(fields, client, options)
    request = AuthorizationRequest(
        client=client,
        redirect=redirect,
        scopes=_scopes(fields.get("scope", "")),
        state=fields.get("state"),
        challenge=fields.get("code_challenge", ""),
        query=urlencode([(name, fields[name]) for name in _KNOWN if name in fields]),
        issuer=options.public_url,
    )
    if problem := _problem(fields, options):
        error, description = problem
        raise RefusedError(request.answer(error=error, error_description=description), error)
    return request


def _fields(query: bytes) -> Fields:
    if len(query) > _LONGEST_QUERY:
        raise ShownError("The address is too long to be a login.", status=414)
    try:
        return once(parse_pairs(query.decode("ascii")))
    except UnicodeDecodeError:
        raise ShownError("The address cannot be read.") from None
    except OAuthError as error:
        raise ShownError(error.description) from None


async def _client(fields: Fields, clients: Clients, address: str) -> Client:
    client_id = fields.get("client_id", "")
    if not client_id:
        raise ShownError("This page is opened by a client that wants to log in, such as Claude.")
    try:
        return await clients.find(client_id, address=address)
    except OAuthError as error:
        status = 400 if error.status == 401 else error.status
        raise ShownError(error.description, status=status, retry_after=error.retry_after) from None


def _redirect(fields: Fields, client: Client, options: RemoteOptions) -> Redirect:
    uri = fields.get("redirect_uri")
    if uri is None and len(client.redirect_uris) == 1:
        uri = client.redirect_uris[0]
    if uri is None or parse_redirect(uri) is None:
        raise ShownError("The client does not say where it wants the answer, or not in a form that is safe to use.")
    redirect = allowed_redirect(uri, options.extra_redirects)
    if redirect is None:
        raise ShownError(
            "The client wants the answer at an address that logins on this server do not lead to. If it is yours, "
            "add it to remote.redirects in cloud_sync_config.json, and restart the server."
        )
    if not is_registered(redirect, client.redirect_uris):
        raise ShownError("The client wants the answer at an address that is not its own.")
    return redirect


def _problem(fields: Fields, options: RemoteOptions) -> tuple[str, str] | None:
    """What the client is told, if the rest of its request does not fit."""
    resource = fields.get("resource")
    checks = (
        (fields.get("response_type") == "code", "unsupported_response_type", "The response_type is code."),
        (fields.get("response_mode", "query") == "query", "invalid_request", "The response_mode is query."),
        (
            CHALLENGE.fullmatch(fields.get("code_challenge", "")) is not None
            and fields.get("code_challenge_method") == "S256",
            "invalid_request",
            "A code_challenge with the code_challenge_method S256 (RFC 7636) is needed.",
        ),
        (
            resource is None or is_resource(resource, options),
            "invalid_target",
            f"The resource of this server is {options.resource}.",
        ),
    )
    return next(((error, description) for fits, error, description in checks if not fits), None)


def _scopes(text: str) -> frozenset[Scope]:
    """Those asked for that there are; what is unknown is passed over, as is `offline_access`: who logs in may
    refresh. Without any: what a client usually gets."""
    asked = frozenset(text.split()) & frozenset(SCOPES)
    return cast("frozenset[Scope]", asked) or DEFAULT_SCOPES
