"""What a view is given and what it returns."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dualmem_mcp.errors import UsageError
from dualmem_mcp.remote.interfaces import Caller
from dualmem_mcp.remote.pages.sessions import Connections

if TYPE_CHECKING:
    from dualmem_mcp.app import App


@dataclass(frozen=True, slots=True)
class Visit:
    """One request of a user who is logged in. `path` are the parts that the route names, `query` what follows `?`,
    `form` the fields of a POST whose CSRF token was checked. `check_passphrase` raises LockedError unless it is
    given the user's own, and OverBudgetError where too many were tried. Of what is done under `alone`, one of the
    user's requests at a time."""

    caller: Caller
    app: App
    alone: threading.Lock
    check_passphrase: Callable[[str], None]
    connections: Connections | None
    path: Mapping[str, str]
    query: Mapping[str, str]
    form: Mapping[str, str] = field(default_factory=dict)

    def field(self, name: str) -> str:
        """A field that the form must have. Raises UsageError."""
        value = self.form.get(name)
        if not value:
            raise UsageError(
                f"the form came without {name}",
                operation="read form",
                subject=name,
                hint="Go back, reload the page and try again.",
            )
        return value


@dataclass(frozen=True, slots=True)
class Page:
    """A page to show: its template, its title without the program's name, and what the template shows."""

    template: str
    title: str
    context: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Goto:
    """Another of the pages, which the browser is to fetch."""

    path: str


@dataclass(frozen=True, slots=True)
class Download:
    """A file to be saved, in parts."""

    file_name: str
    media_type: str
    parts: Iterable[bytes]


Result = Page | Goto | Download
View = Callable[[Visit], Result]
