"""What an item's vectors are worth: the signals that choose its tier, for all items at once, and one number that
says which of a tier's items go first when it is full.

numpy is imported here: whoever must start quickly imports this module when a plan is made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from dualmem_mcp.model.search import KINDS, Collection, ItemKind
from dualmem_mcp.model.tier_plan import COLLECTION_CODES
from dualmem_mcp.model.tiers import ACTIVE_SCORE, ACTIVE_TURNS, RARE_A_DAY, RECENT_DAYS, RELEVANT, TIER_NAMES
from dualmem_mcp.model.use import HALF_LIFE_DAYS, accesses_a_day
from dualmem_mcp.ports import AccessColumns, ItemColumns
from dualmem_mcp.search.working_set import RELEVANCE_BOOST

if TYPE_CHECKING:
    from numpy.typing import NDArray

CRITICAL, CONTEXT, HISTORICAL, EDGE = (
    np.uint8(TIER_NAMES.index(name)) for name in ("critical", "context", "historical", "edge")
)
"""Tiers in columns: places in `model.tiers.TIER_NAMES`."""

NO_TIME: Final = np.iinfo(np.int64).min
NO_TURNS: Final = -1
"""In columns of turns: the conversation is not in use, or the item is of none."""

PRIOR_RELEVANCE: Final[Mapping[ItemKind, float]] = {
    "decision": 0.9,
    "note": 0.8,
    "summary": 0.8,
    "agent": 0.8,
    "entity": 0.8,
    "turn": 0.5,
}
"""How relevant an item is taken to be before, or beside, the scores that it was given with as an answer. Source:
the product's requirements name what `context` holds for being there (project context, agent memory, code
relations, `model.tiers.TIERS`), so all of it is above `model.tiers.RELEVANT`; a turn has to be asked for."""

IN_USE_DAYS: Final = 1.0
"""A conversation is in use that had a turn in so many days, up to now or, for clocks that disagree, as far
ahead."""

IN_USE_STILL_DAYS: Final = 3.0
"""What lies in `critical` for its conversation stays so long: from Friday evening to Monday morning are 64
hours."""

_DAY: Final = 86_400e6
"""In microseconds."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, eq=False)
class Signals:
    """What `model.tiers.tier_for` asks of each item, and what it is worth; all (n,), none below 0.

    `age_days`, `accesses_a_day`, `relevance` and `interaction_score` float64; `turns_ago` int32, NO_TURNS for
    never; `turns_ago_of_late` the same for conversations that had a turn in the last IN_USE_STILL_DAYS. `worth`
    float32: `worth_of`.
    """

    age_days: NDArray[np.float64]
    accesses_a_day: NDArray[np.float64]
    relevance: NDArray[np.float64]
    turns_ago: NDArray[np.int32]
    turns_ago_of_late: NDArray[np.int32]
    interaction_score: NDArray[np.float64]
    worth: NDArray[np.float32]


def joined(items: Mapping[Collection, ItemColumns]) -> tuple[NDArray[np.uint8], ItemColumns]:
    """The items of all collections in one, with the collection of each (place in `COLLECTION_CODES`)."""
    parts = [(code, items[one]) for code, one in enumerate(COLLECTION_CODES) if one in items]
    codes = np.repeat(np.array([code for code, _ in parts], np.uint8), [len(columns.keys) for _, columns in parts])
    if len(parts) == 1:
        return codes, parts[0][1]
    whole: dict[str, Any] = {}
    for field in fields(ItemColumns):
        columns = [getattr(one, field.name) for _, one in parts]
        whole[field.name] = np.concatenate(columns) if columns else np.empty(0, np.int64)
    return codes, ItemColumns(**whole)


def signals_of(items: ItemColumns, accesses: AccessColumns, now: datetime) -> Signals:
    """The signals of these items at that time.

    An item from the future has the age 0. One without a time is old: it counts as made in 1970, so that it is
    history until it is asked for.
    """
    moment = (now - _EPOCH) // timedelta(microseconds=1)
    # What is before 1970 cannot be subtracted without care for NO_TIME, and is as old as anything needs to be.
    age_days = np.maximum(moment - np.maximum(items.times, 0), 0) / _DAY
    weights, scores = _weights(items.keys, accesses, moment)
    relevance = np.maximum(np.array([PRIOR_RELEVANCE[kind] for kind in KINDS])[items.kinds], scores)
    of_late, turns_ago = _turns_ago(items, moment)
    return Signals(
        age_days=age_days,
        accesses_a_day=weights * accesses_a_day(1.0),
        relevance=relevance,
        turns_ago=turns_ago,
        turns_ago_of_late=of_late,
        interaction_score=1.0 - np.exp2(-weights),
        worth=worth_of(age_days, weights, relevance),
    )


