"""What a package says of itself and what a handoff says to the other devices: two sealed JSON documents.

The package's `manifest` section names the session's files and where their bytes lie, in this package or
in earlier ones. The handoff record is an object of its own, written last: a device that sees it finds the
whole package. Formats: docs/package.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from dualmem_mcp.errors import TamperedError, UsageError
from dualmem_mcp.model.handoff import HandoffRecord
from dualmem_mcp.model.ids import ConversationId, DeviceId, HandoffId, parse_conversation_id

FORMAT = 3
"""The highest that is read. A package that builds on no other is written as 1, which every version reads."""


@dataclass(frozen=True, slots=True)
class Part:
    """`size` bytes of a file: `stored` bytes at `offset` of the thread stream of the package of `handoff_id`.

    Where `patched`, these are a patch against the bytes of the file before the part; else they are the bytes.
    """

    handoff_id: HandoffId
    offset: int
    size: int
    stored: int
    patched: bool = False

    def to_json(self) -> list[Any]:
        """As the manifest has it: three members, or a fourth for a patch."""
        return [self.handoff_id, self.offset, self.size, *([self.stored] if self.patched else [])]

    @classmethod
    def from_json(cls, members: list[Any]) -> Part:
        """The part of what `to_json` gives. Raises TypeError or ValueError."""
        holder, offset, size, *patch = members
        stored = _count(patch[0]) if patch else _count(size)
        return cls(HandoffId(_text(holder)), _count(offset), _count(size), stored, bool(patch))


@dataclass(frozen=True, slots=True)
class PatchedSection:
    """A section that is a patch against that of another handoff's package: `stored` bytes of the section `patches`,
    which stand there in the order of the manifest."""

    name: str
    base: HandoffId
    size: int
    stored: int
    sha256: str


@dataclass(frozen=True, slots=True)
class ThreadFile:
    """One file of the session: its bytes are its parts, one after the other."""

    name: str
    size: int
    sha256: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class CarriedFile:
    """One file that travels beside the thread, at `offset` of the `files` section."""

    kind: str
    name: str
    size: int
    sha256: str
    order: int
    offset: int


@dataclass(frozen=True, slots=True)
class PackageManifest:
    """Everything needed to use a package. `sources` maps each handoff whose package holds parts of the
    thread to that package's key; `stream_size` is the length of this package's own thread stream."""

    handoff_id: HandoffId
    conversation_id: ConversationId
    created_at: datetime
    device_id: DeviceId
    device_name: str
    base: HandoffId | None
    stream_size: int
    chunk_size: int
    sources: Mapping[HandoffId, str]
    thread: tuple[ThreadFile, ...]
    files: tuple[CarriedFile, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Further facts for the reader: title, cwd, version, counts."""
    patched: tuple[PatchedSection, ...] = ()
    bundled: tuple[tuple[str, int], ...] = ()
    """Name and bytes of each section that lies behind the manifest, in their order (`handoff/bundle.py`)."""

    @property
    def format(self) -> int:
        """The format that a package of this manifest is written in: 3 where it builds on another, else 1."""
        has_patches = self.patched or any(part.patched for file in self.thread for part in file.parts)
        return FORMAT if self.base is not None or has_patches or self.bundled else 1


def manifest_to_json(manifest: PackageManifest) -> bytes:
    """The `manifest` section's bytes, as far as they are JSON: in one line."""
    return _dump(
        {
            "format": manifest.format,
            "handoff_id": manifest.handoff_id,
            "conversation_id": manifest.conversation_id,
            "created_at": manifest.created_at.isoformat(),
            "device_id": manifest.device_id,
            "device_name": manifest.device_name,
            "base": manifest.base,
            "stream_size": manifest.stream_size,
            "chunk_size": manifest.chunk_size,
            "sources": dict(manifest.sources),
            "thread": [
                {
                    "name": file.name,
                    "size": file.size,
                    "sha256": file.sha256,
                    "parts": [part.to_json() for part in file.parts],
                }
                for file in manifest.thread
            ],
            "files": [
                {
                    "kind": file.kind,
                    "name": file.name,
                    "size": file.size,
                    "sha256": file.sha256,
                    "order": file.order,
                    "offset": file.offset,
                }
                for file in manifest.files
            ],
            "facts": dict(manifest.facts),
            **({"patched": [asdict(section) for section in manifest.patched]} if manifest.patched else {}),
            **({"bundled": [list(section) for section in manifest.bundled]} if manifest.bundled else {}),
        }
    )


