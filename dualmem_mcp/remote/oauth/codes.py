"""Authorization codes: in memory alone, for one use within a minute."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from dualmem_mcp.model.grant import Scope
from dualmem_mcp.remote.interfaces import Unlocked
from dualmem_mcp.remote.oauth.redirects import Redirect
from dualmem_mcp.remote.oauth.registration import Client

CODE_SECONDS: Final = 60
_REMEMBERED_SECONDS: Final = 600
_MOST: Final = 1_000

# Source: RFC 7636, sections 4.1 and 4.2.
_VERIFIER: Final = re.compile(r"[A-Za-z0-9._~-]{43,128}")
CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class Code:
    """What a user has just allowed, until the client fetches its tokens."""

    client: Client
    redirect: Redirect
    challenge: str
    scopes: frozenset[Scope]
    unlocked: Unlocked


@dataclass(slots=True)
class Use:
    """A code that was used: what it gave, once that is known, and whether it came a second time."""

    forget_at: float
    grant_id: str = ""
    twice: bool = False


class Codes:
    """The codes given out, by their SHA-256. For the event loop alone."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._open: dict[bytes, tuple[Code, float]] = {}
        self._used: dict[bytes, Use] = {}

    def give(self, code: Code) -> str:
        """A new code: 43 characters."""
        self.forget_ended()
        text = secrets.token_urlsafe(32)
        self._open[_digest(text)] = (code, self._monotonic() + CODE_SECONDS)
        return text

    def take(self, text: str) -> tuple[Code | None, Use | None]:
        """What stands behind a code, and the note of its use; the code is used up, also if it then does not fit.

        For a code used before: no code, but its use, on which is noted that it came twice.
        """
        self.forget_ended()
        digest = _digest(text)
        code, _ = self._open.pop(digest, (None, 0.0))
        if code is None:
            use = self._used.get(digest)
            if use is not None:
                use.twice = True
            return None, use
        use = Use(self._monotonic() + _REMEMBERED_SECONDS)
        self._used[digest] = use
        return code, use

    def forget_ended(self) -> None:
        """Let go of what no client can fetch any more."""
        now = self._monotonic()
        self._open = {key: one for key, one in list(self._open.items())[-_MOST:] if one[1] > now}
        self._used = {key: one for key, one in list(self._used.items())[-_MOST:] if one.forget_at > now}


def proves(verifier: str, challenge: str) -> bool:
    """Whether whoever knows the verifier made the challenge (S256). Source: RFC 7636, section 4.6."""
    if not _VERIFIER.fullmatch(verifier):
        return False
    digest = hashlib.sha256(verifier.encode("ascii")).digest()
    made = base64.urlsafe_b64encode(digest).rstrip(b"=")
    return hmac.compare_digest(made, challenge.encode("utf-8", "replace"))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
