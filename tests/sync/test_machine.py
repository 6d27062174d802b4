"""Devices that do what they like over a bucket that fails in every way: once it is well again, all agree."""

from __future__ import annotations

import errno
import json
import shutil
import tempfile
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from dualmem_mcp import failpoints
from dualmem_mcp.errors import (
    ConflictError,
    DiskFullError,
    NotFoundError,
    StoreUnreachableError,
    TamperedError,
)
from dualmem_mcp.model.conversation import Block, Session, Turn
from dualmem_mcp.model.graph import Entity, EntityObservations, Graph, Relation
from dualmem_mcp.model.handoff import HandoffRecord
from dualmem_mcp.model.ids import ConversationId, HandoffId
from dualmem_mcp.model.oplog import NO_HEAD
from dualmem_mcp.model.source import Finding
from dualmem_mcp.stores.conflict_store import ConflictStore
from dualmem_mcp.stores.connection import Connection
from dualmem_mcp.stores.conversation_store import ConversationStore
from dualmem_mcp.stores.logical_state import logical_hash, logical_view
from dualmem_mcp.stores.record_store import RecordStore
from dualmem_mcp.stores.source_progress import SourceProgress
from dualmem_mcp.sync.compaction import Compaction
from dualmem_mcp.sync.segments import open_segment, parse_segment_key
from dualmem_mcp.sync.snapshot_format import open_part, part_key
from tests.conftest import SteppingClock
from tests.crypto.conftest import MemoryObjectStore
from tests.sync.compacting import erased_of
from tests.sync.conftest import Device
from tests.sync.failpoint_driver import seal_offline
from tests.sync.faulty import FAULTS, CrashError, Fault, Line

MOST_DEVICES = 5
NAMES = st.sampled_from(["Ada", "Engine", "half \ud83d"])
DEVICES = st.integers(0, MOST_DEVICES - 1)
CHATS = st.sampled_from(["chat-1", "chat-2"])
TEXTS = st.sampled_from(["x", "y", "z"])
FAULT_LISTS = st.lists(st.one_of(st.just(""), st.sampled_from(FAULTS)), max_size=14)
Item = tuple[str, ...]


_SAID = (NotFoundError, TamperedError, ConflictError, DiskFullError, StoreUnreachableError)
"""What a sync may say to the user."""
_WHERE_SPACE_IS_NEEDED = {"file: made", "file: written", "file: synced", "database: before commit"}


@dataclass
class Template:
    """Data homes of a vault right after its devices joined, to be copied: that takes a second to make."""

    folder: Path
    objects: dict[str, bytes]
    names: list[str]


@cache
def template() -> Template:
    folder = Path(tempfile.mkdtemp(prefix="dualmem-homes-"))
    bucket = MemoryObjectStore()
    names = ["desk", "phone", "laptop", "tablet"]
    for number, name in enumerate(names):
        device = Device(folder / name, bucket, SteppingClock())
        device.join(name) if number else device.create(name)
        device.database.close()
    return Template(folder, dict(bucket.objects), names)


@dataclass
class Known:
    """What was acknowledged, and what somebody deleted; both forever."""

    added: set[Item] = field(default_factory=set)
    deleted: set[Item] = field(default_factory=set)


