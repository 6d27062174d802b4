"""From a request's bearer token to whose request it is."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from dualmem_mcp.errors import DualmemError
from dualmem_mcp.model.grant import DEFAULT_SCOPES, SCOPES
from dualmem_mcp.remote.interfaces import CALLER_KEY, Callers
from dualmem_mcp.remote.options import RemoteOptions
from dualmem_mcp.remote.refusals import Header, Refusal, busy

if TYPE_CHECKING:
    from starlette.types import Scope

_log = logging.getLogger(__name__)

# Source: RFC 6750 section 2.1, b64token; no token of ours is longer.
_BEARER: Final = re.compile(rb"bearer +([A-Za-z0-9._~+/-]{1,512}=*)", re.IGNORECASE)
_RETRY_SECONDS: Final = 10
_DEFAULT_SCOPE: Final = " ".join(scope for scope in SCOPES if scope in DEFAULT_SCOPES)


class Authentication:
    """Lets in who has a good token, in the header alone: a URL ends up in logs."""

    def __init__(self, callers: Callers, options: RemoteOptions) -> None:
        self._callers = callers
        self._options = options

    def admit(self, scope: Scope) -> Refusal | None:
        """Note in the ASGI scope whose request it is; else the answer that tells the client where to log in."""
        given, token = _bearer_token(scope["headers"])
        if not given:
            return self.refusal(scope["path"])
        try:
            caller = self._callers.caller(token) if token is not None else None
        except DualmemError as error:
            _log.warning("a login cannot be checked: %s", error)
            return busy("Logins cannot be checked at the moment.", seconds=_RETRY_SECONDS)
        if caller is None:
            return self.refusal(scope["path"], ended="The access token is unknown, has ended or was revoked.")
        if not caller.grant.scopes:
            return self._refused(
                403,
                scope["path"],
                "insufficient_scope",
                "The token allows nothing: log in and tick what it may do.",
            )
        scope[CALLER_KEY] = caller
        return None

    def is_good(self, scope: Scope) -> bool:
        """Whether the token of a request that was admitted still is good; not so while that cannot be known."""
        _, token = _bearer_token(scope["headers"])
        try:
            return token is not None and self._callers.caller(token) is not None
        except DualmemError:
            return False

    def refusal(self, path: str, *, ended: str = "") -> Refusal:
        """401: log in, or log in again because the login has ended as told."""
        if ended:
            return self._refused(401, path, "invalid_token", f"{ended} Log in again.")
        return self._refused(401, path, "", "Log in: the answer's header says where.")

    def _refused(self, status: int, path: str, error: str, description: str) -> Refusal:
        # Source: RFC 9728 section 5.1 for resource_metadata; RFC 6750 section 3: no error where there was no token.
        metadata = f"{self._options.public_url}/.well-known/oauth-protected-resource{path}"
        parts = [f'resource_metadata="{metadata}"', f'scope="{_DEFAULT_SCOPE}"']
        if error:
            parts = [f'error="{error}"', f'error_description="{description}"', *parts]
        challenge = f"Bearer {', '.join(parts)}".encode("ascii")
        return Refusal(status, error or "login_required", description, ((b"www-authenticate", challenge),))


def _bearer_token(headers: Iterable[Header]) -> tuple[bool, str | None]:
    """Whether there is an Authorization header, and the token of exactly one that is well formed."""
    values = [value for name, value in headers if name == b"authorization"]
    if len(values) != 1:
        return bool(values), None
    match = _BEARER.fullmatch(values[0])
    return True, match[1].decode("ascii") if match else None
