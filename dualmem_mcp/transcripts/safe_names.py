"""Names of a session's files as they come out of a package: checked before any becomes a path."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Final

from dualmem_mcp.errors import TamperedError

MAX_COMPONENT_BYTES: Final = 255
MAX_COMPONENTS: Final = 16

_FORBIDDEN: Final = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')
# Source: Microsoft, "Naming Files, Paths, and Namespaces": reserved with any extension.
_DEVICES: Final = re.compile(r"(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(?:\..*)?", re.IGNORECASE)


def check_component(name: str) -> str:
    """The name, if every system takes it as one plain file or folder name. Raises TamperedError."""
    if (
        not name
        or name in {".", ".."}
        or _FORBIDDEN.search(name)
        or name.endswith((".", " "))
        or _DEVICES.fullmatch(name)
        or len(name.encode("utf-8", "surrogatepass")) > MAX_COMPONENT_BYTES
        or not name.isprintable()
    ):
        raise _tampered(name)
    return name


def is_portable(name: str) -> bool:
    """Whether the file of a session, named relative to the project folder, can be written on every system."""
    parts = name.split("/")
    try:
        for part in parts:
            check_component(part)
    except TamperedError:
        return False
    return len(parts) <= MAX_COMPONENTS


def folded(name: str) -> str:
    """What a file system that knows no case makes of a name: names with the same are one file there."""
    return unicodedata.normalize("NFC", name).casefold()


def split_session_names(names: Iterable[str]) -> tuple[str, tuple[str, ...]]:
    """The session file's name, and the other names, which all lie in its folder or are agent files beside it.

    Raises TamperedError for any other shape: an absolute path, `..`, a drive, two names that one
    file system takes as one, none or several session files.
    """
    main: list[str] = []
    others: list[str] = []
    seen: set[str] = set()
    for name in names:
        parts = name.split("/")
        for part in parts:
            check_component(part)
        if len(parts) > MAX_COMPONENTS or folded(name) in seen:
            raise _tampered(name)
        seen.add(folded(name))
        beside = len(parts) == 1 and name.endswith(".jsonl")
        (main if beside and not name.startswith("agent-") else others).append(name)
    if len(main) != 1:
        raise TamperedError(
            f"the package holds {len(main)} session files, not one",
            operation="restore session",
            hint="Hand the conversation over again from the device that has it.",
        )
    stem = main[0].removesuffix(".jsonl")
    for name in others:
        if not name.startswith((f"{stem}/", "agent-")) or (name.startswith("agent-") and "/" in name):
            raise _tampered(name)
    return main[0], tuple(others)


def _tampered(name: str) -> TamperedError:
    shown = "".join(char if char.isprintable() else "�" for char in name[:60])
    return TamperedError(
        f"the package names a file {shown!r}, which no session has",
        operation="restore session",
        subject=shown,
        hint="Do not use this package; hand the conversation over again from the device that has it.",
    )
