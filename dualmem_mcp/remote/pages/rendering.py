"""HTML of the templates, and the headers under which a browser takes it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property
from importlib import resources
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from dualmem_mcp.handoff.quoting import clean, one_line
from dualmem_mcp.remote.pages.text_blocks import marked
from dualmem_mcp.remote.pages.visit import Page
from dualmem_mcp.remote.pages.wording import age_text, count_text, cut_text, instant, size_text, time_text

# No script, font, frame or connection of any kind; forms and style sheets of this host alone.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
_ALWAYS: Final = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not `no-referrer`: with it browsers send `Origin: null` with forms, which does not say where they come from.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# After a logout neither the back button nor a cache shows what was there.
PRIVATE_HEADERS: Final = {**_ALWAYS, "Cache-Control": "no-store"}
_STATIC_HEADERS: Final = {**_ALWAYS, "Cache-Control": "public, max-age=31536000, immutable"}

_MEDIA_TYPES: Final = {"style.css": "text/css; charset=utf-8", "icon.svg": "image/svg+xml"}


class Rendering:
    """The templates and files of the package, each read once."""

    @cached_property
    def _templates(self) -> Environment:
        environment = Environment(
            loader=PackageLoader("dualmem_mcp.remote.pages", "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            auto_reload=False,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters |= {
            "age": age_text,
            "clean": clean,
            "count": count_text,
            "cut": cut_text,
            "instant": instant,
            "line": one_line,
            "marked": marked,
            "size": size_text,
            "time": time_text,
        }
        environment.globals["static"] = self.static_path
        return environment

    @cached_property
    def _files(self) -> dict[str, bytes]:
        folder = resources.files("dualmem_mcp.remote.pages") / "static"
        return {name: (folder / name).read_bytes() for name in _MEDIA_TYPES}

    def html(self, page: Page, common: Mapping[str, Any]) -> Response:
        """The page; `common` is what all templates show."""
        text = self._templates.get_template(page.template).render(**common, **page.context, title=page.title)
        # Half a surrogate pair, as other programs' JSON can hold, is no text that UTF-8 has.
        body = text.encode("utf-8", "replace")
        return HTMLResponse(body, page.status, headers={**PRIVATE_HEADERS, **page.headers})

    def static_path(self, name: str) -> str:
        """The path of a file, which is another when its content is."""
        return f"/static/{name}?v={hashlib.sha256(self._files[name]).hexdigest()[:16]}"

    def static_file(self, name: str) -> Response | None:
        """A file of the package; None for any other name."""
        data = self._files.get(name)
        if data is None:
            return None
        return Response(data, media_type=_MEDIA_TYPES[name], headers=_STATIC_HEADERS)
