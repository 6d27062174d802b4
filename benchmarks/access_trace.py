"""A made-up record of what somebody's memory is asked for, over some months: which items come and which are used.

Items arrive in conversations on working days; what is used is drawn anew each hour, by recency and by how popular
an item is at all; now and then an old conversation flares up. Everything comes from one seed. Where each number
comes from stands beside it; "measured" is from nine public Claude Code sessions that the product's tests use, by
this rule: a file that a tool reads or writes there is used then, and its earlier uses in the session are what it
is used after.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dualmem_mcp.model.search import KINDS

CONVERSATIONS_A_DAY: Final = 3
"""An assumption."""
LOG_TURNS: Final = (3.57, 1.13)
"""Mean and deviation of the logarithm of a conversation's turns with text. Measured: 9 to 199, median 26."""
OTHER_KINDS: Final = {"decision": 0.04, "agent": 0.04, "summary": 0.01, "note": 0.01, "entity": 0.01}
"""Of what is no turn, so many for each turn. Measured, as the product's index finds them; notes and entities, which
those sessions have none of, are an assumption."""
PASSAGES: Final = (0.32, 0.57, 0.09, 0.02)
"""Shares of items with 1, 2, … passages. Measured, as the index cuts them: 544 of 552 turns have no more than 4."""
RECENCY: Final = 0.92
"""Exponent of the power by which the odds of use fall with the time since the last one. Measured, by the number
of other uses in between: .38 after 1, .077 after 2 to 3, .041 after 4 to 7, .012 after 16 to 31. That it is a
power, and of about this size, is known from mail, headlines and speech: J. Anderson and L. Schooler, "Reflections
of the environment in memory", Psychological Science 2, 1991."""
POPULARITY: Final = 0.66
"""Exponent of the Zipf-like distribution of how popular items are at all. Measured over 106 files; it was .64 to
.83 for pages in the caches of L. Breslau et al., "Web caching and Zipf-like distributions", INFOCOM 1999."""
HOURS_A_DAY: Final = 8
WORKING_DAYS: Final = 5
FLARES_A_WEEK: Final = 1.0
"""Old conversations that are taken up again; an assumption, as are the next two."""
FLARE_DAYS: Final = 3
FLARE_SHARE: Final = 0.25
"""Of all uses, while a conversation flares up: those of its items."""
FLARE_AGE_DAYS: Final = 14
SCORES: Final = (0.58, 0.10)
"""Mean and deviation of the scores that answers are given with. Measured: 100 answers to 10 questions."""

_JUST_NOW: Final = 1 / 24
"""In days: what was used this very hour is not endlessly more likely than what was used in the last."""


@dataclass(frozen=True, slots=True, eq=False)
class Items:
    """All items of the trace in the order of their arrival; all (n,). `times` are days since the beginning,
    `ordinals` the places of turns in their conversation and -1 for what is none."""

    times: NDArray[np.float64]
    kinds: NDArray[np.uint8]
    conversations: NDArray[np.int64]
    ordinals: NDArray[np.int32]
    passages: NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Hour:
    """One hour of work: when it ends, in days since the beginning, how many items have arrived by then, and which
    of them were used, in order, with what scores."""

    ends: float
    arrived: int
    used: NDArray[np.int64]
    scores: NDArray[np.float64]


def make_items(days: int, seed: int) -> Items:
    """The items of so many days, of which five of seven are worked on."""
    rng = np.random.default_rng([seed, 1])
    rows: list[tuple[float, int, int, int]] = []
    for day in range(days):
        if day % 7 >= WORKING_DAYS:
            continue
        for place in range(CONVERSATIONS_A_DAY):
            conversation = day * CONVERSATIONS_A_DAY + place + 1
            turns = max(2, round(rng.lognormal(*LOG_TURNS)))
            begin, length = sorted(rng.uniform(0, HOURS_A_DAY / 24, 2))
            times = day + np.sort(rng.uniform(begin, max(length, begin + 1 / 24), turns))
            for ordinal, time in enumerate(times):
                rows.append((time, KINDS.index("turn"), conversation, ordinal))
                for kind, share in OTHER_KINDS.items():
                    if rng.random() < share:
                        rows.append((time, KINDS.index(kind), conversation, -1))
    rows.sort()
    columns = list(zip(*rows, strict=True))
    return Items(
        times=np.array(columns[0]),
        kinds=np.array(columns[1], np.uint8),
        conversations=np.array(columns[2], np.int64),
        ordinals=np.array(columns[3], np.int32),
        passages=rng.choice(np.arange(1, len(PASSAGES) + 1), len(rows), p=PASSAGES).astype(np.int32),
    )


def hours(items: Items, days: int, accesses_a_day: float, seed: int) -> Iterator[Hour]:
    """The hours of work, in order; on average so many uses on a working day, from the first on that has items."""
    rng = np.random.default_rng([seed, 2])
    popularity = rng.permutation(np.arange(1, len(items.times) + 1)).astype(np.float64) ** -POPULARITY
    last = items.times.copy()
    flaring: dict[int, float] = {}
    for day in range(days):
        if day % 7 >= WORKING_DAYS:
            continue
        flaring = {conversation: until for conversation, until in flaring.items() if until > day}
        old = np.unique(items.conversations[items.times < day - FLARE_AGE_DAYS])
        if len(old) and rng.random() < FLARES_A_WEEK / WORKING_DAYS:
            flaring[int(rng.choice(old))] = day + FLARE_DAYS
        for hour in range(HOURS_A_DAY):
            ends = day + (hour + 1) / 24
            arrived = int(np.searchsorted(items.times, ends))
            number = int(rng.poisson(accesses_a_day / HOURS_A_DAY)) if arrived else 0
            odds = popularity[:arrived] * np.maximum(ends - last[:arrived], _JUST_NOW) ** -RECENCY
            if flaring and number:
                burning = np.isin(items.conversations[:arrived], np.array(list(flaring)))
                odds[burning] *= FLARE_SHARE / (1 - FLARE_SHARE) * odds[~burning].sum() / odds[burning].sum()
            used = rng.choice(arrived, number, p=odds / odds.sum()) if number else np.empty(0, np.int64)
            last[used] = ends
            yield Hour(ends, arrived, used, np.clip(rng.normal(*SCORES, len(used)), 0, 1))
