"""Tokens as clients carry them: `dm1.<user>.<id>.<secret>`, id and secret in base64url."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from dataclasses import dataclass, field
from typing import Final

from dualmem_mcp.crypto.user_keys import unwrap_for_token, wrap_for_token
from dualmem_mcp.model.grant import UserId
from dualmem_mcp.stores.login_store import NewToken

ID_BYTES: Final = 16
SECRET_BYTES: Final = 32

_FORM: Final = re.compile(r"dm1\.([a-z0-9-]{1,32})\.([A-Za-z0-9_-]{22})\.([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class Token:
    """A token, taken apart: `token_id` 16 bytes, `secret` 32."""

    text: str = field(repr=False)
    user: UserId
    token_id: bytes
    secret: bytes = field(repr=False)

    @property
    def digest(self) -> bytes:
        """SHA-256 of the whole token, which is what is kept of it."""
        return hashlib.sha256(self.text.encode("ascii")).digest()

    def kept(self, user_secret: bytes, expires_at: int) -> NewToken:
        """What is kept of it, with the user's secret (32 bytes or none) wrapped under its own."""
        return NewToken(self.token_id, self.digest, wrap_for_token(user_secret, self.secret), expires_at)

    def unwrap(self, wrapped: bytes) -> bytes:
        """The user's secret that `kept` wrapped. Raises LockedError, TamperedError."""
        return unwrap_for_token(wrapped, self.secret)


def mint(user: UserId) -> Token:
    """A new random token for the user."""
    token_id, secret = secrets.token_bytes(ID_BYTES), secrets.token_bytes(SECRET_BYTES)
    return Token(f"dm1.{user}.{_encoded(token_id)}.{_encoded(secret)}", user, token_id, secret)


def parse(text: str) -> Token | None:
    """The token taken apart; None if that is none of ours."""
    match = _FORM.fullmatch(text)
    if match is None:
        return None
    return Token(text, UserId(match[1]), _decoded(match[2]), _decoded(match[3]))


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
