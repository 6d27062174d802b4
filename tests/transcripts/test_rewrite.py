"""Records changed for another place: two members, and not one byte else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp.transcripts.rewrite import Rewriting, count_records, record_cwds, rewrite_records

MOVE = Rewriting(session_id="new-id", old_cwd="/old/app", new_cwd="/new/place")

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["cwd", "sessionId", "session_id", "uuid", "x", "é"]), _json), st.booleans())
def test_only_the_named_members_change(record, ascii_only):
    line = json.dumps(record, ensure_ascii=ascii_only, indent=None).encode()
    changed = json.loads(rewrite_records(line + b"\n", MOVE))
    for key, value in record.items():
        if key in {"sessionId", "session_id"} and isinstance(value, str):
            assert changed[key] == "new-id"
        elif key == "cwd" and isinstance(value, str):
            assert changed[key] == "/new/place"
        else:
            assert changed[key] == value


@given(st.binary(max_size=200))
def test_what_is_no_record_passes_byte_for_byte(data):
    data = data.replace(b'"', b"")
    assert rewrite_records(data, MOVE) == data


def test_everything_around_the_members_keeps_its_bytes():
    line = (
        b'  {"n":1.50,"e":1e5, "cwd" :\t"/old/app/src","s":"\\u00e9\\ud800","dup":1,"dup":2,'
        b'"message":{"cwd":"/old/app","sessionId":"old"},"sessionId":"old"}  \r\n'
    )
    assert rewrite_records(line, MOVE) == (
        b'  {"n":1.50,"e":1e5, "cwd" :\t"/new/place/src","s":"\\u00e9\\ud800","dup":1,"dup":2,'
        b'"message":{"cwd":"/old/app","sessionId":"old"},"sessionId":"new-id"}  \r\n'
    )


@pytest.mark.parametrize(
    "line",
    [
        b'{"sessionId":"old"',
        b'{"sessionId":"old"}}',
        b'{"sessionId":"old",}',
        b'{"sessionId":"old" "x":1}',
        b'{sessionId:"old"}',
        b'["sessionId","old"]',
        b'{"sessionId":"old","deep":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    ],
)
def test_lines_that_are_not_valid_stay_as_they_are(line):
    assert rewrite_records(line, MOVE) == line


def test_bytes_that_are_no_text_survive_beside_a_change():
    assert rewrite_records(b'{"x":"\xff\xfe","sessionId":"old"}', MOVE) == b'{"x":"\xff\xfe","sessionId":"new-id"}'


@pytest.mark.parametrize(
    ("old", "cwd", "new", "expected"),
    [
        ("/old/app", "/old/app", "/new", "/new"),
        ("/old/app", "/old/app/src/x", "/new", "/new/src/x"),
        ("/old/app", "/old/application", "/new", "/new"),
        ("/old/app", "/tmp/elsewhere", "/new", "/new"),
        ("/old/app", "/old/app/../../etc", "/new", "/new"),
        (r"C:\Users\dev\app", r"C:\Users\dev\app\src\x", "/new", "/new/src/x"),
        (r"C:\Users\dev\app", r"c:\users\dev\APP\src", "/new", "/new/src"),
        ("/old/app", "/old/app/src", r"D:\work", r"D:\work\src"),
        ("", "/anything", "/new", "/new"),
    ],
)
def test_folders_below_the_old_one_move_with_it(old, cwd, new, expected):
    line = json.dumps({"cwd": cwd}).encode()
    assert json.loads(rewrite_records(line, Rewriting(old_cwd=old, new_cwd=new)))["cwd"] == expected


def test_nothing_asked_is_nothing_done():
    data = b'{"sessionId":"x"}\ntorn'
    assert rewrite_records(data, Rewriting()) is data


def test_cwds_and_records_are_counted():
    same = b'{"type":"user","cwd":"/a"}\n'
    data = same + same + b'{"type":"mode","cwd":"/m"}\njunk\n{"type":"assistant","cwd":"/b"}'
    assert record_cwds(data) == ["/a", "/b"]
    assert count_records(data) == 4
