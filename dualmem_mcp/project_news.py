"""News of a device's projects: which conversations other devices have gone on with, in a file that needs no key.

A hook of Claude Code has a tenth of a second, in which the encrypted database cannot be opened where a keyring has
its key. So whatever syncs leaves the news here. The file holds ids, names of devices and times, and of a project's
folder a keyed hash, whose random key lies in the same file: no word that anybody said, and no path.
Only what is cheap to import is used here. Source of the file's layout: docs/claude-code.md, "The news".
"""

from __future__ import annotations

import json
import os
import unicodedata

TYPE_CHECKING = False  # as typing has it, which takes 3 ms to import
if TYPE_CHECKING:
    from typing import Any, Final

NEWS_FILE: Final = ".project_news.json"
TOLD_FILE: Final = ".project_news_told.json"

MOST_NEWS: Final = 50
MOST_NAME_CHARACTERS: Final = 60
_MOST_BYTES: Final = 4 << 20
_MOST_LEVELS: Final = 60


def project_folders(path: str) -> list[str]:
    """The names under which a project may be known: the folder as given, what it leads to, and for a place in a
    worktree of git the same place in the main one. Empty for what is no absolute path."""
    if not path or "\0" in path or not os.path.isabs(path):  # noqa: PTH117 - pathlib takes 10 ms to import
        return []
    given = os.path.normpath(path)
    real = os.path.realpath(path)
    main = _main_worktree(real)
    names = (given, real, *((main, os.path.realpath(main)) if main else ()))
    return list(dict.fromkeys(unicodedata.normalize("NFC", os.path.normcase(name)) for name in names))


def real_folder(path: str) -> str:
    """The one name of a folder that is the same from wherever it is reached."""
    return unicodedata.normalize("NFC", os.path.normcase(os.path.realpath(path)))


def project_key(salt: bytes, folder: str) -> str:
    """The keyed hash of one of a project's names, 32 hexadecimal digits."""
    from hashlib import blake2b  # noqa: PLC0415  (only where there is any news)

    return blake2b(folder.encode("utf-8", "surrogatepass"), key=salt, digest_size=16).hexdigest()


def read_news(home: str) -> tuple[bytes, list[dict[str, Any]]]:
    """The salt and the news of a data home, oldest first; b"" and nothing where there is no file, or none that
    this version knows. Each has `conversation_id`, `projects` (keyed hashes), `device` and `at` (ISO 8601, UTC)."""
    document = read_json(os.path.join(home, NEWS_FILE))  # noqa: PTH118
    if document.get("format") != 1 or not isinstance(document.get("news"), list):
        return b"", []
    try:
        salt = bytes.fromhex(document.get("salt", ""))
    except (ValueError, TypeError):
        return b"", []
    return (salt, [one for one in document["news"] if _is_news(one)]) if 16 <= len(salt) <= 64 else (b"", [])


def news_of(home: str, folders: list[str]) -> list[dict[str, Any]]:
    """The news of a project by its names, newest first."""
    salt, news = read_news(home)
    if not news:
        return []
    keys = {project_key(salt, folder) for folder in folders}
    return [one for one in reversed(news) if not keys.isdisjoint(one["projects"])]


def told(home: str) -> list[str]:
    """The marks of the news that a session has been told of."""
    marks = read_json(os.path.join(home, TOLD_FILE)).get("told")  # noqa: PTH118
    return [one for one in marks if isinstance(one, str)] if isinstance(marks, list) else []


def mark_of(one: dict[str, Any]) -> str:
    """What names a piece of news: the same conversation at a later time is another one."""
    return f"{one['conversation_id']} {one['at']}"


def read_json(path: str) -> dict[str, Any]:
    """The JSON object in a small file; empty for a file that is not there, too large, or holds anything else."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a pipe would be waited on for ever
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(_MOST_BYTES + 1)
        document = json.loads(data.decode("utf-8-sig")) if len(data) <= _MOST_BYTES else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _is_news(one: object) -> bool:
    return (
        isinstance(one, dict)
        and all(isinstance(one.get(name), str) for name in ("conversation_id", "device", "at"))
        and isinstance(one.get("projects"), list)
        and all(isinstance(key, str) for key in one["projects"])
    )


def _main_worktree(path: str) -> str:
    """The same place in the main worktree of git; empty for a path that is in no other one.

    Source: gitrepository-layout(5): a worktree has a file `.git` with `gitdir: MAIN/.git/worktrees/NAME`.
    """
    folder = path
    for _ in range(_MOST_LEVELS):
        pointer = os.path.join(folder, ".git")  # noqa: PTH118
        try:
            with open(pointer, "rb") as file:  # noqa: PTH123
                text = file.read(4096)
        except IsADirectoryError:
            return ""
        except OSError:
            parent = os.path.dirname(folder)  # noqa: PTH120
            if parent == folder:
                return ""
            folder = parent
            continue
        head, _, target = text.decode("utf-8", "surrogateescape").strip().partition("gitdir: ")
        worktrees, _, name = os.path.normpath(os.path.join(folder, target)).rpartition(os.sep)  # noqa: PTH118
        inner = os.path.join(".git", "worktrees")  # noqa: PTH118
        if head or not target or not name or not worktrees.endswith(os.sep + inner):
            return ""
        return worktrees[: -len(inner) - 1] + path[len(folder) :]
    return ""
