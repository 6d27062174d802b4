"""The application: everything opened once from the settings, and what the product does with it.

Opening touches only this device: the data home, its key, its database. The vault and the bucket are opened
when a call needs them, so that memory works without either.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from dualmem_mcp import __version__
from dualmem_mcp.crypto.keys import derive_database_key, derive_index_key, load_device
from dualmem_mcp.crypto.roster import RosterEntry
from dualmem_mcp.durable_files import file_lock
from dualmem_mcp.edge.client import EdgeProcess
from dualmem_mcp.edge.interface import EdgeInterface
from dualmem_mcp.edge.status import search_status
from dualmem_mcp.errors import DualmemError, NotFoundError, StoreUnreachableError
from dualmem_mcp.handoff.agent_states import agents_to_json
from dualmem_mcp.handoff.channel import Channel
from dualmem_mcp.handoff.checkpoints import Checkpoint, Checkpoints
from dualmem_mcp.handoff.context import load_section
from dualmem_mcp.handoff.digest import build_digest
from dualmem_mcp.handoff.eviction import make_room
from dualmem_mcp.handoff.listing import list_conversations
from dualmem_mcp.handoff.offline import offline_pack
from dualmem_mcp.handoff.package import Content, hand_over
from dualmem_mcp.handoff.quoting import one_line
from dualmem_mcp.handoff.reconstruct import (
    OpenedPackage,
    Refresh,
    find_handoff,
    keep_package,
    open_package,
    refresh_catalogue,
)
from dualmem_mcp.handoff.redact import redact
from dualmem_mcp.handoff.related import Related
from dualmem_mcp.handoff.resume import resume
from dualmem_mcp.handoff.steps import Steps
from dualmem_mcp.model.digest import Digest
from dualmem_mcp.model.ids import conversation_id_for, parse_conversation_id
from dualmem_mcp.model.source import ImportFormat
from dualmem_mcp.ports import Clock, Progress, SystemClock, no_progress
from dualmem_mcp.search.turns_file import is_turns_file
from dualmem_mcp.settings import Settings
from dualmem_mcp.sharing import Sharing
from dualmem_mcp.stores.blob_cache import DatabaseBlobCache
from dualmem_mcp.stores.conversation_store import ConversationStore
from dualmem_mcp.stores.data_home import migrate_memory_json, open_data_home
from dualmem_mcp.stores.database import Database
from dualmem_mcp.stores.graph_store import GraphStore
from dualmem_mcp.stores.keystore import open_device_secret
from dualmem_mcp.stores.memory_file import MemoryFile, export_file, import_file
from dualmem_mcp.stores.outbox import FileOutbox
from dualmem_mcp.stores.package_cache import FilePackageCache
from dualmem_mcp.stores.record_store import RecordStore
from dualmem_mcp.stores.thread_store import ThreadStore
from dualmem_mcp.sync.engine import SyncReport
from dualmem_mcp.sync.notebook import Notebook
from dualmem_mcp.transcripts.carried import parse_session
from dualmem_mcp.transcripts.claude_code import read_session
from dualmem_mcp.transcripts.definitions import definition_changes
from dualmem_mcp.transcripts.project_files import compare_protected
from dualmem_mcp.transcripts.source import SessionSource
from dualmem_mcp.vault_access import VaultAccess
from dualmem_mcp.way_back import WayBack

if TYPE_CHECKING:
    from dualmem_mcp.edge.edge import Edge

_log = logging.getLogger(__name__)

_PROGRESS_LOCK = ".progress.lock"


def open_app(settings: Settings, *, clock: Clock | None = None, edge_process: bool = False) -> App:
    """The application on the settings' data home, made if it is not there.

    With `edge_process` search and indexing run in a process of their own, as a server wants it.

    Raises LockedError if the database does not open with this device's key, StoreUnreachableError if the
    data home cannot be written, UsageError if a setting does not fit.
    """
    return App(settings, clock or SystemClock(), edge_process=edge_process)


class App:
    """One data home, open. Safe to call from several threads; `close` it, or use it as a context manager.

    `notices` are sentences for the user about what opening did (a file migrated, a mirror imported).
    """

    def __init__(self, settings: Settings, clock: Clock, *, edge_process: bool = False) -> None:
        self.settings = settings
        self.clock = clock
        self.home = open_data_home(settings.home)
        with ExitStack() as opening:
            # Several sessions may start on a new data home at once: one makes key and device, the others use them.
            with self.home.setting_up() as notices:
                self.notices = [*self.home.notices, *notices]
                secret = open_device_secret(
                    settings.home, choice=settings.keystore, database=self.home.database_file
                )
                self.key_kept_in = secret.kept_in
                self._index_key = derive_index_key(secret.secret)
                self.database = Database.open(self.home.database_file, derive_database_key(secret.secret))
                opening.callback(self.database.close)
                self.blobs = DatabaseBlobCache(self.database)
                self.device_id, keys = load_device(self.blobs)
            self._access = VaultAccess(settings, self.blobs, self.device_id, keys, clock)
            self.graph = GraphStore(self.database, clock, self.device_id)
            self.catalogue = ConversationStore(self.database, clock, settings.device_name)
            self.threads = ThreadStore(self.database, clock)
            self.records = RecordStore(self.database, clock, self.device_id)
            self.outbox = FileOutbox(self.database, self.home.sync_queue)
            self.sharing = Sharing(
                home=self.home,
                database=self.database,
                outbox=self.outbox,
                blobs=self.blobs,
                clock=clock,
                device_id=self.device_id,
                access=self._access,
                channel=self.channel,
            )
            self.sharing.on_synced(self._took_in)
            self.packages = FilePackageCache(self.home.desktop_sessions, self.home.mobile_reconstruction)
            self.outbox.remove_abandoned()
            self.packages.remove_abandoned()
            self._open_memory_file(opening)
            self._edge_process = EdgeProcess(settings.home) if edge_process else None
            if self._edge_process is not None:
                opening.callback(self._edge_process.close)
            self._closing = opening.pop_all()

    def _open_memory_file(self, opening: ExitStack) -> None:
        wanted = self.settings.memory_file
        # By what the names lead to: on macOS /tmp and /var have two each.
        mirrored = wanted is not None and os.path.realpath(wanted) == os.path.realpath(self.home.memory_file)
        self.notices += migrate_memory_json(self.home, self.graph, self.clock, mirrored=mirrored)
        if wanted is not None:
            mirror = MemoryFile(wanted, self.graph, self.clock, owner=self.device_id, report=_log.warning)
            self.notices += mirror.start()
            opening.callback(mirror.close)

    @property
    def edge(self) -> EdgeInterface:
        """What searches here: in a process of its own, or in this one."""
        return self._edge_process or self.local_edge

    @cached_property
    def local_edge(self) -> Edge:
        """Search and indexing in this process."""
        from dualmem_mcp.edge.edge import Edge  # noqa: PLC0415  (numpy takes 0.1 s and 20 MB)

        edge = Edge(
            self.settings,
            home=self.home,
            database=self.database,
            catalogue=self.catalogue,
            index_key=self._index_key,
            device_id=self.device_id,
            channel=self.joined_channel,
            clock=self.clock,
        )
        self._closing.callback(edge.close)
        return edge

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Write what is not written yet and let everything go. Calling it again does nothing."""
        self._closing.close()

    def warm_up(self) -> None:
        """Load what the first handoff needs beyond opening, and have what is new indexed."""
        # The detectors of secrets take 0.2 s to import.
        redact("token = 0")
        self.wake_edge()

    def wake_edge(self) -> None:
        """Have the edge's process look for what is new; in an application without one, nothing. Returns at once."""
        if self._edge_process is not None:
            self._edge_process.wake()

    # The vault

    def init(self, passphrase: str, *, device_name: str = "") -> dict[str, Any]:
        """A new vault in the bucket; see `VaultAccess.init`."""
        return self._access.init(passphrase, device_name=device_name)

    def join(self, secret: str, *, device_name: str = "") -> dict[str, Any]:
        """Make this device one of the vault's in the bucket; see `VaultAccess.join`."""
        return self._access.join(secret, device_name=device_name)

    def renew_recovery_key(self, show: Callable[[dict[str, Any]], None]) -> None:
        """A new recovery key for the vault; see `VaultAccess.renew_recovery_key`."""
        self._access.renew_recovery_key(show)

    def joined_channel(self) -> Channel | None:
        """The open vault and its stores, or None if this device belongs to no vault."""
        try:
            return self.channel()
        except NotFoundError:
            return None

    def channel(self) -> Channel:
        """The open vault and its stores. Raises NotFoundError if this device belongs to no vault."""
        vault, objects = self._access.opened()
        return Channel(
            vault=vault,
            objects=objects,
            outbox=self.outbox,
            packages=self.packages,
            catalogue=self.catalogue,
            blobs=self.blobs,
            clock=self.clock,
        )

    # Conversations

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
        progress: Progress = no_progress,
    ) -> dict[str, Any]:
        """Hand a conversation over; the contract's *handoff* fields.

        Default: the session that this server was started in, else the newest of its project, else the
        newest. Raises NotFoundError, UsageError, MalformedError, and what sealing and queueing raise; a bucket
        that cannot be reached is no error: the report says `queued`.
        """
        target = self.settings.profile_for(target_device)
        channel = self.channel()
        steps = Steps()
        progress(0, 5, "reading the session")
        with steps.step("read") as facts:
            local = self._source().read(conversation_id, transcript=transcript)
            self.sharing.refuse_erased(local.session.conversation_id)
            facts["bytes"] = sum(len(data) for _, data in local.thread)
        progress(1, 5, "writing the digest")
        with steps.step("digest"):
            digest = build_digest(
                local.session,
                summary=summary,
                decisions=self.way_back.saved_decisions(local.session.conversation_id, decisions),
                next_steps=next_steps,
                open_questions=open_questions,
            )
        content = Content(
            session=local.session,
            digest=digest,
            thread=local.thread,
            project_files=local.snapshot.files,
            state=self.settings.state,
            changes_since=lambda before: [asdict(one) for one in definition_changes(before, local.snapshot.files)],
            warnings=local.snapshot.warnings,
        )
        report = hand_over(content, channel=channel, target=target, steps=steps, progress=progress).report
        return self._with_room_made(channel, report)

    def _with_room_made(self, channel: Channel, report: dict[str, Any]) -> dict[str, Any]:
        limit_bytes = self.settings.package_cache_mb << 20
        report["warnings"] = [*report["warnings"], *make_room(channel, self.packages, limit_bytes=limit_bytes)]
        return report

    def resume_conversation(
        self,
        conversation_id: str | None = None,
        *,
        device: str | None = None,
        token_budget: int | None = None,
        progress: Progress = no_progress,
    ) -> dict[str, Any]:
        """Take a handed-over conversation up, the newest by default; the contract's *brief* fields.

        Raises NotFoundError, StoreUnreachableError if it is not kept here and the bucket is away, TamperedError.
        """
        profile = self.settings.profile_for(device)
        channel = self.channel()
        brief = resume(
            None if conversation_id is None else parse_conversation_id(conversation_id),
            channel=channel,
            profile=profile,
            token_budget=token_budget,
            newer=self.way_back.newer,
            unpacked=self.way_back.unpacked,
            protected_check=self._protected_differences,
            find_related=self._related,
            progress=progress,
        )
        self.way_back.shown(brief)
        return self._with_room_made(channel, brief)

    def load_context(self, conversation_id: str, section: str, cursor: str = "") -> dict[str, Any]:
        """One page of a section of a handed-over conversation: section, text, next_cursor.

        Raises NotFoundError, UsageError for a cursor that does not fit, StoreUnreachableError, TamperedError.
        """
        wanted = parse_conversation_id(conversation_id)
        try:
            package = self._newest_package(conversation_id)
        except (NotFoundError, StoreUnreachableError):
            known = None if self.catalogue.handoffs(wanted) else self.way_back.unpacked(wanted)
            if known is None:
                raise
            text, next_cursor = known.section(section, cursor)
        else:
            text, next_cursor = load_section(package, section, cursor, parse=parse_session)
        return {"section": section, "text": text, "next_cursor": next_cursor}

    def restore(
        self, conversation_id: str, *, claude_dir: Path | None = None, cwd: str | None = None
    ) -> dict[str, Any]:
        """Write a handed-over conversation, with what other devices added, as a native session: session_path,
        session_id, records, sha256, woven_turns, sessions, warnings; see `WayBack.restore`.

        Raises NotFoundError, TamperedError, StoreUnreachableError; nothing half-written stays."""
        channel = self.channel()
        wanted = parse_conversation_id(conversation_id)
        refreshed = refresh_catalogue(channel, wanted)
        record = find_handoff(channel, wanted, refreshed)
        package = open_package(channel, record)
        folder = claude_dir or self.settings.claude_dir
        restored = self.way_back.restore(record, package, claude_dir=folder, cwd=cwd)
        return {**restored, "warnings": [*refreshed.warnings, *restored["warnings"]]}

    def make_offline(self, conversation_id: str, progress: Progress = no_progress) -> dict[str, Any]:
        """Have on this device all that a handed-over conversation needs without a network: conversation_id,
        handoff_id, title, messages, decisions, snippets, agents, package_bytes, search_ready, warnings.

        `load_context` shows it as the section `offline`. Raises NotFoundError, TamperedError, StoreUnreachableError
        if a part of it is not here and the bucket is away.
        """
        channel = self.channel()
        wanted = parse_conversation_id(conversation_id)
        progress(0, 3, "looking for handoffs")
        refreshed = refresh_catalogue(channel, wanted)
        record = find_handoff(channel, wanted, refreshed)
        progress(1, 3, "fetching the package")
        package = open_package(channel, record)
        keep_package(channel, record, package, limit_bytes=None)
        pack = offline_pack(package, parse_session(package.thread_files()))
        progress(2, 3, "indexing")
        self.local_edge.catch_up()
        status = self.local_edge.status()
        progress(3, 3, "done")
        return {
            "conversation_id": record.conversation_id,
            "handoff_id": record.handoff_id,
            "title": record.title,
            **pack.counts(),
            "package_bytes": record.package_bytes,
            "search_ready": status["waiting"] == 0 and not status["model_missing"],
            "warnings": list(refreshed.warnings),
        }

    @property
    def notebook(self) -> Notebook:
        """Notes, tasks and bookmarks."""
        return Notebook(self.records)

    # What all devices share

    def sync(
        self, *, probe: bool = False, max_seconds: float | None = None, large_objects: bool = True
    ) -> dict[str, Any]:
        """Bring this device and the bucket together; see `Sharing.sync`."""
        return self.sharing.sync(probe=probe, max_seconds=max_seconds, large_objects=large_objects)

    def compact(
        self,
        *,
        dry_run: bool = False,
        force: bool = False,
        grace_days: float | None = None,
        progress: Progress = no_progress,
    ) -> dict[str, Any]:
        """Remove from the bucket what a snapshot of the log replaces; see `Sharing.compact`."""
        return self.sharing.compact(dry_run=dry_run, force=force, grace_days=grace_days, progress=progress)

    def erase(self, conversation_id: str) -> dict[str, Any]:
        """Erase a conversation for good, here, in the bucket and on all devices: conversation_id, name, keys,
        packages, manifests, queued, remains, warnings. Raises NotFoundError if nobody knows of it."""
        done = self.sharing.erase(parse_conversation_id(conversation_id))
        self.wake_edge()
        if self._edge_process is None:
            # Nothing new is indexed for it; what is left of the conversation in the indexes goes in any case.
            self.local_edge.catch_up(should_stop=lambda: True, embed=False)
        return done

    def sync_waiting(self) -> int:
        """Changes and objects that wait to be uploaded."""
        return self.sharing.waiting()

    def list_conflicts(self, limit: int = 100) -> dict[str, Any]:
        """What devices changed without knowing of each other; see `Sharing.list_conflicts`."""
        return self.sharing.list_conflicts(limit)

    def resolve_conflict(self, conflict_id: str, keep: bool, stamp: str | None = None) -> dict[str, Any]:
        """Decide a conflict; see `Sharing.resolve_conflict`."""
        return self.sharing.resolve_conflict(conflict_id, keep=keep, stamp=stamp)

    def _took_in(self, report: SyncReport) -> None:
        if report.subjects:
            self.graph.tell_changed()
        self.wake_edge()

    # Checkpoints

    def save_checkpoint(self) -> dict[str, Any] | None:
        """Keep what the agents of the running session are at, if the last checkpoint is old enough and something
        changed since; the checkpoint as `list_checkpoints` shows it, else None. Raises what reading it raises."""
        every = timedelta(seconds=self._checkpoints.every_seconds)
        path = self._source().running(self.clock.now() - 2 * every)
        if path is None or not self._checkpoints.is_due(conversation_id_for(path.stem)):
            return None
        session = read_session(path)
        if not session.agents:
            return None
        made = self._checkpoints.save(session.conversation_id, agents_to_json(session, ()))
        return _checkpoint_fields(made) if made else None

    def list_checkpoints(self, conversation_id: str) -> list[dict[str, Any]]:
        """Checkpoints of a conversation's agents, the oldest first: checkpoint_id, made_at, device_id, state_bytes,
        stored_bytes, whole. Raises UsageError."""
        return [_checkpoint_fields(one) for one in self._checkpoints.find(parse_conversation_id(conversation_id))]

    def restore_checkpoint(self, conversation_id: str, checkpoint_id: str = "") -> str:
        """The state that a checkpoint kept, by default the newest: JSON as in the section `agents` of a package.

        Raises NotFoundError, TamperedError, UsageError.
        """
        state = self._checkpoints.restore(parse_conversation_id(conversation_id), checkpoint_id)
        return state.decode("utf-8", "surrogatepass")

    @property
    def _checkpoints(self) -> Checkpoints:
        return Checkpoints(self.records, self.device_id, self.clock, self.settings.profile.sync.checkpoint_seconds)

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
        return self.way_back.save_progress(conversation_id, given)

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
        carried = [file for file in package.manifest.files if file.kind == "protected"]
        root = self._source().protected_root_for(str(package.manifest.facts.get("cwd", "")))
        if not carried or root is None:
            return []
        differences = compare_protected(carried, root, globs=self.settings.protected_files)
        return [difference.sentence for difference in differences]

    def _related(self, query: str, digest: Digest) -> Sequence[Related]:
        try:
            found = self.edge.related(query, conversation_id=digest.conversation_id, cwd=digest.cwd)
        except DualmemError as error:  # a brief is whole without it
            _log.info("no related material: %s", error)
            return ()
        return [Related.from_result(result) for result in found]

    # This device

    def import_file(
        self, path: Path, form: ImportFormat = "auto", progress: Progress = no_progress
    ) -> dict[str, Any]:
        """Add a memory file, in any of its three forms, to the graph, or a file of turns to what is searched:
        form (graph or turns), entities, relations, observations, turns, skipped, warnings.

        Raises NotFoundError, MalformedError, StoreUnreachableError.
        """
        if form == "turns" or (form == "auto" and is_turns_file(path)):
            report = self.local_edge.import_turns(path, progress)
            return {"form": "turns", "entities": 0, "relations": 0, "observations": 0, **report}
        return {"form": "graph", "turns": 0, **asdict(import_file(self.graph, path))}

    def export_file(self, path: Path) -> dict[str, Any]:
        """Write the graph in clear, in the reference's form, mode 0600: path, entities, relations.

        Raises ConflictError rather than replace a file that is there.
        """
        graph = export_file(self.graph, path)
        return {"path": str(path.absolute()), "entities": len(graph.entities), "relations": len(graph.relations)}

    def status(self) -> dict[str, Any]:
        """Vault, device, and what is stored here; looks at this device only."""
        entities, relations = self.graph.counts()
        channel = self.joined_channel()
        vault = channel.vault if channel else None
        newest = self.catalogue.newest_handoff()
        return {
            "version": __version__,
            "home": str(self.settings.home),
            "bucket": self.settings.bucket,
            "vault_id": vault.vault_id if vault else None,
            "device_id": self.device_id,
            "device_name": vault.device_name if vault else self.settings.device_name,
            "devices": _live_names(vault.devices()) if vault else [],
            "device_key_in": self.key_kept_in,
            "entities": entities,
            "relations": relations,
            "newest_handoff": newest.created_at.isoformat() if newest else None,
            "waiting_uploads": len(self.outbox.pending()),
            "memory_file": str(self.settings.memory_file) if self.settings.memory_file else None,
            **search_status(self.edge, lambda: self.local_edge),
        }


def _live_names(devices: Sequence[RosterEntry]) -> list[str]:
    return [one_line(one.name) for one in devices if one.revoked_after is None]


def _checkpoint_fields(one: Checkpoint) -> dict[str, Any]:
    return {**asdict(one), "made_at": one.made_at.isoformat()}
