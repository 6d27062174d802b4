"""Reading a file line by line: whatever stands in it, nothing raises and nothing is lost silently."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dualmem_mcp.errors import MalformedError, NotFoundError
from dualmem_mcp.sample import write_sample_session
from dualmem_mcp.transcripts import records
from dualmem_mcp.transcripts.claude_code import read_session
from dualmem_mcp.transcripts.json_values import MAX_DEPTH

_KEYS = """
    type uuid parentUuid logicalParentUuid isSidechain isMeta isCompactSummary isApiErrorMessage sessionId cwd
    gitBranch version timestamp message toolUseResult permissionMode origin agentId subtype compactMetadata
    attachment data parentToolUseID operation content summary leafUuid prUrl prNumber lastPrompt aiTitle
    customTitle role model id usage preservedMessages preservedSegment anchorUuid uuids headUuid tailUuid prompt
    text thinking tool_use_id name input is_error input_tokens isAsync status task plan filePath file
""".split()  # noqa: SIM905 - a list of one word a line says no more
_WORDS = """
    user assistant system attachment progress summary queue-operation pr-link text thinking tool_use tool_result
    image compact_boundary queued_command agent_progress enqueue Task Agent async_launched a b c r0 r1 r2
""".split()  # noqa: SIM905
_keys = st.sampled_from(_KEYS)
_values = st.one_of(
    st.sampled_from(_WORDS),
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(), max_size=8),
)
_json = st.recursive(
    _values, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_keys, inner, max_size=6), max_leaves=25
)
_record = st.dictionaries(_keys, _json, max_size=10)


def _chained(record, number):
    """Most of a record right, so that the odd parts reach the code behind the first checks."""
    return {"type": "user", "uuid": f"r{number}", "parentUuid": f"r{number - 1}", **record}


@settings(max_examples=60)
@given(st.lists(_record, max_size=8), st.lists(_record, max_size=4), st.booleans())
@example(
    [
        {
            "type": "assistant",
            "uuid": "a",
            "message": {"content": [{"type": "tool_use", "id": "a", "input": {"a": "\ud800"}}]},
        }
    ],
    [],
    False,
)
def test_any_json_in_any_field_is_read(tmp_path_factory, plain, chained, as_agent):
    lines = [{"type": "user", "uuid": "r0", "message": {"content": "hello"}}, *plain]
    lines += [_chained(record, number) for number, record in enumerate(chained, 1)]
    session = _assert_readable(tmp_path_factory.mktemp("fuzz"), lines, as_agent=as_agent)
    _assert_accounted_for(session, lines)


@pytest.fixture(scope="module")
def sample_lines(tmp_path_factory):
    """Records of every kind: a stretch of the sample session around its compaction, and its agents' calls."""
    path = write_sample_session(tmp_path_factory.mktemp("sample"), cwd="/home/dev/tollgate", turns=300)
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    at = next(number for number, line in enumerate(lines) if line.get("subtype") == "compact_boundary")
    agents = [line for line in lines if "Agent" in json.dumps(line)[:20_000]][:8]
    return [*lines[:14], *agents, *lines[at - 6 : at + 8], *lines[-12:]]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_real_session_with_any_field_replaced_is_read(tmp_path_factory, sample_lines, data):
    lines = json.loads(json.dumps(sample_lines))
    for _ in range(data.draw(st.integers(1, 6))):
        place = lines[data.draw(st.integers(0, len(lines) - 1))]
        while True:
            key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
            inner = place[key]
            if not (isinstance(inner, dict | list) and inner) or data.draw(st.booleans()):
                break
            place = inner
        place[key] = data.draw(_json)
    session = _assert_readable(tmp_path_factory.mktemp("fuzz"), lines, as_agent=data.draw(st.booleans()))
    _assert_accounted_for(session, lines)


def _assert_accounted_for(session, lines):
    """Every line is a record, or named as skipped."""
    typed = sum(isinstance(line, dict) and isinstance(line.get("type"), str) for line in lines)
    assert session.record_count == typed
    assert session.skipped_records >= len(lines) - typed


EARLY = "0001-01-01T00:00:00+23:59"  # before the first instant that a UTC datetime can hold
ODD = (None, True, -1, 2**70, 1.5, float("nan"), "", "\ud800", EARLY, "x" * 300, [], [[]], [None, 7], {}, {"a": {}})
# One record of each kind that the reader knows, with every field that it looks at.
TEMPLATES = (Path(__file__).with_name("every_field.jsonl")).read_text().splitlines()


