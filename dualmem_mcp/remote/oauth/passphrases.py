"""What stands between whoever guesses passphrases and the accounts.

A wrong one costs time, and there are only so many attempts by address, by client and by account. An account that
somebody hammers at would keep its owner out as well; so a browser in which a login succeeded carries a cookie that
has attempts of its own. Source: OWASP, "Slow Down Online Guessing Attacks with Device Cookies".
"""

from __future__ import annotations

import hmac
import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import anyio
from anyio import CapacityLimiter, to_thread

from dualmem_mcp.errors import DualmemError, LockedError, OverBudgetError
from dualmem_mcp.model.grant import UserId
from dualmem_mcp.remote.interfaces import Accounts, Unlocked
from dualmem_mcp.remote.oauth.attempts import Attempts, Rate, network_of

LONGEST_PASSPHRASE: Final = 1_024
DEVICE_SECONDS: Final = 180 * 86_400
"""For so long a browser keeps the cookie that says that a login succeeded in it."""
# A derivation of a key keeps a core busy: strangers must not have them all, nor queue for them without end.
_AT_ONCE: Final = 2
_MOST_WAITING: Final = 8
# Places besides for browsers that have logged in: who guesses from many addresses must not take all.
_MOST_KNOWN_WAITING: Final = 8

_DEVICE: Final = re.compile(r"([a-z0-9-]{1,32})\.([A-Za-z0-9_-]{22})\.([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast passphrases can be tried; `wrong_seconds` is what a wrong one costs beside."""

    address: Rate
    client: Rate
    account: Rate
    device: Rate
    wrong_seconds: float


USUAL_PACE: Final = Pace(
    address=Rate(10, 30.0), client=Rate(20, 10.0), account=Rate(20, 10.0), device=Rate(10, 30.0), wrong_seconds=1.0
)


class TooManyAttemptsError(OverBudgetError):
    """Passphrases were tried too often; `seconds` until the next attempt."""

    def __init__(self, seconds: float) -> None:
        self.seconds = max(1, int(seconds) + 1)
        super().__init__(
            "the passphrase was tried too often",
            operation="log in",
            hint=f"Wait {self.seconds} seconds, then try again.",
        )


class PassphraseGate:
    """Lets users of this host try their passphrase, at that pace. For the event loop."""

    def __init__(
        self,
        accounts: Accounts,
        key: bytes,
        pace: Pace = USUAL_PACE,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`key`: 32 bytes that sign the cookies of devices."""
        self._accounts = accounts
        self._key = key
        self._wrong_seconds = pace.wrong_seconds
        rates = {"address": pace.address, "client": pace.client, "account": pace.account, "device": pace.device}
        self._attempts = {what: Attempts(rate, monotonic=monotonic) for what, rate in rates.items()}
        self._unlocking = CapacityLimiter(_AT_ONCE)
        self._trying = 0

    async def unlock(
        self, name: str, passphrase: str, *, address: str, client_id: str = "", device: str = ""
    ) -> Unlocked:
        """Whose passphrase it is. `device` is the cookie that `device_cookie` made, if the browser has one.

        Raises LockedError (one text for a wrong name and a wrong passphrase), TooManyAttemptsError,
        StoreUnreachableError.
        """
        account = name.strip().lower()[:64] if self._accounts.several else ""
        uses = self._uses(account, address, client_id, device)
        if wait := max(self._attempts[what].wait_seconds(who) for what, who in uses):
            raise TooManyAttemptsError(wait)
        if self._trying >= _AT_ONCE + _MOST_WAITING + (_MOST_KNOWN_WAITING if uses[0][0] == "device" else 0):
            raise TooManyAttemptsError(2.0)
        for what, who in uses:
            self._attempts[what].take(who)
        try:
            unlocked = await self._tried(account, passphrase)
        except LockedError:
            await anyio.sleep(self._wrong_seconds)
            raise
        except DualmemError:  # it could not be tried
            self._give_back(uses)
            raise
        self._give_back(uses)
        return unlocked

    async def _tried(self, account: str, passphrase: str) -> Unlocked:
        if not 0 < len(passphrase) <= LONGEST_PASSPHRASE:
            raise LockedError("that is no passphrase", operation="log in", hint="Type it again.")
        self._trying += 1
        try:
            return await to_thread.run_sync(self._accounts.unlock, account, passphrase, limiter=self._unlocking)
        finally:
            self._trying -= 1

    def _give_back(self, uses: Sequence[tuple[str, str]]) -> None:
        for what, who in uses:
            self._attempts[what].give_back(who)

    def device_cookie(self, user: UserId) -> str:
        """What a browser keeps in which that user has logged in: 32 random characters and a signature."""
        named = f"{user}.{secrets.token_urlsafe(16)}"
        return f"{named}.{self._signature(named)}"

    def _uses(self, account: str, address: str, client_id: str, device: str) -> list[tuple[str, str]]:
        match = _DEVICE.fullmatch(device)
        signed = match and hmac.compare_digest(match[3], self._signature(f"{match[1]}.{match[2]}"))
        # Only for the account that the login was of: else one user could try the others' without end.
        if match and signed and (not self._accounts.several or match[1] == account):
            return [("device", match[2])]
        uses = [("address", network_of(address)), ("account", account)]
        return [*uses, ("client", client_id)] if client_id else uses

    def _signature(self, text: str) -> str:
        return hmac.digest(self._key, b"device\0" + text.encode("ascii"), "sha256").hex()
