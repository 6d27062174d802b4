"""Placing one conversation: what a plan has for its items that lie nowhere in the service yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from dualmem_mcp.model.search import Collection, key_digest
from dualmem_mcp.model.tier_plan import Move, Plan
from dualmem_mcp.ports import ItemColumns


def of_conversation(plan: Plan, columns: Mapping[Collection, ItemColumns], conversation_id: str) -> Plan:
    """The plan as far as it places items of the conversation; `waiting` counts those of it without vectors.

    By the plan for all, so that what is placed here is not removed again by the next one: an item that is worth no
    place in the service, or says what another one says, has none.
    """
    wanted = key_digest(conversation_id)
    own = [np.flatnonzero(one.conversations == wanted) for one in columns.values()]
    keys = np.concatenate([one.keys[some] for one, some in zip(columns.values(), own, strict=True)] or [_NONE])
    moves = [
        _some(move, there)
        for move in plan.moves
        if move.action == "place" and (there := np.isin(move.keys, keys)).any()
    ]
    waiting = sum(int((one.passages[some] == 0).sum()) for one, some in zip(columns.values(), own, strict=True))
    return replace(plan, moves=moves, items=len(keys), waiting=waiting)


_NONE = np.empty(0, np.int64)


def _some(move: Move, which: np.ndarray) -> Move:
    return replace(move, collections=move.collections[which], ids=move.ids[which], keys=move.keys[which])
