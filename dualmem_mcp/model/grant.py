"""What a remote client may do: scopes, and the grant that a user gave it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, NewType, get_args

UserId = NewType("UserId", str)
"""1 to 32 lower-case letters, digits and `-`: names one user of a host, and the folder of their data home there."""

Scope = Literal["read", "write", "erase", "export"]
"""What a token allows: reading and searching; adding and changing; deleting what cannot be had back by a further
change; the whole memory as one file."""

SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)

DEFAULT_SCOPES: Final[frozenset[Scope]] = frozenset({"read", "write"})
"""What a remote client gets unless the user ticks more on the consent page."""

ALL_SCOPES: Final[frozenset[Scope]] = frozenset(SCOPES)
"""What the user's own program on the same machine may do."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a user allowed a client, as one token shows it. `expires_at` in seconds since 1970, UTC."""

    user: UserId
    client_id: str
    grant_id: str
    scopes: frozenset[Scope]
    expires_at: int
