"""Device profiles: what a device can hold and read at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypedDict

from dualmem_mcp.errors import UsageError
from dualmem_mcp.model.sync_timing import SyncTiming

SMALL_CACHE: Final = 1_000
"""A device whose profile allows more vectors than this has its whole index at hand, and keeps no working set."""


class _Small(TypedDict):
    sync: SyncTiming
    slim: bool


_DESKTOP = SyncTiming()
_SMALL: _Small = {"sync": SyncTiming(wifi_only=True), "slim": True}


@dataclass(frozen=True, slots=True)
class DeviceProfile:
    """Limits of a kind of device: memory in MB, cached vectors, restored agents, context in tokens; and when it
    syncs by itself."""

    name: str
    memory_mb: int
    cached_vectors: int
    max_agents: int
    context_tokens: int
    sync: SyncTiming = _DESKTOP
    slim: bool = False
    """Clients there may show a tool's structured form to the model beside its text: it says no more than that."""

    @property
    def has_small_cache(self) -> bool:
        """Whether its searches begin with a few items kept at hand, as it may not have its whole index there."""
        return self.cached_vectors <= SMALL_CACHE


# Source: the product's requirements for each platform; the desktop's can be set in cloud_sync_config.json.
PROFILES: dict[str, DeviceProfile] = {
    profile.name: profile
    for profile in (
        DeviceProfile("ios", memory_mb=150, cached_vectors=50, max_agents=2, context_tokens=4_000, **_SMALL),
        DeviceProfile("android", memory_mb=200, cached_vectors=75, max_agents=3, context_tokens=6_000, **_SMALL),
        DeviceProfile("pwa", memory_mb=100, cached_vectors=25, max_agents=1, context_tokens=2_000, **_SMALL),
        DeviceProfile("desktop", memory_mb=2_048, cached_vectors=100_000, max_agents=50, context_tokens=12_000),
    )
}


ProfileName = Literal["ios", "android", "pwa", "desktop"]

_CLAUDE_CODE: Final = "claudecode"


def is_claude_code(client_name: str) -> bool:
    """Whether a client that calls itself so is Claude Code, which runs at a desk.

    Source: it registers as `Claude Code (NAME)` and introduces itself as `claude-code`.
    """
    letters = "".join(letter for letter in client_name[:40].lower() if letter.isalpha())
    return letters.startswith(_CLAUDE_CODE)


def profile_named(name: str) -> DeviceProfile:
    """The profile of that name. Raises UsageError with the names there are."""
    try:
        return PROFILES[name.lower()]
    except KeyError:
        raise UsageError(
            f"there is no device profile {name!r}",
            operation="choose device profile",
            subject=name,
            hint=f"Use one of: {', '.join(PROFILES)}.",
        ) from None
