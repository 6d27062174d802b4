"""Branches: devices that went on from one turn, told from rests of answers and prompts taken back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp.model.branches import HandoffPlace, TurnLink, TurnTree
from dualmem_mcp.model.source import PROGRESS

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def turn(uuid: str, parent: str | None, minute: int, device: str = "desk", role: str = "user", **more) -> TurnLink:
    return TurnLink(uuid, parent, role, NOON + timedelta(minutes=minute), device, **more)


def phone(uuid: str, parent: str | None, minute: int, device: str = "pocket", role: str = "user") -> TurnLink:
    return turn(uuid, parent, minute, device, role, origin=PROGRESS)


DESK = [
    turn("a", None, 0),
    turn("b", "a", 1, role="assistant"),
    turn("c", "b", 2),
    turn("d", "c", 3, role="assistant"),
]
HANDED_OVER = HandoffPlace("d", "desk", NOON + timedelta(minutes=4))


def shape(tree: TurnTree) -> list[tuple[str, int, tuple[str, ...]]]:
    return [("/".join(one.devices), one.turns, one.uuids) for one in tree.branches()]


def test_one_way_through_is_no_branch() -> None:
    tree = TurnTree([*DESK, phone("p", "d", 10), phone("q", "p", 11, role="assistant")])
    assert tree.branches() == ()
    assert tree.ways() == (("a", "b", "c", "d", "p", "q"),)
    assert tree.newest() == "q"


def test_two_that_went_on_are_two_branches_the_newest_first() -> None:
    tree = TurnTree([*DESK, turn("e", "d", 5), turn("f", "e", 6, role="assistant"), phone("p", "d", 10)])
    assert shape(tree) == [("pocket", 1, ("p",)), ("desk", 2, ("e", "f"))]
    newest, other = tree.branches()
    assert (newest.newest, other.newest) == (True, False)
    assert (other.first_at, other.last_at) == (NOON + timedelta(minutes=5), NOON + timedelta(minutes=6))
    assert other.to_json()["last_turn"] == "f"


def test_the_rest_of_an_answer_is_no_branch() -> None:
    tail = [
        turn("e", "d", 5, spoken=False),
        turn("f", "e", 6, role="assistant"),
        turn("g", "f", 7, origin="slash-command"),
    ]
    tree = TurnTree([*DESK, *tail, phone("p", "d", 10)])
    assert tree.branches() == ()
    assert tree.newest() == "p"


def test_prompts_that_were_taken_back_are_no_branch() -> None:
    tree = TurnTree([*DESK, turn("x", "b", 4), turn("y", "x", 5, role="assistant")])
    assert tree.branches() == ()
    assert tree.newest() == "y"


def test_a_branch_that_was_gone_on_with_elsewhere_is_one() -> None:
    tree = TurnTree([*DESK, phone("p", "d", 10), phone("q", "p", 20, device="tablet"), turn("e", "d", 15)])
    assert shape(tree) == [("pocket/tablet", 2, ("p", "q")), ("desk", 1, ("e",))]


def test_what_was_woven_back_and_gone_on_with_is_no_branch() -> None:
    tree = TurnTree([*DESK, phone("p", "d", 10), turn("e", "p", 20), turn("f", "e", 21, role="assistant")])
    assert tree.branches() == ()


def test_a_late_word_of_a_chat_left_open_is_a_branch() -> None:
    tree = TurnTree([*DESK, phone("p", "d", 10), turn("e", "p", 20), phone("q", "p", 30)])
    assert shape(tree) == [("pocket", 1, ("q",)), ("desk", 1, ("e",))]


def test_three_ways_meet_at_their_last_common_turn() -> None:
    links = [
        *DESK,
        phone("p", "d", 10),
        phone("q", "p", 11),
        phone("t", "p", 12, device="tablet"),
        turn("e", "d", 5),
    ]
    assert shape(TurnTree(links)) == [
        ("pocket/tablet", 2, ("p", "t")),
        ("pocket", 2, ("p", "q")),
        ("desk", 1, ("e",)),
    ]


def test_a_turn_whose_parent_is_not_here_follows_on_its_device() -> None:
    tree = TurnTree([*DESK, phone("p", "d", 10), turn("e", "a-hook", 20)])
    assert tree.parents["e"] == "d"
    assert len(tree.branches()) == 2


def test_a_handoff_whose_turns_are_not_here_holds_the_ways_together() -> None:
    tree = TurnTree([phone("p", "d", 10), phone("q", "d", 12, device="tablet")], [HANDED_OVER])
    assert shape(tree) == [("tablet", 1, ("q",)), ("pocket", 1, ("p",))]
    assert tree.path("p") == ["d", "p"]


def test_a_conversation_that_began_on_the_phone_has_its_first_turn_there() -> None:
    tree = TurnTree([phone("p", None, 0), phone("q", "p", 1, role="assistant")])
    assert tree.path("q") == ["p", "q"]
    assert tree.parents["p"] is None


def test_since_a_handoff_comes_what_follows_on_it() -> None:
    tree = TurnTree([*DESK, turn("e", "d", 5), phone("p", "d", 10)], [HANDED_OVER])
    assert tree.since(HANDED_OVER) == ["e", "p"]


def test_since_a_handoff_comes_what_hangs_elsewhere_but_is_younger() -> None:
    tree = TurnTree([*DESK, turn("x", "b", 5)])
    assert tree.since(HANDED_OVER) == ["x"]
    before = TurnTree([*DESK, turn("x", "b", 1)])
    assert before.since(HANDED_OVER) == []


def test_since_a_later_handoff_comes_the_branch_that_it_does_not_have() -> None:
    later = HandoffPlace("f", "desk", NOON + timedelta(minutes=60))
    tree = TurnTree(
        [*DESK, turn("e", "d", 50), turn("f", "e", 51, role="assistant"), phone("p", "d", 10)], [HANDED_OVER, later]
    )
    assert tree.since(later) == ["p"]
    assert tree.newest(below="f") == "f"


def test_nothing_is_an_empty_tree() -> None:
    tree = TurnTree([])
    assert (tree.branches(), tree.ways(), tree.newest(), tree.path("x")) == ((), (), None, [])
    assert tree.since(HANDED_OVER) == []


def test_a_circle_ends() -> None:
    tree = TurnTree([turn("a", "b", 0), turn("b", "a", 1), phone("p", "q", 2), phone("q", "p", 3)])
    assert set(tree.path("a")) == {"a", "b"}
    assert tree.branches() is not None
    assert tree.since(HandoffPlace("a", "desk", NOON)) == ["p", "q"]


links = st.lists(
    st.builds(
        TurnLink,
        uuid=st.sampled_from("abcdefgh"),
        parent_uuid=st.sampled_from([None, *"abcdefghx"]),
        role=st.sampled_from(["user", "assistant"]),
        timestamp=st.one_of(st.none(), st.integers(0, 20).map(lambda minute: NOON + timedelta(minutes=minute))),
        device=st.sampled_from(["desk", "pocket", ""]),
        origin=st.sampled_from(["", PROGRESS]),
    ),
    max_size=10,
)


@given(links)
def test_whatever_comes_branches_share_nothing_but_what_all_share(some: list[TurnLink]) -> None:
    tree = TurnTree(some)
    ways = tree.ways()
    assert all(way for way in ways)
    assert all(len(set(way)) == len(way) for way in ways)
    branches = tree.branches()
    assert len(branches) != 1
    assert [one.newest for one in branches] == [True, *[False] * (len(branches) - 1)][: len(branches)]
    assert not set.intersection(*(set(one.uuids[:1]) for one in branches)) if branches else True
    new = tree.since(HANDED_OVER)
    assert len(set(new)) == len(new)
    assert {uuid for one in branches for uuid in one.uuids} - set(tree.path("d")) <= set(new)