def manifest_from_json(data: bytes) -> PackageManifest:
    """The manifest that `manifest_to_json` wrote; unknown fields are ignored.

    Raises TamperedError when a field is missing or of the wrong type.
    """
    try:
        document = _load(data)
        return PackageManifest(
            handoff_id=HandoffId(_text(document["handoff_id"])),
            conversation_id=parse_conversation_id(_text(document["conversation_id"])),
            created_at=_time(document["created_at"]),
            device_id=DeviceId(_text(document["device_id"])),
            device_name=_text(document["device_name"]),
            base=HandoffId(_text(document["base"])) if document["base"] is not None else None,
            stream_size=_count(document["stream_size"]),
            chunk_size=_count(document["chunk_size"]),
            sources={HandoffId(_text(key)): _text(value) for key, value in document["sources"].items()},
            thread=tuple(
                ThreadFile(
                    name=_text(file["name"]),
                    size=_count(file["size"]),
                    sha256=_text(file["sha256"]),
                    parts=tuple(Part.from_json(part) for part in file["parts"]),
                )
                for file in document["thread"]
            ),
            files=tuple(
                CarriedFile(
                    kind=_text(file["kind"]),
                    name=_text(file["name"]),
                    size=_count(file["size"]),
                    sha256=_text(file["sha256"]),
                    order=_count(file["order"]),
                    offset=_count(file["offset"]),
                )
                for file in document["files"]
            ),
            facts=dict(document.get("facts") or {}),
            patched=tuple(
                PatchedSection(
                    name=_text(section["name"]),
                    base=HandoffId(_text(section["base"])),
                    size=_count(section["size"]),
                    stored=_count(section["stored"]),
                    sha256=_text(section["sha256"]),
                )
                for section in document.get("patched") or ()
            ),
            bundled=tuple((_text(name), _count(size)) for name, size in document.get("bundled") or ()),
        )
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, UsageError) as error:
        raise _unfit("package manifest", error) from None


def record_to_json(record: HandoffRecord) -> bytes:
    """The handoff record's bytes; `manifest_key` is left out, since it is made from them."""
    return _dump(
        {
            "format": 1,
            "handoff_id": record.handoff_id,
            "conversation_id": record.conversation_id,
            "title": record.title,
            "cwd": record.cwd,
            "created_at": record.created_at.isoformat(),
            "device_id": record.device_id,
            "device_name": record.device_name,
            "base": record.base,
            "package_key": record.package_key,
            "package_bytes": record.package_bytes,
            "message_count": record.message_count,
            "visible_tokens": record.visible_tokens,
            "digest_tokens": record.digest_tokens,
            "last_turn_uuid": record.last_turn_uuid,
        }
    )


def record_from_json(data: bytes, *, manifest_key: str) -> HandoffRecord:
    """The record that `record_to_json` wrote. Raises TamperedError when a field does not fit."""
    try:
        document = _load(data)
        return HandoffRecord(
            handoff_id=HandoffId(_text(document["handoff_id"])),
            conversation_id=parse_conversation_id(_text(document["conversation_id"])),
            title=_text(document["title"]),
            cwd=_text(document["cwd"]),
            created_at=_time(document["created_at"]),
            device_id=DeviceId(_text(document["device_id"])),
            device_name=_text(document["device_name"]),
            base=HandoffId(_text(document["base"])) if document["base"] is not None else None,
            package_key=_text(document["package_key"]),
            package_bytes=_count(document["package_bytes"]),
            manifest_key=manifest_key,
            message_count=_count(document["message_count"]),
            visible_tokens=_count(document["visible_tokens"]),
            digest_tokens=_count(document["digest_tokens"]),
            last_turn_uuid=_text(document["last_turn_uuid"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, UsageError) as error:
        raise _unfit("handoff record", error) from None


def _dump(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def _load(data: bytes) -> dict[str, Any]:
    document = json.loads(data.decode("utf-8", "surrogatepass"))
    if not isinstance(document, dict):
        raise TypeError("not an object")
    if _count(document["format"]) > FORMAT:
        raise ValueError("made by a newer version")
    return document


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _count(value: object) -> int:
    # 2**50 bytes is past any session; a larger number is an attack on what is computed from it.
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**50:
        raise ValueError("not a count")
    return value


def _time(value: object) -> datetime:
    moment = datetime.fromisoformat(_text(value))
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _unfit(what: str, error: Exception) -> TamperedError:
    return TamperedError(
        f"the {what} does not have the form it should ({type(error).__name__})",
        operation=f"read {what}",
        hint="Hand the conversation over again; if that fails too, update dualmem on both devices.",
    )
