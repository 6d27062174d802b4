"""Findings quoted from what the model said."""

from __future__ import annotations

from dualmem_mcp.handoff.digest.cues import fact_count, finding_weight, is_challenge, is_process, sentences
from dualmem_mcp.handoff.digest.decisions import extract_findings, lead_of, terms_of
from tests.handoff.dialogue import Dialogue


def test_findings_are_quoted_with_their_turn_and_best_first() -> None:
    dialogue = Dialogue()
    dialogue.user("why is it slow?")
    uuid = dialogue.model(
        "Let me look at the profile first. The root cause is that `load_index()` in `store/index.py:42` reads all "
        "40,000 rows because the WHERE clause was dropped. Nice weather today, by the way."
    )
    findings = extract_findings(dialogue.turns)
    assert findings[0].text.startswith("The root cause is that `load_index()`")
    assert (findings[0].uuid, findings[0].origin) == (uuid, "extracted")
    assert not [one for one in findings if "weather" in one.text or "Let me" in one.text]


def test_a_finding_that_the_user_doubts_falls_behind() -> None:
    said = "The root cause is the cache in `{}`, because it is never cleared after 300 seconds."
    doubted, stands = Dialogue(), Dialogue()
    for dialogue, answer in ((doubted, "no, that is not it"), (stands, "great, thanks")):
        dialogue.user("why?")
        dialogue.model(said.format("a.py"))
        dialogue.user(answer)
        dialogue.model("Understood.")
    assert extract_findings(doubted.turns)[0].score < extract_findings(stands.turns)[0].score


def test_repeated_findings_give_way_to_different_ones() -> None:
    dialogue = Dialogue()
    for number in range(8):
        dialogue.model(
            f"The root cause is that `load_index()` in `index.py` reads every row of the table, run {number}."
        )
    dialogue.model("We decided to keep `config.toml` in version 2 instead of moving it.")
    assert "config.toml" in " ".join(one.text for one in extract_findings(dialogue.turns)[:2])


def test_findings_are_found_in_other_scripts() -> None:
    dialogue = Dialogue()
    dialogue.model("根本原因是 `load_index()` 读取了全部 40000 行，因为条件被删除了。我们决定改用 `index.db`。")
    assert any("40000" in one.text for one in extract_findings(dialogue.turns))
    assert "原因" in terms_of("根本原因")


def test_sentences_of_lists_tables_and_prose_are_told_apart_and_code_is_left_out() -> None:
    text = "First one. Second, e.g. this one! 第三句。第四句。\n- item\n| a | b |\n|---|---|\n| c | d |\n"
    text += "```\ncode. Here.\n```\n"
    assert sentences(text) == [
        "First one.",
        "Second, e.g. this one!",
        "第三句。",
        "第四句。",
        "item",
        "a — b",
        "c — d",
    ]


def test_facts_and_cues_are_counted() -> None:
    assert fact_count("`a()` in src/b.py:3 takes 40 ms") >= 3
    assert fact_count("it is nice") == 0
    assert finding_weight("the fix is to drop it") > finding_weight("it is there")


def test_talk_about_the_next_step_is_no_finding() -> None:
    assert is_process("Let me check the config.")
    assert is_process("Good. Now I'll run the tests")
    assert not is_process("The tests pass.")
    assert is_challenge("are you sure?")
    assert not is_challenge("great")


def test_the_lead_of_a_reply_says_what_came_of_it() -> None:
    text = (
        "Let me summarise.\n\nFixed the parser in `a.py` because it dropped the last 3 bytes.\n\nShall I push it?"
    )
    assert lead_of(text) == "Fixed the parser in `a.py` because it dropped the last 3 bytes."
    assert lead_of("Shall I?") == ""


def test_hostile_lengths_take_little_time() -> None:
    dialogue = Dialogue()
    dialogue.model("a" * 200_000 + " because " + "[" * 50_000 + "`" * 20_000)
    dialogue.model("| " * 40_000)
    assert all(len(finding.text) < 2_000 for finding in extract_findings(dialogue.turns))
    assert len(lead_of("a/" * 100_000)) < 2_000
