"""The pages of a login: what a client asks for, and what is wrong with a request that cannot be shown so."""

from __future__ import annotations

import base64
import functools
import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import HTMLResponse

from dualmem_mcp.model.grant import SCOPES, Scope
from dualmem_mcp.remote.oauth.errors import NO_STORE

if TYPE_CHECKING:
    from jinja2 import Environment

    from dualmem_mcp.remote.oauth.authorization_request import AuthorizationRequest

_SCOPE_TEXTS: Final[dict[Scope, tuple[str, str]]] = {
    "read": ("Read", "search the memory and read conversations"),
    "write": ("Write", "add to the memory and change it, save progress"),
    "erase": ("Erase", "delete for good what cannot be had back"),
    "export": ("Export", "take the whole memory out as one file"),
}


@dataclass(frozen=True, slots=True)
class _Templates:
    """The templates with their style, which stands in the page and is allowed by its hash alone."""

    environment: Environment
    style: str
    policy: str


def consent_page(
    asked: AuthorizationRequest,
    *,
    host: str,
    token: str,
    ticked: frozenset[Scope],
    several: bool,
    problem: str,
    name: str,
    status: int,
) -> HTMLResponse:
    """The page that asks the user. `host` is this server's name, `token` what the form carries."""
    client, redirect = asked.client, asked.redirect
    return _page(
        "consent.html",
        status,
        {
            "title": f"Let {client.name} in?",
            "client": client,
            "redirect": redirect,
            "host": host,
            "action": f"/oauth/authorize?{asked.query}",
            "token": token,
            "scopes": [(scope, *_SCOPE_TEXTS[scope], scope in ticked) for scope in SCOPES],
            "several": several,
            "problem": problem,
            "name": name,
        },
    )


def notice_page(message: str, *, status: int) -> HTMLResponse:
    """A page that says why there is no login to decide on."""
    return _page("notice.html", status, {"title": "No login", "message": message})


def _page(template: str, status: int, context: dict[str, Any]) -> HTMLResponse:
    templates = _templates()
    html = templates.environment.get_template(template).render(style=templates.style, **context)
    headers = {
        **NO_STORE,
        "Content-Security-Policy": templates.policy,
        "X-Frame-Options": "DENY",
        "X-Content-Type-Options": "nosniff",
        # Not no-referrer: browsers then send `Origin: null` with the form.
        "Referrer-Policy": "same-origin",
        # Nor a Cross-Origin-Opener-Policy: a client that opened this page in a window of its own has to hear from
        # it when it leads back.
    }
    return HTMLResponse(html, status, headers)


@functools.cache
def _templates() -> _Templates:
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415  (takes 0.05 s)
    from markupsafe import Markup  # noqa: PLC0415

    style = resources.files(__package__ or "").joinpath("templates/style.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    environment = Environment(
        loader=PackageLoader(__package__ or "", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # No form-action: browsers hold every further redirect against it, and the one of Claude leads from claude.ai on
    # to an address of the app's own (PrefectHQ/fastmcp issue 3369); the login would then end in a button that does
    # nothing. What it would keep out are forms put into the page, and nothing gets into it unescaped.
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; frame-ancestors 'none'"
    return _Templates(environment, Markup(style), policy)  # noqa: S704 - a file of this package
