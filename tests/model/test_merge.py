"""The merge rules on paper: what a set of ops adds up to, by examples, and by laws over histories of devices."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualmem_mcp.model.field_versions import UNKNOWN_TYPE, Clash, FieldState, Side, same_value
from dualmem_mcp.model.merge import EntityState, RecordState, RelationState, SubjectState, merge
from dualmem_mcp.model.subject_op import SubjectOp, named_tags
from tests.model.devices import KINDS, TRIPLE, Device, thinned


def stamp(ticks: int, device: str = "a") -> str:
    return f"{ticks:016x}-{device * 32}"


def op(ticks: int, kind: str, device: str = "a", **payload: Any) -> SubjectOp:
    if kind.startswith(("entity", "observation")):
        payload.setdefault("name", "Ada")
    elif kind.startswith("relation"):
        payload |= TRIPLE
    else:
        payload |= {"type": "task", "id": "1"}
    return SubjectOp(stamp(ticks, device), kind, payload)


def tag(ticks: int, item: int = 0, device: str = "a") -> str:
    return f"{stamp(ticks, device)}.{item}"


CREATED = op(1, "entity.create", entityType="person", observations=["née Byron"])


def entity(*ops: SubjectOp) -> EntityState:
    state = merge(ops)
    assert isinstance(state, EntityState)
    return state


def record(*ops: SubjectOp) -> RecordState:
    state = merge(ops)
    assert isinstance(state, RecordState)
    return state


def test_nothing_has_no_state() -> None:
    assert merge([]) is None
    assert merge([SubjectOp(stamp(1), "turn.add", {"conversation_id": "c"})]) is None


def test_an_entity_created_by_two_has_both_tags_and_all_observations() -> None:
    state = entity(CREATED, op(2, "entity.create", "b", entityType="person", observations=["wrote notes"]))
    assert state.tags == (tag(1), tag(2, device="b"))
    assert state.observations == {"née Byron": (tag(1, 1),), "wrote notes": (tag(2, 1, "b"),)}
    assert state.fields == {"entityType": FieldState("person", (stamp(2, "b"), stamp(1)))}
    assert state.clashes == ()


def test_two_creations_with_different_types_conflict() -> None:
    state = entity(CREATED, op(2, "entity.create", "b", entityType="countess", observations=[]))
    assert state.fields["entityType"] == FieldState("countess", (stamp(2, "b"),))
    assert state.clashes == (
        Clash(
            "entityType",
            Side("countess", stamp(2, "b")),
            (Side("person", stamp(1)),),
            (stamp(2, "b"), stamp(1)),
        ),
    )


def test_a_deletion_that_came_first_still_deletes() -> None:
    gone = op(5, "entity.delete", "b", tags=[tag(1)], observations=[tag(1, 1)], over=[])
    assert entity(gone, CREATED) == entity(CREATED, gone) == EntityState("Ada", (), {}, {})
    assert merge([CREATED], {tag(1), tag(1, 1)}) == EntityState("Ada", (), {}, {})


def test_a_deletion_spares_what_it_did_not_know() -> None:
    gone = op(9, "entity.delete", tags=[tag(1)], observations=[tag(1, 1)], over=[])
    again = op(2, "entity.create", "b", entityType="person", observations=["née Byron"])
    state = entity(CREATED, again, gone)
    assert state.tags == (tag(2, device="b"),)
    assert state.observations == {"née Byron": (tag(2, 1, "b"),)}
    assert state.clashes == ()


def test_a_value_set_later_replaces_and_leaves_no_conflict() -> None:
    changed = op(
        2, "entity.set", entity=[tag(1)], fields={"entityType": "countess"}, over={"entityType": [stamp(1)]}
    )
    state = entity(changed, CREATED)
    assert state.fields == {"entityType": FieldState("countess", (stamp(2),))}
    assert state.clashes == ()


def test_of_two_concurrent_values_the_later_counts_and_the_other_is_kept() -> None:
    one = op(3, "entity.set", entity=[tag(1)], fields={"extra.mood": "glad"}, over={})
    other = op(2, "entity.set", "b", entity=[tag(1)], fields={"extra.mood": "sad"}, over={})
    state = entity(CREATED, one, other)
    assert state.fields["extra.mood"] == FieldState("glad", (stamp(3),))
    assert state.clashes == (
        Clash("extra.mood", Side("glad", stamp(3)), (Side("sad", stamp(2, "b")),), (stamp(3), stamp(2, "b"))),
    )
    # Who goes on from the value that counts has not decided about the other.
    later = op(4, "entity.set", entity=[tag(1)], fields={"extra.mood": "calm"}, over={"extra.mood": [stamp(3)]})
    assert [clash.lost for clash in entity(CREATED, one, other, later).clashes] == [(Side("sad", stamp(2, "b")),)]
    decided = op(
        5,
        "entity.set",
        entity=[tag(1)],
        fields={"extra.mood": "sad"},
        over={"extra.mood": [stamp(4), stamp(2, "b")]},
    )
    assert entity(CREATED, one, other, later, decided).clashes == ()


def test_equal_concurrent_values_are_no_conflict_and_are_replaced_together() -> None:
    one = op(3, "entity.set", entity=[tag(1)], fields={"extra.mood": 1}, over={})
    other = op(2, "entity.set", "b", entity=[tag(1)], fields={"extra.mood": 1}, over={})
    state = entity(CREATED, one, other)
    assert state.fields["extra.mood"] == FieldState(1, (stamp(3), stamp(2, "b")))
    assert state.clashes == ()
    later = op(
        4,
        "entity.set",
        entity=[tag(1)],
        fields={"extra.mood": 2},
        over={"extra.mood": list(state.fields["extra.mood"].stamps)},
    )
    assert entity(CREATED, one, other, later).clashes == ()


def test_an_observation_added_while_the_entity_was_deleted_is_hidden_until_it_is_created_again() -> None:
    added = op(3, "observation.add", "b", entity=[tag(1)], observations=["wrote notes"])
    gone = op(4, "entity.delete", tags=[tag(1)], observations=[tag(1, 1)], over=[])
    state = entity(CREATED, added, gone)
    assert (state.tags, state.fields, state.observations) == ((), {}, {})
    assert state.clashes == (
        Clash(
            "",
            None,
            (Side({"observations": ["wrote notes"]}, stamp(3, "b")),),
            (),
            (tag(3, 1, "b"),),
            {"entityType": "person"},
        ),
    )
    again = op(6, "entity.create", entityType="person", observations=[])
    assert entity(CREATED, added, gone, again).observations == {"wrote notes": (tag(3, 1, "b"),)}
    assert entity(CREATED, added, gone, again).clashes == ()
    left = op(6, "entity.delete", tags=[], observations=[tag(3, 1, "b")], over=[])
    assert entity(CREATED, added, gone, left) == EntityState("Ada", (), {}, {})


@pytest.mark.parametrize("ticks", [3, 5])
def test_a_field_set_while_the_entity_was_deleted_is_hidden_whichever_was_earlier(ticks: int) -> None:
    changed = op(ticks, "entity.set", "b", entity=[tag(1)], fields={"entityType": "countess"}, over={})
    gone = op(4, "entity.delete", tags=[tag(1)], observations=[tag(1, 1)], over=[])
    state = entity(CREATED, changed, gone)
    assert [(clash.field, clash.kept, clash.heads) for clash in state.clashes] == [("", None, (stamp(ticks, "b"),))]
    assert state.clashes[0].lost == (Side({"fields": {"entityType": "countess"}}, stamp(ticks, "b")),)
    assert state.clashes[0].fields == {"entityType": "countess"}
    known = op(4, "entity.delete", tags=[tag(1)], observations=[tag(1, 1)], over=[stamp(ticks, "b")])
    assert entity(CREATED, changed, known).clashes == ()
    # Somebody who did not know either made a new one: the value stands beside that one's.
    again = op(6, "entity.create", entityType="person", observations=[])
    assert entity(CREATED, changed, gone, again).clashes == (
        Clash(
            "entityType",
            Side("person", stamp(6)),
            (Side("countess", stamp(ticks, "b")),),
            (stamp(6), stamp(ticks, "b")),
        ),
    )


def test_a_hidden_value_of_a_field_that_the_new_entity_lacks_has_nothing_beside_it() -> None:
    changed = op(3, "entity.set", "b", entity=[tag(1)], fields={"extra.mood": "sad"}, over={})
    gone = op(4, "entity.delete", tags=[tag(1)], observations=[tag(1, 1)], over=[])
    again = op(6, "entity.create", entityType="person", observations=[])
    state = entity(CREATED, changed, gone, again)
    assert "extra.mood" not in state.fields
    assert state.clashes == (Clash("extra.mood", None, (Side("sad", stamp(3, "b")),), (stamp(3, "b"),)),)


def test_ops_of_the_first_version_replace_what_is_older() -> None:
    changed = op(2, "entity.set", fields={"entityType": "countess"})
    assert entity(CREATED, changed).fields == {"entityType": FieldState("countess", (stamp(2),))}
    assert entity(CREATED, changed).clashes == ()
    gone = op(3, "entity.delete", tags=[tag(1)], observations=[tag(1, 1)])
    assert entity(CREATED, changed, gone).clashes == ()
    again = op(4, "entity.create", entityType="person", observations=[])
    mood = op(2, "entity.set", fields={"extra.mood": "glad"})
    for earlier in (changed, mood):
        state = entity(CREATED, earlier, gone, again)
        assert state.fields == {"entityType": FieldState("person", (stamp(4),))}
        assert state.clashes == ()


def test_relations_have_tags_and_fields() -> None:
    created = op(1, "relation.create", extra={"since": 1842})
    changed = op(
        2, "relation.set", "b", relation=[tag(1)], fields={"extra.since": 1843, "entityType": "no"}, over={}
    )
    state = merge([changed, created])
    assert isinstance(state, RelationState)
    assert (state.source, state.target, state.relation_type) == ("Ada", "Engine", "studies")
    assert state.fields == {"extra.since": FieldState(1843, (stamp(2, "b"),))}
    assert [clash.lost for clash in state.clashes] == [(Side(1842, stamp(1)),)]
    gone = op(3, "relation.delete", tags=[tag(1)], over=[])
    hidden = merge([changed, created, gone])
    assert isinstance(hidden, RelationState)
    assert (hidden.tags, hidden.fields) == ((), {})
    assert hidden.clashes[0].fields == {"extra.since": 1843}


def test_a_record_belongs_where_its_first_op_says() -> None:
    state = record(
        op(2, "record.set", "b", fields={"status": "done"}, over={}, conversation_id="other"),
        op(1, "record.set", fields={"text": "x", "status": "open"}, over={}, conversation_id="c"),
    )
    assert (state.conversation_id, state.created, state.changed) == ("c", stamp(1), stamp(2, "b"))
    assert {name: one.value for name, one in state.fields.items()} == {"text": "x", "status": "done"}
    assert [clash.field for clash in state.clashes] == ["status"]


def test_a_record_once_deleted_stays_so_and_shows_what_that_did_not_know() -> None:
    first = op(1, "record.set", fields={"text": "x", "status": "open"}, over={})
    done = op(3, "record.set", "b", fields={"status": "done"}, over={"status": [stamp(1)]})
    gone = op(2, "record.delete", over=[stamp(1)])
    state = record(done, gone, first)
    assert state.deleted
    assert not state.exists
    assert state.clashes == (
        Clash(
            "",
            None,
            (Side({"fields": {"status": "done"}}, stamp(3, "b")),),
            (stamp(3, "b"),),
            fields={"text": "x", "status": "done"},
        ),
    )
    again = op(4, "record.delete", over=[stamp(3, "b")])
    assert record(done, gone, first, again).clashes == ()


def test_a_deletion_alone_is_a_record_that_never_was() -> None:
    state = record(op(1, "record.delete", over=[]))
    assert (state.exists, state.created, state.fields) == (False, "", {})


@pytest.mark.parametrize(
    "payload",
    [
        {"entityType": 3, "observations": "x", "extra": []},
        {"observations": [1, {}, None]},
        {"fields": ["entityType"], "over": {"entityType": "x"}, "entity": 7},
        {"fields": {"entityType": 3, "text": "x"}, "over": 3, "entity": [None]},
        {"tags": 3, "observations": [3, {"tags": 4}, None], "over": [3]},
    ],
)
def test_what_is_not_well_formed_has_no_effect(payload: dict[str, Any]) -> None:
    usual = entity(CREATED)
    for kind in ("entity.set", "entity.delete", "observation.add", "observation.delete", "entity.of-another-time"):
        assert entity(CREATED, op(2, kind, **payload)) == usual
    created = entity(op(2, "entity.create", **payload))
    assert created.tags == (tag(2),)
    assert set(created.fields) <= {"entityType"}


def test_values_are_compared_as_json() -> None:
    assert same_value({"a": 1, "b": [None]}, {"b": [None], "a": 1})
    assert not same_value(1, True)
    assert not same_value(1, 1.0)
    assert not same_value("1", 1)


def test_the_type_of_an_entity_that_comes_back_is_the_last_that_is_known() -> None:
    added = op(3, "observation.add", "b", entity=[tag(1)], observations=["x"])
    assert entity(added).clashes[0].fields == {"entityType": UNKNOWN_TYPE}
    changed = op(
        2, "entity.set", entity=[tag(1)], fields={"entityType": "countess"}, over={"entityType": [stamp(1)]}
    )
    gone = op(4, "entity.delete", tags=[tag(1)], observations=[tag(1, 1)], over=[stamp(2)])
    assert entity(CREATED, changed, gone, added).clashes[0].fields == {"entityType": "countess"}


def test_a_value_stands_where_the_one_that_it_replaced_does() -> None:
    # Its author had not seen the second creation, but a value that stands by it.
    second = op(2, "entity.create", "b", entityType="person", observations=[])
    both = [tag(1), tag(2, device="b")]
    first = op(3, "entity.set", "b", entity=both, fields={"extra.mood": "sad"}, over={})
    later = op(
        4, "entity.set", "c", entity=[tag(1)], fields={"extra.mood": "glad"}, over={"extra.mood": [stamp(3, "b")]}
    )
    gone = op(5, "entity.delete", tags=[tag(1)], observations=[tag(1, 1)], over=[])
    state = entity(CREATED, second, first, later, gone)
    assert state.fields["extra.mood"] == FieldState("glad", (stamp(4, "c"),))
    assert state.clashes == ()


def test_nobody_replaces_what_is_later_than_he_is() -> None:
    forged = op(2, "entity.set", entity=[tag(1)], fields={"extra.mood": 2}, over={"extra.mood": [stamp(3, "b")]})
    honest = op(3, "entity.set", "b", entity=[tag(1)], fields={"extra.mood": 3}, over={})
    last = op(4, "entity.set", "c", entity=[tag(1)], fields={"extra.mood": 4}, over={})
    assert [side.value for side in entity(CREATED, forged, honest, last).clashes[0].lost] == [3, 2]


def test_of_two_copies_each_lacks_what_the_other_lacks() -> None:
    whole = op(1, "entity.create", entityType="t", observations=["x", "y"], extra={"a": 1, "b": 2})
    one = op(1, "entity.create", entityType="t", observations=[None, "y"], extra={"b": 2})
    other = op(1, "entity.create", observations=["x", "y"], extra={"a": 1, "b": 2}, newer="kept")
    state = entity(whole, one, other)
    assert (
        state
        == entity(other, whole, one)
        == entity(op(1, "entity.create", observations=[None, "y"], extra={"b": 2}))
    )
    assert (set(state.observations), set(state.fields)) == ({"y"}, {"extra.b"})
    changed = op(
        2, "entity.set", entity=[tag(1)], fields={"extra.c": 1, "extra.d": 2}, over={"extra.b": [stamp(1)]}
    )
    thin = op(2, "entity.set", entity=[tag(1)], fields={"extra.d": 2}, over={"extra.b": [stamp(1)]})
    assert set(entity(whole, changed, thin).fields) == {"entityType", "extra.a", "extra.b", "extra.d"}


# Laws


actions = st.tuples(
    st.integers(0, 4),
    st.sampled_from(["create", "set", "set", "delete", "add", "remove", "send", "send", "send all", "later"]),
    st.sampled_from(["text", "mood"]),
    st.sampled_from(["a", "b"]),
    st.integers(0, 2**20),
)
histories = st.tuples(st.sampled_from(KINDS), st.integers(2, 5), st.lists(actions, min_size=4, max_size=30))


def play(history: tuple[str, int, list[Any]], *, first_version: bool = False) -> list[Device]:
    """The devices at the end of a history: each acts on what it knows, and sends others some of it."""
    kind, count, script = history
    knew: dict[str, frozenset[str]] = {}
    devices = [Device(number, kind, knew, first_version=first_version and number == 0) for number in range(count)]
    for number, action, name, value, mask in script:
        device = devices[number % count]
        if action == "later":
            device.clock += mask % 7
        elif action.startswith("send"):
            other = devices[mask % count]
            chosen = [
                one for at, one in enumerate(device.ops.values()) if action == "send all" or mask >> at % 20 & 1
            ]
            other.receive(random.Random(mask).sample(chosen, len(chosen)))
        else:
            device.act(action, name, value)
    return devices


def all_ops(devices: list[Device]) -> list[SubjectOp]:
    return [one for device in devices for one in device.ops.values()]


def shown(state: SubjectState | None) -> tuple[set[tuple[str, str]], set[str]]:
    """The fields with the stamps of all versions that somebody can see, and the observations likewise."""
    if state is None:
        return set(), set()
    versions = {(name, one) for name, found in state.fields.items() for one in found.stamps}
    texts = set(getattr(state, "observations", {}))
    for clash in state.clashes:
        if clash.field:
            versions |= {(clash.field, head) for head in clash.heads}
        for side in clash.lost:
            if not clash.field:
                versions |= {(name, side.stamp) for name in side.value.get("fields", {})}
                texts |= set(side.value.get("observations", ()))
    return versions, texts


@given(histories, st.integers(0, 2**32))
@settings(max_examples=150)
def test_order_and_repetition_do_not_matter(history: tuple[str, int, list[Any]], seed: int) -> None:
    ops = all_ops(play(history))
    shuffled = random.Random(seed).sample(ops + ops[::2], len(ops) + len(ops[::2]))
    assert merge(shuffled) == merge(ops)


@given(histories)
@settings(max_examples=150)
def test_devices_that_exchanged_everything_agree(history: tuple[str, int, list[Any]]) -> None:
    devices = play(history)
    for device in [*devices, *devices]:
        for other in devices:
            other.receive(device.ops.values())
    states = [device.state for device in devices]
    assert all(state == states[0] for state in states)


@given(histories, st.integers(0, 2**32))
@settings(max_examples=300)
def test_thinned_ops_say_the_same(history: tuple[str, int, list[Any]], seed: int) -> None:
    devices = play(history)
    ops = all_ops(devices)
    chance = random.Random(seed)
    # A snapshot is made by someone who does not know everything, either.
    thin = [thinned(one, devices[chance.randrange(len(devices))].ops.values()) for one in ops]
    mixed = [chance.choice(pair) for pair in zip(ops, thin, strict=True)]
    assert merge(mixed) == merge(ops)
    assert merge([*ops, *thin]) == merge(ops)


@given(histories)
@settings(max_examples=150)
def test_what_exists_has_a_tag_that_nobody_deleted(history: tuple[str, int, list[Any]]) -> None:
    kind = history[0]
    ops = all_ops(play(history))
    state = merge(ops)
    deleted = {dead for one in ops for dead in named_tags(one)}
    if kind == "record":
        made = any(one.kind == "record.set" for one in ops)
        exists = made and not any(one.kind == "record.delete" for one in ops)
        assert bool(state and getattr(state, "exists", False)) == exists
        return
    created = {f"{one.stamp}.0" for one in ops if one.kind.endswith(".create")}
    assert set(getattr(state, "tags", ())) == created - deleted


@given(histories)
@settings(max_examples=300)
def test_no_value_goes_unseen_unless_somebody_who_knew_it_replaced_or_deleted_it(
    history: tuple[str, int, list[Any]],
) -> None:
    devices = play(history)
    ops = {one.stamp: one for one in all_ops(devices)}
    knew = devices[0].knew
    versions, texts = shown(merge(ops.values()))
    for one in ops.values():
        knowing = [other for other in ops.values() if one.stamp in knew[other.stamp]]
        ended = any(other.kind.endswith(f"{history[0]}.delete") for other in knowing)
        for name in one.payload.get("fields", {}):
            replaced = any(name in other.payload.get("fields", {}) for other in knowing)
            assert (name, one.stamp) in versions or replaced or ended
        if one.kind == "observation.add":
            removed = any(other.kind == "observation.delete" for other in knowing)
            assert set(one.payload["observations"]) <= texts or removed or ended


@given(histories)
@settings(max_examples=100)
def test_devices_that_tell_each_other_at_once_have_no_conflicts(history: tuple[str, int, list[Any]]) -> None:
    kind, count, script = history
    told = [
        step
        for number, action, name, value, mask in script
        if not action.startswith("send")
        for step in (
            (number, action, name, value, mask),
            *((number, "send all", name, value, other) for other in range(count)),
        )
    ]
    state = play((kind, count, told))[0].state
    assert state is None or state.clashes == ()


@given(st.sampled_from(["entity", "relation"]), st.lists(actions, max_size=30))
@settings(max_examples=100)
def test_a_first_versions_own_history_has_no_conflicts_and_says_the_same(kind: str, script: list[Any]) -> None:
    old = play((kind, 1, script), first_version=True)[0].state
    new = play((kind, 1, script))[0].state
    assert old == new
    assert old is None or old.clashes == ()


@given(histories)
@settings(max_examples=100)
def test_histories_that_began_with_the_first_version_merge_too(history: tuple[str, int, list[Any]]) -> None:
    ops = all_ops(play(history, first_version=True))
    assert merge(ops[::-1]) == merge(ops)
    state = merge(ops)
    if isinstance(state, EntityState):
        assert ("entityType" in state.fields) == bool(state.tags)
