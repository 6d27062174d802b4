"""What a browser posts: read within bounds, and only from a page of this host."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import Request

from dualmem_mcp.errors import UsageError

_MEDIA_TYPE: Final = "application/x-www-form-urlencoded"
_MAX_BYTES: Final = 64 << 10
_MAX_FIELDS: Final = 32

TOKEN_FIELD: Final = "csrf"  # noqa: S105 - the name of a field


class ForeignFormError(UsageError):
    """A form that no page of this host's own made for this session."""


async def read_form(request: Request) -> Mapping[str, str]:
    """The fields of the body, the last of each name. Raises UsageError for what is no form, or too large."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _MEDIA_TYPE:
        raise _unfit("what was sent is not a form")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _MAX_BYTES:
            raise _unfit(f"the form has more than {_MAX_BYTES >> 10} KiB")
    try:
        text = body.decode("ascii")
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=_MAX_FIELDS, errors="strict"))
    except ValueError:  # no ASCII, no UTF-8 below its escapes, or too many fields
        raise _unfit("what was sent is not a form") from None


def check_origin(request: Request, public_url: str) -> None:
    """Raises ForeignFormError for a POST that a page of another site sent.

    Browsers say where a POST comes from, all of them by `Origin`; what says nothing is no browser, and carries no
    cookie that it was not given on purpose.
    """
    origin = request.headers.get("origin")
    site = request.headers.get("sec-fetch-site", "same-origin")
    if (origin is not None and origin.lower() != public_url) or site not in ("same-origin", "none"):
        raise ForeignFormError(
            "the form was sent from another site",
            operation="read form",
            subject="Origin",
            hint=f"Open it at {public_url}, and try again there.",
        )


def check_token(form: Mapping[str, str], expected: str) -> None:
    """Raises ForeignFormError unless the form carries that token."""
    given = form.get(TOKEN_FIELD, "")
    if not expected or not hmac.compare_digest(given.encode(), expected.encode()):
        raise ForeignFormError(
            "the form is not of this session",
            operation="read form",
            subject="CSRF token",
            hint="Go back, reload the page and try again: it was made before you last logged in.",
        )


def _unfit(what: str) -> UsageError:
    return UsageError(what, operation="read form", hint="Go back, reload the page and try again.")
