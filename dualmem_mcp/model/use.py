"""How use is counted so that what was asked for lately counts more: with a half-life."""

from __future__ import annotations

import math
from typing import Final

HALF_LIFE_DAYS: Final = 7.0
"""After so many days an access counts half. The rules of the tiers tell weeks apart (`model.tiers.RECENT_DAYS`)."""

_PER_ACCESS_A_DAY: Final = HALF_LIFE_DAYS / math.log(2)
"""The weight at which steady use of one access a day arrives."""


def decayed(weight: float, days: float) -> float:
    """What a weight is worth so many days later; a clock that went back takes nothing off."""
    return weight * math.exp2(-max(days, 0.0) / HALF_LIFE_DAYS)


def accesses_a_day(weight: float) -> float:
    """The steady use, in accesses a day, that a weight stands for. A single access just now is 0.099, so that
    what is asked for once is seldom asked for (`model.tiers.RARE_A_DAY`), and what is twice is not."""
    return weight / _PER_ACCESS_A_DAY


def interaction_score(weight: float) -> float:
    """From 0 for no use towards 1; above 0.9 from 3.4 accesses in a week on (`model.tiers.ACTIVE_SCORE`)."""
    return 1.0 - math.exp2(-max(weight, 0.0))
