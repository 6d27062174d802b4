"""What an open application does with conversations: hand them over, take them up, bring them back."""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dualmem_mcp.agent_checkpoints import AgentCheckpoints
from dualmem_mcp.durable_files import file_lock
from dualmem_mcp.edge.beside_handoff import EdgeBesideHandoff, take_along
from dualmem_mcp.edge.client import EdgeProcess
from dualmem_mcp.edge.interface import EdgeInterface
from dualmem_mcp.edge.moving import VectorMoves
from dualmem_mcp.errors import DualmemError, NotFoundError, StoreUnreachableError
from dualmem_mcp.handoff.channel import Channel
from dualmem_mcp.handoff.digest import build_digest
from dualmem_mcp.handoff.eviction import make_room
from dualmem_mcp.handoff.listing import list_conversations
from dualmem_mcp.handoff.offline import offline_pack
from dualmem_mcp.handoff.package import Content, digest_bytes, hand_over
from dualmem_mcp.handoff.pages import ContextPages
from dualmem_mcp.handoff.prefetch import OpenedAhead
from dualmem_mcp.handoff.reconstruct import (
    OpenedPackage,
    Refresh,
    find_handoff,
    keep_package,
    open_package,
    refresh_catalogue,
)
from dualmem_mcp.handoff.related import Related
from dualmem_mcp.handoff.resume import resume
from dualmem_mcp.handoff.steps import Steps
from dualmem_mcp.model.digest import Digest
from dualmem_mcp.model.ids import ConversationId, DeviceId, parse_conversation_id
from dualmem_mcp.ports import Clock, Progress, no_progress
from dualmem_mcp.settings import Settings
from dualmem_mcp.sharing import Sharing
from dualmem_mcp.stores.blob_cache import DatabaseBlobCache
from dualmem_mcp.stores.conversation_store import ConversationStore
from dualmem_mcp.stores.data_home import DataHome
from dualmem_mcp.stores.package_cache import FilePackageCache
from dualmem_mcp.stores.record_store import RecordStore
from dualmem_mcp.stores.thread_store import ThreadStore
from dualmem_mcp.sync.client_summaries import keep_client_summary, kept_client_summary
from dualmem_mcp.sync.deadline import DeadlineObjectStore
from dualmem_mcp.transcripts.carried import parse_session
from dualmem_mcp.transcripts.definitions import definition_changes
from dualmem_mcp.transcripts.project_files import compare_protected
from dualmem_mcp.transcripts.source import SessionSource
from dualmem_mcp.way_back import WayBack

if TYPE_CHECKING:
    from dualmem_mcp.edge.edge import Edge

_log = logging.getLogger(__name__)

_PROGRESS_LOCK: Final = ".progress.lock"


