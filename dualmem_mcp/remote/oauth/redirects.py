"""Where a login may lead to: Claude's own addresses, programs on the user's device, and what the user added.

An address is compared as text, character for character (OAuth 2.1, section 4.1.3); only the port of a program on
the user's own device may be another one (RFC 8252, section 7.3), since it is free to choose at each login.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from dualmem_mcp.remote.options import CLAUDE_REDIRECTS

LONGEST: Final = 512

# Only what an address needs: neither spaces nor quotes, brackets of HTML, backslashes, or a user's name before the
# host, all of which some program or other reads differently. No fragment: RFC 6749, section 3.1.2.
_ADDRESS: Final = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]{0,30})://(?P<host>[A-Za-z0-9.-]{1,253}|\[[0-9a-f:.]{2,45}\])"
    r"(?P<port>:[0-9]{1,5})?(?P<rest>[/?][A-Za-z0-9/?:;=&%.,_~+!*()-]*)?"
)
_LOOPBACK_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
# Browsers run or read these themselves.
_NEVER: Final = frozenset({"javascript", "data", "vbscript", "file", "blob", "about", "filesystem", "ftp"})


@dataclass(frozen=True, slots=True)
class Redirect:
    """An address that a login may lead to, taken apart."""

    uri: str
    scheme: str
    host: str
    port: str
    rest: str

    @property
    def loopback(self) -> bool:
        """Whether it leads to a program on the device on which the browser runs."""
        return self.scheme == "http" and self.host in _LOOPBACK_HOSTS

    @property
    def claude(self) -> bool:
        """Whether it is one of Claude's own."""
        return self.uri in CLAUDE_REDIRECTS

    @property
    def place(self) -> str:
        """Host and port, as a person is shown where it leads; with the scheme if that is not of the web."""
        place = self.host + self.port
        return place if self.scheme in ("http", "https") else f"{self.scheme}://{place}"

    def with_parameters(self, parameters: Iterable[tuple[str, str]]) -> str:
        """The address with the parameters added to its query."""
        return f"{self.uri}{'&' if '?' in self.uri else '?'}{urlencode(list(parameters))}"


def parse_redirect(uri: str) -> Redirect | None:
    """The address taken apart; None if a login may never lead to one like it."""
    match = _ADDRESS.fullmatch(uri) if len(uri) <= LONGEST else None
    if match is None or match["scheme"] in _NEVER:
        return None
    return Redirect(uri, match["scheme"], match["host"], match["port"] or "", match["rest"] or "")


def allowed_redirect(uri: str, extra: Iterable[str]) -> Redirect | None:
    """The address taken apart if a login may lead to it: Claude's, a loopback one, or one of the `extra`."""
    redirect = parse_redirect(uri)
    if redirect is None or not (redirect.claude or redirect.loopback or uri in tuple(extra)):
        return None
    return redirect


def is_registered(redirect: Redirect, registered: Iterable[str]) -> bool:
    """Whether a client that named these may be sent to it: the same text, or for loopback another port."""
    for uri in registered:
        if uri == redirect.uri:
            return True
        known = parse_redirect(uri) if redirect.loopback else None
        if known and known.loopback and (known.host, known.rest) == (redirect.host, redirect.rest):
            return True
    return False
