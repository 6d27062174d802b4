"""Devices on paper: each writes ops of one subject from what it knows, as the stores do, and sends some of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.model.merge import EntityState, RecordState, RelationState, SubjectState, merge
from dualmem_mcp.model.oplog import Stamp
from dualmem_mcp.model.subject_op import SubjectOp, named_tags

TRIPLE = {"from": "Ada", "to": "Engine", "relationType": "studies"}
RECORD = {"type": "task", "id": "6f1c"}
KINDS = ("entity", "relation", "record")


@dataclass
class Device:
    """One device and the ops it knows; `knew` tells of each op what its author knew when writing it."""

    number: int
    kind: str
    knew: dict[str, frozenset[str]]
    first_version: bool = False
    clock: int = 0
    ops: dict[str, SubjectOp] = field(default_factory=dict)

    @property
    def state(self) -> SubjectState | None:
        return merge(self.ops.values())

    def receive(self, ops: Iterable[SubjectOp]) -> None:
        for op in ops:
            self.ops.setdefault(op.stamp, op)

    def act(self, action: str, name: str, value: Any) -> None:
        """Do the action if it is possible in the state that this device sees."""
        state = self.state
        if isinstance(state, RecordState) or (state is None and self.kind == "record"):
            self._act_on_record(action, state, name, value)
        elif self.kind == "entity":
            self._act_on_item(action, state, {"name": "Ada"}, "entity", name, value)
        else:
            self._act_on_item(action, state, TRIPLE, "relation", name, value)

    def _act_on_record(self, action: str, state: Any, name: str, value: Any) -> None:
        if action in {"create", "set"} and not (state and state.deleted):
            there = state.fields.get(name) if state else None
            self._write(
                "record.set",
                {**RECORD, "fields": {name: value}, "over": {name: list(there.stamps)} if there else {}},
            )
        elif action == "delete" and state and state.exists:
            self._write("record.delete", {**RECORD, "over": _seen(state)})

    def _act_on_item(
        self, action: str, state: Any, named: Mapping[str, Any], member: str, name: str, value: Any
    ) -> None:
        exists = bool(state and state.tags)
        name = "entityType" if name == "text" and member == "entity" else f"extra.{name}"
        if action == "create" and not exists:
            payload: dict[str, Any] = {**named, "extra": {"mood": value}}
            if member == "entity":
                payload |= {"entityType": value, "observations": ["x", value]}
            self._write(f"{member}.create", payload)
        elif action == "set" and exists:
            there = state.fields.get(name)
            told = {member: list(state.tags), "over": {name: list(there.stamps)} if there else {}}
            self._write(f"{member}.set", {**named, "fields": {name: value}, **self._told(told)})
        elif action == "delete" and exists:
            payload = {**named, "tags": list(state.tags), **self._told({"over": _seen(state)})}
            if member == "entity":
                payload["observations"] = [tag for tags in state.observations.values() for tag in tags]
            self._write(f"{member}.delete", payload)
        elif action == "add" and exists and member == "entity" and value not in state.observations:
            self._write("observation.add", {**named, "entity": list(state.tags), "observations": [value]})
        elif action == "remove" and exists and member == "entity" and value in state.observations:
            items = [{"text": value, "tags": list(state.observations[value])}]
            self._write("observation.delete", {**named, "observations": items})

    def _told(self, members: dict[str, Any]) -> dict[str, Any]:
        return {} if self.first_version else members

    def _write(self, kind: str, payload: dict[str, Any]) -> None:
        seen = max((int(stamp[:16], 16) for stamp in self.ops), default=0)
        self.clock = max(self.clock, seen) + 1
        stamp = str(Stamp(self.clock, DeviceId(f"{self.number:032x}")))
        self.knew[stamp] = frozenset(self.ops)
        self.ops[stamp] = SubjectOp(stamp, kind, payload)


def _seen(state: EntityState | RelationState | RecordState) -> list[str]:
    stamps = {stamp for one in state.fields.values() for stamp in one.stamps}
    return sorted(stamps | {stamp for clash in state.clashes for stamp in clash.heads})


def thinned(op: SubjectOp, known: Iterable[SubjectOp]) -> SubjectOp:
    """The op as a snapshot of someone who knows those ops may have it. Source: docs/ops.md, "Thinning"."""
    dead = {tag for other in known for tag in named_tags(other)}
    replaced = {
        name
        for other in known
        if isinstance(over := other.payload.get("over"), dict)
        for name, stamps in over.items()
        if op.stamp in stamps
    }
    payload = dict(op.payload)
    if "entityType" in replaced:
        payload.pop("entityType", None)
    if op.kind in {"entity.create", "observation.add"}:
        payload["observations"] = [
            None if f"{op.stamp}.{item}" in dead else text for item, text in enumerate(payload["observations"], 1)
        ]
    if "extra" in payload:
        payload["extra"] = {key: value for key, value in payload["extra"].items() if f"extra.{key}" not in replaced}
    if "fields" in payload:
        payload["fields"] = {name: value for name, value in payload["fields"].items() if name not in replaced}
    return SubjectOp(op.stamp, op.kind, payload)
