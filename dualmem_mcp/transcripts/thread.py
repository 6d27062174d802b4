"""Which messages of a session file the model sees now, and which a compaction replaced.

The rules, and the observations behind them, are in docs/transcripts.md under "The thread".
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from dualmem_mcp.model.conversation import Turn
from dualmem_mcp.transcripts.records import Record

MAX_COMPACTIONS: Final = 500
"""Compactions followed back; a file with more is made to cost time, not to be read."""


@dataclass(frozen=True, slots=True)
class Thread:
    """The active thread and the segments before it, root first; `off_thread` counts messages of neither."""

    turns: tuple[Turn, ...]
    earlier: tuple[Turn, ...]
    off_thread: int = 0


def build_thread(records: Iterable[Record]) -> Thread:
    """The thread that ends in the last message of `records`, which are in file order."""
    graph = _Graph(records)
    leaf = graph.last_message(len(graph.main), seen=set())
    if leaf is None:
        return Thread((), ())
    segments: list[list[Record]] = []
    seen: set[str] = set()
    boundaries = graph.boundaries
    while leaf is not None and len(segments) <= MAX_COMPACTIONS:
        chain = graph.walk(leaf, seen, boundaries)
        segments.append(chain)
        root = chain[0]
        leaf = None
        first = next((record.turn for record in chain if record.turn is not None), None)
        if root.boundary or (first is not None and first.is_compact_summary):
            # An earlier segment is walked as the links stood before this compaction.
            boundaries = [boundary for boundary in boundaries if boundary.line < root.line]
            leaf = graph.before(root, seen)
    segments.reverse()
    visible = [graph.with_parallel_calls(chain, seen) for chain in segments]
    turns = [[record.turn for record in chain if record.turn is not None] for chain in visible]
    shown = {record.uuid for chain in visible for record in chain}
    off_thread = sum(record.turn is not None and record.uuid not in shown for record in graph.main)
    return Thread(tuple(turns[-1]), tuple(turn for segment in turns[:-1] for turn in segment), off_thread)


class _Graph:
    """Records of the main thread by uuid, with the parent each one has in effect."""

    def __init__(self, records: Iterable[Record]) -> None:
        self.main: list[Record] = []
        self.by_uuid: dict[str, Record] = {}
        self.by_message: dict[str, list[Record]] = defaultdict(list)
        self.by_answer: dict[str, list[Record]] = defaultdict(list)
        self.boundaries: list[Record] = []
        for record in records:
            if record.sidechain or record.uuid in self.by_uuid:
                continue
            self.by_uuid[record.uuid] = record
            self.main.append(record)
            self._index(record)
        del self.boundaries[:-MAX_COMPACTIONS]
        self._lines = [record.line for record in self.main]
        self.parents = self._parents()
        self.children: dict[str, list[str]] = defaultdict(list)
        for uuid, parent in self.parents.items():
            if parent is not None:
                self.children[parent].append(uuid)

    def _index(self, record: Record) -> None:
        if record.boundary:
            self.boundaries.append(record)
        if record.message_id:
            self.by_message[record.message_id].append(record)
        if record.turn is not None and record.turn.role == "user":
            for block in record.turn.blocks_of("tool_result"):
                self.by_answer[block.tool_use_id].append(record)

    def _parents(self) -> dict[str, str | None]:
        # A file written without links (other tools' exports, the oldest sessions) is a thread in file order.
        linked = 2 * sum(record.parent_uuid is not None for record in self.main) >= len(self.main)
        parents: dict[str, str | None] = {}
        previous: Record | None = None
        for record in self.main:
            parent = record.parent_uuid
            if parent is None and not record.boundary and not (linked and _may_be_root(record)):
                parent = previous.uuid if previous else None
            elif parent is not None and parent not in self.by_uuid:
                # The parent was trimmed from this file: what stands before in the file comes nearest to it.
                parent = previous.uuid if previous else None
            parents[record.uuid] = parent
            previous = record
        return parents

    def last_message(self, end: int, seen: set[str]) -> Record | None:
        """The last message before position `end` of the file that is no meta record and was not seen."""
        for position in range(end - 1, -1, -1):
            record = self.main[position]
            if record.turn is not None and not record.turn.is_meta and record.uuid not in seen:
                return record
        return None

    def walk(self, leaf: Record, seen: set[str], boundaries: Sequence[Record]) -> list[Record]:
        """The chain that ends in `leaf`, root first; stops at what was seen already, so cycles end too."""
        relinked = self._relinked(boundaries)
        chain: list[Record] = []
        record: Record | None = leaf
        while record is not None and record.uuid not in seen:
            seen.add(record.uuid)
            chain.append(record)
            parent = relinked.get(record.uuid, self.parents[record.uuid])
            record = self.by_uuid.get(parent) if parent else None
        chain.reverse()
        return chain

    def _relinked(self, boundaries: Sequence[Record]) -> Mapping[str, str | None]:
        """Parents as compactions changed them for messages they kept: behind the summary, before what follows."""
        links: dict[str, str | None] = {}
        for boundary in boundaries:
            kept = boundary.preserved
            if kept is None or kept.anchor not in self.by_uuid:
                continue
            uuids = [uuid for uuid in kept.uuids if uuid in self.by_uuid and uuid != kept.anchor]
            inside = set(uuids)
            if kept.head:
                inside = self._stretch(kept.head, kept.tail, links)
                uuids = [kept.head, kept.tail] if inside else []
            if not uuids:
                continue
            for uuid in (
                *self.children[kept.anchor],
                *(key for key, value in links.items() if value == kept.anchor),
            ):
                if uuid not in inside:
                    links[uuid] = uuids[-1]
            links[uuids[0]] = kept.anchor
            if not kept.head:
                links.update(zip(uuids[1:], uuids, strict=False))
        return links

    def _stretch(self, head: str, tail: str, links: Mapping[str, str | None]) -> set[str]:
        """Uuids from `tail` up to `head`, empty if the chain does not lead there."""
        inside: set[str] = set()
        uuid: str | None = tail
        while uuid is not None and uuid in self.by_uuid and uuid not in inside:
            inside.add(uuid)
            if uuid == head:
                return inside
            uuid = links.get(uuid, self.parents[uuid])
        return set()

    def before(self, root: Record, seen: set[str]) -> Record | None:
        """The last message of the segment that a compaction replaced.

        The boundary's logical parent where the file holds it; trimmed files do not, and then it is the last
        message written before the boundary.
        """
        logical = self.by_uuid.get(root.logical_parent_uuid or "")
        if logical is not None and logical.uuid not in seen and logical.line < root.line:
            return logical
        return self.last_message(bisect_left(self._lines, root.line), seen)

    def with_parallel_calls(self, chain: list[Record], seen: set[str]) -> list[Record]:
        """The chain with the tool calls and results beside it that the model saw too.

        A message with several blocks is written as several records of one message id, and each tool result
        hangs below the record of its own call: a walk from leaf to root passes only one of the branches.
        """
        shown = _Shown()
        kept = [record for record in chain if shown.add(record)]
        messages = dict.fromkeys(record.message_id for record in kept if record.message_id)
        siblings = (record for message in messages for record in self.by_message[message])
        beside = [record for record in siblings if record.uuid not in seen and shown.add(record)]
        seen.update(record.uuid for record in beside)
        for call in [call for call in shown.calls if call not in shown.answers]:
            answer = next((record for record in self.by_answer[call] if record.uuid not in seen), None)
            if answer is not None and call not in shown.answers:
                shown.add(answer)
                seen.add(answer.uuid)
                beside.append(answer)
        return _merge(kept, beside)


class _Shown:
    """Blocks of messages shown so far: a resumed session repeats messages under new uuids."""

    def __init__(self) -> None:
        self.calls: dict[str, None] = {}
        self.answers: set[str] = set()
        self._blocks: set[tuple[str, str, str, str]] = set()

    def add(self, record: Record) -> bool:
        """Whether the record shows anything new."""
        turn = record.turn
        if turn is None:
            return True
        self.answers.update(block.tool_use_id for block in turn.blocks_of("tool_result"))
        self.calls.update(dict.fromkeys(block.tool_use_id for block in turn.blocks_of("tool_use")))
        if not record.message_id:
            return True
        # Newer clients write thinking without its text: such blocks look alike and are no repetition.
        blocks = {
            (record.message_id, block.kind, block.tool_use_id, block.text)
            for block in turn.blocks
            if block.text or block.tool_use_id
        }
        new = not blocks or bool(blocks - self._blocks)
        self._blocks |= blocks
        return new


def _merge(chain: list[Record], beside: list[Record]) -> list[Record]:
    """The chain in its own order, and each record beside it where the file has it."""
    merged: list[Record] = []
    waiting = sorted(beside, key=lambda record: record.line, reverse=True)
    for record in chain:
        while waiting and merged and waiting[-1].line < record.line:
            merged.append(waiting.pop())
        merged.append(record)
    return merged + waiting[::-1]


def _may_be_root(record: Record) -> bool:
    """Whether a record without a parent begins a thread: an answer or a tool's result never does."""
    if not record.linked:
        return False
    if record.turn is None:
        return record.type != "progress"
    return record.turn.role == "user" and not any(record.turn.blocks_of("tool_result"))
