"""What a handoff builds on: the last one of its conversation, and patches of sections against those there."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from dualmem_mcp.errors import DualmemError, StoreUnreachableError
from dualmem_mcp.handoff.channel import Channel, package_key
from dualmem_mcp.handoff.manifest import PackageManifest, PatchedSection
from dualmem_mcp.handoff.patches import make_patch
from dualmem_mcp.handoff.preload import SECTION as PRELOAD
from dualmem_mcp.handoff.reconstruct import open_package
from dualmem_mcp.model.ids import ConversationId, HandoffId
from dualmem_mcp.model.project import ProjectFile, ProjectFileKind

EMPTY: Final = frozenset({b"", b"{}"})

_MOST_SHARE: Final = 1 / 6
"""Compressed alone, sections become a quarter; a patch that is not well below that does not pay for the second
package that a reader then needs."""

_MOST_SHARES: Final = {PRELOAD: 1 / 2}
"""Of its bytes most are vectors, which do not become smaller: compressed alone it becomes some 60 %."""


@dataclass(frozen=True, slots=True)
class Base:
    """The last handoff's manifest, its sections, each as it stands whole in the package of the handoff named with
    it, and the agent definitions that it carried."""

    manifest: PackageManifest
    sections: Mapping[str, tuple[HandoffId, bytes]]
    definitions: Sequence[ProjectFile]


def usable_base(
    conversation_id: ConversationId, names: Sequence[str], channel: Channel, warnings: list[str]
) -> Base | None:
    """The conversation's newest handoff with its sections of these names, if all that it refers to is still there
    and what is needed can be read."""
    newest = channel.catalogue.handoffs(conversation_id)[:1]
    if not newest:
        return None
    try:
        package = open_package(channel, newest[0])
        waiting = set(channel.outbox.pending())
        for key in {package.key, *package.manifest.sources.values()}:
            if key not in waiting:
                channel.objects.stat(key)
        kind: ProjectFileKind = "agent_definition"
        definitions = package.carried_files([kind])
        return Base(
            package.manifest,
            {name: package.whole_section(name) for name in names},
            [ProjectFile.of(kind, file.name, data, file.order) for file, data in definitions],
        )
    except StoreUnreachableError:
        # Offline and not kept here: everything travels anew, which costs bytes and loses nothing.
        return None
    except DualmemError as error:
        warnings.append(f"the last handoff cannot be built upon ({error.message}); everything is sent anew")
        return None


def patched_sections(
    contents: Mapping[str, bytes], earlier_sections: Mapping[str, tuple[HandoffId, bytes]]
) -> tuple[tuple[PatchedSection, ...], bytes]:
    """Those of the sections that are much smaller as a patch against the last handoff's, and the patches together.

    A patch is always against a whole section, so that a reader needs one other package at most.
    """
    sections: list[PatchedSection] = []
    patches: list[bytes] = []
    for name, (holder, earlier) in earlier_sections.items():
        data = contents.get(name, b"")
        if not earlier or data in EMPTY:
            continue
        patch = make_patch(earlier, data)
        if len(patch) <= len(data) * _MOST_SHARES.get(name, _MOST_SHARE):
            digest = hashlib.sha256(data).hexdigest()
            sections.append(PatchedSection(name, holder, len(data), len(patch), digest))
            patches.append(patch)
    return tuple(sections), b"".join(patches)


def sources_of(patched: Sequence[PatchedSection], base: PackageManifest | None) -> dict[HandoffId, str]:
    """Keys of the packages that hold what the sections are patches against."""
    if base is None:
        return {}
    keys = {**base.sources, base.handoff_id: package_key(base.handoff_id)}
    return {section.base: keys[section.base] for section in patched}
