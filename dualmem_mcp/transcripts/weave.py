"""Turns of other devices as records of a session file, below the thread that the file holds."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from dualmem_mcp.errors import MalformedError
from dualmem_mcp.model.conversation import Role, Turn
from dualmem_mcp.model.half_pairs import compact_json
from dualmem_mcp.transcripts.json_values import time_of
from dualmem_mcp.transcripts.records import Record, Transcript, parse_transcript
from dualmem_mcp.transcripts.thread import build_thread

SYNTHETIC_MODEL: Final = "<synthetic>"
"""What Claude Code states as the model of an answer that it did not get itself; it counts no tokens of such a one.
Source: Claude Code 2.1.29 to 2.1.37 transcripts."""

_COPIED: Final = ("userType", "entrypoint", "cwd", "version", "gitBranch", "slug")
"""Members that each message of a session states alike, in the order in which Claude Code writes them."""

_TYPED: Final = frozenset({"", "queued_command"})


@dataclass(frozen=True, slots=True)
class WovenTurn:
    """What is written of a turn that came from elsewhere."""

    uuid: str
    role: Role
    text: str
    timestamp: datetime | None
    device: str


@dataclass(frozen=True, slots=True)
class Strand:
    """One way on from what was handed over: the turns to weave in, oldest first, and the uuids of all that they
    follow on, from the conversation's first turn. `devices` are those that went this way."""

    ancestors: tuple[str, ...]
    turns: tuple[WovenTurn, ...]
    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Seam:
    """How a strand meets a session file: what of it is missing there, and the record that it follows on.

    `parted` says that the file's own thread went on after that record with a request of its user's: then the strand
    belongs into a session of its own, which has the file's first `cut_lines` lines. Else `below` is the record
    that the missing turns come below.
    """

    missing: tuple[WovenTurn, ...]
    parted: bool
    below: str | None
    cut_lines: int


class SessionText:
    """The bytes of a session file, with what weaving has to know of them."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        try:
            self._transcript = parse_transcript(io.BytesIO(data), "session")
        except MalformedError:  # no record at all
            self._transcript = Transcript()
        self._records = {record.uuid: record for record in self._transcript.records}

    @property
    def is_torn(self) -> bool:
        """Whether the last line is not whole: something is writing it, or did not end writing it."""
        return bool(self._transcript.torn_line)

    def ends_within(self, strand: Strand) -> bool:
        """Whether the last line is a turn of the strand's, whole but for its end."""
        last = self._transcript.records[-1].uuid if self._transcript.records else ""
        return not self.data.endswith(b"\n") and any(turn.uuid == last for turn in strand.turns)

    def seam(self, strand: Strand) -> Seam:
        """Where and how the strand joins the thread."""
        missing = tuple(turn for turn in strand.turns if turn.uuid not in self._records)
        if not missing:
            return Seam((), False, None, 0)
        thread = build_thread(self._transcript.records)
        turns = [*thread.earlier, *thread.turns]
        before_it = _before(strand, missing[0].uuid)
        base = next((uuid for uuid in reversed(before_it) if uuid in self._records), None)
        on_thread = {turn.uuid: place for place, turn in enumerate(turns)}
        start = next((on_thread[uuid] for uuid in reversed(before_it) if uuid in on_thread), None)
        of_strand = {turn.uuid for turn in strand.turns}
        own = turns[start + 1 :] if start is not None else turns if base is not None else []
        parted = any(_is_request(turn) and turn.uuid not in of_strand for turn in own)
        if parted:
            return Seam(missing, True, base, self._records[base].line if base else 0)
        leaf = turns[-1].uuid if turns else None
        return Seam(missing, False, self._last_below(leaf), 0)

    def _last_below(self, leaf: str | None) -> str | None:
        """The last record that is no message and follows on the leaf: the client hangs its next message there."""
        last = leaf
        for record in self._transcript.records:
            if record.parent_uuid == last and _is_link(record):
                last = record.uuid
        return last

    def first_lines(self, count: int) -> bytes:
        """The first lines of the file."""
        return b"".join(line + b"\n" for line in self.data.split(b"\n")[:count])

    def woven(self, turns: Sequence[WovenTurn], below: str | None, session_id: str) -> bytes:
        """The turns as lines to put after the file's last one; the same for the same file."""
        model = self._last_message()
        after = time_of(model.get("timestamp"))
        lines = []
        for turn in turns:
            # A client may take the thread that ends last for the one to go on with.
            time = max(filter(None, (turn.timestamp, after)), default=datetime(1970, 1, 1, tzinfo=UTC))
            after = time + timedelta(milliseconds=1)
            lines.append(compact_json(_record(turn, below, session_id, model, time)) + "\n")
            below = turn.uuid
        return "".join(lines).encode()

    def _last_message(self) -> Mapping[str, Any]:
        """The file's last message of its main thread, whose members new ones take over."""
        for line in reversed(self.data.split(b"\n")):
            if b'"parentUuid"' not in line:
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if (
                isinstance(record, dict)
                and record.get("type") in {"user", "assistant"}
                and not record.get("isSidechain")
            ):
                return record
        return {}


def first_line(turn: WovenTurn, session_id: str, cwd: str) -> bytes:
    """The file, of one line, of a session that begins with a turn from elsewhere; others are woven in below it."""
    model = {"userType": "external", "cwd": cwd, "gitBranch": ""}
    time = turn.timestamp or datetime(1970, 1, 1, tzinfo=UTC)
    return (compact_json(_record(turn, None, session_id, model, time)) + "\n").encode()


def _before(strand: Strand, uuid: str) -> list[str]:
    """What a turn of the strand follows on, from the first turn of the conversation."""
    turns = [turn.uuid for turn in strand.turns]
    return [*strand.ancestors, *turns[: turns.index(uuid)]]


def _is_link(record: Record) -> bool:
    return record.turn is None and record.type in {"system", "attachment"} and not record.sidechain


def _is_request(turn: Turn) -> bool:
    """Whether the user went on by it; the rest of an answer, or a result that came late, is no going on."""
    return (
        turn.role == "user"
        and bool(turn.text.strip())
        and not turn.is_meta
        and not turn.is_compact_summary
        and turn.origin in _TYPED
    )


def _record(
    turn: WovenTurn, parent: str | None, session_id: str, model: Mapping[str, Any], time: datetime
) -> dict[str, Any]:
    stamp = time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {
        "parentUuid": parent,
        "isSidechain": False,
        **{name: model[name] for name in _COPIED if isinstance(model.get(name), str)},
        "sessionId": session_id,
        "type": turn.role,
        "message": _message(turn),
        "uuid": turn.uuid,
        "timestamp": stamp,
        "dualmem": {"device": turn.device},
    }


def _message(turn: WovenTurn) -> dict[str, Any]:
    if turn.role == "user":
        return {"role": "user", "content": turn.text}
    return {
        # One for each message: those of one id would count as parts of one.
        "id": f"msg_dualmem_{turn.uuid.replace('-', '')}",
        "type": "message",
        "role": "assistant",
        "model": SYNTHETIC_MODEL,
        "content": [{"type": "text", "text": turn.text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 0,
            "output_tokens": 0,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
        },
    }
