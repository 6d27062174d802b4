"""Which projects' sessions may be indexed."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

Projects = Literal["current", "all"] | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class IndexScope:
    """`projects`: that of the folder where the program was started, all, or those named; `exclude`: never these.

    A folder stands for itself and what lies below it; so does each that a pattern with `*`, `?` or `[` matches,
    where `*` goes over any number of folders. `ignores_case` is for file systems on which `Work` and `work` are one
    folder, as they are on macOS and Windows unless somebody has changed that.
    """

    projects: Projects = "current"
    exclude: tuple[str, ...] = ()
    ignores_case: bool = False

    def allows(self, cwd: str) -> bool:
        """Whether sessions of that working directory may be indexed, as far as names can tell: "current" and
        "all" leave that to `exclude`."""
        if any(covers(pattern, cwd, ignores_case=self.ignores_case) for pattern in self.exclude):
            return False
        return isinstance(self.projects, str) or any(
            covers(pattern, cwd, ignores_case=self.ignores_case) for pattern in self.projects
        )


def folder_name(path: str, *, ignores_case: bool) -> str:
    """The form in which names of folders are compared: those of one folder are the same."""
    name = path.replace("\\", "/").rstrip("/")
    # What ignores case there ignores how accents are composed, too. Source: Apple, "About Apple File System".
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold()) if ignores_case else name


def covers(pattern: str, cwd: str, *, ignores_case: bool = False) -> bool:
    """Whether a folder or pattern stands for that working directory."""
    place = folder_name(cwd, ignores_case=ignores_case)
    wanted = folder_name(pattern, ignores_case=ignores_case)
    # A folder may have a `[` in its name: one that is excluded so must not be let in as a pattern that fails.
    if place == wanted or place.startswith(f"{wanted}/"):
        return True
    return any(char in wanted for char in "*?[") and (
        fnmatchcase(place, wanted) or fnmatchcase(place, f"{wanted}/*")
    )
