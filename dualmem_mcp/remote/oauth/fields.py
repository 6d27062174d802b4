"""What programs and browsers send to the login, read within bounds."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import parse_qsl

from starlette.requests import Request

from dualmem_mcp.remote.oauth.errors import OAuthError

MAX_BYTES: Final = 64 << 10
_MAX_FIELDS: Final = 40

Fields = dict[str, str]


async def read_body(request: Request) -> bytes:
    """The body. Raises OAuthError (413) for more than 64 KiB."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BYTES:
            raise OAuthError("invalid_request", f"More than {MAX_BYTES >> 10} KiB were sent.", status=413)
    return bytes(body)


async def read_form(request: Request, *, repeated: str = "") -> tuple[Fields, list[str]]:
    """The form's fields, each once, and the values of the one that may be `repeated`. Raises OAuthError."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise OAuthError("invalid_request", "Send a form: application/x-www-form-urlencoded.")
    body = await read_body(request)
    try:
        pairs = parse_pairs(body.decode("ascii"))
    except UnicodeDecodeError:
        raise OAuthError("invalid_request", "That is not a form.") from None
    return once(pair for pair in pairs if pair[0] != repeated), [value for name, value in pairs if name == repeated]


def parse_pairs(text: str) -> list[tuple[str, str]]:
    """Names and values of a query or form. Raises OAuthError for what is none, or has too many."""
    try:
        return parse_qsl(text, keep_blank_values=True, max_num_fields=_MAX_FIELDS, errors="strict")
    except ValueError:
        raise OAuthError("invalid_request", "The parameters cannot be read.") from None


def once(pairs: Iterable[tuple[str, str]]) -> Fields:
    """The pairs by name. Raises OAuthError for a name that comes twice. Source: RFC 6749, section 3.1."""
    fields: Fields = {}
    for name, value in pairs:
        if name in fields:
            raise OAuthError("invalid_request", f"The parameter {name[:40]!r} is there twice.")
        fields[name] = value
    return fields


def json_object(body: bytes) -> dict[str, Any]:
    """The JSON object. Raises OAuthError for anything else."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise OAuthError("invalid_client_metadata", "Send one JSON object.")
    return document
