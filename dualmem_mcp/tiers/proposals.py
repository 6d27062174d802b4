"""What the tiers would save: proposals for `dualmem cost optimize`, computed from this vault's plan of moves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from dualmem_mcp.cost.optimize import Facts, Proposal, Proposer
from dualmem_mcp.model.tier_plan import NO_COLLECTION
from dualmem_mcp.model.tiers import TIERS, TierName

if TYPE_CHECKING:
    from dualmem_mcp.model.tier_plan import Move, Plan

_APPLY: Final = "`dualmem tiers apply`, or the next sync, does it."


def tier_proposer(plan: Callable[[], Plan | None]) -> Proposer:
    """A proposer for vectors in the service; `plan` gives the present one, None where the tiers are off: then
    nothing lies there, and nothing can be saved."""

    def propose(facts: Facts) -> Sequence[Proposal]:
        present = plan()
        if present is None:
            return []
        prices = facts.rates.vectors_usd_1k_month
        return [*_colder(present, prices), *_removed(present, prices)]

    return propose


def _colder(plan: Plan, prices: Mapping[TierName, float]) -> Sequence[Proposal]:
    moves = [move for move in plan.moves if move.action in {"demote", "evict"}]
    if not moves:
        return []
    ways: dict[tuple[TierName, TierName], int] = {}
    for move in moves:
        way = move.source, move.target
        ways[way] = ways.get(way, 0) + move.points
    changes = "; ".join(
        f"{points:,} from {source} to {target}, {_latency(source)} to {_latency(target)}"
        for (source, target), points in sorted(ways.items())
    )
    points = sum(ways.values())
    return [
        Proposal(
            "tier moves",
            f"{points:,} vectors in the colder tiers that their use asks for",
            _saved(moves, prices),
            0.0,
            f"What moves is answered later: {changes}. {_mean(plan)}",
            (_APPLY, *_counterweight(plan, prices)),
        )
    ]


def _removed(plan: Plan, prices: Mapping[TierName, float]) -> Sequence[Proposal]:
    """What is there twice, and what is there for nothing; items of no collection are in no index any more."""
    removed = [move for move in plan.moves if move.action == "remove"]
    repeated = [move for move in removed if int(move.collections[0]) != NO_COLLECTION]
    gone = [move for move in removed if int(move.collections[0]) == NO_COLLECTION]
    found = []
    if repeated:
        found.append(
            Proposal(
                "deduplication",
                f"{_points(repeated):,} vectors of texts that are there already, removed",
                _saved(repeated, prices),
                0.0,
                "None: the same text is found in its oldest place.",
                (
                    _APPLY,
                    f"{plan.duplicates:,} of {plan.items:,} items say the same as another; none of them is placed.",
                ),
            )
        )
    if gone:
        found.append(
            Proposal(
                "deleted items",
                f"{_points(gone):,} vectors of what was deleted, removed",
                _saved(gone, prices),
                0.0,
                "None: nobody can find them.",
                (_APPLY,),
            )
        )
    return found


def _counterweight(plan: Plan, prices: Mapping[TierName, float]) -> Sequence[str]:
    """What the rest of the plan costs, since it is carried out with it."""
    others = [move for move in plan.moves if move.action in {"promote", "place"}]
    more = -_saved(others, prices)
    if not others or more <= 0:
        return ()
    return (f"The same plan puts {_points(others):,} vectors into warmer tiers, for ${more:.4f} more a month.",)


def _saved(moves: Sequence[Move], prices: Mapping[TierName, float]) -> float:
    return sum(move.points / 1000 * (prices[move.source] - prices[move.target]) for move in moves)


def _points(moves: Sequence[Move]) -> int:
    return sum(move.points for move in moves)


def _latency(tier: TierName) -> str:
    if tier == "edge":
        return "none in the service (it stays on this device)"
    return f"{TIERS[tier].target_latency_ms} ms"


def _mean(plan: Plan) -> str:
    before, after = plan.latency_ms_before, plan.latency_ms_after
    if before is None or after is None:
        return "Nothing of what lies in the service was asked for lately."
    return (
        f"The mean of what is asked for in the service is {before:.0f} ms now, {after:.0f} ms after the whole plan."
    )
