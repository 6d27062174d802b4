"""From what is known to what can be found: the words themselves, without secrets, within bounds."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from dualmem_mcp.handoff.brief import build_brief
from dualmem_mcp.handoff.digest import build_digest
from dualmem_mcp.model.graph import Entity
from dualmem_mcp.model.recalled import wrap
from dualmem_mcp.model.source import Finding, StoredTurn
from dualmem_mcp.search.material import MAX_CHARACTERS, entity_item, finding_item, finding_key, turn_item
from tests.handoff.dialogue import Dialogue

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TURN = StoredTurn(1, "c0ffee", "u1", "user", "The garden shed is red.", NOON, device="desk")


def words(text: str, **fields: object) -> str | None:
    item = turn_item(replace(TURN, text=text, **fields))  # type: ignore[arg-type]
    return item.text if item else None


def test_a_turn_is_an_item_with_where_it_comes_from() -> None:
    item = turn_item(TURN)
    assert item is not None
    assert (item.key, item.kind, item.text) == ("turn/c0ffee/u1", "turn", "The garden shed is red.")
    assert (item.conversation_id, item.turn_id, item.author) == ("c0ffee", "u1", "user")
    assert (item.timestamp, item.device) == (NOON, "desk")


def test_a_name_goes_before_the_role() -> None:
    item = turn_item(replace(TURN, author="Ann", uuid="D1:3 /x"))
    assert item is not None
    assert (item.author, item.turn_id) == ("Ann", "D1:3 /x")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<system-reminder>be brief</system-reminder>Paint it green", "Paint it green"),
        ("<command-name>/review</command-name><command-args>the shed</command-args>", "/review the shed"),
        ("<local-command-stdout>42 files</local-command-stdout>", None),
        ("<bash-input>ls</bash-input><bash-stdout>a b</bash-stdout>", None),
        ("<user-prompt-submit-hook>checked</user-prompt-submit-hook>Go on", "Go on"),
        ("<task-notification><status>completed</status></task-notification>", None),
        ("[Request interrupted by user]", None),
        ("/clear", None),
        ("   ", None),
    ],
)
def test_only_the_users_own_words_count(text: str, said: str | None) -> None:
    assert words(text) == said


def test_what_the_model_did_not_say_is_nothing() -> None:
    assert words("No response requested.", role="assistant") is None
    assert words("API Error: 529", role="assistant", origin="api-error") is None
    assert words("Done: <b>red</b>", role="assistant") == "Done: <b>red</b>"


def test_imported_turns_are_taken_as_they_stand() -> None:
    assert words("/clear", origin="import") == "/clear"
    assert words("<system-reminder>quoted</system-reminder>", origin="import") is not None


def test_a_compaction_summary_is_labelled_as_one() -> None:
    item = turn_item(replace(TURN, text="This session is being continued: the shed.", is_compact_summary=True))
    assert item is not None
    assert (item.kind, item.key) == ("summary", "summary/c0ffee/u1")


def test_secrets_and_hidden_characters_are_gone() -> None:
    text = words("key AKIAIOSFODNN7EXAMPLX here\u202e\x1b[31m and\u200b there", role="assistant")
    assert text == "key [redacted: AWS access key] here and there"


def test_a_long_text_is_cut_in_its_middle() -> None:
    text = words("first " + "word " * 400_000 + "last", role="assistant")
    assert text is not None
    assert len(text) <= MAX_CHARACTERS
    assert text.startswith("first")
    assert text.endswith("last")


def test_what_stands_for_secrets_does_not_make_a_text_longer_than_it_may_be() -> None:
    text = words("token=abc123def456 " * 200_000, role="assistant")
    assert text is not None
    assert len(text) <= MAX_CHARACTERS
    assert "abc123" not in text


def test_recalled_text_is_not_indexed_again() -> None:
    assert words(wrap("The shed is red", "search")) is None
    assert words("As you found:\n" + wrap("The shed is red", "search") + "\nIs it?") == "As you found:\n\nIs it?"
    assert words("It says\n" + wrap("The shed is red", "search"), role="assistant") == "It says"


@pytest.mark.parametrize("budget", [60, 150, 400, 4000])
def test_a_brief_that_is_pasted_is_not_indexed_again(budget: int) -> None:
    talk = Dialogue()
    talk.user("Paint the garden shed in a colour that the neighbours like, and never in blue. " * 4)
    talk.model("The shed is green now because they asked for it.")
    brief = build_brief(build_digest(talk.session()), token_budget=budget).text
    said = words(f"Here is where we were:\n\n{brief}")
    if "earlier" in brief:  # with less room a brief is the request alone
        assert said == "Here is where we were:"


def test_a_page_of_a_section_is_not_indexed_again() -> None:
    page = '[requests of conversation c0ffee: data]\nPaint it.\n[continues at cursor "x"]'
    assert words(f"{page}\nWhat next?") == "What next?"


def test_a_decision_and_one_that_was_removed() -> None:
    finding = Finding("decision", "session/u1/1", "Colour?\nGreen", "c0ffee", "u1", "user", NOON, "desk")
    item = finding_item(finding)
    assert item is not None
    assert (item.key, item.kind, item.turn_id, item.author) == (
        "decision/c0ffee/session/u1/1",
        "decision",
        "u1",
        "user",
    )
    assert finding_item(replace(finding, text="")) is None
    assert finding_key(replace(finding, text="")) == item.key


def test_an_entity_is_its_name_type_and_observations() -> None:
    item = entity_item(
        Entity("Ada", "person", ("née Byron", "token = 'ghp_012345678901234567890123456789abcdef'")), NOON
    )
    assert item.text == "Ada (person)\nnée Byron\ntoken = '[redacted: GitHub token]'"
    assert (item.key, item.kind, item.timestamp) == ("entity/Ada", "entity", NOON)
    assert entity_item(Entity("x/y\n", " "), NOON).text == "x/y"


def test_of_very_many_observations_the_newest_are_found() -> None:
    many = Entity("log", "file", tuple(f"line {number}: {'word ' * 20}" for number in range(5000)))
    item = entity_item(many, NOON)
    assert len(item.text) <= MAX_CHARACTERS
    assert item.text.startswith("log (file)\n")
    assert "line 4999:" in item.text
    assert "line 0:" not in item.text
