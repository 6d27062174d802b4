"""When it syncs, in seconds that a test counts."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp.model.sync_timing import SyncTiming
from dualmem_mcp.sync.rhythm import IN_USE_SECONDS, LAST_RETRY_SECONDS, Rhythm, Step


def rhythm(timing: SyncTiming | None = None, chance: float = 0.5) -> Rhythm:
    return Rhythm(timing or SyncTiming(), now=0.0, chance=lambda: chance)


def run(followed: Rhythm, until: float, *, start: float = 0.0, works: bool = True) -> Iterator[tuple[float, Step]]:
    """Follow it for that long, every step taking no time: the syncs with their times."""
    now = start
    while (now := max(now, followed.next_at())) <= until:
        step = followed.due(now)
        assert step is not None, "what next_at promised is due then"
        followed.begin(step, now)
        if step == "look":
            continue
        yield now, step
        if works:
            followed.synced(now, listed_at=now if step == "full" else None)
        else:
            followed.failed(now)


def test_it_begins_with_a_listing_after_a_moment_and_goes_on_with_probes() -> None:
    steps = list(run(rhythm(), 31.0))
    assert steps == [(1.0, "full"), (11.0, "probe"), (21.0, "probe"), (31.0, "probe")]


def test_every_quarter_of_an_hour_in_use_it_lists_again() -> None:
    followed = rhythm()
    listings = []
    for now, step in run(followed, 3600.0):
        if step == "full":
            listings.append(now)
        if now % 60 < 10:
            followed.used(now)
    assert [round(later - earlier, -1) for earlier, later in pairwise(listings)] == [900, 900, 900]


def test_idle_it_slows_down_to_its_longest_interval_and_lists_four_times_a_day() -> None:
    steps = list(run(rhythm(), 86_400.0))
    times = [now for now, _ in steps]
    gaps = [round(later - earlier) for earlier, later in pairwise(times)]
    slowing = gaps.index(20)
    assert set(gaps[:slowing]) == {10}
    assert IN_USE_SECONDS <= times[slowing] <= IN_USE_SECONDS + 20
    assert gaps[slowing : slowing + 6] == [20, 40, 80, 160, 300, 300]
    assert set(gaps[slowing + 4 :]) == {300}
    assert len(steps) < 350
    assert sum(step == "full" for _, step in steps) == 4


def test_a_call_after_a_quiet_hour_makes_it_look_at_once() -> None:
    followed = rhythm()
    last = [now for now, _ in run(followed, 3600.0)][-1]
    followed.used(last + 60)
    assert [now for now, _ in run(followed, last + 85, start=last + 60)] == [last + 60, last + 70, last + 80]


def test_a_call_looks_at_once_but_for_a_look_of_the_last_second() -> None:
    followed = rhythm()
    assert [now for now, _ in run(followed, 11.0)] == [1.0, 11.0]
    followed.used(11.2)
    assert followed.next_at() == 12.0
    assert [now for now, _ in run(followed, 14.0, start=11.2)] == [12.0]
    followed.used(14.0)
    assert followed.due(14.0) == "probe"


def test_a_change_is_sent_half_a_second_after_the_last_one_or_with_the_third() -> None:
    followed = rhythm()
    list(run(followed, 1.0))
    followed.changed(3.0)
    assert followed.due(3.4) is None
    assert followed.next_at() == 3.5
    followed.changed(3.4)
    assert followed.next_at() == 3.9
    assert followed.due(3.9) == "probe"
    followed.changed(3.5)
    assert followed.due(3.5) == "probe"
    followed.begin("probe", 3.5)
    followed.synced(3.6)
    assert followed.due(3.7) is None
    assert followed.next_at() == 13.6


def test_an_urgent_change_is_sent_at_once() -> None:
    followed = rhythm()
    list(run(followed, 1.0))
    followed.changed(2.0, urgent=True)
    assert next(run(followed, 9.0, start=2.0)) == (2.0, "probe")
    followed.changed(3.0)
    assert next(run(followed, 9.0, start=3.0)) == (3.5, "probe")


def test_a_change_during_a_sync_wants_one_more() -> None:
    followed = rhythm()
    list(run(followed, 1.0))
    followed.changed(2.0)
    followed.begin("probe", 2.5)
    followed.changed(2.6)
    followed.synced(2.7)
    assert followed.next_at() == 3.1


def test_a_sync_by_another_process_counts_from_when_it_was() -> None:
    followed = rhythm()
    followed.synced(0.5, listed_at=-100.0)
    assert followed.next_at() == 10.5
    assert followed.due(10.5) == "probe"
    followed.synced(10.5)
    assert {step for _, step in run(followed, 300.0, start=10.5)} == {"probe"}
    followed.used(799.0)
    assert followed.due(799.5) == "probe"
    assert followed.due(800.5) == "full"


def test_what_is_made_while_another_process_syncs_is_looked_at_a_second_later() -> None:
    followed = rhythm()
    list(run(followed, 1.0))
    followed.changed(2.0)
    followed.begin("probe", 2.5)
    followed.was_busy(2.6)
    assert followed.next_at() == 3.6
    assert followed.is_sending_only(3.6)
    assert not followed.is_failing


def test_what_nobody_told_of_is_looked_for_every_minute() -> None:
    followed = rhythm(SyncTiming(poll_seconds=3600, idle_seconds=3600))
    assert list(run(followed, 1.0)) == [(1.0, "full")]
    assert followed.next_at() == 61.0
    assert followed.due(61.0) == "look"
    followed.begin("look", 61.0)
    followed.found_waiting(61.0)
    assert followed.is_sending_only(61.0)
    assert followed.due(61.0) == "probe"


def test_a_look_leaves_a_change_its_time() -> None:
    followed = rhythm(SyncTiming(poll_seconds=3600, idle_seconds=3600))
    list(run(followed, 1.0))
    followed.changed(60.8)
    followed.begin("look", 61.0)
    assert followed.next_at() == 61.3


def test_a_step_that_is_due_anyway_is_not_there_for_changes_alone() -> None:
    followed = rhythm()
    list(run(followed, 1.0))
    followed.changed(10.9)
    assert not followed.is_sending_only(11.0)


def test_while_the_bucket_is_away_it_waits_ever_longer() -> None:
    followed = rhythm(chance=0.0)
    times = [now for now, _ in run(followed, 3000.0, works=False)]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps[:9] == [1, 2, 4, 8, 16, 32, 64, 128, 150]
    assert set(gaps[8:]) == {150}
    assert followed.is_failing


def test_a_write_tries_again_at_once_and_success_forgets_the_failures() -> None:
    followed = rhythm(chance=0.0)
    list(run(followed, 200.0, works=False))
    followed.used(201.0)
    assert followed.next_at() > 210.0
    followed.changed(201.0)
    assert followed.due(201.5) == "probe"
    followed.begin("probe", 201.5)
    followed.synced(202.0)
    assert not followed.is_failing
    assert followed.next_at() == 212.0
    followed.failed(212.0)
    assert followed.next_at() == 213.0


@given(chance=st.floats(0, 1, exclude_max=True), failures=st.integers(1, 2000))
def test_a_retry_comes_after_a_second_at_least_and_five_minutes_at_most(chance: float, failures: int) -> None:
    followed = rhythm(chance=chance)
    for _ in range(failures):
        followed.failed(0.0)
    assert 1.0 <= followed.next_at() <= LAST_RETRY_SECONDS


def test_a_listing_that_failed_is_tried_as_a_listing_again() -> None:
    followed = rhythm()
    steps = [step for _, step in run(followed, 20.0, works=False)]
    assert len(steps) > 2
    assert set(steps) == {"full"}


@given(
    st.lists(
        st.tuples(st.sampled_from(["used", "changed", "found", "works", "fails", "busy"]), st.floats(0, 400)),
        max_size=60,
    ),
    st.floats(0, 1, exclude_max=True),
)
def test_whatever_happens_it_is_never_still_for_long_and_never_without_a_pause(
    events: list[tuple[str, float]], chance: float
) -> None:
    followed = rhythm(chance=chance)
    now = 0.0
    for event, later in events:
        now += later
        if event == "used":
            followed.used(now)
        elif event == "changed":
            followed.changed(now)
        elif event == "found":
            followed.found_waiting(now)
        else:
            now = max(now, followed.next_at())
            step = followed.due(now)
            assert step is not None
            followed.begin(step, now)
            if step == "look":
                assert followed.next_at() > now
            elif event == "works":
                followed.synced(now, listed_at=now if step == "full" else None)
                assert followed.next_at() > now
            elif event == "fails":
                followed.failed(now)
                assert followed.next_at() >= now + 1
            else:
                followed.was_busy(now)
                assert followed.next_at() >= now + 1
        assert followed.next_at() <= max(now, 0) + 300 + 1
