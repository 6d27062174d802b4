"""Prompts typed while the model worked, as a brief shows them."""

from __future__ import annotations

from dualmem_mcp.handoff.brief import build_brief, section_text
from dualmem_mcp.handoff.digest import build_digest
from dualmem_mcp.model.conversation import QueuedPrompt
from tests.handoff.dialogue import Dialogue


def test_what_the_model_got_between_two_calls_and_what_was_taken_back_is_told_apart() -> None:
    dialogue = Dialogue()
    dialogue.user("start")
    dialogue.model("Started.")
    dialogue.user("go on")
    moment = dialogue.turns[0].timestamp
    queued = (QueuedPrompt("never use tabs", moment, "delivered"), QueuedPrompt("or do", moment, "withdrawn"))
    text = build_brief(build_digest(dialogue.session(queued=queued)), token_budget=400).text
    assert text.index("] start") < text.index("- [mid-turn!] never use tabs") < text.index("- [taken back] or do")
    assert (
        "typed while the model worked" in section_text(build_digest(dialogue.session(queued=queued)), "requests")[0]
    )


def test_a_prompt_that_still_waits_is_kept_before_older_rules() -> None:
    dialogue = Dialogue()
    for index in range(60):
        dialogue.user(f"Never do thing {index}, do thing {index + 1} instead of it, please.")
        dialogue.model("Done.")
    queued = (QueuedPrompt("then look at the leases of etcd"),)
    text = build_brief(build_digest(dialogue.session(queued=queued)), token_budget=200).text
    assert "- [queued] then look at the leases of etcd" in text
