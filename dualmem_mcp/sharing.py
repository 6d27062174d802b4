"""What this device shares with the others: its log and theirs, conflicts, records; each sync puts it together."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from dualmem_mcp.crypto.vault import Vault
from dualmem_mcp.errors import (
    BudgetSpentError,
    ConflictError,
    DualmemError,
    StoreRefusedError,
    StoreUnreachableError,
)
from dualmem_mcp.handoff.channel import Channel
from dualmem_mcp.handoff.package import mend_queued
from dualmem_mcp.model.ids import ConversationId, DeviceId
from dualmem_mcp.model.oplog import NO_HEAD
from dualmem_mcp.ports import BlobCache, Clock, Conflict, ObjectStore, Progress, Version, no_progress
from dualmem_mcp.stores.conflict_store import ConflictStore
from dualmem_mcp.stores.data_home import DataHome
from dualmem_mcp.stores.database import Database
from dualmem_mcp.stores.erasure_rows import ErasedConversations
from dualmem_mcp.stores.outbox import FileOutbox
from dualmem_mcp.stores.snapshot_state import SnapshotState
from dualmem_mcp.stores.sync_log import SyncLog
from dualmem_mcp.sync.acks import is_due, write_ack
from dualmem_mcp.sync.compaction import GRACE, Compaction
from dualmem_mcp.sync.deadline import DeadlineObjectStore
from dualmem_mcp.sync.engine import Exchange, Merged, SyncReport, sync
from dualmem_mcp.sync.erasure import carry_out, erase, was_erased
from dualmem_mcp.sync.identity import KeptIdentity
from dualmem_mcp.sync.last_sync import LastSync, problem_text
from dualmem_mcp.sync.requests import CountingObjectStore
from dualmem_mcp.sync.snapshots import Snapshots
from dualmem_mcp.vault_access import VaultAccess

LOCK_FILE = ".sync.lock"


class Sharing:
    """The shared part of one data home. Safe to call from several threads; `channel` gives the open vault."""

    def __init__(
        self,
        *,
        home: DataHome,
        database: Database,
        outbox: FileOutbox,
        blobs: BlobCache,
        clock: Clock,
        device_id: DeviceId,
        access: VaultAccess,
        channel: Callable[[], Channel],
    ) -> None:
        self._home = home
        self._blobs = blobs
        self._clock = clock
        self._access = access
        self._channel = channel
        self.conflicts = ConflictStore(database, clock, device_id)
        self.log = SyncLog(database, clock, device_id, outbox, name_of=self._name_of)
        self.erased = ErasedConversations(database, clock, device_id, name_of=self._name_of)
        self._state = SnapshotState(database, clock, device_id, name_of=self._name_of)
        self._outbox = outbox
        self._listeners: list[Callable[[Merged], object]] = []

    def on_synced(self, listener: Callable[[Merged], object]) -> None:
        """Call the listener, in the thread of the sync, after each one that brought something in, also if it ended
        with an error then."""
        self._listeners.append(listener)

    def sync(
        self, *, probe: bool = False, max_seconds: float | None = None, large_objects: bool = True
    ) -> dict[str, Any]:
        """Bring this device and the bucket together: the contract's *sync* fields, with warnings and requests.

        With `probe` nothing is listed, which is cheaper; after `max_seconds` no request is begun any more, and what
        was not reached waits; without `large_objects` packages wait. A bucket that is away or refuses is no error.
        How it went is noted in the data home. Raises NotFoundError if this device belongs to no vault, and what
        `sync.engine.sync` raises.
        """
        channel = self._channel()
        ends_at = math.inf if max_seconds is None else time.monotonic() + max_seconds
        last = LastSync(self._home.root, self._clock)
        try:
            report = self._sync(channel, ends_at, probe=probe, large_objects=large_objects)
        except Exception as error:
            last.note_problem(problem_text(error), away=type(error) is StoreUnreachableError)
            raise
        if report.went_through:
            last.note(listed=not probe)
        elif report.refused or (report.away and time.monotonic() < ends_at):
            last.note_problem("; ".join(report.warnings), away=report.away)
        return report.to_json()

    def _sync(self, channel: Channel, ends_at: float, *, probe: bool, large_objects: bool) -> SyncReport:
        # All that is asked of the bucket on the way counts.
        objects = CountingObjectStore(DeadlineObjectStore(channel.objects, ends_at))
        snapshots = self._snapshots(channel, objects)
        exchange = Exchange(
            vault=channel.vault,
            objects=objects,
            outbox=channel.outbox,
            log=self.log,
            clock=self._clock,
            lock_file=self._home.root / LOCK_FILE,
            identity=KeptIdentity(self._blobs, channel.objects, self._clock, self._go_on_as),
            mend=lambda key, warnings: mend_queued(channel, key, warnings),
            catch_up=snapshots.catch_up,
            reach=snapshots.reach,
            count_conflicts=self.conflicts.count,
            on_merged=self._tell_merged,
        )
        report = sync(exchange, probe=probe, large_objects=large_objects)
        if report.went_through:
            self._after_sync(replace(channel, objects=objects))
        return replace(report, cost_usd=objects.cost_usd)

    def _go_on_as(self, vault: Vault) -> None:
        """Be the device that the vault was opened as: this data home took a new id, and what is told of from now on
        is that device's."""
        before = self._channel()
        self._access.adopt(vault)
        before.catalogue.rename_device(before.vault.device_name, vault.device_name)

    def _tell_merged(self, merged: Merged) -> None:
        for listener in self._listeners:
            listener(merged)

    def _after_sync(self, channel: Channel) -> None:
        """Carry out erasures, and say how far this device has read where it is time to."""
        carry_out(channel, self.erased)
        own = self.log.device_id()
        heads = self.log.heads()
        others = {device: head for device, head in heads.items() if device != own}
        snapshots = self._snapshots(channel, channel.objects)
        if own == channel.vault.device_id and is_due(self._blobs, others, snapshots.now()):
            write_ack(
                channel.vault,
                channel.objects,
                self._blobs,
                heads=heads,
                snapshot=snapshots.taken(),
                now=snapshots.now(),
            )

    def _snapshots(self, channel: Channel, objects: ObjectStore) -> Snapshots:
        return Snapshots(channel.vault, objects, self._blobs, self._state, self._clock)

    def compact(
        self,
        *,
        dry_run: bool = False,
        force: bool = False,
        grace_days: float | None = None,
        progress: Progress = no_progress,
    ) -> dict[str, Any]:
        """Write a snapshot of the log if it grew enough, or with `force`, and remove what is past being needed;
        fields of `Compacted.to_json`.

        Raises NotFoundError without a vault, StoreUnreachableError, TamperedError, ConflictError if another device
        was faster.
        """
        warnings: list[str] = []
        if not dry_run:
            synced = self.sync()
            if synced["busy"]:
                raise ConflictError(
                    "another process of this device is syncing",
                    operation="compact",
                    hint="Try again when it is done; nothing was changed.",
                )
            _check_went_through(synced, "compact", "Try again later; nothing was changed.")
            warnings = synced["warnings"]
        channel = self._channel()
        compaction = Compaction(
            self._snapshots(channel, channel.objects),
            banned=self.erased.names(),
            grace=GRACE if grace_days is None else timedelta(days=grace_days),
            dry_run=dry_run,
            force=force,
            progress=progress,
        )
        done = compaction.run().to_json()
        return {**done, "warnings": [*warnings, *done["warnings"]]}

    def erase(self, conversation_id: ConversationId) -> dict[str, Any]:
        """Erase a conversation for good, and tell the other devices so; see `sync.erasure.erase`."""
        done = erase(self._channel(), self.erased, conversation_id)
        synced = self.sync()
        queued = done["queued"] or synced["away"] or synced["refused"] or synced["busy"]
        return {**done, "queued": queued, "warnings": [*done["warnings"], *synced["warnings"]]}

    def refuse_erased(self, conversation_id: ConversationId, operation: str) -> None:
        """Raises NotFoundError for a conversation that was erased: nothing of it is here or is ever kept again."""
        if self.erased.is_erased(conversation_id):
            raise was_erased(conversation_id, operation=operation)

    def waiting(self) -> int:
        """Changes and objects that wait on this device to be uploaded."""
        return self.log.waiting() + len(self._outbox.pending())

    def devices(self) -> list[dict[str, Any]]:
        """The vault's devices in the order they joined: device_id, name, joined_at, this_device, revoked, segments
        (of its log that are here). Raises NotFoundError without a vault."""
        heads, own = self.log.heads(), self.log.device_id()
        return [
            {
                "device_id": entry.device_id,
                "name": entry.name,
                "joined_at": entry.joined_at.isoformat(),
                "this_device": entry.device_id == own,
                "revoked": entry.revoked_after is not None,
                "segments": heads.get(entry.device_id, NO_HEAD).segment,
            }
            for entry in self._channel().vault.devices()
        ]

    def revoke(self, device: str, passphrase: str, show: Callable[[dict[str, Any]], None]) -> None:
        """Put a device out of the vault: what it has written until now counts, and nothing later.

        `show` is given vault_id, device_id, name, the new recovery_key and warnings. Syncs first, so that all of it
        is here; the warnings tell if it is not.
        Raises StoreUnreachableError if the bucket is away, and what `VaultAccess.revoke` raises.
        """
        self._channel()
        synced = self.sync()
        _check_went_through(synced, "revoke device", "Run the command again; nothing was changed.", device)
        self._access.revoke(
            device,
            passphrase,
            lambda one: self.log.heads().get(one, NO_HEAD),
            lambda made: show({**made, "warnings": synced["warnings"]}),
        )
        self._replace_snapshot()

    def _replace_snapshot(self) -> None:
        """Put a new snapshot in the place of one that a revoked device made, from which nobody can start."""
        channel = self._channel()
        snapshots = self._snapshots(channel, channel.objects)
        try:
            latest = snapshots.latest(of_revoked=True)
            revoked = {one.device_id for one in channel.vault.devices() if one.revoked_after is not None}
            if latest is not None and latest.manifest.made_by in revoked:
                snapshots.write(latest)
        except DualmemError as error:
            error.hint = (
                f"The device was revoked. Run `dualmem compact` later, so that devices can join. {error.hint}"
            )
            raise

    def list_conflicts(self, limit: int = 100) -> dict[str, Any]:
        """What devices changed without knowing of each other: `conflicts` [{conflict_id, kind, name, field, kept,
        lost}] and `count` of them all; each side {value, stamp, device, at}."""
        names = self._device_names()
        found = [_conflict_fields(one, names) for one in self.conflicts.find(limit)]
        return {"conflicts": found, "count": self.conflicts.count()}

    def resolve_conflict(self, conflict_id: str, *, keep: bool, stamp: str | None = None) -> dict[str, Any]:
        """Decide a conflict, for all devices: `resolved` as it was, `count` of those that are left.

        Raises NotFoundError, UsageError.
        """
        decided = self.conflicts.resolve(conflict_id, keep=keep, stamp=stamp)
        return {"resolved": _conflict_fields(decided, self._device_names()), "count": self.conflicts.count()}

    def _device_names(self) -> dict[str, str]:
        try:
            return {entry.device_id: entry.name for entry in self._channel().vault.devices()}
        except DualmemError:  # without a vault there is only this device
            return {}

    def _name_of(self, conversation_id: str) -> str:
        return self._channel().vault.object_name("conversation", conversation_id)


def _check_went_through(synced: Mapping[str, Any], operation: str, hint: str, subject: str = "") -> None:
    """Raises StoreRefusedError, BudgetSpentError or StoreUnreachableError if a sync did not get to its end."""
    if not (synced["away"] or synced["refused"] or synced["busy"]):
        return
    kind = StoreRefusedError if synced["refused"] else StoreUnreachableError
    kind = BudgetSpentError if synced["over_budget"] else kind
    raise kind(
        "this device could not sync first" + "".join(f": {one}" for one in synced["warnings"][:1]),
        operation=operation,
        subject=subject,
        hint=hint,
    )


def _conflict_fields(conflict: Conflict, names: dict[str, str]) -> dict[str, Any]:
    def side(version: Version) -> dict[str, Any]:
        device = version.stamp.device_id
        return {
            "value": version.value,
            "stamp": str(version.stamp),
            "device": names.get(device, device),
            "at": version.stamp.instant.isoformat(),
        }

    lost: Sequence[Version] = conflict.lost
    return {
        "conflict_id": conflict.conflict_id,
        "kind": conflict.kind,
        "name": conflict.name,
        "field": conflict.field,
        "kept": side(conflict.kept) if conflict.kept else None,
        "lost": [side(version) for version in lost],
    }
