"""Where a search service may be: a URL, a folder, or memory; said in a setting that people write by hand."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from dualmem_mcp.errors import UsageError

MEMORY: Final = ":memory:"
"""A service that ends with the process."""

_FOLDER_BEGINNINGS: Final = ("/", "./", "../", "~", ".\\", "..\\", "\\\\")


def service_location(text: str, setting: str) -> str:
    """The location as it was given: a URL of http or https with nothing but host, port and path, a folder's path,
    or MEMORY.

    Raises UsageError that names the setting, and never quotes what it holds: a URL with credentials in it is one of
    the things that are refused.
    """
    if text == MEMORY:
        return text
    if "://" in text:
        _check_url(text, setting)
    elif not text.startswith(_FOLDER_BEGINNINGS) and text[1:3] not in (":\\", ":/"):
        raise _refused(
            f"{setting} is neither a URL nor a folder",
            "Begin it with https:// (or http:// for this machine), or with / or ./ for a folder.",
        )
    return text


def shown_location(location: str) -> str:
    """The location for people: of a URL scheme, host, port and path alone."""
    if "://" not in location:
        return location
    url = urlsplit(location)
    return f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path.rstrip('/')}"


def _check_url(text: str, setting: str) -> None:
    try:
        url = urlsplit(text)
        fits = url.scheme in {"http", "https"} and bool(url.hostname) and url.port != 0
    except ValueError:  # a port that is none, a bracket that is left open
        raise _refused(f"{setting} is no URL", "Write https://host or https://host:port.") from None
    if "@" in url.netloc:
        raise _refused(
            f"{setting} has credentials in it, which end up in logs",
            "Write https://host:port, and put the API key into DUALMEM_QDRANT_API_KEY.",
        )
    if not fits or url.query or url.fragment or any(character.isspace() for character in text):
        raise _refused(
            f"{setting} is not of the form https://host or https://host:port",
            "An API key is no part of it: set DUALMEM_QDRANT_API_KEY.",
        )


def _refused(message: str, hint: str) -> UsageError:
    return UsageError(message, operation="read settings", subject="DUALMEM_QDRANT_URL", hint=hint)
