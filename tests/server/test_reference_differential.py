"""Our nine tools beside the reference memory server's, call by call, with generated sequences of calls."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.node

Call = tuple[str, dict[str, Any]]

REFERENCE_TOOLS = (
    "create_entities",
    "create_relations",
    "add_observations",
    "delete_entities",
    "delete_observations",
    "delete_relations",
    "read_graph",
    "search_nodes",
    "open_nodes",
)

# Few enough that calls meet each other's items; among them all that JSON and case folding make special.
WORDS = (
    "",
    "a",
    "A",
    "Straße",
    "STRASSE",
    "İstanbul",
    "ΟΔΟΣ",
    "οδος",
    "é",
    "e\u0301",
    "日本",
    "😀",
    "\ud83d",
    "\ude00b",
    "line\nbreak\ttab",
    '"quoted" \\ back/slash',
    "\x00\x01\x1f\x7f",
    "\u2028\u2029\ufeff",
    " a ",
    "__proto__",
)
word = st.sampled_from(WORDS) | st.text(alphabet="aAbß é😀\u0000\n", max_size=6)


def distinct(items: st.SearchStrategy[Any], key: Any = None, size: int = 3) -> st.SearchStrategy[list[Any]]:
    return st.lists(items, max_size=size, unique_by=key or (lambda item: item))


entity = st.fixed_dictionaries({"name": word, "entityType": word, "observations": distinct(word)})
relation = st.fixed_dictionaries({"from": word, "to": word, "relationType": st.sampled_from(["knows", "Is", ""])})
addition = st.fixed_dictionaries({"entityName": word, "contents": distinct(word)})
deletion = st.fixed_dictionaries({"entityName": word, "observations": distinct(word)})


def by_triple(item: dict[str, str]) -> tuple[str, ...]:
    return (item["from"], item["to"], item["relationType"])


def by_name(item: dict[str, Any]) -> str:
    return item["name"]


fitting_call = st.one_of(
    st.tuples(st.just("create_entities"), st.fixed_dictionaries({"entities": distinct(entity, by_name)})),
    st.tuples(st.just("create_relations"), st.fixed_dictionaries({"relations": distinct(relation, by_triple)})),
    st.tuples(st.just("add_observations"), st.fixed_dictionaries({"observations": st.lists(addition, max_size=3)})),
    st.tuples(st.just("delete_entities"), st.fixed_dictionaries({"entityNames": st.lists(word, max_size=2)})),
    st.tuples(st.just("delete_observations"), st.fixed_dictionaries({"deletions": st.lists(deletion, max_size=3)})),
    st.tuples(st.just("delete_relations"), st.fixed_dictionaries({"relations": st.lists(relation, max_size=2)})),
    st.tuples(st.just("read_graph"), st.just({})),
    st.tuples(st.just("search_nodes"), st.fixed_dictionaries({"query": word})),
    st.tuples(st.just("open_nodes"), st.fixed_dictionaries({"names": st.lists(word, max_size=3)})),
)

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | word,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "from", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def misfitting_call(draw: st.DrawFn) -> Call:
    """A fitting call of which one value, at any depth, is replaced, taken away, or added to."""
    name, arguments = draw(fitting_call)
    spoilt = draw(_spoilt(arguments))
    return name, spoilt if isinstance(spoilt, dict) else {**arguments, "further": spoilt}


@st.composite
def _spoilt(draw: st.DrawFn, value: Any) -> Any:
    if isinstance(value, dict) and value and draw(st.booleans()):
        key = draw(st.sampled_from(sorted(value)))
        match draw(st.sampled_from(["spoil", "drop", "add"])):
            case "drop":
                return {name: item for name, item in value.items() if name != key}
            case "add":
                return {**value, "further": draw(anything)}
            case _:
                return {**value, key: draw(_spoilt(value[key]))}
    if isinstance(value, list) and value and draw(st.booleans()):
        index = draw(st.integers(0, len(value) - 1))
        return [*value[:index], draw(_spoilt(value[index])), *value[index + 1 :]]
    return draw(anything)


calls = st.lists(st.one_of(fitting_call, fitting_call, fitting_call, misfitting_call()), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def our_server(start_process: Any, own_environment: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    import sys

    command = [sys.executable, "-m", "dualmem_mcp.server.serve"]
    server = start_process(command, own_environment(tmp_path_factory.mktemp("ours")))
    server.initialize()
    return server


def emptied(*servers: Any) -> None:
    for server in servers:
        graph = server.call("read_graph")["structuredContent"]
        server.call("delete_relations", {"relations": graph["relations"]})
        server.call("delete_entities", {"entityNames": [entity["name"] for entity in graph["entities"]]})


def test_tools_are_listed_alike(our_server: Any, reference_server: Any) -> None:
    ours = {tool["name"]: tool for tool in our_server.ask("tools/list")["result"]["tools"]}
    theirs = reference_server.ask("tools/list")["result"]["tools"]
    assert tuple(tool["name"] for tool in theirs) == REFERENCE_TOOLS
    assert tuple(ours)[: len(theirs)] == REFERENCE_TOOLS
    for tool in theirs:
        assert ours[tool["name"]] == tool


def test_resource_is_listed_and_read_alike(our_server: Any, reference_server: Any) -> None:
    emptied(our_server, reference_server)
    for server in (our_server, reference_server):
        server.call("create_entities", {"entities": [{"name": "ä", "entityType": "t", "observations": ["o"]}]})
    theirs = reference_server.ask("resources/list")["result"]["resources"]
    assert our_server.ask("resources/list")["result"]["resources"][:1] == theirs
    for uri in ("memory://knowledge-graph", "memory://other"):
        ours = our_server.ask("resources/read", {"uri": uri})
        reference = reference_server.ask("resources/read", {"uri": uri})
        assert (ours.get("result"), ours.get("error")) == (reference.get("result"), reference.get("error"))


def test_subscribers_are_told_alike(our_server: Any, reference_server: Any) -> None:
    told = []
    for server in (our_server, reference_server):
        emptied(server)
        server.notifications.clear()
        assert server.ask("resources/subscribe", {"uri": "memory://knowledge-graph"})["result"] == {}
        server.call("create_entities", {"entities": []})
        server.call("read_graph")
        server.call("add_observations", {"observations": [{"entityName": "nobody", "contents": []}]})
        server.call("delete_entities", {"entityNames": ["nobody"]})
        assert server.ask("resources/unsubscribe", {"uri": "memory://knowledge-graph"})["result"] == {}
        server.call("create_entities", {"entities": []})
        server.ask("ping")
        told.append([(message["method"], message["params"]) for message in server.notifications])
    assert told[0] == told[1]
    assert len(told[0]) == 2


@pytest.mark.parametrize("arguments", [None, {}], ids=["left out", "empty"])
@pytest.mark.parametrize("name", [*REFERENCE_TOOLS, "nope", ""])
def test_calls_without_arguments_fail_alike(
    our_server: Any, reference_server: Any, name: str, arguments: Any
) -> None:
    assert our_server.call(name, arguments) == reference_server.call(name, arguments)


@settings(max_examples=120)
@example([("search_nodes", {"query": 10**400}), ("create_entities", {"entities": [{"name": -(10**400)}]})])
@given(calls)
def test_sequences_of_calls_give_the_same_results(
    our_server: Any, reference_server: Any, sequence: list[Call]
) -> None:
    emptied(our_server, reference_server)
    for name, arguments in [*sequence, ("read_graph", {})]:
        assert our_server.call(name, arguments) == reference_server.call(name, arguments), (name, arguments)


@settings(max_examples=25)
@given(st.lists(entity, min_size=1, max_size=3), st.lists(relation, min_size=1, max_size=3), st.data())
def test_repeats_within_one_call_are_stored_once(
    our_server: Any, entities: list[Any], relations: list[Any], data: st.DataObject
) -> None:
    """The deliberate exception: the reference keeps both, and can then not tell them apart."""
    emptied(our_server)
    again = data.draw(st.permutations(entities + entities))
    created = our_server.call("create_entities", {"entities": again})["structuredContent"]["entities"]
    expected = {item["name"]: item for item in reversed(again)}
    assert [item["name"] for item in created] == list(dict.fromkeys(item["name"] for item in again))
    assert {item["name"]: item for item in created} == expected

    triples = list(dict.fromkeys(map(by_triple, relations)))
    created = our_server.call("create_relations", {"relations": relations + relations})["structuredContent"]
    assert list(map(by_triple, created["relations"])) == triples

    name = entities[0]["name"]
    addition = {"entityName": name, "contents": ["new and once", "new and once"]}
    added = our_server.call("add_observations", {"observations": [addition]})["structuredContent"]["results"]
    assert added == [{"entityName": name, "addedObservations": ["new and once"]}]
    assert our_server.call("create_entities", {"entities": entities})["structuredContent"] == {"entities": []}
