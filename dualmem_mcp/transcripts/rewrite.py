"""Records changed for another place: the session id and the working directory, and not one byte else."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, Final

_SPACE: Final = re.compile(r"[ \t\n\r]*")
_SESSION_KEYS: Final = frozenset({"sessionId", "session_id"})


@dataclass(frozen=True, slots=True)
class Rewriting:
    """What changes: the id in every record that states one, and `cwd` for the tree below `old_cwd`.

    A `cwd` outside that tree becomes the new root too: it would name a folder of another machine.
    Paths inside messages and tool results are history and stay.
    """

    session_id: str | None = None
    old_cwd: str = ""
    new_cwd: str | None = None

    def changes(self) -> Mapping[str, Callable[[str], str]]:
        """What each top-level member becomes, given what it is."""
        changed: dict[str, Callable[[str], str]] = {}
        if self.session_id is not None:
            session_id = self.session_id
            changed.update(dict.fromkeys(_SESSION_KEYS, lambda _: session_id))
        if self.new_cwd is not None:
            changed["cwd"] = self._moved
        return changed

    def _moved(self, cwd: str) -> str:
        windows = bool(re.match(r"[A-Za-z]:[\\/]|\\\\", self.old_cwd))
        flavour = PureWindowsPath if windows else PurePosixPath
        old, path = flavour(self.old_cwd), flavour(cwd)
        root = self.new_cwd or ""
        if not self.old_cwd or not path.is_relative_to(old) or ".." in path.parts:
            return root
        below = path.relative_to(old).parts
        target = PureWindowsPath(root) if re.match(r"[A-Za-z]:[\\/]", root) else PurePosixPath(root)
        return str(target.joinpath(*below)) if below else root


def rewrite_records(data: bytes, rewriting: Rewriting) -> bytes:
    """The file with the changes made in every line that is a JSON object; all other lines as they are."""
    changes = rewriting.changes()
    if not changes:
        return data
    return b"\n".join(_rewrite_line(line, changes) for line in data.split(b"\n"))


def record_cwds(data: bytes) -> list[str]:
    """Working directories of the user's and the assistant's records, in file order, without repetition in a row."""
    cwds: list[str] = []
    for line in data.split(b"\n"):
        if b'"cwd"' not in line:
            continue
        record = _parsed(line)
        cwd = record.get("cwd")
        if record.get("type") in {"user", "assistant"} and isinstance(cwd, str) and cwd and cwds[-1:] != [cwd]:
            cwds.append(cwd)
    return cwds


def count_records(data: bytes) -> int:
    """Lines that hold a JSON object."""
    return sum(bool(_parsed(line)) for line in data.split(b"\n"))


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _rewrite_line(line: bytes, changes: Mapping[str, Callable[[str], str]]) -> bytes:
    # Bytes that are no UTF-8 pass through unharmed.
    text = line.decode("utf-8", "surrogateescape")
    try:
        spans = _members(text)
    except (ValueError, RecursionError):
        return line
    pieces: list[str] = []
    position = 0
    for key, value, start, end in spans:
        if key in changes and isinstance(value, str):
            pieces += [text[position:start], json.dumps(changes[key](value), ensure_ascii=False)]
            position = end
    if not pieces:
        return line
    return "".join([*pieces, text[position:]]).encode("utf-8", "surrogateescape")


def _members(text: str) -> list[tuple[str, Any, int, int]]:
    """Top-level members of the JSON object in `text`: key, value, and where the value starts and ends.

    Raises ValueError if the text is anything else than one JSON object with white space around it.
    """
    decoder = json.JSONDecoder()
    position = _skip(text, 0)
    if text[position : position + 1] != "{":
        raise ValueError("not an object")
    members: list[tuple[str, Any, int, int]] = []
    position = _skip(text, position + 1)
    while text[position : position + 1] != "}":
        if text[position : position + 1] != '"':
            raise ValueError("no key")
        key, position = decoder.raw_decode(text, position)
        position = _skip(text, position)
        if text[position : position + 1] != ":":
            raise ValueError("no value")
        start = _skip(text, position + 1)
        value, end = decoder.raw_decode(text, start)
        members.append((key, value, start, end))
        position = _skip(text, end)
        if text[position : position + 1] == ",":
            position = _skip(text, position + 1)
            if text[position : position + 1] == "}":
                raise ValueError("comma before the end")
        elif text[position : position + 1] != "}":
            raise ValueError("no comma")
    if _skip(text, position + 1) != len(text):
        raise ValueError("more than an object")
    return members


def _skip(text: str, position: int) -> int:
    space = _SPACE.match(text, position)
    return space.end() if space else position
