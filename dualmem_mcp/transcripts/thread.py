"""Which messages of a session file the model sees now, and which a compaction replaced.

The rules, and the observations behind them, are in docs/transcripts.md under "The thread".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dualmem_mcp.model.conversation import Turn
from dualmem_mcp.transcripts.records import Record


@dataclass(frozen=True, slots=True)
class Thread:
    """The active thread and the segments before it, root first; `off_thread` counts messages of neither."""

    turns: tuple[Turn, ...]
    earlier: tuple[Turn, ...]
    off_thread: int = 0


def build_thread(records: Sequence[Record]) -> Thread:
    """The thread that ends in the last message of `records`, which are in file order."""
    graph = _Graph(records)
    leaf = _last_message(graph.main)
    if leaf is None:
        return Thread((), ())
    segments: list[list[Record]] = []
    seen: set[str] = set()
    # Compactions already made when the thread stood at `leaf`; fewer for each earlier segment.
    compactions = len(graph.boundaries)
    while leaf is not None:
        chain = graph.walk(leaf, seen, compactions)
        segments.append(chain)
        root = chain[0]
        if root.boundary or (root.turn is not None and root.turn.is_compact_summary):
            compactions = sum(boundary.line < root.line for boundary in graph.boundaries)
            leaf = graph.before(root, seen)
        else:
            leaf = None
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
        for record in records:
            if not record.sidechain and record.uuid not in self.by_uuid:
                self.by_uuid[record.uuid] = record
                self.main.append(record)
        self.boundaries = [record for record in self.main if record.boundary]
        self.parents = self._parents()

    def _parents(self) -> dict[str, str | None]:
        linked = any(record.parent_uuid for record in self.main)
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

    def walk(self, leaf: Record, seen: set[str], compactions: int) -> list[Record]:
        """The chain that ends in `leaf`, root first; stops at what was seen already, so cycles end too."""
        relinked = self._relinked(self.boundaries[:compactions])
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
            uuids = [uuid for uuid in kept.uuids if uuid in self.by_uuid]
            inside = set(uuids)
            if kept.head:
                inside = self._stretch(kept.head, kept.tail, links)
                uuids = [kept.head, kept.tail] if inside else []
            if not uuids:
                continue
            for record in self.main:
                current = links.get(record.uuid, self.parents[record.uuid])
                if current == kept.anchor and record.uuid not in inside:
                    links[record.uuid] = uuids[-1]
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
        return _last_message(
            [record for record in self.main if record.line < root.line and record.uuid not in seen]
        )

    def with_parallel_calls(self, chain: list[Record], seen: set[str]) -> list[Record]:
        """The chain with the tool calls and results beside it that the model saw too.

        A message with several blocks is written as several records of one message id, and each tool result
        hangs below the record of its own call: a walk from leaf to root passes only one of the branches.
        """
        shown_blocks = _Shown()
        kept = [record for record in chain if shown_blocks.add(record)]
        messages = {record.message_id for record in kept if record.message_id}
        beside = [
            record
            for record in self.main
            if record.uuid not in seen and record.message_id in messages and shown_blocks.add(record)
        ]
        open_calls = shown_blocks.calls - shown_blocks.answers
        for record in self.main:
            if record.turn is None or record.uuid in seen or record.turn.role != "user":
                continue
            answers = {block.tool_use_id for block in record.turn.blocks_of("tool_result")}
            if answers & open_calls:
                open_calls -= answers
                beside.append(record)
        seen.update(record.uuid for record in beside)
        return _merge(kept, beside)


class _Shown:
    """Blocks of assistant messages shown so far: a resumed session repeats messages under new uuids."""

    def __init__(self) -> None:
        self.calls: set[str] = set()
        self.answers: set[str] = set()
        self._blocks: set[tuple[str, str, str, str]] = set()

    def add(self, record: Record) -> bool:
        """Whether the record shows anything new."""
        turn = record.turn
        if turn is None:
            return True
        self.answers.update(block.tool_use_id for block in turn.blocks_of("tool_result"))
        self.calls.update(block.tool_use_id for block in turn.blocks_of("tool_use"))
        if not record.message_id:
            return True
        blocks = {(record.message_id, block.kind, block.tool_use_id, block.text) for block in turn.blocks}
        new = not blocks or bool(blocks - self._blocks)
        self._blocks |= blocks
        return new


def _merge(chain: list[Record], beside: list[Record]) -> list[Record]:
    """The chain in its own order, and each record beside it where the file has it."""
    merged: list[Record] = []
    waiting = sorted(beside, key=lambda record: record.line)
    for record in chain:
        while waiting and waiting[0].line < record.line and merged:
            merged.append(waiting.pop(0))
        merged.append(record)
    return merged + waiting


def _may_be_root(record: Record) -> bool:
    """Whether a record without a parent begins a thread: an answer or a tool's result never does."""
    if not record.linked:
        return False
    if record.turn is None:
        return record.type != "progress"
    return record.turn.role == "user" and not any(record.turn.blocks_of("tool_result"))


def _last_message(records: Sequence[Record]) -> Record | None:
    return next(
        (record for record in reversed(records) if record.turn is not None and not record.turn.is_meta), None
    )
