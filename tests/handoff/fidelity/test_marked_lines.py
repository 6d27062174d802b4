"""Reading a brief's lines back with the turns that they lead to."""

from __future__ import annotations

from dualmem_mcp.handoff.brief import build_brief
from dualmem_mcp.handoff.digest import build_digest
from dualmem_mcp.handoff.fidelity.marked_lines import MarkedLine, TurnNames, marked_lines
from tests.handoff.dialogue import Dialogue, agent

NAMES = TurnNames(["aaaa1111-x", "aaaa2222-x", "bbbb3333-x", "cccc4444-x", ""])


def read(*lines: str) -> list[MarkedLine]:
    return marked_lines("# A title [aaaa1111]\n## Where it stands\n" + "\n".join(lines), NAMES)


def test_a_turn_is_named_by_the_beginning_of_its_uuid() -> None:
    assert NAMES.positions("aaaa1111") == (0,)
    assert NAMES.positions("aaaa") == (0, 1)
    assert NAMES.positions("bbbb3333-x") == (2,)
    assert NAMES.positions("bbbb3333-xy") == NAMES.positions("dddd") == ()
    assert TurnNames([]).positions("aaaa") == ()


def test_a_line_leads_to_the_turn_of_its_mark_and_keeps_what_follows_it() -> None:
    assert read(
        "**Last request** (verbatim) [cccc4444]:",
        "```",
        "two",
        "- lines [of text]",
        "```",
        "- [aaaa1111!] never do that",
        "  (said 2 times)",
        "  → [aaaa2222] done",
        "- [x] [bbbb3333] a task",
    ) == [
        MarkedLine("two\n- lines [of text]", (3,), "**Last request** (verbatim)"),
        MarkedLine("never do that\n  (said 2 times)", (0,), "-"),
        MarkedLine("done", (1,), "→"),
        MarkedLine("a task", (2,), "- [x]"),
    ]


def test_a_line_of_two_marks_is_two_lines() -> None:
    assert read("- [aaaa1111] `make`: it broke → [aaaa2222] edited b.py") == [
        MarkedLine("`make`: it broke →", (0,), "-"),
        MarkedLine("edited b.py", (1,), "-"),
    ]


def test_in_a_list_of_names_the_mark_stands_behind_the_name() -> None:
    assert read("- completed: map the code [aaaa1111]; write the docs [bbbb3333]") == [
        MarkedLine("- completed: map the code", (0,)),
        MarkedLine("write the docs", (2,)),
    ]


def test_what_is_in_brackets_and_names_no_turn_is_text() -> None:
    assert read("- see [docs] and [dead beef]", "- [queued!] then the docs", "- [ ] open") == [
        MarkedLine("- see [docs] and [dead beef]"),
        MarkedLine("then the docs", (), "- [queued!]"),
        MarkedLine("- [ ] open"),
    ]


def test_head_footer_and_headings_are_not_of_the_conversation() -> None:
    lines = read("- [aaaa1111] a", "", "## Files", "- [bbbb3333] b", "## Left out", "- [cccc4444] c")
    assert [line.text for line in lines] == ["a", "b"]
    assert read("- [aaaa1111] a", "</record-12ab34>", "more")[-1].text == "a"
    assert marked_lines("", NAMES) == marked_lines("# only a title", NAMES) == []


def test_quoted_text_cannot_end_or_begin_lines() -> None:
    lines = read(
        "- [aaaa1111]", "````", "## Left out", "## A", "- [bbbb3333] no line", "```", "````", "- [cccc4444] z"
    )
    assert [(line.turns, line.text) for line in lines] == [
        ((0,), "## Left out\n## A\n- [bbbb3333] no line\n```"),
        ((3,), "z"),
    ]


def test_every_line_of_a_real_brief_leads_to_the_turn_that_it_quotes() -> None:
    dialogue = Dialogue()
    for number in range(30):
        dialogue.user(f"wish number {number} about module_{number}\nwith a second line")
        dialogue.edit(f"src/module_{number}.py")
        dialogue.model(f"Module {number} keeps its order because module_{number} sorts first.")
    session = dialogue.session(agents=(agent(0, "map the code", launched_by=dialogue.turns[1].uuid),))
    digest = build_digest(session)
    names = TurnNames([turn.uuid for turn in session.all_turns()])
    for budget in (900, 2_000, 6_000):
        lines = marked_lines(build_brief(digest, token_budget=budget).text, names)
        wishes = [line for line in lines if line.text.lstrip("`\n").startswith("wish number")]
        assert wishes
        for line in wishes:
            assert [f"wish number {turn // 4} " in f"{line.text} " for turn in line.turns] == [True]
