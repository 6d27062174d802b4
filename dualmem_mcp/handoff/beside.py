"""What others do for a handoff while it is made: the preload set for its target, vectors placed in a service."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from dualmem_mcp.model.conversation import Session
from dualmem_mcp.model.digest import Digest


@dataclass(frozen=True, slots=True)
class Preloaded:
    """The preload section, b"" where nothing is to be preloaded; ms that it took; why it is not whole, empty if it
    is."""

    data: bytes = field(default=b"", repr=False)
    duration_ms: float = 0.0
    problems: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Placed:
    """Bytes that were written to the service, and in how many ms; whether all is there; what that adds to the costs
    of a month, in US dollars."""

    bytes: int = 0
    duration_ms: float = 0.0
    ok: bool = True
    usd_month: float = 0.0
    warnings: Sequence[str] = ()


class BesideHandoff(Protocol):
    """Work beside a handoff. Nothing here raises, or waits for long."""

    def begin_preload(self, session: Session, digest: Digest) -> None:
        """Begin to look for what the target is to have at hand, where it has a small cache; returns at once."""
        ...

    def preloaded(self) -> Preloaded | None:
        """What was found; None for a target that has its whole index at hand."""
        ...

    def placed(self) -> Placed | None:
        """What was placed by now; None where no service is used."""
        ...


class NothingBeside:
    """A BesideHandoff where nothing is done."""

    def begin_preload(self, session: Session, digest: Digest) -> None:
        """As the port says."""

    def preloaded(self) -> None:
        """As the port says."""

    def placed(self) -> None:
        """As the port says."""
