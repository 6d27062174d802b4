"""Pages of handed-over conversations as `load_context` gives them: opened ahead after a brief, else when asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dualmem_mcp.errors import NotFoundError, StoreUnreachableError
from dualmem_mcp.handoff.brief.sections import SECTIONS
from dualmem_mcp.handoff.context import SessionParser, ThreadTexts, load_section
from dualmem_mcp.handoff.prefetch import Opened, OpenedAhead, OpenedPages, Page
from dualmem_mcp.handoff.reconstruct import OpenedPackage, PackageGoneError
from dualmem_mcp.handoff.resume import SINCE, FindNewer, FindUnpacked, since_page
from dualmem_mcp.model.device import DeviceProfile
from dualmem_mcp.model.ids import ConversationId
from dualmem_mcp.ports import Catalogue

EXPANSION: Final = 4
"""Memory that a session takes while it is opened, for each byte of its files: those bytes, and the turns made
of them (1.3 by benchmarks/phone.py), twice over for the moments in between."""

_PAGES_AHEAD: Final = 3
"""Of a section of the digest; who reads further waits for it."""

_SECTIONS_SHARE: Final = 0.5
"""Of the budget for sections of the digest at most; the thread's last pages take what is left."""

_FIRST: Final = ("agents", "agent_definitions", "carried_files")
"""What is opened before the other sections, which follow in the order of worth."""


@dataclass(frozen=True, slots=True)
class ContextPages:
    """Reads pages for callers, who are told apart by a key; `ahead` keeps what is opened before it is asked for."""

    catalogue: Catalogue
    open_newest: Callable[[ConversationId], OpenedPackage]
    newer: FindNewer
    unpacked: FindUnpacked
    parse: SessionParser
    ahead: OpenedAhead

    def load(
        self, conversation_id: ConversationId, section: str, cursor: str, *, caller: str = ""
    ) -> dict[str, Any]:
        """One page of a section: section, text, next_cursor. Raises as `load_section` and `open_newest`."""
        text, next_cursor = self._ahead(conversation_id, section, cursor, caller) or self._read(
            conversation_id, section, cursor
        )
        return {"section": section, "text": text, "next_cursor": next_cursor}

    def open_ahead(self, brief: Mapping[str, Any], profile: DeviceProfile, *, caller: str = "") -> None:
        """Open in the background what the caller is likely to ask for after this brief; returns at once."""
        conversation_id, handoff_id = ConversationId(brief["conversation_id"]), str(brief["handoff_id"])
        if not handoff_id:  # there is no package, and what there is of it is read from the database
            return
        sections = [
            (str(one["name"]), str(one["cursor"]), str(one.get("end_cursor", ""))) for one in brief["sections"]
        ]

        def open_pages(budget: int) -> Iterator[Opened]:
            package = self.open_newest(conversation_id)
            if package.manifest.handoff_id == handoff_id:
                yield from _likely(package, sections, budget, profile, self.parse)

        self.ahead.begin(caller, conversation_id, handoff_id, open_pages)

    def _ahead(self, conversation_id: ConversationId, section: str, cursor: str, caller: str) -> Page | None:
        newest = next(iter(self.catalogue.handoffs(conversation_id)), None)
        if newest is None:
            return None
        return self.ahead.page(caller, conversation_id, newest.handoff_id, section, cursor)

    def _read(self, conversation_id: ConversationId, section: str, cursor: str) -> Page:
        try:
            package = self.open_newest(conversation_id)
            if section == SINCE:
                return since_page(self.newer(self.catalogue.handoffs(conversation_id)[0], package), cursor)
            return load_section(package, section, cursor, parse=self.parse)
        except (NotFoundError, StoreUnreachableError) as error:
            is_gone = isinstance(error, PackageGoneError)
            is_unknown = is_gone or not self.catalogue.handoffs(conversation_id)
            known = self.unpacked(conversation_id) if is_unknown else None
            if known is None or (is_gone and not known.has_section(section)):
                raise
            return known.section(section, cursor)


def _likely(
    package: OpenedPackage,
    sections: Sequence[tuple[str, str, str]],
    budget: int,
    profile: DeviceProfile,
    parse: SessionParser,
) -> Iterator[Opened]:
    """What is likely to be asked for, by a brief's sections: agents and carried files, the digest's sections in the
    order of worth, the thread from its end.

    Those of the digest come first, as they are opened in milliseconds, but take no more than their share of the
    budget. The thread is left where reading it would take more memory than the profile has.
    """
    room = int(budget * _SECTIONS_SHARE)
    named = {name: cursor for name, cursor, _ in sections if cursor}
    wanted = [name for name in _FIRST if name in named] + [
        name for name in SECTIONS if name in named and name not in _FIRST
    ]
    for name in wanted:
        opened = _pages(package, name, named[name], parse)
        if opened.size_bytes <= room:
            room -= opened.size_bytes
            budget -= opened.size_bytes
            yield opened
    size = sum(file.size for file in package.manifest.thread)
    if "thread" in named and size * EXPANSION <= profile.memory_mb << 20:
        yield ThreadTexts.of(parse(package.thread_files()), budget)


def _pages(package: OpenedPackage, name: str, cursor: str, parse: SessionParser) -> OpenedPages:
    pages: dict[str, Page] = {}
    at = cursor
    while at not in pages and len(pages) < _PAGES_AHEAD:
        text, following = load_section(package, name, at, parse=parse)
        pages[at] = text, following
        if not following:
            break
        at = following
    if cursor == "0":
        pages[""] = pages[cursor]
    return OpenedPages(name, pages)