def worth_of(
    age_days: NDArray[np.float64], weights: NDArray[np.float64], relevance: NDArray[np.float64]
) -> NDArray[np.float32]:
    """What items are worth beside each other, float32 (n,): one more is twice as much use, or a week's less age.

        worth = log2(weight + 2^(-age / half-life)) + log2(1 + boost · relevance)

    `weights` are the accesses so far, each half after a half-life (`model/use.py`); that the item was made counts
    as one. So with equal relevance and one use each it is least recently used, what is used more often counts as
    much more, and the relevance lifts an item as it does in a small device's cache (`search/working_set.py`): one
    of relevance 1 outlasts one of 0 by log2(5) half-lives, 16 days. All that was not used in between decays by
    the same factor, so the order of two items changes only by their being used: no item moves because time
    passes. The logarithm keeps what is years old in order, which would be 0 without it.

    Source: LRFU, D. Lee et al., "LRFU: a spectrum of policies that subsumes the least recently used and least
    frequently used policies", IEEE Transactions on Computers 50(12), 2001, with F(x) = 2^(-x / half-life); the
    factor as in GreedyDual-Size with Frequency, L. Cherkasova, HP Labs report HPL-98-69R1, 1998.
    """
    with np.errstate(divide="ignore"):
        use = np.logaddexp2(np.log2(weights), -age_days / HALF_LIFE_DAYS)
    use += np.log2(1.0 + RELEVANCE_BOOST * relevance)
    return use.astype(np.float32)


def tiers_for(signals: Signals) -> NDArray[np.uint8]:
    """`model.tiers.tier_for` of each item, as places in TIER_NAMES."""
    active = (signals.turns_ago != NO_TURNS) & (signals.turns_ago < ACTIVE_TURNS)
    active |= signals.interaction_score > ACTIVE_SCORE
    old = signals.age_days > RECENT_DAYS
    rare = signals.accesses_a_day < RARE_A_DAY
    context = (signals.age_days < RECENT_DAYS) & (signals.relevance > RELEVANT) | old & ~rare
    return np.select([active, context, old], [CRITICAL, CONTEXT, HISTORICAL], EDGE)


def may_stay(signals: Signals) -> NDArray[np.bool_]:
    """Whether an item that lies in a tier would be left there although the rules now give it a colder one: bool
    (n, 4), by item and tier.

    Between getting into a tier and having to leave it lies as much as a weekly rhythm makes of a difference: work
    has one, and with a half-life of a week the weight of what is used at the same hour each week is at most twice
    what it is at least. So an item leaves when its use is half of what brought it there; with its conversation,
    when that has rested for a weekend or went on for twice as many turns; and when its relevance is a seventh
    below the limit, by which scores differ between one question and the next. Age only grows, and needs no such
    band. What is in `historical` and is for no tier of the service stays: it would be back within a week.
    """
    turns = signals.turns_ago_of_late
    stays = np.zeros((len(signals.worth), len(TIER_NAMES)), np.bool_)
    # A score of 1 - 2^-w is passed at the weight w = -log2(1 - score).
    half_score = 1.0 - math.exp2(math.log2(1.0 - ACTIVE_SCORE) / 2.0)
    stays[:, CRITICAL] = (turns != NO_TURNS) & (turns < 2 * ACTIVE_TURNS)
    stays[:, CRITICAL] |= signals.interaction_score > half_score
    stays[:, CONTEXT] = (signals.age_days < RECENT_DAYS) & (signals.relevance > RELEVANT - 0.1)
    stays[:, CONTEXT] |= (signals.age_days >= RECENT_DAYS) & (signals.accesses_a_day >= RARE_A_DAY / 2.0)
    stays[:, HISTORICAL] = True
    return stays


def _weights(
    keys: NDArray[np.int64], accesses: AccessColumns, moment: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The decayed weight and the mean score of each item, 0 for what was never an answer."""
    weights = np.zeros(len(keys))
    scores = np.zeros(len(keys))
    if len(accesses.keys):
        places = np.searchsorted(accesses.keys, keys)
        places[places == len(accesses.keys)] = 0
        used = np.flatnonzero(accesses.keys[places] == keys)
        there = places[used]
        days = np.maximum(moment - accesses.last_at[there], 0) / _DAY
        weights[used] = accesses.weights[there] * np.exp2(-days / HALF_LIFE_DAYS)
        scores[used] = accesses.relevances[there]
    return weights, scores


def _turns_ago(items: ItemColumns, moment: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """How many turns of its conversation came after each item, for conversations that had one in the last days, and
    for those that are in use. What is no turn is where its time is among the turns; without a time, at the end."""
    of_late = np.full(len(items.keys), NO_TURNS, np.int32)
    in_use = of_late.copy()
    is_turn = (items.ordinals >= 0) & (items.conversations != 0)
    near = np.abs(np.maximum(items.times, 0) - moment) <= IN_USE_STILL_DAYS * _DAY
    lively = np.unique(items.conversations[is_turn & near])
    if not len(lively):
        return of_late, in_use
    places = np.searchsorted(lively, items.conversations)
    places[places == len(lively)] = 0
    members = np.flatnonzero(lively[places] == items.conversations)
    members = members[np.argsort(places[members], kind="stable")]
    ends = np.searchsorted(places[members], np.arange(len(lively)), side="right")
    for some in np.split(members, ends[:-1]):
        turns = some[is_turn[some]]
        others = some[~is_turn[some]]
        times = items.times[turns]
        of_late[turns] = items.ordinals[turns].max() - items.ordinals[turns]
        timed = others[items.times[others] != NO_TIME]
        of_late[others] = 0
        of_late[timed] = len(times) - np.searchsorted(np.sort(times), items.times[timed], side="right")
        if np.any(np.abs(np.maximum(times, 0) - moment) <= IN_USE_DAYS * _DAY):
            in_use[some] = of_late[some]
    return of_late, in_use
