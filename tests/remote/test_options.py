"""The public URL, which everything that a stranger may check is checked against."""

from __future__ import annotations

import pytest

from dualmem_mcp.errors import UsageError
from dualmem_mcp.remote.options import RemoteOptions, public_url


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("https://memory.example", "https://memory.example"),
        ("memory.example/", "https://memory.example"),
        ("https://Memory.Example:8443/", "https://memory.example:8443"),
        ("http://localhost:8787", "http://localhost:8787"),
        ("http://[::1]:8787", "http://[::1]:8787"),
        # What browsers leave out of `Origin`.
        ("https://memory.example:443", "https://memory.example"),
        ("https://memory.example:0443/", "https://memory.example"),
        ("http://localhost:80", "http://localhost"),
        ("https://localhost:80", "https://localhost:80"),
        ("https://memory.example:65535", "https://memory.example:65535"),
    ],
)
def test_a_url_without_a_path(given: str, url: str) -> None:
    assert public_url(given) == url
    assert RemoteOptions(url).resource == f"{url}/mcp"


@pytest.mark.parametrize(
    "given",
    [
        "",
        "https://",
        "http://memory.example",
        "ftp://memory.example",
        "https://memory.example/under/a/path",
        "https://memory.example?x=1",
        "https://user:secret@memory.example",
        "https://memory.example:port",
        "https://memory.example:0",
        "https://memory.example:65536",
        "https://memory.example:99999",
        "https://memory.example:١",
        "https://[::1",
        "https://memory.example\r\nX-Evil: 1",
        "https://memory .example",
    ],
)
def test_what_cannot_be_one(given: str) -> None:
    with pytest.raises(UsageError):
        public_url(given)
