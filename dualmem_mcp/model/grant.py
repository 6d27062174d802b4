"""What a remote client may do: scopes, and the grant that a user gave it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, NewType, get_args

UserId = NewType("UserId", str)
"""1 to 32 lower-case letters, digits and `-`, no `-` at the beginning: names one user of a host, and the folder of
their data home there."""

OWNER: Final = UserId("owner")
"""The user of a host that serves one alone."""

_USER_ID: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")


def user_id(text: str) -> UserId | None:
    """The user that a name typed by hand stands for, None if nobody can be called so. Phones write the first letter
    large."""
    name = text.strip().lower()
    return UserId(name) if _USER_ID.fullmatch(name) else None


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
    """What a user allowed a client, as one token shows it. `expires_at` in seconds since 1970, UTC;
    `client_name` is what the client calls itself, which proves nothing."""

    user: UserId
    client_id: str
    grant_id: str
    scopes: frozenset[Scope]
    expires_at: int
    client_name: str = ""
