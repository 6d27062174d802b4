"""Which items nobody knows any more: of erased conversations, or deleted from the memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from dualmem_mcp.model.search import key_digest
from dualmem_mcp.tiers.at_hand import ItemPlaces


@dataclass(frozen=True, slots=True)
class Gone:
    """For one run. `places` says what the indexes hold. While they lack something (`is_behind`) nothing counts as
    deleted: an index that is being made anew holds nothing yet."""

    places: Callable[[], ItemPlaces]
    is_erased: Callable[[str], bool]
    is_behind: bool
    _erased: dict[str, bool] = field(default_factory=dict)

    def erased(self, key: str) -> bool:
        """Whether the item is of a conversation that was erased."""
        conversation = conversation_in(key)
        if conversation not in self._erased:
            self._erased[conversation] = bool(conversation) and self.is_erased(conversation)
        return self._erased[conversation]

    def deleted(self, key: str) -> bool:
        """Whether an item that was here is in no index any more."""
        return not self.is_behind and not self.places().there(np.array([key_digest(key)], np.int64))[0]

    def __call__(self, key: str) -> bool:
        """Either."""
        return self.erased(key) or self.deleted(key)


def conversation_in(key: str) -> str:
    """The conversation that an item's key names, empty for none: the second part, but of an entity."""
    kind, _, rest = key.partition("/")
    return "" if kind == "entity" else rest.partition("/")[0]
