"""Small sections of a package behind its manifest, so that the least length of a section is paid once.

A section is padded to 4 KiB at least. Of a handoff that builds on another one manifest, patches and the new part of
the thread are often shorter, and their floors were most of the package. Source: docs/package.md, "Small sections".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Final

from dualmem_mcp.crypto.envelope import Section
from dualmem_mcp.errors import TamperedError
from dualmem_mcp.handoff.manifest import PackageManifest, manifest_from_json, manifest_to_json

MAX_BUNDLE_BYTES: Final = 48 << 10
"""Manifest and small sections together at most: padded, and with header and index before them, they lie within the
64 KiB that a reader takes of any object at once."""


def bundle_sections(manifest: PackageManifest, sections: Sequence[Section]) -> list[Section]:
    """The sections of a package: `manifest`, with those behind it that fit, and the others in their order."""
    room = MAX_BUNDLE_BYTES - len(manifest_to_json(manifest))
    small: list[Section] = []
    others: list[Section] = []
    for section in sections:
        if len(section.data) <= room:
            room -= len(section.data)
            small.append(section)
        else:
            others.append(section)
    stated = dataclasses.replace(manifest, bundled=tuple((one.name, len(one.data)) for one in small))
    tail = b"".join([b"\n", *(one.data for one in small)]) if small else b""
    return [Section("manifest", manifest_to_json(stated) + tail), *others]


def open_bundle(data: bytes) -> tuple[PackageManifest, Mapping[str, bytes]]:
    """The manifest of a `manifest` section's bytes, and the sections behind it by name. Raises TamperedError."""
    # JSON as the manifest is written has no line feed: it escapes those of texts.
    document, _, tail = data.partition(b"\n")
    manifest = manifest_from_json(document)
    sections: dict[str, bytes] = {}
    position = 0
    for name, size in manifest.bundled:
        sections[name] = tail[position : position + size]
        position += size
        if position > len(tail):
            break
    if position != len(tail) or len(sections) != len(manifest.bundled) or "manifest" in sections:
        raise TamperedError(
            "the sections behind the package manifest are not those that it states",
            operation="read package manifest",
            hint="Hand the conversation over again from the device that has it.",
        )
    return manifest, sections
