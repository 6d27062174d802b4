"""Names out of a package: nothing that could lead outside becomes a path."""

from __future__ import annotations

import pytest

from dualmem_mcp.errors import TamperedError
from dualmem_mcp.transcripts.safe_names import check_component, split_session_names

GOOD = ["s.jsonl", "s/subagents/agent-a.jsonl", "s/tool-results/x.txt", "agent-b.jsonl"]


def test_the_files_of_a_session_pass():
    assert split_session_names(GOOD) == ("s.jsonl", tuple(GOOD[1:]))


@pytest.mark.parametrize(
    "name",
    [
        "../../x",
        "s/../../x",
        "/etc/passwd",
        "s//x",
        "s/",
        "s/.",
        "..",
        r"s\..\x",
        r"C:\x",
        "s/c:x",
        "s/a\0b",
        "s/a\nb",
        "s/con",
        "s/LPT1.txt",
        "s/trailing.",
        "s/trailing ",
        "s/" + "x" * 256,
        "s/" + "/".join("abcdefghijklmnopq"),
        "s/\u202egpj.exe",
        "t/other-session.txt",
        "stray.txt",
        "agent-x/y.jsonl",
        "S/subagents/agent-a.jsonl/../x",
        "",
        "s/SUBAGENTS/agent-A.jsonl",
    ],
)
def test_any_other_name_is_refused(name):
    with pytest.raises(TamperedError):
        split_session_names([*GOOD, name])


@pytest.mark.parametrize("names", [[], ["agent-a.jsonl"], ["a.jsonl", "b.jsonl"]])
def test_there_is_exactly_one_session_file(names):
    with pytest.raises(TamperedError, match="session files"):
        split_session_names(names)


def test_a_message_never_holds_control_characters():
    with pytest.raises(TamperedError) as caught:
        check_component("a\x1b[31mb")
    assert "\x1b" not in caught.value.message
