"""The way back: what other devices added to a conversation, for its brief, its list entry and its session files."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from dualmem_mcp.errors import DualmemError, StoreUnreachableError
from dualmem_mcp.handoff.channel import Channel
from dualmem_mcp.handoff.digest import build_digest
from dualmem_mcp.handoff.quoting import one_line
from dualmem_mcp.handoff.reconstruct import OpenedPackage, refresh_catalogue
from dualmem_mcp.handoff.resume import Unpacked
from dualmem_mcp.handoff.since import MAX_RECORDS, SHOWN_TYPES, Newer, NewTurn, branches_to_json, is_new
from dualmem_mcp.model.branches import Branch, HandoffPlace, TurnLink, TurnTree
from dualmem_mcp.model.conversation import Block, Role, Session, Turn
from dualmem_mcp.model.handoff import HandoffRecord
from dualmem_mcp.model.ids import ConversationId, DeviceId, parse_conversation_id
from dualmem_mcp.model.source import PROGRESS
from dualmem_mcp.ports import CLIENT_PLACES, BlobCache, Catalogue, Clock, Records, Threads
from dualmem_mcp.sync.progress import ProgressKeeper, derived_id, is_uuid, remember_shown, save_progress
from dualmem_mcp.sync.progress_input import parse_progress
from dualmem_mcp.transcripts.restore import RestoredSession
from dualmem_mcp.transcripts.source import SessionSource
from dualmem_mcp.transcripts.weave import Strand, WovenTurn, first_line
from dualmem_mcp.transcripts.weaving import Restored, restore_with

_TEXTS_READ: Final = 200
"""Turns whose texts are read for a brief, the newest: it has no room for more."""


@dataclass(frozen=True, slots=True)
class WayBack:
    """The conversations as all devices know them. `device_name`, `source` and `channel` (None without a vault) are
    asked for when they are needed; `exclusive` keeps those apart who save at once."""

    catalogue: Catalogue
    threads: Threads
    records: Records
    blobs: BlobCache
    clock: Clock
    device_id: DeviceId
    device_name: Callable[[], str]
    source: Callable[[], SessionSource]
    channel: Callable[[], Channel | None]
    exclusive: Callable[[], AbstractContextManager[object]]

    def save_progress(self, conversation_id: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
        """Add to a conversation; see `sync.progress.save_progress`. Raises UsageError, NotFoundError."""
        parsed = parse_progress(**given, now=self.clock.now())
        if conversation_id is None or self.threads.conversation(parse_conversation_id(conversation_id)) is None:
            self._look_for(conversation_id)
        keeper = ProgressKeeper(
            catalogue=self.catalogue,
            threads=self.threads,
            records=self.records,
            blobs=self.blobs,
            clock=self.clock,
            device_id=self.device_id,
            device_name=self.device_name(),
            exclusive=self.exclusive,
        )
        return save_progress(keeper, conversation_id, parsed)

    def _look_for(self, conversation_id: str | None) -> None:
        """See whether the bucket has a handoff of the conversation, which then gives it its title and folder."""
        if conversation_id is None and self.catalogue.newest_handoff() is not None:
            return
        # What keeps it from being seen is told by whatever needs it: here all can be saved without.
        with contextlib.suppress(DualmemError):
            if (channel := self.channel()) is not None:
                refresh_catalogue(channel, ConversationId(conversation_id) if conversation_id else None)

    def shown(self, brief: Mapping[str, Any]) -> None:
        """Note how much of a conversation a client was shown: what it saves follows on that."""
        last = brief["since_handoff"]["last_turn"]
        if last:
            # On a full disk the brief is whole all the same.
            with contextlib.suppress(StoreUnreachableError):
                remember_shown(self.blobs, brief["conversation_id"], last)

    def newer(self, record: HandoffRecord, package: OpenedPackage) -> Newer:
        """A FindNewer: what came after the handoff here and elsewhere, synced or read from this device's files."""
        sizes = {file.name: file.size for file in package.manifest.thread}
        own = self.source().newer_turns(
            record.conversation_id,
            last_turn_uuid=record.last_turn_uuid,
            known_bytes=sizes.get(f"{record.conversation_id}.jsonl", 0),
        )
        tree, unread = self._tree(record.conversation_id, own)
        new = [tree.links[uuid] for uuid in tree.since(_place(record))]
        known = self.records.find(conversation_id=record.conversation_id, types=SHOWN_TYPES)
        return Newer(
            turns=self._with_texts(record.conversation_id, new, unread),
            count=sum(link.spoken for link in new),
            records=[one for one in known if is_new(one, record.created_at)],
            branches=self._open_branches(record.conversation_id, tree),
            last_turn=tree.newest(below=record.last_turn_uuid) or record.last_turn_uuid or tree.newest() or "",
            own_turns=sum(tree.links[turn.uuid].origin != PROGRESS for turn in own),
        )

    def unpacked(self, conversation_id: ConversationId | None) -> Unpacked | None:
        """A FindUnpacked."""
        if conversation_id is None:
            newest, _ = self.catalogue.conversations(limit=1)
            if not newest:
                return None
            conversation_id = newest[0].conversation_id
        known = self.threads.conversation(conversation_id)
        tree, _ = self._tree(conversation_id, ())
        records = self.records.find(conversation_id=conversation_id, types=SHOWN_TYPES)
        if known is None or not (tree.links or records):
            return None
        way = next(iter(tree.ways()), ())
        links = [tree.links[uuid] for uuid in way if uuid in tree.links]
        session = _session_of(conversation_id, known.title, known.cwd, self._turns(conversation_id, links))
        branches = self._open_branches(conversation_id, tree)
        newer = Newer(branches=branches, last_turn=way[-1] if way else "", records=records)
        return Unpacked(session, build_digest(session), newer)

    def branches(self, conversation_ids: Sequence[ConversationId]) -> Mapping[str, list[dict[str, Any]]]:
        """The branches of those of the conversations that have some, as tools show them."""
        found: dict[str, list[dict[str, Any]]] = {}
        for conversation_id in self.threads.shared(conversation_ids):
            if branches := self._open_branches(conversation_id, self._tree(conversation_id, ())[0]):
                found[conversation_id] = branches_to_json(branches)
        return found

    def _open_branches(self, conversation_id: ConversationId, tree: TurnTree) -> tuple[Branch, ...]:
        """The branches that are still to be taken up: not those that went into sessions of their own, here or, as
        far as that was indexed or handed over, on another device."""
        branches = tree.branches()
        if not branches:
            return ()
        newest = next(iter(self.catalogue.handoffs(conversation_id)), None)
        apart = self._sessions_apart(conversation_id)

        def is_open(branch: Branch) -> bool:
            last = tree.links[branch.uuids[-1]]
            if last.uuid in apart:
                return False
            # A copy of the session that was handed over, as `claude --fork-session` makes it, is no branch of it.
            if last.origin != PROGRESS and newest is not None and newest.device_name in branch.devices:
                return True
            return not self.threads.is_elsewhere(conversation_id, last.uuid)

        still = tuple(branch for branch in branches if is_open(branch))
        return still if len(still) > 1 else ()

    def _sessions_apart(self, conversation_id: ConversationId) -> dict[str, str]:
        """The last turns of branches that are in sessions of their own here, each with the session's id."""
        kept = self.blobs.get(f"{CLIENT_PLACES}{conversation_id}/apart")
        return dict(json.loads(kept)) if kept else {}

    def _note_apart(
        self, conversation_id: ConversationId, ends: Sequence[str], sessions: Sequence[RestoredSession]
    ) -> None:
        """Note where the ways went whose last turns these are, if not all into one session."""
        apart = {
            end: session.session_id
            for end, session in zip(ends, sessions, strict=False)
            if session.session_id != conversation_id
        }
        if len({one.session_id for one in sessions}) > 1 and apart:
            noted = {**self._sessions_apart(conversation_id), **apart}
            self.blobs.put(f"{CLIENT_PLACES}{conversation_id}/apart", json.dumps(noted).encode())

    def restore(
        self, record: HandoffRecord, package: OpenedPackage, *, claude_dir: Path, cwd: str | None
    ) -> dict[str, Any]:
        """Write the session with what came after its handoff: session_path, session_id, records, sha256, written
        (False where all of it lay there already), woven_turns, sessions (several where devices parted), warnings.
        Raises as `restore_with`."""
        tree, _ = self._tree(record.conversation_id, ())
        restored = restore_with(
            self._strands(record.conversation_id, tree, tree.path(record.last_turn_uuid)),
            package.thread_files(),
            claude_dir=claude_dir.absolute(),
            conversation_id=record.conversation_id,
            project=str(package.manifest.facts.get("project", "")),
            cwd=cwd,
        )
        self._note_apart(record.conversation_id, _ends(tree), restored.sessions)
        return _restored_fields(restored)

    def restore_unpacked(
        self, conversation_id: ConversationId, *, claude_dir: Path, cwd: str | None
    ) -> dict[str, Any] | None:
        """Write a conversation that was never handed over, as one that began on a phone, as a session made of its
        turns; what `restore` gives, None if there are no turns here.

        It lies in the folder `cwd`, else in that of the conversation, else in the present one; if it was written
        before, it stays where it is and gets what came since. Raises as `restore_with`.
        """
        known = self.threads.conversation(conversation_id)
        tree, _ = self._tree(conversation_id, ())
        ways = zip(_ends(tree), self._strands(conversation_id, tree, ()), strict=True)
        strands = {end: strand for end, strand in ways if strand.turns}
        if known is None or not strands:
            return None
        session_id = _session_id_for(conversation_id)
        first = next(iter(strands.values())).turns[0]
        place = os.path.realpath(cwd) if cwd else known.cwd or str(Path.cwd())
        was_here = any((claude_dir / "projects").glob(f"*/{session_id}.jsonl"))
        restored = restore_with(
            list(strands.values()),
            {f"{session_id}.jsonl": first_line(first, session_id, place)},
            claude_dir=claude_dir.absolute(),
            conversation_id=session_id,
            cwd=cwd,
        )
        self._note_apart(conversation_id, list(strands), restored.sessions)
        warnings = ["it was never handed over: the session has what was said, as far as it was saved, and no more"]
        if session_id != conversation_id:
            warnings.append(
                f"Claude Code names sessions by UUIDs: this one is {session_id}, which is handed over as a "
                "conversation of its own"
            )
        if not was_here:  # the first line was not woven in, but is of another device as well
            restored = replace(restored, session=replace(restored.session, woven=restored.session.woven + 1))
        fields = _restored_fields(restored)
        return {**fields, "warnings": [*warnings, *fields["warnings"]]}

    def _strands(self, conversation_id: ConversationId, tree: TurnTree, passed: Sequence[str]) -> list[Strand]:
        """The ways on from the turns that were handed over, the newest first, with the turns after these."""
        handed_over = set(passed)
        strands = []
        for way in tree.ways():
            start = max((place for place, uuid in enumerate(way) if uuid in handed_over), default=-1) + 1
            links = [link for uuid in way[start:] if (link := tree.links.get(uuid)) is not None and link.is_talk]
            texts = self.threads.texts(conversation_id, [link.uuid for link in links])
            devices = dict.fromkeys(one_line(tree.links[uuid].device) for uuid in way[start:] if uuid in tree.links)
            turns = tuple(_woven(link, texts.get(link.uuid, "")) for link in links)
            strands.append(Strand(way[:start], turns, tuple(devices)))
        return strands

    def saved_decisions(self, conversation_id: ConversationId, given: Sequence[str]) -> list[str]:
        """The decisions that a handoff passes on: those given, and those that were saved beside the session, which
        whoever takes it up could not see in it."""
        found = self.records.find(conversation_id=conversation_id, types=("decision",), limit=MAX_RECORDS)
        return list(dict.fromkeys([*given, *(str(one.fields.get("text", "")) for one in found)]))

    def _tree(self, conversation_id: ConversationId, own: Sequence[Turn]) -> tuple[TurnTree, Mapping[str, Turn]]:
        """The tree of all turns that are kept here, and of these of this device's session file; with those of them
        that are kept nowhere yet."""
        links = list(self.threads.links(conversation_id))
        kept = {link.uuid for link in links}
        unread = {turn.uuid: turn for turn in own if turn.uuid not in kept}
        name = self.device_name() if unread else ""
        links += [_link(turn, name) for turn in unread.values()]
        return TurnTree(links, map(_place, self.catalogue.handoffs(conversation_id))), unread

    def _with_texts(
        self, conversation_id: ConversationId, links: Sequence[TurnLink], unread: Mapping[str, Turn]
    ) -> list[NewTurn]:
        spoken = [link for link in links if link.spoken][-_TEXTS_READ:]
        texts = self.threads.texts(conversation_id, [link.uuid for link in spoken if link.uuid not in unread])
        return [
            NewTurn(
                uuid=link.uuid,
                role=link.role,
                text=unread[link.uuid].text if link.uuid in unread else texts.get(link.uuid, ""),
                device=link.device,
                timestamp=link.timestamp,
            )
            for link in spoken
        ]

    def _turns(self, conversation_id: ConversationId, links: Sequence[TurnLink]) -> list[Turn]:
        texts = self.threads.texts(conversation_id, [link.uuid for link in links])
        return [
            Turn(
                uuid=link.uuid,
                parent_uuid=link.parent_uuid,
                role=_role(link),
                timestamp=link.timestamp,
                blocks=(Block("text", texts.get(link.uuid, "")),),
                is_meta=not link.spoken,
                origin="" if link.origin == PROGRESS else link.origin,
            )
            for link in links
        ]


