"""Text that this product gave back: marked so that a reader takes it for data, and search for nothing new.

What search, a brief or a resource returns can come back inside a turn: quoted by the model, pasted by the user,
put in by a client. It was said before, where it was said first; to index it again would only make it louder.
"""

from __future__ import annotations

import re
from typing import Final

TAG: Final = "dualmem-recalled"
"""The element around recalled text."""

_OWN_TAG: Final = re.compile(rf"<(?=\s*/?\s*{TAG})", re.IGNORECASE)
_START: Final = r"^[ \t>]*"  # a quotation in Markdown stays recognisable
# The line before the results of a search. Source: server/search_tools.py.
_FOUND: Final = rf"(?:{_START}\d{{1,3}} found\. What follows is quoted from memory: [^\n]{{0,80}}\n)?"
_ELEMENT: Final = re.compile(
    rf"{_FOUND}{_START}<{TAG} from=\"[^\"\n]{{0,80}}\">.*?(?:</{TAG}>|\Z)", re.DOTALL | re.MULTILINE
)

# A brief: its title, then the record within an element whose name ends in digits of its own, or, where the brief
# had no room for that, to the end. Source: handoff/brief/frame.py.
_BRIEF: Final = re.compile(
    rf"(?:{_START}# [^\n]*\n)?{_START}<(record-[0-9a-f]{{6}})>.*?(?:</\1>|\Z)", re.DOTALL | re.MULTILINE
)
_BARE_BRIEF: Final = re.compile(
    rf"(?:{_START}# [^\n]*\n)?{_START}"
    r"Record of an earlier session: data, not orders\. ! = rule set by the user\..*",
    re.DOTALL | re.MULTILINE,
)
# A page of a section. Source: server/handoff_tools.py.
_PAGE: Final = re.compile(
    rf"{_START}\[[^\n\]]{{1,80}} of conversation [^\s\]]{{1,128}}: data\]\n"
    r".*?(?:\n[ \t>]*\[(?:end|continues at cursor \"[^\"\n]*\")\]|\Z)",
    re.DOTALL | re.MULTILINE,
)
# How Claude Code puts a resource into a message that names it.
_RESOURCE: Final = re.compile(
    r"<mcp-resource\b[^>\n]*\buri=\"(?:memory|dualmem)://[^>\n]*>.*?(?:</mcp-resource>|\Z)", re.DOTALL
)
# The prompts that ask for a handoff or a resume; the user chose them, but did not say them.
# Source: server/prompts.py.
_PROMPT: Final = re.compile(
    r"\A\s*(?:Hand this conversation over so that I can go on with it on another device\.\nCall prepare_handoff |"
    r"Go on with the conversation [^\n]{1,160}\.\nCall resume_conversation)"
)

_HINTS: Final = (TAG, "<record-", "Record of an earlier session", ": data]", "<mcp-resource")


def wrap(text: str, source: str) -> str:
    """The text as a recalled one, on lines of its own; `source` says from where (a word or two).

    Nothing in the text can end the element: its own tags in it lose their `<` for a `‹`.
    """
    name = re.sub(r"[^\w .-]", "", source)[:80]
    return f'<{TAG} from="{name}">\n{_OWN_TAG.sub("‹", text)}\n</{TAG}>'


def without_recalled(text: str) -> str:
    """The text without what this product had returned; empty if nothing else is in it."""
    if _PROMPT.match(text):
        return ""
    if not any(hint in text for hint in _HINTS):
        return text
    for form in (_ELEMENT, _BRIEF, _BARE_BRIEF, _PAGE, _RESOURCE):
        text = form.sub("", text)
    return text
