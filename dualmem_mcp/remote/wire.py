"""JSON-RPC messages and server-sent events as bytes, and the plain HTTP answers around them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mcp_types import INVALID_REQUEST, PARSE_ERROR

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

Json = dict[str, Any]

STREAM_HEADERS: Final = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    # Asks nginx and those that follow it to pass events on as they come.
    (b"x-accel-buffering", b"no"),
)

PING: Final = b": ping\n\n"
"""A comment: keeps proxies from ending a stream that has nothing to tell."""

# JSON may hold these unescaped, and Python's clients take them for ends of lines.
# Source: httpx 0.28, LineDecoder, which splits at what str.splitlines() does.
_LINE_ENDS: Final = ((0x85, "\\u0085"), (0x2028, "\\u2028"), (0x2029, "\\u2029"))


@dataclass(frozen=True, slots=True)
class Accept:
    """Which forms of an answer a client takes."""

    json: bool
    stream: bool


class UnfitBodyError(Exception):
    """A request body that cannot be read: `status` for HTTP, `code` and `text` for JSON-RPC."""

    def __init__(self, status: int, code: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.code = code
        self.text = text


def header(scope: Scope, name: bytes) -> str | None:
    """The first header of that name, in lower case; None if there is none."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return None


def accepted(scope: Scope) -> Accept:
    """What the Accept headers allow.

    A client that sends none, or `*/*`, takes JSON: those that want a stream say so (some versions of Claude's
    connectors and of Claude Code send neither media type).
    """
    text = ",".join(value.decode("latin-1") for key, value in scope["headers"] if key == b"accept")
    types = {part.partition(";")[0].strip().lower() for part in text.split(",")} - {""}
    return Accept(
        json=not types or bool(types & {"*/*", "application/*", "application/json"}),
        stream=bool(types & {"*/*", "text/*", "text/event-stream"}),
    )


async def read_body(receive: Receive, most: int) -> bytes:
    """The whole body. Raises UnfitBodyError if it is longer than that, or breaks off."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise UnfitBodyError(400, PARSE_ERROR, "The request broke off")
        part = message.get("body", b"")
        size += len(part)
        if size > most:
            raise UnfitBodyError(413, INVALID_REQUEST, f"A request may have {most} bytes")
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def parse(body: bytes) -> Any:
    """The body's JSON value; halves of surrogate pairs stay as they are. Raises UnfitBodyError."""
    try:
        return json.loads(body.decode(errors="replace"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):  # too deep, or a number too long, is as good as malformed
        raise UnfitBodyError(400, PARSE_ERROR, "Parse error") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def dump(value: Any) -> bytes:
    """The value's JSON, in UTF-8."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half a surrogate pair has no UTF-8, but JSON has an escape for it
        return json.dumps(value, separators=(",", ":")).encode()


def event(data: bytes, name: bytes = b"message") -> bytes:
    """A server-sent event with that data, which must be one line."""
    for code, escape in _LINE_ENDS:
        if chr(code).encode() in data:
            data = data.replace(chr(code).encode(), escape.encode())
    return b"event: " + name + b"\ndata: " + data + b"\n\n"


def error(code: int, text: str, request_id: int | str | None = None, data: Any = None) -> Json:
    """A JSON-RPC error as a message."""
    told: Json = {"code": code, "message": text}
    if data is not None:
        told["data"] = data
    return {"jsonrpc": "2.0", "id": request_id, "error": told}


async def answer(send: Send, status: int, body: bytes = b"", headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    """Send a whole response; a body is JSON."""
    all_headers = [(b"content-length", str(len(body)).encode()), *headers]
    if body:
        all_headers.append((b"content-type", b"application/json"))
    await send({"type": "http.response.start", "status": status, "headers": all_headers})
    await send({"type": "http.response.body", "body": body})


async def refuse(
    send: Send, status: int, text: str, code: int = INVALID_REQUEST, *, allow: str = "", retry_seconds: int = 0
) -> None:
    """Send a JSON-RPC error that belongs to no request, with that HTTP status."""
    headers = [(b"allow", allow.encode())] if allow else []
    if retry_seconds:
        headers.append((b"retry-after", str(retry_seconds).encode()))
    await answer(send, status, dump(error(code, text)), headers)


def start_of_stream(headers: Iterable[tuple[bytes, bytes]] = ()) -> Message:
    """The beginning of a response that is a stream of events."""
    return {"type": "http.response.start", "status": 200, "headers": [*STREAM_HEADERS, *headers]}


def part_of_stream(data: bytes, *, last: bool = False) -> Message:
    """A further part of it."""
    return {"type": "http.response.body", "body": data, "more_body": not last}


def checked_message(value: Any) -> Json:
    """The value as one JSON-RPC message: a request, a notification or a reply. Raises UnfitBodyError."""
    if isinstance(value, dict) and value.get("jsonrpc") == "2.0":
        method, request_id, params = value.get("method"), value.get("id", ""), value.get("params")
        of_a_kind = isinstance(method, str) if "method" in value else "result" in value or "error" in value
        named = isinstance(request_id, int | str) and not isinstance(request_id, bool)
        if of_a_kind and named and (params is None or isinstance(params, dict)):
            return value
    raise UnfitBodyError(400, INVALID_REQUEST, "Not a JSON-RPC request, notification or reply")


def meta_of(params: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """What `params._meta` holds; empty where there is none, or something else."""
    meta = (params or {}).get("_meta")
    return meta if isinstance(meta, Mapping) else {}
