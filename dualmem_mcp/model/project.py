"""Files of a project that travel with a conversation, and what changed in them since an earlier handoff."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Literal, Protocol

ProjectFileKind = Literal["agent_definition", "memory", "plan", "instructions", "protected"]
Scope = Literal["project", "user"]
Change = Literal["added", "removed", "changed"]
Difference = Literal["missing", "changed", "extra", "reordered"]


@dataclass(frozen=True, slots=True)
class ProjectFile:
    """One file, byte for byte. `name` uses `/` and is unique within its kind:

    agent definitions and instructions of the project relative to its root, those of the user below
    `user/`; memory below `memory/`, plans below `plans/`; protected files relative to their root.
    `sha256` is hexadecimal; `order` counts from 0 in the order in which the files were collected.
    """

    kind: ProjectFileKind
    name: str
    data: bytes = field(repr=False)
    sha256: str
    order: int

    @classmethod
    def of(cls, kind: ProjectFileKind, name: str, data: bytes, order: int) -> ProjectFile:
        """The file with the checksum of its bytes."""
        return cls(kind, name, data, hashlib.sha256(data).hexdigest(), order)


@dataclass(frozen=True, slots=True)
class ProjectSnapshot:
    """The files found, and what was left out, in sentences that name files but never content."""

    files: tuple[ProjectFile, ...]
    warnings: tuple[str, ...] = ()

    def of_kind(self, kind: ProjectFileKind) -> tuple[ProjectFile, ...]:
        """The files of one kind, in order."""
        return tuple(file for file in self.files if file.kind == kind)


@dataclass(frozen=True, slots=True)
class AgentDefinition:
    """What the front matter of `agents/<name>.md` says; `model` and `tools` are empty where they are inherited."""

    name: str
    scope: Scope
    file_name: str
    description: str = ""
    tools: tuple[str, ...] = ()
    model: str = ""


@dataclass(frozen=True, slots=True)
class DefinitionChange:
    """One agent definition that came, went or changed between two handoffs; `diff` is unified and bounded."""

    file_name: str
    name: str
    change: Change
    diff: str = ""


class CarriedChecksum(Protocol):
    """What is known of a carried file without its bytes."""

    @property
    def name(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def order(self) -> int: ...


@dataclass(frozen=True, slots=True)
class ProtectedDifference:
    """One protected file that is not here as it was carried; checksums are empty where there is no file."""

    name: str
    difference: Difference
    expected_sha256: str = ""
    found_sha256: str = ""

    @property
    def sentence(self) -> str:
        """The difference for a warning."""
        said = {
            "missing": "is not on this device",
            "changed": "differs from the one that was carried",
            "extra": "is on this device but was not carried",
            "reordered": "stands at another place in the order",
        }
        return f"protected file {self.name} {said[self.difference]}"