class Devices(RuleBasedStateMachine):
    """Rules change a device's memory, or its luck; `teardown` heals all and compares."""

    @initialize(count=st.integers(2, 4), clock_in_bucket=st.booleans())
    def begin(self, count: int, clock_in_bucket: bool) -> None:
        made = template()
        self.folder = Path(tempfile.mkdtemp(prefix="dualmem-machine-"))
        self.bucket = MemoryObjectStore()
        self.bucket.objects = dict(made.objects)
        self.true = SteppingClock()
        self.clock_in_bucket = clock_in_bucket
        self.devices: list[Device] = []
        self.known = Known()
        self.count = 0
        self.damaged: dict[str, tuple[bytes, bytes]] = {}
        self.erased: set[str] = set()
        self.planted: set[tuple[str, bytes]] = set()
        self.stash: dict[str, bytes] | None = None
        for name in made.names[:count]:
            shutil.copytree(made.folder / name, self.folder / name)
            self._open(name)

    def _open(self, name: str) -> None:
        device = Device(self.folder / name, Line(self.bucket), SteppingClock(self.true.time))
        device.reopen()
        self.devices.append(device)

    def _device(self, number: int) -> Device:
        return self.devices[number % len(self.devices)]

    def _fresh(self) -> str:
        self.count += 1
        return str(self.count)

    # What devices do with their memory

    @rule(number=DEVICES, name=NAMES, kind=TEXTS)
    def create_entity(self, number: int, name: str, kind: str) -> None:
        text = self._fresh()
        self._device(number).graph.create_entities([Entity(name, kind, ()), Entity(f"n{text}", kind, (text,))])
        self.known.added |= {("entity", name), ("entity", f"n{text}"), ("observation", f"n{text}", text)}

    @rule(number=DEVICES, name=NAMES)
    def observe(self, number: int, name: str) -> None:
        text = self._fresh()
        try:
            self._device(number).graph.add_observations([EntityObservations(name, (text, "often said"))])
        except NotFoundError:
            return
        self.known.added |= {("observation", name, text), ("observation", name, "often said")}

    @rule(number=DEVICES, name=NAMES)
    def delete_entity(self, number: int, name: str) -> None:
        self._device(number).graph.delete_entities([name])
        self.known.deleted |= {("entity", name), ("relations",)}

    @rule(number=DEVICES, name=NAMES)
    def delete_observation(self, number: int, name: str) -> None:
        self._device(number).graph.delete_observations([EntityObservations(name, ("often said",))])
        self.known.deleted.add(("observation", name, "often said"))

    @rule(number=DEVICES, name=NAMES, kind=TEXTS, mood=TEXTS)
    def set_fields(self, number: int, name: str, kind: str, mood: str) -> None:
        graph = self._device(number).graph
        if name in self._device(number).names():
            edited = Graph((Entity(name, kind, (), {"mood": mood}),), ())
            graph.import_graph(edited, edited_since=graph.version())

    @rule(number=DEVICES, source=NAMES, to=NAMES, delete=st.booleans())
    def relate(self, number: int, source: str, to: str, delete: bool) -> None:
        relation = Relation(source, to, "knows")
        if delete:
            self._device(number).graph.delete_relations([relation])
            self.known.deleted.add(("relation", source, to))
        else:
            self._device(number).graph.create_relations([relation])
            self.known.added.add(("relation", source, to))

    @rule(number=DEVICES, name=TEXTS, text=TEXTS, status=st.sampled_from(["open", "done"]), delete=st.booleans())
    def record(self, number: int, name: str, text: str, status: str, delete: bool) -> None:
        device = self._device(number)
        records = RecordStore(device.database, device.clock, device.first_id)
        if erased_of(device).is_erased(ConversationId("chat-1")):
            return  # the application refuses it
        if delete:
            if records.delete("task", name):
                self.known.deleted.add(("record", name))
        elif records.put(
            "task", name, {"text": f"{text} said in chat-1", "status": status}, conversation_id="chat-1"
        ):
            self.known.added.add(("record", name))

    @rule(number=DEVICES, keep=st.booleans())
    def decide(self, number: int, keep: bool) -> None:
        device = self._device(number)
        conflicts = ConflictStore(device.database, device.clock, device.first_id)
        for conflict in conflicts.find(1):
            if conflict.kept is None or any(lost.value is None for lost in conflict.lost):
                # A deletion may be decided for, too.
                self.known.deleted |= {("record", conflict.name), ("entity", conflict.name), ("relations",)}
            conflicts.resolve(conflict.conflict_id, keep=keep)

    @rule(number=DEVICES, chat=CHATS, shared=st.integers(0, 3), text=TEXTS)
    def session(self, number: int, chat: str, shared: int, text: str) -> None:
        device = self._device(number)
        own = self._fresh()
        said = f"{text} said in {chat}"
        turns = [self._turn(f"s{n}", said) for n in range(shared)] + [self._turn(own, said)]
        ConversationStore(device.database, device.clock, lambda: device.home.name).save_session(
            Session(
                conversation_id=ConversationId(chat),
                project="p",
                title=said,
                cwd="/c",
                git_branch="",
                version="",
                model="",
                permission_mode="",
                started_at=None,
                ended_at=self.true.time,
                turns=tuple(turns),
                earlier=(),
                agents=(),
                files=(),
            )
        )
        self.known.added |= {("turn", chat, turn.uuid) for turn in turns}

    def _turn(self, uuid: str, text: str) -> Turn:
        return Turn(uuid, None, "user", self.true.time, (Block("text", text),))

    @rule(number=DEVICES, chat=CHATS, name=TEXTS, text=TEXTS, alone=st.booleans())
    def find(self, number: int, chat: str, name: str, text: str, alone: bool) -> None:
        """Something that all devices find under one name, or all that this one finds by itself."""
        device = self._device(number)
        log = SourceProgress(device.database, device.clock, device.home.name)
        source = device.home.name if alone else "all"
        found = Finding("decision", f"{source}/{name}", f"{text} said in {chat}")
        log.put_findings(chat, [found], replacing=device.home.name if alone else "")
        if alone:  # those that are not found any more are taken away
            self.known.deleted |= {
                one for one in self.known.added if one[:2] == ("finding", chat) and source in one[2]
            }
        self.known.added.add(("finding", chat, found.finding_id))

    @rule(number=DEVICES, chat=CHATS)
    def hand_over(self, number: int, chat: str) -> None:
        device = self._device(number)
        name = f"{int(self._fresh()):032x}"
        record = HandoffRecord(
            handoff_id=HandoffId(name),
            conversation_id=ConversationId(chat),
            title=f"said in {chat}",
            cwd="/c",
            created_at=self.true.time,
            device_id=device.id,
            device_name=device.home.name,
            base=None,
            package_key=f"packages/{name}",
            package_bytes=1,
            manifest_key=f"manifests/{name}",
            message_count=1,
            visible_tokens=1,
            digest_tokens=1,
            last_turn_uuid="",
        )
        ConversationStore(device.database, device.clock, lambda: device.home.name).save_handoff(record)
        self.known.added.add(("handoff", chat, name))

    # Exchange, with faults

    @rule(number=DEVICES, faults=FAULT_LISTS, probe=st.booleans(), other=DEVICES)
    def sync(self, number: int, faults: list[Fault], probe: bool, other: int) -> None:
        device = self._device(number)
        line = device.objects
        assert isinstance(line, Line)
        line.faults = deque(faults)
        # Another device, or another process of this one, which is to leave it to the first.
        line.meanwhile = lambda: self._sync(self._device(other))
        self._sync(device, probe=probe)
        line.faults.clear()

    def _sync(self, device: Device, *, probe: bool = False) -> None:
        try:
            device.sync(probe=probe)
        except CrashError:
            device.reopen()
        except _SAID:
            pass  # said to the user; nothing may be lost by it

    @rule(number=DEVICES, at=st.integers(1, 30), full=st.booleans())
    def sync_and_stop(self, number: int, at: int, full: bool) -> None:
        """The process ends, or the disk is full, at one of the points where that could hurt."""
        device = self._device(number)
        count = 0

        def reached(name: str) -> None:
            nonlocal count
            count += 1
            if count == at and not full:
                raise CrashError
            if full and count >= at and name in _WHERE_SPACE_IS_NEEDED:
                raise DiskFullError(f"no space left ({errno.ENOSPC})")

        with failpoints.watched(reached):
            self._sync(device)

    @rule(number=DEVICES, faults=FAULT_LISTS, grace_days=st.sampled_from([0, 14]), force=st.booleans())
    def compact(self, number: int, faults: list[Fault], grace_days: int, force: bool) -> None:
        device = self._device(number)
        line = device.objects
        assert isinstance(line, Line)
        line.faults = deque(faults)
        line.meanwhile = None
        try:
            self._compact_one(device, grace_days, force=force)
        except CrashError:
            device.reopen()
        except _SAID:
            pass
        line.faults.clear()

    def _compact_one(self, device: Device, grace_days: int, *, force: bool) -> None:
        """As the application does it: not where the bucket was away."""
        if not device.sync().away:
            banned = erased_of(device).names()
            Compaction(device.snapshots(), banned=banned, grace=timedelta(days=grace_days), force=force).run()

    @rule(number=DEVICES, chat=CHATS)
    def erase(self, number: int, chat: str) -> None:
        erased_of(self._device(number)).erase(ConversationId(chat))
        self.erased.add(chat)

    @rule(number=DEVICES, days=st.sampled_from([-4000, -2, -1, 1, 2, 4000]))
    def skew(self, number: int, days: int) -> None:
        self._device(number).clock.advance(days * 86400)

    @rule(seconds=st.sampled_from([1, 3600, 100_000]))
    def wait(self, seconds: int) -> None:
        for clock in (self.true, *(device.clock for device in self.devices)):
            clock.advance(seconds)
        if self.clock_in_bucket:
            self.bucket.clock = self.true.time

    @rule(number=DEVICES)
    def seal(self, number: int) -> None:
        """What a sync leaves that ends, or loses the bucket, between sealing and uploading."""
        seal_offline(self._device(number))

    @rule(number=DEVICES, place=st.integers(0, 50))
    def deliver_again(self, number: int, place: int) -> None:
        """A segment of another device comes by another way than a sync, mostly once more."""
        device = self._device(number)
        segments = [key for key in self.bucket.objects if key.startswith("log/")]
        if not segments or device.vault is None:
            return
        key = segments[place % len(segments)]
        keys = {entry.device_id: entry.ed25519 for entry in device.vault.devices()}
        parsed = parse_segment_key(key)
        if parsed is None or parsed[0] not in keys:
            return
        with suppress(TamperedError, ConflictError, NotFoundError):
            segment = open_segment(device.vault, key, keys[parsed[0]], self.bucket.objects[key])
            if segment.before.segment < device.log.heads().get(parsed[0], NO_HEAD).segment:
                applied = device.log.take_in(parsed[0], segment.ops, segment.head)
                assert (applied.ops, applied.subjects, applied.conversations) == (0, frozenset(), frozenset())

    @rule(number=DEVICES)
    def restart(self, number: int) -> None:
        self._device(number).reopen()

    @precondition(lambda self: len(self.devices) < MOST_DEVICES)
    @rule(number=DEVICES)
    def clone(self, number: int) -> None:
        device = self._device(number)
        if any(key.startswith(f"log/{device.id}/") for key in self.damaged):
            return
        device.database.close()
        name = f"copy-{self._fresh()}"
        shutil.copytree(device.home, self.folder / name)
        device.reopen()
        self._open(name)

    # What others do to the bucket

    @rule(place=st.integers(0, 50), at=st.integers(0, 5000), cut=st.booleans())
    def damage(self, place: int, at: int, cut: bool) -> None:
        # Where two machines write one log, either may put its own segment over what nobody can read any more.
        writers = Counter(device.id for device in self.devices)
        logs = tuple(f"log/{device_id}/" for device_id, count in writers.items() if count == 1)
        segments = [key for key in self.bucket.objects if key.startswith(logs)]
        if not segments:
            return
        key = segments[place % len(segments)]
        data = self.bucket.objects[key]
        at = at % len(data) if data else 0
        damaged = data[:at] if cut or not data else data[:at] + bytes([255 - data[at]]) + data[at + 1 :]
        before, whole = self.damaged.get(key, (b"", b""))
        self.damaged[key] = (damaged, whole if data == before else data)
        self.bucket.objects[key] = damaged

    @rule()
    def repair(self) -> None:
        for objects in (self.bucket.objects, self.stash or {}):
            for key, (damaged, whole) in self.damaged.items():
                if objects.get(key) == damaged:  # else its device has written it again, or it was removed
                    objects[key] = whole
        self.damaged.clear()

    @rule(place=st.integers(0, 50), number=DEVICES, foreign=st.booleans())
    def plant(self, place: int, number: int, foreign: bool) -> None:
        """A segment lies under the next number of a log that is not its own: an older one, or another vault's."""
        device_id = self._device(number).id
        own = [int(key[-20:]) for key in self.bucket.objects if key.startswith(f"log/{device_id}/")]
        others = [key for key in self.bucket.objects if key.startswith("log/")]
        key = f"log/{device_id}/{max(own, default=0) + 1:020d}"
        if key in self.bucket.objects or not others:
            return
        data = self.bucket.objects[others[place % len(others)]]
        # The header names the vault: another's does not authenticate.
        self.bucket.objects[key] = data[:20] + b"\1" * 16 + data[36:] if foreign else data
        self.planted.add((key, self.bucket.objects[key]))

    @rule()
    def empty_or_put_back(self) -> None:
        if self.stash is None:
            self.stash, self.bucket.objects = self.bucket.objects, {}
        else:
            self._put_back()

    def _put_back(self) -> None:
        if self.stash is not None:
            self.bucket.objects = {**self.bucket.objects, **self.stash}
            self.stash = None

    # The end

    def teardown(self) -> None:
        if not hasattr(self, "devices"):
            return
        try:
            self._heal()
            self._compare()
            self._compact()
            self._compare()
            self._look_for_erased()
        finally:
            for device in self.devices:
                device.database.close()
            shutil.rmtree(self.folder)

    def _heal(self) -> None:
        self._put_back()
        self.repair()
        for key, data in self.planted:
            if self.bucket.objects.get(key) == data:
                del self.bucket.objects[key]
        for device in self.devices:
            device.clock.time = self.true.time
        self.wait(60)
        for _ in range(12):
            reports = [device.sync() for device in self.devices]
            for device in self.devices:
                device.log.release(all_of_them=True)
            if not any(
                report.queued or report.pushed.segments or report.pulled.segments or report.warnings
                for report in reports
            ):
                return
        raise AssertionError(f"it does not come to rest: {[report.to_json() for report in reports]}")

    def _compare(self) -> None:
        views, hashes = [], set()
        for device in self.devices:
            with device.database.read() as connection:
                views.append(logical_view(connection))
                hashes.add(logical_hash(connection))
        if len(hashes) > 1:
            raise AssertionError(_differences(views))
        assert self._missing(views[0]) == set()

    def _compact(self) -> None:
        """As a long time would: who was not heard of for so long is not waited for."""
        self.wait(100 * 86400)
        for device in self.devices:
            erased_of(device).sweep()  # what came of session files since
        for _ in range(4):
            for device in self.devices:
                self._compact_one(device, 0, force=True)
            self.wait(2 * 86400)  # parts that no snapshot names stay for a day

    def _look_for_erased(self) -> None:
        """Nothing that was said in an erased conversation is left in a memory, a queue or the bucket."""
        texts = {f"said in {chat}" for chat in self.erased}
        for device in self.devices:
            with device.database.read() as connection:
                for line in _dump(connection):
                    assert not any(text in line for text in texts), (device.home.name, line)
            assert device.outbox.pending() == []
        for key, plain in _opened(self.devices[0], self.bucket):
            assert not any(text in plain for text in texts), key

    def _missing(self, view: dict[str, list[list[object]]]) -> set[Item]:
        there: set[Item] = set()
        for section, kind, columns in (
            ("entities", "entity", (0,)),
            ("observations", "observation", (0, 1)),
            ("relations", "relation", (0, 1)),
            ("records", "record", (1,)),
            ("turns", "turn", (0, 1)),
            ("findings", "finding", (0, 2)),
            ("handoffs", "handoff", (1, 0)),
        ):
            there |= {(kind, *(str(item[column]) for column in columns)) for item in view[section]}
        deleted = self.known.deleted
        return {
            item
            for item in self.known.added - there
            if item not in deleted
            and not (item[0] == "observation" and ("entity", item[1]) in deleted)
            and not (item[0] == "relation" and ("relations",) in deleted)
            and item[1] not in self.erased
            and not (item[0] == "record" and "chat-1" in self.erased)
        }


