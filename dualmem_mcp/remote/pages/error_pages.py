"""Errors as pages: what went wrong, and what to do next."""

from __future__ import annotations

from typing import Final

from dualmem_mcp.errors import (
    ConflictError,
    DualmemError,
    LockedError,
    NotFoundError,
    OverBudgetError,
    StoreUnreachableError,
    TamperedError,
    UsageError,
)
from dualmem_mcp.model.grant import Scope
from dualmem_mcp.remote.oauth.passphrases import TooManyAttemptsError
from dualmem_mcp.remote.pages.forms import ForeignFormError
from dualmem_mcp.remote.pages.visit import Page

# The first that fits counts.
_STATUS: Final[tuple[tuple[type[DualmemError], int, str], ...]] = (
    (ForeignFormError, 403, "This form does not count"),
    (UsageError, 400, "That does not fit"),
    (NotFoundError, 404, "Not found"),
    (LockedError, 403, "Locked"),
    (TamperedError, 502, "Not what was stored"),
    (StoreUnreachableError, 503, "The storage is away"),
    (ConflictError, 409, "Somebody was faster"),
    (OverBudgetError, 503, "Too much at once"),
)

_MAY: Final[dict[Scope, str]] = {
    "read": "read",
    "write": "change anything",
    "erase": "erase anything",
    "export": "export the memory",
}


def error_page(error: DualmemError) -> Page:
    """The page for an error of use."""
    fitting = ((status, title) for kind, status, title in _STATUS if isinstance(error, kind))
    status, title = next(fitting, (500, "Something went wrong"))
    headers = {}
    if isinstance(error, TooManyAttemptsError):
        status, title, headers = 429, "Too many attempts", {"Retry-After": str(error.seconds)}
    elif status == 503:
        headers = {"Retry-After": "10"}
    return Page("error.html", title, {"message": error.message, "hint": error.hint}, status, headers)


def forbidden_page(scope: Scope) -> Page:
    """The page for what the session may not do."""
    context = {"message": f"this login may not {_MAY[scope]}", "hint": "Log out, and log in again."}
    return Page("error.html", "Not allowed", context, 403)


def stopping_page() -> Page:
    """The page for a request that the server did not wait for at its end."""
    context = {"message": "the server is stopping", "hint": "Try again in a moment."}
    return Page("error.html", "Not now", context, 503, {"Retry-After": "5"})


def fault_page() -> Page:
    """The page for a fault of this program."""
    context = {"message": "an internal fault", "hint": "The server's log says where; please report it."}
    return Page("error.html", "Something went wrong", context, 500)
