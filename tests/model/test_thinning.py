"""What is taken out of ops: by examples, and by the law that nobody can tell, whatever comes later."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dualmem_mcp.model.field_versions import Clash
from dualmem_mcp.model.merge import EntityState, RecordState, SubjectState, merge
from dualmem_mcp.model.subject_op import SubjectOp, named_tags
from dualmem_mcp.model.thinning import thin
from tests.model.devices import Device
from tests.model.test_merge import all_ops, histories, op, play, stamp, tag


def every(_: str) -> bool:
    return True


def dead(ops: Iterable[SubjectOp]) -> set[str]:
    return {found for one in ops for found in named_tags(one)}


def thinned(*ops: SubjectOp) -> list[SubjectOp]:
    return thin(ops, dead(ops), every)


CREATED = op(
    1, "entity.create", entityType="person", observations=["née Byron", "wrote notes"], extra={"mood": "sad"}
)


def changed(ticks: int, over: int, device: str = "a", over_device: str = "a", **fields: Any) -> SubjectOp:
    named = {name: [stamp(over, over_device)] for name in fields}
    return op(ticks, "entity.set", device, entity=[tag(1)], fields=fields, over=named)


def test_what_nothing_was_done_to_stays_as_it_is() -> None:
    assert thinned(CREATED)[0] is CREATED


def test_the_text_of_a_deleted_observation_goes_and_with_it_the_deletion() -> None:
    gone = op(2, "observation.delete", observations=[{"text": "née Byron", "tags": [tag(1, 1)]}])
    left = thinned(CREATED, gone)
    assert [one.payload["observations"] for one in left] == [[None, "wrote notes"]]
    both = op(3, "observation.delete", observations=[{"text": "wrote notes", "tags": [tag(1, 2)]}])
    assert [one.payload["observations"] for one in thinned(CREATED, gone, both)] == [[]]


def test_a_deletion_that_nobody_else_remembers_stays() -> None:
    gone = op(2, "observation.delete", observations=[{"text": "née Byron", "tags": [tag(1, 1)]}])
    left = thin([CREATED, gone], set(), every)
    assert left[1] is gone
    assert left[0].payload["observations"] == [None, "wrote notes"]


def test_of_a_deleted_entity_nothing_is_left() -> None:
    added = op(2, "observation.add", "b", entity=[tag(1)], observations=["x"])
    mood = changed(3, 1, **{"extra.mood": "glad"})
    gone = op(
        4,
        "entity.delete",
        tags=[tag(1)],
        observations=[tag(1, 1), tag(1, 2), tag(2, 1, "b")],
        over=[stamp(3)],
    )
    assert thinned(CREATED, added, mood, gone) == []
    # One that knows of a change which has not come yet must stay to tell so.
    assert thin([CREATED, added, gone], dead([gone]), lambda one: one != stamp(3)) == [gone]


def test_values_that_were_replaced_go_and_those_that_count_stay() -> None:
    first = changed(2, 1, **{"extra.mood": "glad"})
    second = changed(3, 2, "b", **{"extra.mood": "calm"})
    left = thinned(CREATED, first, second)
    assert [one.stamp for one in left] == [stamp(1), stamp(3, "b")]
    assert "extra" not in left[0].payload
    assert left[0].payload["entityType"] == "person"
    assert left[1] is second


def test_a_value_stays_whose_replacement_may_stop_counting_before_it() -> None:
    twin = op(2, "entity.create", "b", entityType="person", observations=[])
    by_both = op(
        3,
        "entity.set",
        entity=[tag(1), tag(2, device="b")],
        fields={"extra.mood": "x"},
        over={"extra.mood": [stamp(1)]},
    )
    by_one = changed(4, 3, "b", **{"extra.mood": "y"})
    left = thinned(CREATED, twin, by_both, by_one)
    # Once the first tag is deleted the last change counts only since the one that it replaced does.
    assert stamp(3) in {one.stamp for one in left}
    gone = op(5, "entity.delete", "c", tags=[tag(1)], observations=[], over=[])
    assert same(merge([*left, gone]), merge([CREATED, twin, by_both, by_one, gone]))


def test_while_versions_conflict_all_of_them_stay() -> None:
    one = changed(2, 1, **{"extra.mood": "glad"})
    other = changed(3, 1, "b", **{"extra.mood": "calm"})
    gone = op(4, "observation.delete", observations=[{"text": "née Byron", "tags": [tag(1, 1)]}])
    left = thinned(CREATED, one, other, gone)
    assert [found.stamp for found in left] == [stamp(1), stamp(2), stamp(3, "b")]
    assert left[0].payload["observations"] == [None, "wrote notes"]
    assert same(merge(left, dead([gone])), merge([CREATED, one, other, gone]))


def test_a_record_keeps_its_first_and_last_op() -> None:
    sets = [op(1, "record.set", conversation_id="c", fields={"text": "x", "status": "open"}, over={})]
    for ticks in range(2, 30):
        over = {"status": [stamp(ticks - 1)]}
        sets.append(op(ticks, "record.set", fields={"status": f"s{ticks}"}, over=over))
    left = thinned(*sets)
    assert [one.stamp for one in left] == [stamp(1), stamp(29)]
    assert left[0].payload["fields"] == {"text": "x"}
    assert same(merge(left), merge(sets))


def test_of_a_deleted_record_the_deletion_is_left() -> None:
    first = op(1, "record.set", fields={"text": "secret"}, over={})
    gone = op(2, "record.delete", over=[stamp(1)])
    assert thinned(first, gone) == [gone]


def test_a_creation_with_all_that_was_replaced_keeps_its_tag() -> None:
    ada = op(1, "entity.create", entityType="person", observations=[], extra={"mood": "sad"})
    both = changed(2, 1, **{"entityType": "countess", "extra.mood": "glad"})
    left = thinned(ada, both)
    assert left == [op(1, "entity.create", observations=[]), both]
    assert same(merge(left), merge([ada, both]))


def test_what_is_not_understood_is_left_alone() -> None:
    strange = op(2, "entity.of-another-time", observations=["x"])
    gone = op(3, "observation.delete", observations=[{"text": "née Byron", "tags": [tag(1, 1)]}])
    assert thinned(CREATED, strange, gone) == [CREATED, strange, gone]


# The law


def same(one: SubjectState | None, other: SubjectState | None) -> bool:
    return seen(one) == seen(other)


def seen(state: SubjectState | None) -> Any:
    """What anybody can tell of a state: not the order of fields, nor what would be suggested of a deleted item."""
    if state is None:
        return None
    clashes = tuple(sorted(map(plain, state.clashes)))
    if isinstance(state, RecordState):
        if not state.exists:
            return clashes or None
        return repr(replace(state, fields={}, clashes=())), fields_of(state), clashes
    if not state.tags:
        return clashes or None
    observations = state.observations if isinstance(state, EntityState) else {}
    return state.tags, fields_of(state), json.dumps(observations, sort_keys=True), clashes


def plain(clash: Clash) -> str:
    return json.dumps(
        [clash.field, repr(clash.kept), [[side.stamp, side.value] for side in clash.lost], clash.heads, clash.tags],
        sort_keys=True,
    )


def fields_of(state: SubjectState) -> str:
    return json.dumps({name: [one.value, one.stamps] for name, one in state.fields.items()}, sort_keys=True)


def written_by(ops: Sequence[SubjectOp]) -> dict[str, list[SubjectOp]]:
    found: dict[str, dict[str, SubjectOp]] = {}
    for one in ops:
        found.setdefault(one.stamp[17:], {})[one.stamp] = one
    return {device: [own[key] for key in sorted(own)] for device, own in found.items()}


class Thinner:
    """One who knows the beginning of each device's log, and what was taken out of it."""

    def __init__(self) -> None:
        self.last: dict[str, str] = {}
        self.ops: dict[str, SubjectOp] = {}
        self.buried: set[str] = set()

    def read_on(self, logs: dict[str, list[SubjectOp]], chance: random.Random) -> None:
        for device, own in logs.items():
            upto = chance.randint(0, len(own))
            for one in own[:upto]:
                if one.stamp > self.last.get(device, ""):
                    self.ops[one.stamp] = one
                    self.last[device] = one.stamp
        self.buried |= dead(self.ops.values())

    def covers(self, found: str) -> bool:
        return found <= self.last.get(found[17:], "")

    def thin(self) -> None:
        self.ops = {one.stamp: one for one in thin(list(self.ops.values()), self.buried, self.covers)}


