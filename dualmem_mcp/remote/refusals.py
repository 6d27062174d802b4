"""What the endpoint answers by itself to a request that goes no further."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import Send

Header = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer in the shape of OAuth's errors: a word for programs, a sentence for people.

    `ends_connection` where the rest of the request was not read.
    """

    status: int
    error: str
    description: str
    headers: tuple[Header, ...] = ()
    ends_connection: bool = False

    async def send(self, send: Send) -> None:
        """Answer the request with it."""
        body = json.dumps({"error": self.error, "error_description": self.description}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            *self.headers,
        ]
        if self.ends_connection:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def busy(description: str, *, seconds: int = 1, ends_connection: bool = False) -> Refusal:
    """503 with the number of seconds after which to try again."""
    return Refusal(
        503, "temporarily_unavailable", description, ((b"retry-after", b"%d" % seconds),), ends_connection
    )
