"""Which projects' sessions may be indexed."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

Projects = Literal["current", "all"] | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class IndexScope:
    """`projects`: that of the folder where the program was started, all, or those named; `exclude`: never these.

    A folder stands for itself and what lies below it; so does each that a pattern with `*`, `?` or `[` matches,
    where `*` goes over any number of folders.
    """

    projects: Projects = "current"
    exclude: tuple[str, ...] = ()

    def allows(self, cwd: str) -> bool:
        """Whether sessions of that working directory may be indexed, as far as names can tell: "current" and
        "all" leave that to `exclude`."""
        if any(covers(pattern, cwd) for pattern in self.exclude):
            return False
        return isinstance(self.projects, str) or any(covers(pattern, cwd) for pattern in self.projects)


def covers(pattern: str, cwd: str) -> bool:
    """Whether a folder or pattern stands for that working directory."""
    place = cwd.replace("\\", "/").rstrip("/")
    wanted = pattern.replace("\\", "/").rstrip("/")
    # A folder may have a `[` in its name: one that is excluded so must not be let in as a pattern that fails.
    if place == wanted or place.startswith(f"{wanted}/"):
        return True
    return any(char in wanted for char in "*?[") and (
        fnmatchcase(place, wanted) or fnmatchcase(place, f"{wanted}/*")
    )
