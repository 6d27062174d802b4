"""A search that looks beyond its device: when the tiers are asked, and how what they offer is ranked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dualmem_mcp.errors import StoreUnreachableError
from dualmem_mcp.model.ids import ConversationId
from dualmem_mcp.model.search import COLLECTION_OF, Collection, Filter, SearchItem, item_key
from dualmem_mcp.model.tiers import TierName
from dualmem_mcp.model.words import words
from dualmem_mcp.ports.tier_search import PATIENCE_SECONDS, TierAnswer, TierCandidate
from dualmem_mcp.search.beyond import Beyond
from dualmem_mcp.search.search import CACHE_TIER, INDEX_TIER, Found, search
from dualmem_mcp.search.working_set import WorkingSet
from dualmem_mcp.stores.search_index import SqliteSearchIndex, open_search_index
from dualmem_mcp.stores.stems import Stemmer

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
D = 64
MODEL = "words"

TALK = (
    ("Ada", "Where do we moor the cutter tonight?"),
    ("Bo", "At the north quay, the harbour master said so."),
    ("Ada", "And the broken winch, can it wait until spring?"),
    ("Bo", "The winch needs a new pawl, I ordered one from Kiel last week."),
    ("Ada", "Good. The sails are dry and folded in the shed."),
    ("Bo", "Then we paint the hull on Saturday, green below the line."),
    ("Ada", "Is there enough paint left of last year?"),
    ("Bo", "Two buckets, and one of varnish for the mast."),
)


def embed(text: str) -> NDArray[np.float32]:
    """Near for texts with common words."""
    total = np.zeros(D)
    for word in words(text):
        seed = int.from_bytes(hashlib.sha256(word[:4].encode()).digest()[:4])
        total += np.random.default_rng(seed).normal(size=D)
    return (total / (np.linalg.norm(total) or 1)).astype(np.float32)


def turn(conversation: str, number: int, text: str, author: str = "Ada", minutes: int = 0) -> SearchItem:
    key = item_key("turn", conversation, str(number))
    at = NOON + timedelta(minutes=number + minutes)
    return SearchItem(key, "turn", text, conversation, str(number), author, at)


def talk(conversation: str = "boat") -> list[SearchItem]:
    later = sum(conversation.encode())
    return [turn(conversation, number, text, author, later) for number, (author, text) in enumerate(TALK)]


def note(name: str, text: str) -> SearchItem:
    return SearchItem(item_key("note", "boat", name), "note", text, "boat", "", "user", NOON)


def candidate(item: SearchItem, previous: SearchItem | None = None, **fields: Any) -> TierCandidate:
    usual = {"passage": 0, "vector": embed(item.text), "previous": previous.key if previous else ""}
    return TierCandidate(item, **{**usual, **fields})


def candidates(items: Sequence[SearchItem]) -> list[TierCandidate]:
    return [
        candidate(item, before) for before, item in zip([None, *items], items, strict=False) if item.kind == "turn"
    ] + [candidate(item) for item in items if item.kind != "turn"]


class Tiers:
    """Tiers that answer what they are told to; `late` ones after so many seconds of a clock that waiting moves."""

    def __init__(
        self,
        held: Mapping[TierName, Sequence[TierCandidate]] | None = None,
        *,
        late: Mapping[TierName, float] | None = None,
        problems: Mapping[TierName, str] | None = None,
        more: bool = False,
        passed_over: int = 0,
    ) -> None:
        self.held = held or {}
        self.late = late or {}
        self.problems = problems or {}
        self.more = more
        self.passed_over = passed_over
        self.asked: list[tuple[bool, tuple[str, ...]]] = []
        self.waited = 0.0
        self.dropped = 0

    def warm_up(self, wait_seconds: float = 0.0) -> None:
        """Nothing to connect to."""

    def ask(self, vector: NDArray[np.float32] | None, stems: Sequence[str]) -> Tiers:
        self.asked.append((vector is not None, tuple(stems)))
        return self

    def holds_more(self) -> bool:
        return self.more

    def drop(self) -> None:
        self.dropped += 1

    def wait(self, tiers: Sequence[TierName], seconds: float) -> dict[TierName, TierAnswer]:
        until = max(min(self.late.get(name, 0.0), seconds) for name in tiers)
        self.waited = max(self.waited, until)
        found = {}
        for name in tiers:
            if self.late.get(name, 0.0) > seconds:
                found[name] = TierAnswer(name, (), seconds * 1000, "late")
            else:
                held = tuple(self.held.get(name, ()))
                found[name] = TierAnswer(name, held, 5.0, self.problems.get(name, ""), self.passed_over)
        return found


@pytest.fixture(scope="module")
def stemmer() -> Iterator[Stemmer]:
    made = Stemmer()
    yield made
    made.close()


@pytest.fixture
def indexes(tmp_path: Path) -> Iterator[dict[Collection, SqliteSearchIndex]]:
    opened = {one: open_search_index(tmp_path / one.value, bytes(32), one) for one in Collection}
    for index in opened.values():
        index.use_model(MODEL, D)
    yield opened
    for index in opened.values():
        index.close()


Indexes = dict[Collection, SqliteSearchIndex]


def fill(indexes: Indexes, items: Sequence[SearchItem], *, vectors: bool = True) -> None:
    for item in items:
        indexes[COLLECTION_OF[item.kind]].put([item])
    for index in indexes.values() if vectors else ():
        waiting = index.unembedded(1_000)
        index.put_vectors(MODEL, [(one.id, embed(one.item.text)[None]) for one in waiting])


def ask(indexes: Mapping[Collection, SqliteSearchIndex], tiers: Tiers | None, query: str, **given: Any) -> Found:
    stemmer, eager = given.pop("stemmer", None) or Stemmer(), given.pop("eager", False)
    gone = given.pop("gone", frozenset())
    beyond = Beyond(tiers, stemmer, lambda _: gone, eager=eager) if tiers is not None else None
    usual: dict[str, Any] = {
        "limit": 5,
        "token_budget": 10_000,
        "working_set": None,
        "embed": embed,
        "now": NOON + timedelta(days=400),
    }
    where = given.pop("where", Filter())
    return search(query, where, indexes=indexes, beyond=beyond, **{**usual, **given})


def keys(found: Found) -> list[str]:
    return [result.item.key for result in found.results]


def told(found: Found) -> dict[str, tuple[int, str]]:
    return {tier.name: (tier.results, tier.problem) for tier in found.tiers}


# When the tiers are asked


def test_what_is_answered_well_here_is_asked_nowhere_else(indexes: Indexes) -> None:
    fill(indexes, talk())
    tiers = Tiers()
    alone = ask(indexes, None, "broken winch")
    with_tiers = ask(indexes, tiers, "broken winch")
    assert (tiers.asked, with_tiers.results, list(told(with_tiers))) == ([], alone.results, [INDEX_TIER])


@pytest.mark.parametrize("query", ["quantum entanglement", "Which opera did Verdi write?"])
def test_a_weak_answer_has_the_tiers_asked(indexes: Indexes, query: str) -> None:
    fill(indexes, talk())
    elsewhere = turn("physics", 1, "Quantum entanglement; Verdi did write which opera")
    tiers = Tiers({"context": [candidate(elsewhere)]})
    found = ask(indexes, tiers, query)
    assert len(tiers.asked) == 1
    assert keys(found)[0] == elsewhere.key
    assert told(found)["context"] == (1, "")
    assert told(found)[INDEX_TIER][0] == len(found.results) - 1


@pytest.mark.parametrize("why", ["eager", "more", "no model"])
def test_the_tiers_are_asked_where_not_all_is_here(indexes: Indexes, why: str) -> None:
    fill(indexes, talk())
    tiers = Tiers(more=why == "more")
    given = {"embed": lambda _: None} if why == "no model" else {}
    found = ask(indexes, tiers, "broken winch", eager=why == "eager", **given)
    assert [has_vector for has_vector, _ in tiers.asked] == [why != "no model"]
    assert set(tiers.asked[0][1]) == {"broken", "winch"}
    assert set(told(found)) == {INDEX_TIER, "critical", "context", "historical"}
    assert tiers.dropped == 1


def test_nothing_to_ask_is_not_asked(indexes: Indexes) -> None:
    tiers = Tiers()
    found = ask(indexes, tiers, "  ", eager=True)
    assert (tiers.asked, found.results, found.failures) == ([], [], [])


def test_history_is_waited_for_only_while_the_answer_is_weak_or_short() -> None:
    near = {"critical": candidates(talk())}
    late = {"historical": 1.0}
    strong = Tiers(near, late=late)
    assert "historical" not in told(ask({}, strong, "broken winch", eager=True))
    assert strong.waited == PATIENCE_SECONDS["critical"]
    weak = Tiers({**near, "historical": [candidate(turn("x", 1, "Verdi"))]}, late=late)
    assert keys(ask({}, weak, "Verdi", eager=True))[0] == "turn/x/1"
    assert weak.waited == 1.0
    short = Tiers(near, late=late)
    ask({}, short, "broken winch", eager=True, limit=20)
    assert short.waited == 1.0


def test_what_was_late_for_the_quick_wait_still_counts_in_the_long_one() -> None:
    tiers = Tiers({"context": [candidate(turn("x", 1, "Verdi"))]}, late={"context": 0.5, "historical": 9.0})
    found = ask({}, tiers, "Verdi", eager=True)
    assert keys(found) == ["turn/x/1"]
    assert told(found) == {INDEX_TIER: (0, ""), "critical": (0, ""), "context": (1, ""), "historical": (0, "late")}


def test_tiers_that_fail_leave_the_others_and_the_index(indexes: Indexes) -> None:
    fill(indexes, talk()[:4])
    tiers = Tiers(
        {"context": candidates(talk("kiln"))[4:]},
        problems={"critical": "Qdrant cannot be reached", "historical": "left alone"},
        passed_over=2,
    )
    found = ask(indexes, tiers, "paint the hull", eager=True, limit=12)
    assert {key.split("/")[1] for key in keys(found)} == {"boat", "kiln"}
    assert told(found)["critical"] == (0, "Qdrant cannot be reached")
    assert found.unopened == 6
    assert found.failures == []


# How it is ranked


QUESTIONS = (
    "broken winch",
    "Where is the cutter moored?",
    "What did Bo order from Kiel?",
    "paint for the hull",
    "How many buckets of paint?",
    "When do we paint?",
    "varnish",
)


def everything() -> list[SearchItem]:
    notes = [note("1", "Sell the cutter in autumn."), note("2", "Varnish dries for two days")]
    entity = SearchItem("entity/cutter", "entity", "cutter (boat)\noak, eight metres", timestamp=NOON)
    return [*talk(), *notes, entity]


@pytest.mark.parametrize("query", QUESTIONS)
def test_a_device_without_anything_finds_what_a_full_one_does(indexes: Indexes, query: str) -> None:
    fill(indexes, everything())
    whole = ask(indexes, None, query, limit=8)
    tiers = Tiers({"historical": candidates(everything())})
    beyond = ask({}, tiers, query, limit=8, eager=True)
    assert keys(beyond)[0] == keys(whole)[0]
    assert len(set(keys(beyond)) & set(keys(whole))) >= 7
    assert {name for name, (results, _) in told(beyond).items() if results} == {"historical"}


def test_what_was_said_before_and_after_counts_here_and_there(indexes: Indexes) -> None:
    """The second half of a talk is only in the tiers, and its first turn answers the last one that is here."""
    said = [
        turn("talk", 1, "Nothing much happened on that day, nothing at all, dear."),
        turn("talk", 2, "Who then has the key of the lighthouse?"),
        turn("talk", 3, "Old Hansen keeps everything of that kind at home.", "Bo"),
        turn("talk", 4, "Splendid, many thanks and a very good night to all.", "Bo"),
    ]
    others = [turn(f"other{n}", n, f"Old Hansen keeps everything of kind {n} at home.", "Bo") for n in range(3)]
    fill(indexes, [*said[:2], *others])
    tiers = Tiers({"context": [candidate(said[2], said[1]), candidate(said[3], said[2])]})
    found = ask(indexes, tiers, "key of the lighthouse", eager=True, limit=2)
    assert keys(found) == [said[1].key, said[2].key]


def test_an_item_that_is_here_is_shown_as_it_is_here(indexes: Indexes) -> None:
    fill(indexes, [note("1", "The winch is mended.")])
    tiers = Tiers(
        {"context": [candidate(note("1", "The winch is broken, the winch!")), candidate(note("2", "winch"))]}
    )
    found = ask(indexes, tiers, "winch", eager=True)
    assert {result.item.key: result.text for result in found.results} == {
        "note/boat/1": "The winch is mended.",
        "note/boat/2": "winch",
    }
    assert told(found)["context"] == (1, "")


def test_what_has_no_vector_here_is_found_by_that_of_the_tiers(indexes: Indexes) -> None:
    fill(indexes, talk(), vectors=False)
    hidden = turn("boat", 20, "Completely unrelated letters")
    fill(indexes, [hidden], vectors=False)
    tiers = Tiers({"context": [candidate(hidden, vector=embed("lighthouse keeper"))]})
    assert hidden.key not in keys(ask(indexes, None, "lighthouse keeper"))
    found = ask(indexes, tiers, "lighthouse keeper", eager=True)
    assert keys(found)[0] == hidden.key
    assert told(found)["context"] == (0, "")


def test_with_a_vector_here_that_of_the_tiers_does_not_count(indexes: Indexes) -> None:
    fill(indexes, talk())
    tiers = Tiers({"context": [candidate(talk()[0], vector=embed("lighthouse keeper"))]})
    found = ask(indexes, tiers, "lighthouse keeper", eager=True)
    assert [result.score for result in found.results] == [
        result.score for result in ask(indexes, None, "lighthouse keeper").results
    ]


def test_a_filter_holds_for_what_the_tiers_offer() -> None:
    tiers = Tiers({"critical": candidates([*talk("boat"), *talk("kiln"), note("1", "the broken winch")])})
    for where, expected in (
        (Filter(conversation_id=ConversationId("kiln")), {"turn/kiln"}),
        (Filter(author="bo"), {"turn/boat", "turn/kiln"}),
        (Filter(collections=(Collection.CONTEXT,)), {"note/boat"}),
        (Filter(until=NOON), set()),
    ):
        found = ask({}, tiers, "broken winch", eager=True, where=where, limit=30)
        assert {key.rpartition("/")[0] for key in keys(found)} == expected
        if where.author:
            assert {result.item.author for result in found.results} == {"Bo"}


def test_what_is_known_to_be_gone_does_not_come_back() -> None:
    tiers = Tiers({"critical": candidates(talk())})
    gone = frozenset({"turn/boat/2", "turn/boat/3"})
    found = ask({}, tiers, "broken winch", eager=True, gone=gone, limit=20)
    assert len(found.results) == len(TALK) - 2
    assert not gone & set(keys(found))


def test_while_nobody_can_tell_what_is_gone_nothing_of_the_tiers_is_shown(
    indexes: Indexes, stemmer: Stemmer
) -> None:
    fill(indexes, talk())

    def fails(_: Sequence[SearchItem]) -> frozenset[str]:
        raise StoreUnreachableError("the disk has failed")

    tiers = Tiers({"critical": [candidate(note("1", "the broken winch"))]})
    found = search(
        "broken winch",
        Filter(),
        limit=10,
        token_budget=10_000,
        indexes=indexes,
        working_set=None,
        embed=embed,
        now=NOON,
        beyond=Beyond(tiers, stemmer, fails, eager=True),
    )
    assert "note/boat/1" not in keys(found)
    assert len(found.results) == len(TALK)
    assert found.failures == ["the disk has failed"]


def test_persons_whom_only_the_tiers_know_are_known_to_the_query() -> None:
    said = [
        turn("talk", 1, "I bought a ladder", "Mirela"),
        turn("talk2", 1, "I bought a ladder", "Radu"),
        turn("talk3", 1, "Mirela, Mirela, Mirela!", "Radu"),
    ]
    asked = []

    def noting(text: str) -> NDArray[np.float32]:
        asked.append(text)
        return embed(text)

    tiers = Tiers({"critical": [candidate(item) for item in said]})
    found = ask({}, tiers, "What did Mirela buy? A ladder?", eager=True, embed=noting)
    assert asked[1] == "What did I buy? A ladder?"
    assert keys(found)[0] == "turn/talk/1"


def test_one_item_in_two_tiers_and_several_passages_comes_once_with_its_whole_text() -> None:
    whole = turn("boat", 1, "The winch is broken. " * 30)
    part = replace(whole, text="The winch is broken.")
    tiers = Tiers(
        {
            "critical": [candidate(part, passage=2), candidate(whole)],
            "historical": [candidate(whole), candidate(part, passage=1)],
        }
    )
    found = ask({}, tiers, "winch", eager=True)
    assert [result.item for result in found.results] == [whole]
    assert told(found)["critical"] == (1, "")


def test_an_index_that_fails_meanwhile_leaves_what_the_tiers_offer(
    indexes: Indexes, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(indexes, everything())
    reader = type(indexes[Collection.CONTEXT])

    def fail(self: Any, *arguments: Any) -> Any:
        if self.collection is Collection.CONTEXT:
            raise StoreUnreachableError("the disk has failed")
        return whole(self, *arguments)

    whole = reader.__mro__[1].statistics
    monkeypatch.setattr(reader.__mro__[1], "statistics", fail)
    tiers = Tiers({"context": [candidate(note("7", "cutter"))]})
    found = ask(indexes, tiers, "cutter", eager=True, limit=20)
    assert found.failures == ["the disk has failed"]
    assert "note/boat/7" in keys(found)
    assert "note/boat/1" not in keys(found)
    assert "turn/boat/0" in keys(found)


# The working set of a small device


def test_what_the_tiers_gave_is_at_hand_when_they_are_away() -> None:
    cache = WorkingSet(10)
    tiers = Tiers({"context": candidates(talk())})
    first = ask({}, tiers, "broken winch", eager=True, working_set=cache)
    assert told(first)[CACHE_TIER] == (0, "")
    away = Tiers(problems=dict.fromkeys(PATIENCE_SECONDS, "Qdrant cannot be reached"))
    again = ask({}, away, "broken winch", eager=True, working_set=cache)
    assert keys(again)[0] == keys(first)[0]
    entry = cache.entries([keys(first)[0]])[0]
    assert entry.vector == pytest.approx(embed(entry.item.text))


def test_what_is_at_hand_is_ranked_with_what_the_tiers_offer() -> None:
    cache = WorkingSet(10)
    kept = turn("old", 1, "A broken winch from long ago")
    cache.use(kept, embed(kept.text), 0.5)
    tiers = Tiers({"context": candidates(talk())})
    found = ask({}, tiers, "broken winch", eager=True, working_set=cache)
    assert kept.key in keys(found)[:2]
    assert len(found.results) == 5