class Conversations(AgentCheckpoints):
    """The part of an application that works on conversations; `App` opens what it needs."""

    settings: Settings
    clock: Clock
    home: DataHome
    sharing: Sharing
    device_id: DeviceId
    blobs: DatabaseBlobCache
    catalogue: ConversationStore
    threads: ThreadStore
    records: RecordStore
    packages: FilePackageCache
    ahead: OpenedAhead
    vectors: VectorMoves
    _edge_process: EdgeProcess | None

    @property
    @abstractmethod
    def edge(self) -> EdgeInterface:
        """What searches here."""

    @property
    @abstractmethod
    def local_edge(self) -> Edge:
        """Search and indexing in this process."""

    @abstractmethod
    def channel(self) -> Channel:
        """The open vault and its stores."""

    @abstractmethod
    def joined_channel(self) -> Channel | None:
        """The same, or None if this device belongs to no vault."""

    def prepare_handoff(
        self,
        conversation_id: str | None = None,
        *,
        target_device: str | None = None,
        summary: str = "",
        decisions: Sequence[str] = (),
        next_steps: Sequence[str] = (),
        open_questions: Sequence[str] = (),
        transcript: Path | None = None,
        deliver: bool = True,
        progress: Progress = no_progress,
    ) -> dict[str, Any]:
        """Hand a conversation over; the contract's *handoff* fields.

        Default: the session that this server was started in, else the newest of its project, else the
        newest. Without `deliver` the bucket is not asked for anything, and the next sync uploads what was queued.
        Raises NotFoundError, UsageError, MalformedError, and what sealing and queueing raise; a bucket
        that cannot be reached is no error: the report says `queued`.
        """
        target = self.settings.profile_for(target_device)
        channel = self.channel()
        if not deliver:
            channel = replace(channel, objects=DeadlineObjectStore(channel.objects, ends_at=-math.inf))
        steps = Steps()
        progress(0, 5, "reading the session")
        with steps.step("read") as facts:
            local = self._source().read(conversation_id, transcript=transcript)
            self.sharing.refuse_erased(local.session.conversation_id, "hand over")
            facts["bytes"] = sum(len(data) for _, data in local.thread)
        beside = EdgeBesideHandoff(
            lambda: self.edge,
            local.session.conversation_id,
            target=target,
            device_name=channel.vault.device_name,
            placing=deliver and self.vectors.is_on,
            waits=self._edge_process is None,
        )
        progress(1, 5, "writing the digest")
        with steps.step("digest") as facts:
            digest = build_digest(
                local.session,
                summary=summary,
                decisions=self.way_back.saved_decisions(local.session.conversation_id, decisions),
                next_steps=next_steps,
                open_questions=open_questions,
                kept_compaction=kept_client_summary(self.records, local.session.conversation_id),
            )
            facts["bytes"] = len(digest_bytes(digest))
        content = Content(
            session=local.session,
            digest=digest,
            thread=local.thread,
            project_files=local.snapshot.files,
            state=self.settings.state,
            changes_since=lambda before: [asdict(one) for one in definition_changes(before, local.snapshot.files)],
            warnings=local.snapshot.warnings,
        )
        done = hand_over(content, channel=channel, target=target, steps=steps, beside=beside, progress=progress)
        return self._with_room_made(channel, done.report)

    def resume_conversation(
        self,
        conversation_id: str | None = None,
        *,
        device: str | None = None,
        token_budget: int | None = None,
        to_client: bool = True,
        caller: str | None = None,
        progress: Progress = no_progress,
    ) -> dict[str, Any]:
        """Take a handed-over conversation up, the newest by default; the contract's *brief* fields.

        What a client saves later follows on what it was shown; a person who only reads is no client (`to_client`).
        For a `caller` pages that they may ask for next are opened ahead.
        Raises NotFoundError, StoreUnreachableError if it is not kept here and the bucket is away, TamperedError.
        """
        profile = self.settings.profile_for(device)
        channel = self.channel()
        brief = resume(
            None if conversation_id is None else self._not_erased(conversation_id, "resume"),
            channel=channel,
            profile=profile,
            token_budget=token_budget,
            newer=self.way_back.newer,
            unpacked=self.way_back.unpacked,
            protected_check=self._protected_differences,
            find_related=self._related,
            take_along=self._take_along,
            progress=progress,
        )
        if to_client:
            self.way_back.shown(brief)
        if caller is not None:
            self._pages.open_ahead(brief, profile, caller=caller)
        self.settle_news(brief["conversation_id"])
        return self._with_room_made(channel, brief)

    def load_context(
        self, conversation_id: str, section: str, cursor: str = "", *, caller: str = ""
    ) -> dict[str, Any]:
        """One page of a section of a handed-over conversation: section, text, next_cursor.

        Raises NotFoundError, UsageError for a cursor that does not fit, StoreUnreachableError, TamperedError.
        """
        wanted = self._not_erased(conversation_id, "load context")
        return self._pages.load(wanted, section, cursor, caller=caller)

    def restore(
        self, conversation_id: str, *, claude_dir: Path | None = None, cwd: str | None = None
    ) -> dict[str, Any]:
        """Write a handed-over conversation, with what other devices added, as a native session: session_path,
        session_id, records, sha256, written, woven_turns, sessions, warnings; see `WayBack.restore`.

        One that was never handed over is made of its turns. Raises NotFoundError, TamperedError,
        StoreUnreachableError; nothing half-written stays."""
        channel = self.channel()
        wanted = self._not_erased(conversation_id, "restore")
        refreshed = refresh_catalogue(channel, wanted)
        folder = claude_dir or self.settings.claude_dir
        try:
            record = find_handoff(channel, wanted, refreshed)
        except (NotFoundError, StoreUnreachableError) as error:
            made = self.way_back.restore_unpacked(wanted, claude_dir=folder, cwd=cwd)
            if made is None:
                self._hint_at_what_is_here(error, wanted)
                raise
            restored = made
        else:
            package = open_package(channel, record)
            restored = self.way_back.restore(record, package, claude_dir=folder, cwd=cwd)
        self.settle_news(wanted)
        return {**restored, "warnings": [*refreshed.warnings, *restored["warnings"]]}

    def list_conversations(self, query: str = "", limit: int = 20, cursor: str = "") -> dict[str, Any]:
        """The conversations that were handed over, newest first: conversations, next_cursor, warnings.

        Looks into the bucket first; without it, or without a vault, shows what is known here.
        """
        return list_conversations(
            self.catalogue,
            self.joined_channel(),
            find_branches=self.way_back.branches,
            query=query,
            limit=limit,
            cursor=cursor,
        )

    def save_progress(self, conversation_id: str | None = None, **given: Any) -> dict[str, Any]:
        """Add to a conversation, by default the one handed over last, what was said and settled elsewhere:
        conversation_id, title, saved, op_count, warnings; `sync.progress` has the whole.

        Takes messages, summary, decisions, next_steps, notes, tasks, bookmarks. Raises UsageError for arguments
        that do not fit, NotFoundError if there is no conversation to add to.
        """
        if conversation_id is not None:
            self._not_erased(conversation_id, "save progress")
        return self.way_back.save_progress(conversation_id, given)

    def make_offline(self, conversation_id: str, progress: Progress = no_progress) -> dict[str, Any]:
        """Have on this device all that a handed-over conversation needs without a network: conversation_id,
        handoff_id, title, messages, decisions, snippets, agents, package_bytes, search_ready, warnings.

        `load_context` shows it as the section `offline`. Raises NotFoundError, TamperedError, StoreUnreachableError
        if a part of it is not here and the bucket is away.
        """
        channel = self.channel()
        wanted = self._not_erased(conversation_id, "make ready for offline")
        progress(0, 3, "looking for handoffs")
        refreshed = refresh_catalogue(channel, wanted)
        try:
            record = find_handoff(channel, wanted, refreshed)
        except NotFoundError as error:
            self._hint_at_what_is_here(error, wanted)
            raise
        progress(1, 3, "fetching the package")
        package = open_package(channel, record)
        keep_package(channel, record, package, limit_bytes=None)
        pack = offline_pack(package, parse_session(package.thread_files()))
        progress(2, 3, "indexing")
        self.local_edge.catch_up()
        warnings = [*refreshed.warnings, *self._take_along(package)]
        status = self.local_edge.status()
        progress(3, 3, "done")
        return {
            "conversation_id": record.conversation_id,
            "handoff_id": record.handoff_id,
            "title": record.title,
            **pack.counts(),
            "package_bytes": record.package_bytes,
            "search_ready": status["waiting"] == 0 and not status["model_missing"],
            "warnings": warnings,
        }

    def keep_compaction(self, conversation_id: str, text: str, *, trigger: str = "") -> None:
        """Keep what a compaction of the client left of a conversation, for the digest of a session that loses it.

        Raises UsageError, NotFoundError for a conversation that was erased.
        """
        wanted = self._not_erased(conversation_id, "keep summary")
        keep_client_summary(self.records, self.device_id, wanted, text, trigger=trigger)

    @abstractmethod
    def settle_news(self, conversation_id: str) -> None:
        """What other devices added to a conversation is known here now: no session is told of it any more."""

    def _hint_at_what_is_here(self, error: DualmemError, wanted: ConversationId) -> None:
        if self.way_back.unpacked(wanted) is not None:
            error.hint = f"What is here of it `dualmem resume {wanted}` shows."

    def _not_erased(self, conversation_id: str, operation: str) -> ConversationId:
        """The id, if the conversation was not erased. Raises UsageError, NotFoundError."""
        wanted = parse_conversation_id(conversation_id)
        self.sharing.refuse_erased(wanted, operation)
        return wanted

    @property
    def _pages(self) -> ContextPages:
        back = self.way_back
        return ContextPages(
            self.catalogue, self._newest_package, back.newer, back.unpacked, parse_session, self.ahead
        )

    @property
    def way_back(self) -> WayBack:
        """What other devices added to conversations."""
        return WayBack(
            catalogue=self.catalogue,
            threads=self.threads,
            records=self.records,
            blobs=self.blobs,
            clock=self.clock,
            device_id=self.device_id,
            device_name=self._device_name,
            source=self._source,
            channel=self.joined_channel,
            exclusive=lambda: file_lock(self.home.root / _PROGRESS_LOCK),
        )

    def _with_room_made(self, channel: Channel, report: dict[str, Any]) -> dict[str, Any]:
        limit_bytes = self.settings.package_cache_mb << 20
        report["warnings"] = [*report["warnings"], *make_room(channel, self.packages, limit_bytes=limit_bytes)]
        return report

    def _device_name(self) -> str:
        channel = self.joined_channel()
        return channel.vault.device_name if channel else self.settings.device_name

    def _source(self) -> SessionSource:
        return SessionSource(
            self.settings.claude_dir,
            current_id=self.settings.claude_session_id,
            project_dir=self.settings.claude_project_dir,
            protected_globs=self.settings.protected_files,
            protected_root=self.settings.protected_root,
        )

    def _newest_package(self, conversation_id: str, refreshed: Refresh | None = None) -> OpenedPackage:
        channel = self.channel()
        wanted = parse_conversation_id(conversation_id)
        if refreshed is None and not self.catalogue.handoffs(wanted):
            refreshed = refresh_catalogue(channel, wanted)
        return open_package(channel, find_handoff(channel, wanted, refreshed))

    def _protected_differences(self, package: OpenedPackage) -> list[str]:
        if self.settings.hosted:
            return []  # what lies on the host is not the user's, not even to compare with
        carried = [file for file in package.manifest.files if file.kind == "protected"]
        root = self._source().protected_root_for(str(package.manifest.facts.get("cwd", "")))
        if not carried or root is None:
            return []
        differences = compare_protected(carried, root, globs=self.settings.protected_files)
        return [difference.sentence for difference in differences]

    def _take_along(self, package: OpenedPackage) -> list[str]:
        return take_along(package, self.settings.profile, lambda: self.edge)

    def _related(self, query: str, digest: Digest) -> Sequence[Related]:
        try:
            found = self.edge.related(query, conversation_id=digest.conversation_id, cwd=digest.cwd)
        except DualmemError as error:  # a brief is whole without it
            _log.info("no related material: %s", error)
            return ()
        return [Related.from_result(result) for result in found]
