"""Checkpoints of what a conversation's agents are at: one in five whole, the others only what changed.

A checkpoint is a record like a note, so that it travels as ops do. Its state is bytes, by convention JSON. The
first of a chain carries it whole, each further one a patch against the one before (`handoff/patches.py`). None is
written a second time: a chain goes as a whole once there are enough after it, so each checkpoint travels once.
Source of the fields: docs/sync.md, "Agent checkpoints".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from dualmem_mcp.errors import NotFoundError, TamperedError
from dualmem_mcp.handoff.patches import apply_patch, make_patch
from dualmem_mcp.model.ids import ConversationId, DeviceId
from dualmem_mcp.ports import Clock, Record, Records

EVERY_SECONDS: Final = 300
"""Between two checkpoints of one conversation, at least. Source: the product's requirements."""

KEPT: Final = 5
"""Checkpoints of one conversation and device that are kept at least. Source: the product's requirements."""

CHAIN: Final = 5
"""Checkpoints of a chain at most, so that KEPT + CHAIN - 1 are kept at most."""

MAX_STATE_BYTES: Final = 8 << 20
_TYPE: Final = "checkpoint"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint: when and on which device it was made, the bytes of its state, and how many travelled."""

    checkpoint_id: str
    made_at: datetime
    device_id: DeviceId
    state_bytes: int
    stored_bytes: int
    whole: bool

    def to_json(self) -> dict[str, Any]:
        """The checkpoint as tools and commands show it."""
        return {**asdict(self), "made_at": self.made_at.isoformat()}


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """The checkpoints of conversations, as records; `device_id` is this device's."""

    records: Records
    device_id: DeviceId
    clock: Clock
    every_seconds: float = EVERY_SECONDS

    def is_due(self, conversation_id: ConversationId) -> bool:
        """Whether the last checkpoint made here is old enough for another."""
        own = self._own(conversation_id)
        return not own or self.clock.now() - _made_at(own[-1]) >= timedelta(seconds=self.every_seconds)

    def save(self, conversation_id: ConversationId, state: bytes) -> Checkpoint | None:
        """Keep the state, four times in five as what changed since the last checkpoint made here; None if nothing
        did, or if it is longer than 8 MiB. Chains before the last five checkpoints go.

        A kill at any moment leaves each of those that are there restorable.
        """
        own = self._own(conversation_id)
        digest = hashlib.sha256(state).hexdigest()
        if len(state) > MAX_STATE_BYTES or (own and own[-1].fields.get("sha256") == digest):
            return None
        checkpoint_id = secrets.token_hex(16)
        before = self._state_to_build_on(own, conversation_id)
        fields = {
            "at": self.clock.now().isoformat(),
            "base": "" if before is None else own[-1].id,
            "size": len(state),
            "sha256": digest,
            "data": base64.b64encode(make_patch(before or b"", state)).decode("ascii"),
        }
        self.records.put(_TYPE, checkpoint_id, fields, conversation_id=conversation_id)
        self._let_chains_go(conversation_id)
        record = self.records.get(_TYPE, checkpoint_id)
        return _checkpoint(record) if record else None

    def find(self, conversation_id: ConversationId) -> Sequence[Checkpoint]:
        """The checkpoints of a conversation from all devices, the oldest first."""
        found = self.records.find(conversation_id=conversation_id, types=[_TYPE])
        return sorted(map(_checkpoint, found), key=lambda one: (one.made_at, one.checkpoint_id))

    def restore(self, conversation_id: ConversationId, checkpoint_id: str = "") -> bytes:
        """The state of a checkpoint, the newest by default.

        Raises NotFoundError if there is none of that id, TamperedError if it does not come out as it was made.
        """
        known = self.records.find(conversation_id=conversation_id, types=[_TYPE])
        wanted = checkpoint_id or next((one.checkpoint_id for one in reversed(self.find(conversation_id))), "")
        record = next((one for one in known if one.id == wanted), None)
        if record is None:
            raise NotFoundError(
                f"there is no checkpoint {wanted or 'of this conversation'}",
                operation="restore checkpoint",
                subject=conversation_id,
                hint=f"`dualmem checkpoints {conversation_id}` lists those there are.",
            )
        return _state(_chain(record, known))

    def _own(self, conversation_id: ConversationId) -> list[Record]:
        """Those made here, in the order of their chain."""
        found = self.records.find(conversation_id=conversation_id, types=[_TYPE])
        return sorted(
            (one for one in found if one.created.device_id == self.device_id), key=lambda one: one.created
        )

    def _state_to_build_on(self, own: Sequence[Record], conversation_id: ConversationId) -> bytes | None:
        """The state of the last checkpoint made here, or None, and then the next has to be whole.

        That is so if the chain is full, cannot be restored, or is partly another device's, which may let its part
        go at any moment: after this data home took a new id, its last chain begins with those of the former one.
        """
        if not own:
            return None
        try:
            chain = _chain(own[-1], self.records.find(conversation_id=conversation_id, types=[_TYPE]))
            if len(chain) >= CHAIN or any(link.created.device_id != self.device_id for link in chain):
                return None
            return _state(chain)
        except TamperedError:
            return None

    def _let_chains_go(self, conversation_id: ConversationId) -> None:
        own = self._own(conversation_id)
        begins = [number for number in range(len(own) - KEPT + 1) if not own[number].fields.get("base")]
        # The newest first: a checkpoint is there no longer than those that it is made from.
        for gone in reversed(own[: max(begins, default=0)]):
            self.records.delete(_TYPE, gone.id)


def _chain(record: Record, known: Sequence[Record]) -> list[Record]:
    """The checkpoints that a state is made from: the whole one first, the record last."""
    by_id = {one.id: one for one in known}
    chain = [record]
    while base := _text(chain[-1], "base"):
        # A chain has as many links as there are records at most; more is a circle.
        if base not in by_id or len(chain) > len(by_id):
            raise _unfit(record)
        chain.append(by_id[base])
    return chain[::-1]


def _state(chain: Sequence[Record]) -> bytes:
    """The state of the last checkpoint of a chain."""
    state = b""
    for link in chain:
        state = apply_patch(state, _data(link), size=_size(link), subject=link.id)
        if hashlib.sha256(state).hexdigest() != link.fields.get("sha256"):
            raise _unfit(link)
    return state


def _checkpoint(record: Record) -> Checkpoint:
    return Checkpoint(
        checkpoint_id=record.id,
        made_at=_made_at(record),
        device_id=record.created.device_id,
        state_bytes=_size(record),
        stored_bytes=len(_text(record, "data")) * 3 // 4,
        whole=not _text(record, "base"),
    )


def _made_at(record: Record) -> datetime:
    try:
        at = datetime.fromisoformat(_text(record, "at"))
    except ValueError:
        raise _unfit(record) from None
    if at.tzinfo is None:
        raise _unfit(record)
    return at


def _size(record: Record) -> int:
    size = record.fields.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= MAX_STATE_BYTES:
        raise _unfit(record)
    return size


def _data(record: Record) -> bytes:
    try:
        return base64.b64decode(_text(record, "data"), validate=True)
    except binascii.Error:
        raise _unfit(record) from None


def _text(record: Record, name: str) -> str:
    value = record.fields.get(name, "")
    if not isinstance(value, str):
        raise _unfit(record)
    return value


def _unfit(record: Record) -> TamperedError:
    return TamperedError(
        f"checkpoint {record.id} does not come out as it was made",
        operation="restore checkpoint",
        subject=record.id,
        hint="Restore another one, or hand the conversation over again from the device that has it.",
    )
