"""What a package brings for the search of a device with a small cache: items with one vector each, as a section.

Vectors are bytes here, as they lie in the section: whoever seals or opens a package need not compute with them.
Source of the format and its bounds: docs/package.md, "preload".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from dualmem_mcp.crypto.canonical import Fields, canonical_json
from dualmem_mcp.errors import TamperedError
from dualmem_mcp.handoff.quoting import cut_middle
from dualmem_mcp.model.device import SMALL_CACHE
from dualmem_mcp.model.search import COLLECTION_OF, ItemKind, SearchItem

SECTION: Final = "preload"

OWN_TURNS: Final = 10
"""Turns at the end of a conversation that it is at. Source: the product's requirements, "last 10 messages"."""

SIMILARITY: Final = 0.85
"""Cosine from which on something else belongs to what a conversation is at. Source: the product's requirements for
handoffs."""

MAX_TEXT: Final = 2_000
"""Characters of an entry: with 50 of them a search has words enough, and the package stays small."""

_FORMAT: Final = 1
_MAX_LINES: Final = 4 << 20
_MAX_LINE: Final = 64 << 10
_MAX_DIMENSIONS: Final = 4_096
_MAX_NAME: Final = 512
_THOUSAND: Final = 1_000
_KINDS: Final[dict[str, ItemKind]] = {kind: kind for kind in COLLECTION_OF}
_NAMES: Final = ("turn_id", "author", "device")


@dataclass(frozen=True, slots=True)
class PreloadEntry:
    """One item to have at hand: its key, its relevance (0 to 1), the item itself where it is of the package's
    conversation, and a vector: a signed byte a component, which give its direction, b"" for none."""

    key: str = field(repr=False)
    relevance: float
    item: SearchItem | None = field(default=None, repr=False)
    vector: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class PreloadSet:
    """Entries, the best first, with vectors of that model and length."""

    model_id: str = ""
    dimensions: int = 0
    entries: Sequence[PreloadEntry] = ()


def shortened(item: SearchItem) -> SearchItem:
    """The item as it travels: of a long text the beginning and the end."""
    return item if len(item.text) <= MAX_TEXT else replace(item, text=cut_middle(item.text, MAX_TEXT))


def preload_to_bytes(preload: PreloadSet) -> bytes:
    """The section's bytes, the same for the same set; b"" for an empty one. Entries beyond the bounds are left out:
    those behind the last that there is room for, and any with a longer name than a reader takes."""
    entries: list[PreloadEntry] = []
    lines: list[bytes] = []
    room = _MAX_LINES - _MAX_LINE
    for entry in preload.entries:
        if not _is_readable(entry):
            continue
        line = canonical_json(_fields_of(entry)) + b"\n"
        room -= len(line)
        if room < 0 or len(entries) == SMALL_CACHE:
            break
        entries.append(entry)
        lines.append(line)
    if not entries:
        return b""
    vectors = [entry.vector for entry in entries if entry.vector]
    head = {
        "count": len(entries),
        "dimensions": preload.dimensions if vectors else 0,
        "format": _FORMAT,
        "model": preload.model_id if vectors else "",
    }
    return b"".join([canonical_json(head), b"\n", *lines, *vectors])


def preload_from_bytes(data: bytes, conversation_id: str) -> PreloadSet:
    """The set that a section of that conversation's package holds. Raises TamperedError for anything else."""
    try:
        return _parsed(data, conversation_id)
    except (ValueError, KeyError):
        raise _unfit() from None


def _parsed(data: bytes, conversation_id: str) -> PreloadSet:
    lines = _lines(data)
    head, position = next(lines)
    # What a newer version writes may have any form behind its first line.
    head.integer("format", low=_FORMAT, high=_FORMAT)
    count, dimensions = head.integer("count", high=SMALL_CACHE), head.integer("dimensions", high=_MAX_DIMENSIONS)
    read: list[tuple[Fields, bool]] = []
    for _ in range(count):
        fields, position = next(lines)
        read.append((fields, _flag(fields, "vector")))
    vectors = sum(has for _, has in read)
    if len(data) - position != dimensions * vectors or (vectors and not dimensions):
        raise _unfit()
    entries: list[PreloadEntry] = []
    for fields, has in read:
        vector = data[position : position + dimensions] if has else b""
        position += len(vector)
        entries.append(_entry(fields, vector, conversation_id))
    if len({entry.key for entry in entries}) != count:
        raise _unfit()
    return PreloadSet(head.text("model"), dimensions, entries)


def _lines(data: bytes) -> Iterator[tuple[Fields, int]]:
    """The objects in the lines, each with where the next one begins. Raises TamperedError where none does."""
    position = 0
    while True:
        end = data.find(b"\n", position, min(position + _MAX_LINE, _MAX_LINES))
        if end < 0:
            raise _unfit()
        yield Fields.parse(data[position:end], subject=_WHAT), end + 1
        position = end + 1


def _entry(fields: Fields, vector: bytes, conversation_id: str) -> PreloadEntry:
    key = fields.text("key", longest=_MAX_NAME)
    item = _item(fields, key, conversation_id) if "text" in fields.values else None
    return PreloadEntry(key, fields.integer("relevance", high=_THOUSAND) / _THOUSAND, item, vector)


def _item(fields: Fields, key: str, conversation_id: str) -> SearchItem:
    kind = _KINDS.get(fields.text("kind"))
    if kind is None or not key.startswith(f"{kind}/{conversation_id}/"):
        raise _unfit()
    return SearchItem(
        key=key,
        kind=kind,
        text=fields.text("text", longest=MAX_TEXT),
        conversation_id=conversation_id,
        timestamp=None if fields.values.get("timestamp") is None else _time(fields.text("timestamp")),
        **{name: fields.text(name, longest=_MAX_NAME) for name in _NAMES},
    )


def _is_readable(entry: PreloadEntry) -> bool:
    names = [entry.key, *((getattr(entry.item, name) for name in _NAMES) if entry.item else ())]
    return all(len(name) <= _MAX_NAME for name in names)


def _fields_of(entry: PreloadEntry) -> dict[str, object]:
    fields: dict[str, object] = {
        "key": entry.key,
        "relevance": round(min(max(entry.relevance, 0.0), 1.0) * _THOUSAND),
        "vector": bool(entry.vector),
    }
    item = entry.item
    if item is None:
        return fields
    at = item.timestamp
    return {
        **fields,
        "kind": item.kind,
        "text": item.text,
        "timestamp": None if at is None else at.astimezone(UTC).isoformat(),
        **{name: getattr(item, name) for name in _NAMES},
    }


def _flag(fields: Fields, name: str) -> bool:
    value = fields.values.get(name)
    if not isinstance(value, bool):
        raise _unfit()
    return value


def _time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise _unfit()
    return moment.astimezone(UTC)


_WHAT: Final = "the preload section"


def _unfit() -> TamperedError:
    return TamperedError(
        "the preload section of a package is not as it was written",
        operation="read package",
        hint="Hand the conversation over again; if that fails too, update dualmem on both devices.",
    )
