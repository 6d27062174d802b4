"""Wraps of a user's device secret on a host of several users: under the passphrase, and under each token's secret.

Source of the layouts: docs/format.md, "Users of a host".
"""

from __future__ import annotations

import os
from datetime import datetime
from typing import Any, Final

from dualmem_mcp.crypto.canonical import Fields, canonical_json, time_text
from dualmem_mcp.crypto.header import newer
from dualmem_mcp.crypto.kdf import KEY_BYTES, SALT_BYTES, Kdf, KdfLimits, Pbkdf2, expand, kdf_from_json
from dualmem_mcp.crypto.wraps import COMMITMENT_BYTES, WRAPPED_BYTES, Wrap, unwrap_key, wrap_key
from dualmem_mcp.errors import LockedError, NewerFormatError, TamperedError
from dualmem_mcp.model.grant import UserId

USER_FILE: Final = "user.json"
TOKEN_WRAP_BYTES: Final = WRAPPED_BYTES + COMMITMENT_BYTES

_TOKEN: Final = b"dualmem/1/user/token"
_PASSPHRASE: Final = b"dualmem/1/user/passphrase"

_HOST_KDF: Final = Pbkdf2()
"""One for all users: were they to differ, the time of an answer would tell names that are there from others."""


def wrap_for_token(secret: bytes, token_secret: bytes) -> bytes:
    """A user's device secret (32 bytes) wrapped under a token's: 80 bytes; empty for an empty secret, which a host
    has that keeps its key itself.

    `token_secret` is 32 random bytes that wrap nothing else: the nonce is fixed.
    """
    if len(token_secret) != KEY_BYTES or len(secret) not in (0, KEY_BYTES):
        raise ValueError("a secret and a token's secret have 32 bytes each")
    if not secret:
        return b""
    wrap = wrap_key(secret, secret=expand(token_secret, _TOKEN), context=_TOKEN)
    return wrap.wrapped + wrap.commitment


def unwrap_for_token(wrapped: bytes, token_secret: bytes) -> bytes:
    """The device secret that `wrap_for_token` wrapped.

    Raises LockedError if the token is another one, TamperedError if the wrap was changed.
    """
    if not wrapped:
        return b""
    if len(wrapped) != TOKEN_WRAP_BYTES or len(token_secret) != KEY_BYTES:
        raise TamperedError(
            "a login's key is damaged", operation="unwrap key", subject="login", hint="Log in again."
        )
    wrap = Wrap(wrapped[:WRAPPED_BYTES], wrapped[WRAPPED_BYTES:])
    return unwrap_key(wrap, secret=expand(token_secret, _TOKEN), context=_TOKEN, subject="login")


def make_user_file(
    secret: bytes, passphrase: str, *, user: UserId, created_at: datetime, kdf: Kdf = _HOST_KDF
) -> bytes:
    """The content of a user's `user.json`, with the device secret (32 bytes) under the passphrase.

    Takes the KDF's time.
    """
    if len(secret) != KEY_BYTES:
        raise ValueError("a device secret has 32 bytes")
    salt = os.urandom(SALT_BYTES)
    wrap = wrap_key(secret, secret=kdf.derive(passphrase, salt), context=_context(user))
    values: dict[str, Any] = {
        "format": 1,
        "user": user,
        "created_at": time_text(created_at),
        "kdf": {**kdf.to_json(), "salt": salt.hex()},
        "wrapped": wrap.wrapped.hex(),
        "commitment": wrap.commitment.hex(),
    }
    return canonical_json(values)


def open_user_file(data: bytes, passphrase: str, *, user: UserId, limits: KdfLimits | None = None) -> bytes:
    """The device secret in a `user.json`, by the passphrase. Takes the KDF's time.

    Raises LockedError if the passphrase is wrong or the file is another user's, TamperedError if it is damaged or
    asks for parameters out of bounds.
    """
    try:
        fields, _ = _parsed(data)
        kdf = fields.nested("kdf")
        salt = kdf.binary("salt", length=SALT_BYTES)
        derivation = kdf_from_json(kdf.values, limits or KdfLimits())
        wrap = Wrap(
            fields.binary("wrapped", length=WRAPPED_BYTES), fields.binary("commitment", length=COMMITMENT_BYTES)
        )
        return unwrap_key(wrap, secret=derivation.derive(passphrase, salt), context=_context(user), subject=user)
    except NewerFormatError:
        raise
    except TamperedError as error:
        raise _damaged(user) from error


def user_made_at(data: bytes, *, user: UserId) -> datetime:
    """When the user of a `user.json` was added. Raises TamperedError if it is damaged."""
    try:
        return _parsed(data)[1]
    except NewerFormatError:
        raise
    except TamperedError as error:
        raise _damaged(user) from error


def waste_a_derivation(passphrase: str) -> None:
    """Take as long as `open_user_file`, for a user that there is not: an answer's time then tells nothing."""
    secret = _HOST_KDF.derive(passphrase, bytes(SALT_BYTES))
    wrap = Wrap(bytes(WRAPPED_BYTES), bytes(COMMITMENT_BYTES))
    try:
        unwrap_key(wrap, secret=secret, context=_context(UserId("")), subject="")
    except LockedError:
        return


def _parsed(data: bytes) -> tuple[Fields, datetime]:
    fields = Fields.parse(data, subject=USER_FILE)
    if fields.integer("format") != 1:
        raise newer("is of another format", USER_FILE)
    return fields, fields.time("created_at")


def _context(user: UserId) -> bytes:
    return _PASSPHRASE + b"\0" + user.encode("ascii")


def _damaged(user: UserId) -> TamperedError:
    return TamperedError(
        f"{USER_FILE} of {user} is damaged or was changed",
        operation="open user",
        subject=user,
        hint="Put it back from a backup of the host, or remove the user and add them again: what is in their "
        "bucket stays.",
    )
