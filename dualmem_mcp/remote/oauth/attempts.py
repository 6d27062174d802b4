"""How often something may be tried: token buckets by the name of who tries."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_MOST_KEPT: Final = 10_000


@dataclass(frozen=True, slots=True)
class Rate:
    """`burst` attempts at once, and then one every `seconds`."""

    burst: int
    seconds: float


class Attempts:
    """Counts attempts by name; of the names, those that tried last are kept."""

    def __init__(self, rate: Rate, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._monotonic = monotonic
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def wait_seconds(self, name: str) -> float:
        """After how many seconds an attempt is free; 0 if one is now."""
        ahead = self._full_at.get(name, 0.0) - self._monotonic()
        return max(0.0, ahead - (self._rate.burst - 1) * self._rate.seconds)

    def take(self, name: str) -> float:
        """Use up an attempt; else how many seconds to wait for one, and nothing is used up."""
        wait = self.wait_seconds(name)
        if not wait:
            self._full_at[name] = max(self._full_at.get(name, 0.0), self._monotonic()) + self._rate.seconds
            self._full_at.move_to_end(name)
            if len(self._full_at) > _MOST_KEPT:
                self._full_at.popitem(last=False)
        return wait

    def give_back(self, name: str) -> None:
        """Make the last attempt free again: it was a good one."""
        if name in self._full_at:
            self._full_at[name] -= self._rate.seconds


def network_of(address: str) -> str:
    """The address, or for IPv6 the /64 that one customer has at least: its addresses cost nothing."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ipaddress.ip_network((int(ip) >> 64 << 64, 64)))
    return str(ip)
