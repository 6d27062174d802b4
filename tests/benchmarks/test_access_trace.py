"""A made-up record of accesses: the same for every run, skewed, recent above all."""

from __future__ import annotations

import numpy as np
from access_trace import FLARE_AGE_DAYS, HOURS_A_DAY, hours, make_items

from dualmem_mcp.model.search import KINDS

DAYS = 28
TURN = KINDS.index("turn")


def test_one_seed_gives_one_record_and_another_one_another() -> None:
    items = make_items(DAYS, 1)
    first, again = (list(hours(items, DAYS, 50, 1)) for _ in range(2))
    assert all(np.array_equal(one.used, other.used) for one, other in zip(first, again, strict=True))
    assert np.array_equal(items.times, make_items(DAYS, 1).times)
    assert not np.array_equal(items.times[:50], make_items(DAYS, 2).times[:50])


def test_items_arrive_in_conversations_on_working_days() -> None:
    items = make_items(DAYS, 1)
    assert np.all(np.diff(items.times) >= 0)
    assert set((items.times // 1 % 7).astype(int)) == {0, 1, 2, 3, 4}
    for conversation in np.unique(items.conversations)[:10]:
        turns = (items.conversations == conversation) & (items.kinds == TURN)
        assert items.ordinals[turns].tolist() == list(range(int(turns.sum())))
    assert np.all(items.ordinals[items.kinds != TURN] == -1)
    assert np.all(items.passages >= 1)


def test_only_what_has_arrived_is_used_and_as_often_as_asked_for() -> None:
    items = make_items(DAYS, 1)
    record = list(hours(items, DAYS, 100, 1))
    assert len(record) == 20 * HOURS_A_DAY
    for hour in record:
        assert np.all(items.times[hour.used] < hour.ends)
        assert np.all((hour.scores >= 0) & (hour.scores <= 1))
    assert 90 < sum(len(hour.used) for hour in record) / 20 < 110


def test_use_is_recent_and_skewed_and_old_conversations_flare_up() -> None:
    items = make_items(60, 3)
    record = list(hours(items, 60, 100, 3))
    used = np.concatenate([hour.used for hour in record])
    ages = np.concatenate([hour.ends - items.times[hour.used] for hour in record])
    counts = np.sort(np.bincount(used, minlength=len(items.times)))[::-1]
    assert counts[: len(counts) // 100].sum() > 0.2 * len(used)
    assert np.mean(ages < 7) > np.mean(ages > 30) > 0
    old = [
        np.bincount(items.conversations[hour.used[hour.ends - items.times[hour.used] > FLARE_AGE_DAYS]]).max(
            initial=0
        )
        for hour in record
    ]
    assert max(old) >= 3
