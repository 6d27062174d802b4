"""The structured form of a brief where a model may be shown it beside the text: short, nothing the text lacks."""

from __future__ import annotations

import json
from collections.abc import Container, Mapping, Sequence
from typing import Any, Final

from dualmem_mcp.handoff.activation import by_activation
from dualmem_mcp.handoff.quoting import cut
from dualmem_mcp.model.digest import Digest

LONGEST: Final = 200
"""Characters of a text: the brief has it at its own length, `load_context` in full."""

_SHARE: Final = 3
"""A list takes at most one part in so many of the room that those before it left."""

_SINCE: Final = ("tasks", "next_steps", "decisions", "notes", "turns")

Json = dict[str, Any]
_LISTS: Final = {
    "tasks": "tasks",
    "requests": "requests",
    "active_files": "files",
    "decisions": "decisions",
    "commands": "commands",
}
"""The contract's lists, those first that are of most use, each with its name in a digest."""


def slim_fields(
    fields: Mapping[str, Any], digest: Digest, shown: Container[tuple[str, int]], *, agents: int, budget: int
) -> Json:
    """The fields of a brief with lists as far as the text shows them, within half of the text's `budget` of tokens.

    The last request stays whole as long as that takes no more than a quarter. Of a list that does not fit, the
    newest entries stay. Of the agents the first `agents` are described, the others named. How many entries
    `load_context` has beyond the brief is in `sections`.
    """
    room = _Room(budget * 2)
    slim: Json = {name: _cut(value) for name, value in fields.items() if name not in ("brief", "sections")}
    slim |= {name: fields[name] for name in ("brief", "sections")}
    point = dict(slim["resumption_point"])
    point["git"] = {**point["git"], **{key: value[:5] for key, value in point["git"].items() if _is_list(value)}}
    # What to go on from is whole, unless it is a brief's worth by itself.
    last = fields["resumption_point"]["last_request"]
    point["last_request"] = {**last, "text": cut(last["text"], max(LONGEST, budget))}
    slim["resumption_point"] = {**point, "pending_tools": room.newest(point["pending_tools"])}
    tests = {digest.tests[index].uuid for index in range(len(digest.tests)) if ("tests", index) in shown}
    for name, of_digest in _LISTS.items():
        kept = [
            entry
            for index, entry in enumerate(slim[name])
            if (of_digest, index) in shown or (name == "commands" and digest.commands[index].uuid in tests)
        ]
        slim[name] = room.newest(kept)
    since = dict(slim["since_handoff"])
    for name in _SINCE:
        since[name] = room.newest(since[name])
    slim["since_handoff"] = since
    slim["branches"] = since["branches"] = room.newest(slim["branches"])
    slim["related"] = [{**entry, "text": cut(entry["text"], 60)} for entry in room.newest(slim["related"])]
    slim["agents"] = room.first(
        [
            slim["agents"][index]
            if place < agents
            else {name: cut(slim["agents"][index][name], 60) for name in ("id", "description", "status")}
            | {"restored": False}
            for place, (index, _) in enumerate(by_activation(digest.agents))
        ]
    )
    return slim


class _Room:
    """Characters of JSON that are left for lists."""

    def __init__(self, characters: int) -> None:
        self._left = characters

    def newest(self, entries: Sequence[Any]) -> list[Any]:
        """As many of the last entries as fit a share of what is left, in their order."""
        return self._taken(list(reversed(entries)), self._left // _SHARE)[::-1]

    def first(self, entries: Sequence[Any]) -> list[Any]:
        """As many of the first entries as fit into all that is left."""
        return self._taken(entries, self._left)

    def _taken(self, entries: Sequence[Any], most: int) -> list[Any]:
        taken: list[Any] = []
        for entry in entries:
            size = len(json.dumps(entry, ensure_ascii=False)) + 2
            if size > most:
                break
            most -= size
            self._left -= size
            taken.append(entry)
        return taken


def _cut(value: Any) -> Any:
    """The value with every text in it cut."""
    if isinstance(value, str):
        return cut(value, LONGEST)
    if isinstance(value, Mapping):
        return {key: _cut(one) for key, one in value.items()}
    return [_cut(one) for one in value] if _is_list(value) else value


def _is_list(value: object) -> bool:
    return isinstance(value, (list, tuple))
