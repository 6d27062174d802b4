"""The handed-over conversations whose packages are kept on this device, read from there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from dualmem_mcp.errors import NotFoundError
from dualmem_mcp.handoff.channel import Channel
from dualmem_mcp.handoff.reconstruct import OpenedPackage, open_package
from dualmem_mcp.model.conversation import Session
from dualmem_mcp.model.digest import Decision
from dualmem_mcp.model.handoff import ConversationSummary, HandoffRecord
from dualmem_mcp.model.ids import DeviceId, HandoffId

CANDIDATES: Final = 20
"""Extracted decisions taken of one digest, the most telling: the turns that they quote can be found anyway."""

ParseSession = Callable[[Mapping[str, bytes]], Session]


@dataclass(frozen=True, slots=True)
class KeptConversation:
    """A conversation as its newest package has it: the decisions of the digest beside what the user chose, and
    the session itself, None if this device has it from its own files."""

    conversation_id: str
    decisions: Sequence[Decision]
    session: Session | None


class KeptConversations:
    """The conversations whose newest package is kept here, by names that begin with `package/`.

    `device_id` is this device's; `parse` makes a session of its files.
    """

    def __init__(self, channel: Channel, device_id: DeviceId, parse: ParseSession) -> None:
        self._channel = channel
        self._device_id = device_id
        self._parse = parse

    def sources(self) -> Sequence[tuple[str, str]]:
        """The name of each, and the device that it was handed over from."""
        return [
            (f"package/{record.handoff_id}", record.device_name)
            for record in self._records()
            if self._channel.packages.read(record.handoff_id, length=1) is not None
        ]

    def read(self, source: str) -> KeptConversation:
        """The conversation. Raises NotFoundError, TamperedError, StoreUnreachableError, MalformedError."""
        record = self._channel.catalogue.handoff(HandoffId(source.removeprefix("package/")))
        if record is None:
            raise NotFoundError(f"there is no handoff {source}", operation="read package", subject=source)
        package = open_package(self._channel, record)
        return KeptConversation(
            conversation_id=record.conversation_id,
            decisions=_decisions(package),
            session=None if record.device_id == self._device_id else self._parse(package.thread_files()),
        )

    def _records(self) -> Iterator[HandoffRecord]:
        for summary in self._conversations():
            if summary.handoff_id and (record := self._channel.catalogue.handoff(summary.handoff_id)):
                yield record

    def _conversations(self) -> Iterator[ConversationSummary]:
        cursor = ""
        while True:
            page, cursor = self._channel.catalogue.conversations(limit=200, cursor=cursor)
            yield from page
            if not cursor:
                return


def _decisions(package: OpenedPackage) -> Sequence[Decision]:
    """Those that the calling model gave, and the best of those extracted; what the user chose is in the session."""
    decisions = package.digest.decisions
    given = [one for one in decisions if one.origin == "model"]
    return (*given, *[one for one in decisions if one.origin == "extracted"][:CANDIDATES])
