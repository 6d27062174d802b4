"""What of the indexes goes to the service: items with their vectors, and what was said before each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dualmem_mcp.model.search import Collection, Filter, SearchItem, key_digest
from dualmem_mcp.model.tier_plan import COLLECTION_CODES
from dualmem_mcp.ports import ItemColumns, SearchIndex, SearchReader
from dualmem_mcp.tiers.points import Embedded

if TYPE_CHECKING:
    from numpy.typing import NDArray


class ItemPlaces:
    """In which index each item is, and under which id, by the digest of its key: 17 bytes an item."""

    def __init__(self, columns: Mapping[Collection, ItemColumns]) -> None:
        """`columns` are those of all indexes."""
        present = [(code, columns[one]) for code, one in enumerate(COLLECTION_CODES) if one in columns]
        keys = np.concatenate([np.empty(0, np.int64), *(one.keys for _, one in present)])
        order = np.argsort(keys, kind="stable")
        self._keys: NDArray[np.int64] = keys[order]
        ids = np.concatenate([np.empty(0, np.int64), *(one.ids for _, one in present)])
        self._ids: NDArray[np.int64] = ids[order]
        codes = np.repeat([code for code, _ in present], [len(one.keys) for _, one in present])
        self._codes: NDArray[np.uint8] = codes.astype(np.uint8)[order]

    def there(self, digests: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of them are in an index."""
        return self._positions(digests)[1]

    def ids(self, digests: Sequence[int]) -> Mapping[Collection, list[int]]:
        """The ids of those that are in an index."""
        places, there = self._positions(np.array(digests, np.int64))
        places = places[there]
        return {
            COLLECTION_CODES[code]: self._ids[places[self._codes[places] == code]].tolist()
            for code in np.unique(self._codes[places]).tolist()
        }

    def _positions(self, digests: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        places = np.searchsorted(self._keys, digests)
        places[places == len(self._keys)] = 0
        there = self._keys[places] == digests if len(self._keys) else np.zeros(len(digests), np.bool_)
        return places, there


def embedded_items(index: SearchIndex, ids: Sequence[int]) -> Mapping[int, Embedded]:
    """Those of the items that are there and have vectors, by the digests of their keys, all from one state.

    Ids are of an index that may have been made anew since: whoever asks compares the digests.
    """
    with index.reading() as reader:
        vectors = reader.vectors(ids)
        items = _items(reader, [*vectors, *(item_id - 1 for item_id in vectors)])
    return {
        key_digest(items[item_id].key): Embedded(
            items[item_id], found, _previous(items[item_id], items.get(item_id - 1))
        )
        for item_id, found in vectors.items()
        if item_id in items
    }


def _items(reader: SearchReader, ids: Sequence[int]) -> dict[int, SearchItem]:
    there = reader.features(np.unique(np.array(ids, np.int64)), Filter()).ids.tolist()
    return dict(zip(there, reader.items(there), strict=True))


def _previous(item: SearchItem, before: SearchItem | None) -> str:
    """The turns of a conversation have ids that follow each other, and so may those of two conversations."""
    if before is None or {item.kind, before.kind} != {"turn"} or before.conversation_id != item.conversation_id:
        return ""
    return before.key