def _dump(connection: Connection) -> Iterator[str]:
    """Every value of every table."""
    for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        for row in connection.execute(f"SELECT * FROM {table}"):
            yield f"{table}: {row}"


def _opened(device: Device, bucket: MemoryObjectStore) -> Iterator[tuple[str, str]]:
    """What the segments and snapshots of the bucket say to a device of the vault."""
    assert device.vault is not None
    keys = {entry.device_id: entry.ed25519 for entry in device.vault.devices()}
    for key, data in bucket.objects.items():
        parsed = parse_segment_key(key)
        if parsed is not None:
            yield key, str(open_segment(device.vault, key, keys[parsed[0]], data).ops)
    latest = device.snapshots().latest()
    assert latest is not None
    for number in range(1, len(latest.manifest.parts) + 1):
        key = part_key(latest.manifest.snapshot_id, number)
        yield key, str(open_part(device.vault, latest.manifest, number, bucket.objects[key]))
    # Nothing else is there that could say something.
    known = ("keys/", "roster/", "acks/", "log/", "vault.json", "snapshots/latest")
    others = {
        key for key in bucket.objects if not key.startswith((*known, f"snapshots/{latest.manifest.snapshot_id}/"))
    }
    assert others == set()


def _differences(views: list[dict[str, list[list[object]]]]) -> str:
    """What not all devices have."""
    lines = []
    for section in views[0]:
        sets = [{json.dumps(item) for item in view[section]} for view in views]
        common = set.intersection(*sets)
        lines += [f"device {n} alone, {section}: {item}" for n, items in enumerate(sets) for item in items - common]
    return "\n".join(lines)


TestDevices = Devices.TestCase
TestDevices.settings = settings(max_examples=12, stateful_step_count=30)