@given(histories, st.integers(0, 2**32))
@settings(max_examples=600)
def test_nobody_can_tell_that_ops_were_thinned(history: tuple[str, int, list[Any]], seed: int) -> None:
    devices = play(history)
    ops = {one.stamp: one for one in all_ops(devices)}
    logs = written_by(list(ops.values()))
    chance = random.Random(seed)
    thinner = Thinner()
    for _ in range(chance.randint(1, 3)):
        thinner.read_on(logs, chance)
        thinner.thin()
    later = [one for one in ops.values() if not thinner.covers(one.stamp)]
    some = chance.sample(later, chance.randint(0, len(later)))
    covered = [one for one in ops.values() if thinner.covers(one.stamp)]
    assert same(merge([*thinner.ops.values(), *some], thinner.buried), merge([*covered, *some]))


@given(histories, st.integers(0, 2**32))
@settings(max_examples=600)
def test_two_who_thinned_apart_agree_when_they_put_it_together(
    history: tuple[str, int, list[Any]], seed: int
) -> None:
    devices = play(history)
    ops = {one.stamp: one for one in all_ops(devices)}
    logs = written_by(list(ops.values()))
    chance = random.Random(seed)
    one, other = Thinner(), Thinner()
    for thinner in (one, other):
        thinner.read_on(logs, chance)
        thinner.thin()
    # What one of them covers and does not have any more is out; of what both have, both copies are put together.
    together = [
        *(found for found in one.ops.values() if found.stamp in other.ops or not other.covers(found.stamp)),
        *(found for found in other.ops.values() if found.stamp in one.ops or not one.covers(found.stamp)),
    ]
    covered = [found for found in ops.values() if one.covers(found.stamp) or other.covers(found.stamp)]
    assert same(merge(together, one.buried | other.buried), merge(covered))


@given(histories)
@settings(max_examples=200)
def test_thinning_again_takes_out_nothing_more(history: tuple[str, int, list[Any]]) -> None:
    ops = {one.stamp: one for one in all_ops(play(history))}
    once = thin(list(ops.values()), dead(ops.values()), every)
    assert thin(once, dead(ops.values()), every) == once


@given(histories)
@settings(max_examples=200)
def test_ops_of_the_first_version_are_thinned_alike(history: tuple[str, int, list[Any]]) -> None:
    kind, _, script = history
    first = play((kind, 1, script[: len(script) // 2]), first_version=True)[0]
    knew = dict(first.knew)
    device = Device(1, kind, knew, clock=first.clock)
    device.receive(first.ops.values())
    left = {one.stamp: one for one in thin(list(first.ops.values()), dead(first.ops.values()), every)}
    for _, action, name, value, _ in script[len(script) // 2 :]:
        device.act(action, name, value)
    later = [one for one in device.ops.values() if one.stamp not in first.ops]
    assert same(merge([*left.values(), *later], dead(first.ops.values())), merge([*first.ops.values(), *later]))
