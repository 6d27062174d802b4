"""The endpoint: from a request on the wire to the one user's tenant, or to a page."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from dualmem_mcp.errors import DualmemError, LockedError
from dualmem_mcp.remote import headers, health
from dualmem_mcp.remote.authentication import Authentication
from dualmem_mcp.remote.compression import Compression
from dualmem_mcp.remote.hosts import AllowedHosts, forwarded_client, is_loopback
from dualmem_mcp.remote.interfaces import CALLER_KEY, Callers, Tenant, Tenants
from dualmem_mcp.remote.limits import Bodies, ClientLeftError, Requests, Streams
from dualmem_mcp.remote.options import RemoteOptions
from dualmem_mcp.remote.refusals import Header, Refusal, busy
from dualmem_mcp.server.faults import error_text

if TYPE_CHECKING:
    from starlette.routing import BaseRoute
    from starlette.types import ASGIApp, Receive, Scope, Send

    _Run = Callable[[ASGIApp, Scope, Receive, Send], Awaitable[None]]

_log = logging.getLogger(__name__)

MCP_PATH: Final = "/mcp"
SSE_PATH: Final = "/sse"
MESSAGES_PATH: Final = "/messages"

_METHODS: Final = {
    MCP_PATH: ("GET", "POST", "DELETE"),
    SSE_PATH: ("GET",),
    MESSAGES_PATH: ("POST",),
}
_BODILESS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_UNREACHABLE_RETRY_SECONDS: Final = 10


def build_endpoint(
    options: RemoteOptions,
    *,
    callers: Callers,
    tenants: Tenants,
    readiness: health.Readiness,
    routes: Sequence[BaseRoute] = (),
) -> Endpoint:
    """The endpoint as an ASGI application. `routes`: those of the login and of the pages."""
    from starlette.routing import Router  # noqa: PLC0415

    return Endpoint(options, Authentication(callers, options), tenants, readiness, Router(routes))


class Endpoint:
    """ASGI application: checks host, origin, login and sizes, then hands the request on."""

    def __init__(
        self,
        options: RemoteOptions,
        authentication: Authentication,
        tenants: Tenants,
        readiness: health.Readiness,
        site: ASGIApp,
    ) -> None:
        limits = options.limits
        # Whoever reaches a port on loopback directly is a program of this machine, as the proxy is.
        self._trusts_loopback = options.certificate is None
        self._options = options
        self._hosts = AllowedHosts(options)
        self._headers = headers.AnswerHeaders(options)
        self._authentication = authentication
        self._tenants = tenants
        self._readiness = readiness
        self._site = Compression(site)
        self._serve_tenant = Compression(self._of_tenant)
        self._bodies = Bodies(limits.body_bytes, limits.bodies_bytes, limits.body_seconds)
        self._stranger_bodies = Bodies(limits.form_bytes, limits.stranger_bodies_bytes, limits.body_seconds)
        seconds, strangers = limits.request_seconds, limits.stranger_requests
        self._requests = Requests(limits.requests, limits.requests_per_user, seconds)
        self._stranger_requests = Requests(strangers, strangers, seconds)
        self.streams = Streams(limits, authentication.is_good)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # neither lifespan nor WebSockets: the server is started without
            return
        send = self._headers.on(send)
        path: str = scope["path"]
        if path in health.PATHS:  # whoever watches asks for an address, not for a name
            await health.answer(path, scope["method"], self._readiness, send)
            return
        if (refusal := self._hosts.refusal(scope["headers"], path)) is not None:
            await refusal.send(send)
            return
        if self._readiness.stopping:
            await busy("The server is stopping.", ends_connection=True).send(send)
            return
        self._see_through_proxy(scope)
        try:
            if (mcp_path := path.removesuffix("/")) in _METHODS:
                scope["path"] = mcp_path
                await self._mcp(scope, receive, headers.readable_by(scope, send))
            else:
                await self._page(scope, receive, send)
        except ClientLeftError:
            return

    def stop(self) -> None:
        """Take no further requests, and end the streams; requests under way are answered."""
        self._readiness.stopping = True
        self.streams.end_all()

    async def _mcp(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        if method == "OPTIONS":
            await headers.answer_preflight(send)
            return
        if method not in _METHODS[path]:
            allowed = ", ".join(_METHODS[path]).encode()
            await Refusal(
                405, "method_not_allowed", f"{path} takes {allowed.decode()}.", ((b"allow", allowed),), True
            ).send(send)
            return
        if (refusal := self._authentication.admit(scope)) is not None:
            if refusal.status in (401, 403) and _may_call(scope):
                async with self._stranger_bodies.read(scope, receive) as whole:
                    call = None if isinstance(whole, Refusal) else await _json_request(whole)
                await self._ask_for_login(refusal, call, send)
            else:
                await refusal.send(send)
            return
        if _is_endless(scope):
            await self._with_body(self.streams.run, self._serve_tenant, scope, receive, send)
        else:
            await self._with_body(self._requests.run, self._serve_tenant, scope, receive, send)

    async def _page(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._with_body(self._stranger_requests.run, self._site, scope, receive, send)

    async def _with_body(self, run: _Run, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] in _BODILESS:
            await run(app, scope, receive, send)
            return
        bodies = self._bodies if CALLER_KEY in scope else self._stranger_bodies
        async with bodies.read(scope, receive) as whole:
            if isinstance(whole, Refusal):
                await whole.send(send)
            else:
                await run(app, scope, whole, send)

    async def _of_tenant(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            tenant = await self._tenants.tenant(scope[CALLER_KEY])
        except LockedError as error:
            _log.info("a login opens nothing any more: %s", error)
            refusal = self._authentication.refusal(scope["path"], ended="The login has ended.")
            await self._ask_for_login(refusal, await _json_request(receive) if _may_call(scope) else None, send)
            return
        except DualmemError as error:
            _log.warning("a data home did not open: %s", error)
            await _answer_failure(error, scope, receive, send)
            return
        await _application(tenant, scope["path"])(scope, receive, send)

    async def _ask_for_login(self, refusal: Refusal, request: dict[str, Any] | None, send: Send) -> None:
        """Refuse; a tool's call in a tool's answer, too, so that the model can tell the user what the client may
        not."""
        if request is None or request["method"] != "tools/call":
            await refusal.send(send)
            return
        text = (
            "error: nothing was done, as a login is needed\n"
            f"hint: Ask the user to log in to {self._options.resource}. On claude.ai (for the phone, too): "
            "Settings, Connectors, Connect beside this one; disconnect it first if that is not offered. "
            "In Claude Code: /mcp, this server, Authenticate."
        )
        await _answer(_told(request, text), send, refusal.status, refusal.headers)

    def _see_through_proxy(self, scope: Scope) -> None:
        client = scope.get("client")
        if self._trusts_loopback and client is not None and is_loopback(client[0]):
            address = forwarded_client(scope["headers"])
            if address is not None:
                scope["client"] = (address, 0)


def _application(tenant: Tenant, path: str) -> ASGIApp:
    if path == MCP_PATH:
        return tenant.streamable_http
    return tenant.sse if path == SSE_PATH else tenant.messages


def _is_endless(scope: Scope) -> bool:
    """Whether the answer lasts for as long as the client listens."""
    if scope["method"] != "POST" or scope["path"] != MCP_PATH:
        return bool(scope["method"] == "GET")
    # Source: MCP 2026-07-28, streamable HTTP: this header repeats the body's method, and a server checks that.
    return any(name == b"mcp-method" and value == b"subscriptions/listen" for name, value in scope["headers"])


def _may_call(scope: Scope) -> bool:
    """Whether the body may be a call, whose answer stands in the response."""
    return bool(scope["path"] == MCP_PATH and scope["method"] == "POST")


async def _answer_failure(error: DualmemError, scope: Scope, receive: Receive, send: Send) -> None:
    """Tell what went wrong where it is read: of a tool's call in a tool's answer, which the model sees."""
    request = await _json_request(receive) if _may_call(scope) else None
    if request is None:
        await busy(error.message, seconds=_UNREACHABLE_RETRY_SECONDS).send(send)
    else:
        await _answer(_told(request, error_text(error)), send)


def _told(request: dict[str, Any], text: str) -> dict[str, Any]:
    """The text as the JSON-RPC answer to that request: as a tool's, or an error."""
    told: dict[str, Any] = {"error": {"code": -32603, "message": text}}
    if request["method"] == "tools/call":
        told = {"result": {"content": [{"type": "text", "text": text}], "isError": True, "resultType": "complete"}}
    return {"jsonrpc": "2.0", "id": request["id"], **told}


async def _answer(content: dict[str, Any], send: Send, status: int = 200, more: Sequence[Header] = ()) -> None:
    body = json.dumps(content).encode()
    answer_headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *more]
    await send({"type": "http.response.start", "status": status, "headers": answer_headers})
    await send({"type": "http.response.body", "body": body})


async def _json_request(receive: Receive) -> dict[str, Any] | None:
    """The one JSON-RPC request of a body; None for what is no such."""
    try:
        request = json.loads((await receive()).get("body", b""))
    except (ValueError, RecursionError):
        return None
    if not isinstance(request, dict) or not isinstance(request.get("method"), str):
        return None
    return request if isinstance(request.get("id"), int | str) else None
