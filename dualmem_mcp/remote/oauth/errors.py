"""What an OAuth endpoint says no with, and how it answers programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from starlette.responses import Response

NO_STORE: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}


class OAuthError(Exception):
    """An error of RFC 6749, section 5.2, or of an extension: a word for programs, a sentence for people."""

    def __init__(self, error: str, description: str, *, status: int = 400, retry_after: int = 0) -> None:
        super().__init__(description)
        self.error = error
        self.description = description
        self.status = status
        self.retry_after = retry_after

    def answer(self) -> Response:
        """The error as the JSON that clients read."""
        headers = {"Retry-After": str(self.retry_after)} if self.retry_after else {}
        return json_answer(
            {"error": self.error, "error_description": self.description}, status=self.status, headers=headers
        )


def invalid_client(description: str) -> OAuthError:
    """Makes Claude register again. Source: RFC 6749, section 5.2: 401 is allowed for it."""
    return OAuthError("invalid_client", description, status=401)


def too_many(seconds: float) -> OAuthError:
    """Come again after so many seconds, rounded up."""
    return OAuthError(
        "temporarily_unavailable",
        "Too many attempts from here. Wait a little, then try again.",
        status=429,
        retry_after=max(1, int(seconds) + 1),
    )


def json_answer(
    content: Mapping[str, Any], *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """The content as JSON that nobody keeps."""
    # ASCII: clients differ in what they make of other text in a header-less JSON body.
    body = json.dumps(content, ensure_ascii=True, separators=(",", ":"))
    own = headers or {}
    return Response(
        body, status, {**({} if "Cache-Control" in own else NO_STORE), **own}, media_type="application/json"
    )