def _ends(tree: TurnTree) -> list[str]:
    """The last turn of each way, of those that are known."""
    return [next((uuid for uuid in reversed(way) if uuid in tree.links), "") for way in tree.ways()]


def _session_id_for(conversation_id: ConversationId) -> ConversationId:
    """The conversation's id where Claude Code takes it for a session's, which is a UUID; else one that follows from
    it."""
    named = is_uuid(conversation_id)
    return conversation_id if named else ConversationId(derived_id(conversation_id, "session"))


def _restored_fields(restored: Restored) -> dict[str, Any]:
    return {
        **_session_fields(restored.session),
        "sessions": [{**_session_fields(one), "devices": list(one.devices)} for one in restored.sessions],
        "warnings": list(restored.warnings),
    }


def _session_fields(session: RestoredSession) -> dict[str, Any]:
    return {
        "session_path": str(session.path),
        "session_id": session.session_id,
        "records": session.records,
        "sha256": session.sha256,
        "written": session.written,
        "woven_turns": session.woven,
    }


def _place(record: HandoffRecord) -> HandoffPlace:
    return HandoffPlace(record.last_turn_uuid, record.device_name, record.created_at)


def _link(turn: Turn, device: str) -> TurnLink:
    spoken = bool(turn.text) and not turn.is_meta and not turn.is_compact_summary
    return TurnLink(turn.uuid, turn.parent_uuid, turn.role, turn.timestamp, device, turn.origin, spoken)


def _woven(link: TurnLink, text: str) -> WovenTurn:
    return WovenTurn(link.uuid, _role(link), text, link.timestamp, link.device)


def _role(link: TurnLink) -> Role:
    return "assistant" if link.role == "assistant" else "user"


def _session_of(conversation_id: ConversationId, title: str, cwd: str, turns: Sequence[Turn]) -> Session:
    """The turns as the session that a digest is made of."""
    times = [turn.timestamp for turn in turns if turn.timestamp]
    return Session(
        conversation_id=conversation_id,
        project="",
        title=title,
        cwd=cwd,
        git_branch="",
        version="",
        model="",
        permission_mode="",
        started_at=min(times, default=None),
        ended_at=max(times, default=None),
        turns=tuple(turns),
        earlier=(),
        agents=(),
        files=(),
        record_count=len(turns),
    )