def _places(value, path=()):
    """Every place in a JSON value where something stands."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from _places(item, (*path, key))


@pytest.mark.parametrize("number", range(len(TEMPLATES)), ids=lambda number: f"line-{number + 1}")
def test_every_field_holds_every_other_type(tmp_path, number):
    for path in _places(json.loads(TEMPLATES[number])):
        for odd in ODD:
            changed = json.loads(TEMPLATES[number])
            place = changed
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = odd
            lines = [*TEMPLATES[:number], json.dumps(changed), *TEMPLATES[number + 1 :]]
            session = _assert_readable(tmp_path, map(json.loads, lines), as_agent=False)
            # What one record says wrongly costs that record, not the thread.
            assert len(session.agents) >= 1 or number in {1, 4}
            assert sum(len(turn.blocks) for turn in session.all_turns()) >= 3


def _assert_readable(folder, lines, *, as_agent):
    lines = list(lines)
    folder = folder / "projects" / "p"
    data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    path = folder / "s.jsonl"
    agents = folder / "s" / "subagents"
    agents.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    if as_agent:
        (agents / "agent-x.jsonl").write_bytes(data)
        (agents / "agent-x.meta.json").write_text(json.dumps(lines[0]))
    session = read_session(path)
    assert session.record_count + session.skipped_records >= 1
    for turn in session.all_turns():
        turn.text.encode()
        json.dumps([block.tool_input for block in turn.blocks], ensure_ascii=False).encode()
        json.dumps(turn.detail, ensure_ascii=False).encode()
    for agent in session.agents:
        (agent.prompt + agent.result + agent.last_message + agent.description).encode()
    (session.title + session.cwd + "".join(prompt.text for prompt in session.queued_prompts)).encode()
    return session


@settings(max_examples=150)
@given(st.lists(st.binary(max_size=60), max_size=6), st.binary(max_size=40))
def test_any_bytes_in_any_line_are_passed_over(tmp_path_factory, junk, tail):
    path = tmp_path_factory.mktemp("fuzz") / "s.jsonl"
    good = b'{"type":"user","uuid":"u","parentUuid":null,"message":{"content":"kept"}}\n'
    path.write_bytes(b"".join(line.replace(b"\n", b"") + b"\n" for line in junk) + good + tail.replace(b"\n", b""))
    assert [turn.text for turn in read_session(path).turns][-1:] == ["kept"]


def test_an_empty_file_and_a_file_of_something_else_are_named_so(tmp_path):
    empty, log = tmp_path / "empty.jsonl", tmp_path / "log.jsonl"
    empty.write_bytes(b"")
    log.write_bytes(b"[12:00] started\n[12:01] {}\n17\n")
    with pytest.raises(MalformedError, match=r"empty\.jsonl is empty"):
        read_session(empty)
    with pytest.raises(MalformedError, match="holds no record"):
        read_session(log)
    with pytest.raises(NotFoundError, match="no session file"):
        read_session(tmp_path / "missing.jsonl")
    with pytest.raises(MalformedError, match="is a folder"):
        read_session(tmp_path)


def test_pipes_and_devices_are_refused_before_they_are_read(tmp_path):
    """A pipe without a writer would hang, one with a writer would give its bytes once and be carried as empty."""
    os.mkfifo(tmp_path / "pipe.jsonl")
    for path in (tmp_path / "pipe.jsonl", Path("/dev/null")):
        with pytest.raises(MalformedError, match="is a pipe or a device"):
            read_session(path)


def test_a_torn_last_line_is_ignored(writer):
    writer.user("whole")
    writer.raw(b'{"type":"assistant","uuid":"x","message":{"content":"cut o')
    session = read_session(writer.write())
    assert [turn.text for turn in session.turns] == ["whole"]
    assert session.skipped_records == 0
    assert session.warnings == ("line 2: cut short, as in a session still being written; not read",)


def test_junk_is_skipped_and_named_by_line(writer):
    writer.raw(b"// a comment\n")
    writer.raw(b"\x00\xff\xfe\x00\n")
    writer.user("kept")
    writer.raw(b"\n")
    writer.raw(b'{"type": 7}\n')
    session = read_session(writer.write())
    assert session.skipped_records == 3
    assert session.warnings == ("lines 1, 2, 5: not a record; kept in the file, not read",)


def test_unknown_types_are_counted_without_showing_what_they_hold(writer):
    writer.user("kept")
    writer.beside("brand-new", secret="hunter2")
    writer.beside("my password is hunter2!")
    session = read_session(writer.write())
    assert session.skipped_records == 2
    assert session.warnings == (
        "line 2: of unknown type brand-new; kept in the file, not read",
        "line 3: of other unknown types; kept in the file, not read",
    )


def test_a_byte_order_mark_and_windows_line_ends_are_read(writer):
    writer.user("one")
    writer.user("two")
    writer.lines = [b"\xef\xbb\xbf" + line.replace(b"\n", b"\r\n") for line in writer.lines]
    assert len(read_session(writer.write()).turns) == 2


def test_a_uuid_used_twice_counts_once(writer):
    writer.user("first", uuid="same")
    writer.assistant("second", uuid="same")
    session = read_session(writer.write())
    assert [turn.text for turn in session.turns] == ["first"]
    assert "line 2: uuid of an earlier record" in session.warnings[0]


def test_very_deep_nesting_is_not_followed(writer):
    writer.user("kept")
    writer.raw(b'{"type":"user","uuid":"deep","message":{"content":' + b"[" * 200_000 + b"]" * 200_000 + b"}}\n")
    deep: object = "bottom"
    for _ in range(300):
        deep = {"inner": deep}
    writer.assistant({"type": "tool_use", "id": "c", "name": "X", "input": deep})
    session = read_session(writer.write())
    assert session.turns[0].text == "kept"
    block = session.turns[-1].blocks[0]
    assert block.text.count("inner") == MAX_DEPTH


def test_a_line_beyond_the_limit_is_passed_over_without_being_held(writer, monkeypatch):
    monkeypatch.setattr(records, "MAX_LINE_BYTES", 1000)
    writer.user("before")
    writer.user("x" * 5000)
    writer.assistant("after")
    session = read_session(writer.write())
    assert [turn.text for turn in session.turns] == ["before", "after"]
    assert "line 2: longer than" in session.warnings[0]
    assert session.skipped_records == 1


def test_numbers_beyond_all_measure_are_a_skipped_line(writer):
    writer.user("kept")
    writer.raw(b'{"type":"user","n":' + b"9" * 5000 + b"}\n")
    assert read_session(writer.write()).skipped_records == 1


def test_lone_surrogates_become_replacement_characters(writer):
    writer.user("a\ud800b")
    assert read_session(writer.write()).turns[0].text == "a\ufffdb"


def test_what_a_result_repeats_is_not_kept_twice(writer, use):
    writer.user("go")
    writer.assistant(use("c", "Edit", file_path="/a"))
    patch = [{"oldStart": 1, "lines": ["-a", "+b"]}]
    detail = {
        "filePath": "/a",
        "originalFile": "x" * 90_000,
        "oldString": "a",
        "structuredPatch": patch,
        "note": "y" * 9000,
    }
    writer.result("c", toolUseResult=detail)
    kept = read_session(writer.write()).turns[-1].detail
    assert kept.keys() == {"filePath", "structuredPatch", "note"}
    assert kept["structuredPatch"] == patch
    assert len(kept["note"]) < 9000


def test_blocks_of_every_kind_are_told_apart(writer):
    writer.user(
        [
            {"type": "text", "text": "see"},
            {"type": "image", "source": {"type": "base64", "data": "AAAA"}},
            {"type": "document", "source": {}},
            "bare",
            17,
        ]
    )
    writer.assistant(
        {"type": "thinking", "thinking": "hm"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}},
        {
            "type": "web_search_tool_result",
            "tool_use_id": "s",
            "content": [{"type": "text", "text": "found"}, {"title": "t"}],
        },
    )
    user, assistant = read_session(writer.write()).turns
    assert [block.kind for block in user.blocks] == ["text", "image", "other", "text", "other"]
    assert [block.kind for block in assistant.blocks] == ["thinking", "thinking", "tool_use", "tool_result"]
    assert assistant.blocks[2].text == '{"query":"q"}'
    assert assistant.blocks[3].text == "found"


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("plain", ""),
        ("<command-name>/compact</command-name>", "slash-command"),
        ("<local-command-stdout>ok</local-command-stdout>", "local-command-output"),
        ("<bash-input>ls</bash-input>", "bash-input"),
        ("<bash-stdout>a</bash-stdout>", "bash-output"),
        ("<task-notification>x</task-notification>", "task-notification"),
        ("[Request interrupted by user for tool use]", "interruption"),
    ],
)
def test_what_the_client_wrote_is_told_from_what_the_user_wrote(writer, text, origin):
    writer.user(text)
    assert read_session(writer.write()).turns[0].origin == origin


def test_every_edge_case_file_is_read_or_refused_clearly(shared_transcripts):
    refused = []
    for path in sorted(shared_transcripts.glob("edge_cases/**/*.jsonl")):
        try:
            session = read_session(path)
        except MalformedError as error:
            refused.append((path.name, error.hint))
            continue
        assert session.record_count > 0
    assert [name for name, hint in refused] == ["duplicate-assistant-response-2.jsonl"]
    assert all(hint for name, hint in refused)
