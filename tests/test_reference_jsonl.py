"""Memory files of all forms, whole and damaged."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp.errors import MalformedError
from dualmem_mcp.model.graph import Entity, Graph, Relation
from dualmem_mcp.reference_jsonl import parse_memory_file, serialise_graph

ADA = Entity("Ada", "person", ("wrote notes", "née Byron"))
ENGINE = Entity("Engine", "machine")
STUDIES = Relation("Ada", "Engine", "studies")
GRAPH = Graph((ADA, ENGINE), (STUDIES,))

# As the reference server 2026.8.31 wrote it.
REFERENCE_BYTES = (
    '{"type":"entity","name":"Ada","entityType":"person","observations":["wrote notes","née Byron"]}\n'
    '{"type":"entity","name":"Engine","entityType":"machine","observations":[]}\n'
    '{"type":"relation","from":"Ada","to":"Engine","relationType":"studies"}'
).encode()

texts = st.text(st.characters(codec=None, categories=None), max_size=12)
extras = st.dictionaries(
    texts.filter(
        lambda key: (
            key not in {"type", "name", "entityType", "entity_type", "observations", "from", "to", "relationType"}
            and key != "relation_type"
        )
    ),
    st.none() | st.booleans() | st.integers() | texts | st.lists(texts, max_size=2),
    max_size=2,
)
entities = st.builds(Entity, texts, texts, st.lists(texts, max_size=3).map(tuple), extras)
relations = st.builds(Relation, texts, texts, texts, extras)
graphs = st.builds(Graph, st.lists(entities, max_size=4).map(tuple), st.lists(relations, max_size=4).map(tuple))


def serialise(graph: Graph) -> bytes:
    return b"".join(serialise_graph(graph))


def test_reads_and_writes_the_reference_servers_bytes() -> None:
    content = parse_memory_file(REFERENCE_BYTES)
    assert (content.graph, content.form, content.faithful) == (GRAPH, "jsonl", True)
    assert serialise(GRAPH) == REFERENCE_BYTES


def test_escapes_as_javascript_does() -> None:
    odd = 'quote " back \\ tab \t del \x7f unit \x1f null \0 line \u2028 half \ud83d emoji 😀 slash /'
    # From JSON.stringify of Node.js 20.
    expected = (
        '"quote \\" back \\\\ tab \\t del \x7f unit \\u001f null \\u0000 line \u2028 half \\ud83d emoji 😀 slash /"'
    )
    assert expected.encode() in serialise(Graph((Entity(odd, "t"),)))


@given(graphs)
def test_what_was_written_is_read_again(graph: Graph) -> None:
    content = parse_memory_file(serialise(graph))
    assert content.graph == graph
    assert content.faithful
    assert not content.warnings


def test_one_document_with_lists() -> None:
    document = {
        "entities": [{"name": "Ada", "entityType": "person", "observations": ["wrote notes"], "mood": 3}],
        "relations": [{"from": "Ada", "to": "Engine", "relationType": "studies", "since": "1842"}],
    }
    for indent in (None, 2):
        content = parse_memory_file(json.dumps(document, indent=indent).encode())
        assert content.form == "lists"
        assert content.graph == Graph(
            (Entity("Ada", "person", ("wrote notes",), {"mood": 3}),),
            (Relation("Ada", "Engine", "studies", {"since": "1842"}),),
        )
        assert not content.warnings
        assert not content.faithful  # the file is rewritten in another form


def test_one_document_keyed_by_name() -> None:
    times = {"created_at": "2025-07-01T08:00:00Z", "updated_at": "2025-07-02T08:00:00Z"}
    document = {
        "entities": {
            "Ada": {"name": "Ada", "entityType": "person", "observations": ["wrote notes"], **times},
            "Engine": {"type": "machine", "observations": [], **times},
            "Notes": {"entity_type": "text", "observations": ["G"]},
        },
        "relations": [{"from": "Ada", "to": "Engine", "relation_type": "studies", **times}],
    }
    content = parse_memory_file(json.dumps(document).encode())
    assert content.form == "mapping"
    assert content.graph == Graph(
        (
            Entity("Ada", "person", ("wrote notes",), times),
            Entity("Engine", "machine", (), times),
            Entity("Notes", "text", ("G",)),
        ),
        (Relation("Ada", "Engine", "studies", times),),
    )
    assert not content.warnings


def test_unknown_fields_are_written_back() -> None:
    line = b'{"type":"entity","name":"a","entityType":"t","observations":[],"at":"2025","n":{"x":[1,null,true]}}'
    assert serialise(parse_memory_file(line).graph) == line


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_other_encodings(encoding: str) -> None:
    data = REFERENCE_BYTES.decode().encode(encoding)
    assert parse_memory_file(data).graph == GRAPH


@pytest.mark.parametrize("separator", [b"\r\n", b"\n\n  \n"])
def test_other_line_breaks(separator: bytes) -> None:
    assert parse_memory_file(REFERENCE_BYTES.replace(b"\n", separator) + separator).graph == GRAPH


def test_a_line_break_of_unicode_does_not_end_a_line() -> None:
    graph = Graph((Entity("a\u2028b\x85c\x0cd", "t"),))
    assert parse_memory_file(serialise(graph)).graph == graph


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b'{"type":"entity","name":"secret', "not a JSON object"),
        (b"\0\0\0\0\0\0\0\0", "not a JSON object"),
        (b"[1, 2]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'{"type":"entity","entityType":"secret","observations":[]}', "without a name"),
        (b'{"type":"entity","name":7,"entityType":"secret","observations":[]}', "without a name"),
        (b'{"type":"relation","from":"secret","to":"b"}', "without from, to or type"),
        (b'{"type":"note","text":"secret"}', "neither an entity nor a relation"),
        (b'{"type":"entity","name":"secret","entityType":"t","observations":[],"x":NaN}', "not a JSON object"),
        (b'{"type":"entity","name":"secret","entityType":"t","observations":[],"x":1e999}', "not a JSON object"),
        (b'{"type":"entity","name":"secret","x":' + b"[" * 100_000, "not a JSON object"),
        (b'{"type":"entity","name":"secret","x":' + b"9" * 10_000 + b"}", "not a JSON object"),
    ],
)
def test_a_bad_line_is_reported_by_number_and_skipped(line: bytes, what: str) -> None:
    head, tail = REFERENCE_BYTES.split(b"\n", 1)
    content = parse_memory_file(head + b"\n" + line + b"\n" + tail)
    assert content.graph == GRAPH
    assert content.skipped == 1
    assert not content.faithful
    (warning,) = content.warnings
    assert warning.startswith("line 2: ")
    assert what in warning
    assert "secret" not in warning


def test_wrong_types_are_kept_as_they_can_be() -> None:
    content = parse_memory_file(
        b'{"type":"entity","name":"a","entityType":null,"observations":["x",{"y":1},2]}\n'
        b'{"type":"entity","name":"b","observations":"alone"}\n'
        b'{"type":"entity","name":"c","entityType":"t"}'
    )
    assert content.graph.entities == (
        Entity("a", "null", ("x", '{"y":1}', "2")),
        Entity("b", "", ("alone",)),
        Entity("c", "t"),
    )
    assert content.skipped == 0
    assert not content.faithful
    assert len(content.warnings) == 4


def test_bytes_that_are_no_utf8_are_replaced_as_the_reference_does() -> None:
    content = parse_memory_file(b'{"type":"entity","name":"caf\xe9","entityType":"t","observations":[]}')
    assert content.graph.entities[0].name == "caf\ufffd"
    assert not content.faithful


def test_fields_without_a_place_in_the_file_are_reported() -> None:
    deep = "[" * 70 + "]" * 70
    content = parse_memory_file(
        f'{{"entities":[{{"name":"a","entityType":"t","type":"z","observations":[],"deep":{deep}}}],"version":2}}'.encode()
    )
    assert content.graph.entities == (Entity("a", "t"),)
    assert len(content.warnings) == 3


@pytest.mark.parametrize("depth", [70, 980, 985, 989, 990, 995, 100_000])
def test_texts_nested_too_deep_are_reported_and_not_taken(depth: int) -> None:
    deep = "[" * depth + "]" * depth
    content = parse_memory_file(
        f"""{{"type":"entity","name":"a","entityType":{deep},"observations":["x"]}}
{{"type":"entity","name":"b","entityType":"t","observations":["x",{deep},"y"]}}
{{"type":"entity","name":"c","entityType":"t","observations":{deep}}}
{{"type":"entity","name":"d","entityType":"t","observations":[]}}""".encode()
    )
    # Where the parser gives up, too, the whole line is reported.
    texts = {entity.name: (entity.entity_type, entity.observations) for entity in content.graph.entities}
    assert texts.items() <= {"a": ("", ("x",)), "b": ("t", ("x", "y")), "c": ("t", ()), "d": ("t", ())}.items()
    assert "d" in texts
    assert len(content.warnings) == 3


def test_a_document_whose_parts_are_wrong_is_read_as_far_as_it_goes() -> None:
    document = {
        "entities": {"a": {"entityType": "t", "observations": ["x"]}, "b": 3, "c": ["y"]},
        "relations": [1, {}],
    }
    content = parse_memory_file(json.dumps(document).encode())
    assert [(entity.name, entity.observations) for entity in content.graph.entities] == [
        ("a", ("x",)),
        ("c", ("y",)),
    ]
    assert content.skipped == 3


def test_warnings_are_bounded() -> None:
    content = parse_memory_file(REFERENCE_BYTES + b"\n?" * 1000)
    assert content.skipped == 1000
    assert len(content.warnings) == 21
    assert content.warnings[-1] == "and 980 more like these"


@pytest.mark.parametrize(
    "data", [b"\x89PNG\r\n\x1a\n\0\0\0", b"hello\nworld", b"[1]", b"{}", b'{"a":1}', b'"text"']
)
def test_a_file_of_another_kind_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_memory_file(data)


@pytest.mark.parametrize("data", [b"", b"\n", b" \n\t\n", b'{"entities":[],"relations":[]}', b'{"entities":{}}'])
def test_an_empty_file_is_an_empty_graph(data: bytes) -> None:
    assert parse_memory_file(data).graph == Graph()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "type",
                    "name",
                    "entityType",
                    "observations",
                    "from",
                    "to",
                    "relationType",
                    "entities",
                    "relations",
                    "x",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=15,
)


@given(st.lists(json_values.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=30), max_size=5))
def test_nothing_raises_but_malformed_error(lines: list[bytes]) -> None:
    try:
        content = parse_memory_file(b"\n".join(lines))
    except MalformedError:
        return
    # What was read can be written, and is then read the same.
    again = parse_memory_file(serialise(content.graph))
    assert again.graph == content.graph
