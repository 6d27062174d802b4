"""What was said in a conversation, read from its turns by rules that are not the digest's.

A digest that overlooks a request must not also decide that there was none: what it is judged by is read anew here,
with other and simpler rules, and nothing of `handoff.digest` is used. Both start from the same reader of session
files; a record that the reader does not know is missing to both.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from dualmem_mcp.model.conversation import Block, Session, Turn

Speaker = Literal["user", "model", "call"]

# What Claude Code puts into user turns around or instead of the user's words. Source: Claude Code 1.0 to 2.1
# transcripts (docs/transcripts.md).
_WRAPPED = re.compile(
    r"<((?:system-|ide_|new-diag|local-command-|bash-|task-|teammate-|user-prompt-|session-start|post-tool|command-(?!name|args))"
    r"[\w-]*)\b[^<>]{0,200}>.*?(?:</\1>|\Z)",
    re.DOTALL,
)
_SLASH = re.compile(r"/[a-z][\w:-]*(?:\s|\Z)")
_REMEMBER = re.compile(r"</?user-memory-input>")
_INTERRUPTED = re.compile(r"\[Request interrupted by user[^\]\n]*\]")
_NOT_SAID = ("Caveat: The messages below", "This session is being continued from a previous conversation")
_REFUSED = re.compile(r"the user said:\n(?P<said>.*?)(?:\n\nNote: The user's next message.*)?\Z", re.DOTALL)
_USER_ORIGINS = frozenset({"", "human", "queued_command", "queued", "slash-command"})

# The arguments of tool calls that name things. What a call writes into a file is no talk: it is the file.
_NAMING_ARGUMENTS = (
    "file_path", "notebook_path", "path", "command", "description", "pattern", "query", "url", "subject", "prompt",
)  # fmt: skip
_LONGEST_ARGUMENT = 2_000
"""Characters of an argument that are looked at: a longer one holds a file rather than names of things."""

_SENTENCE_END = re.compile(r"[.!?…](?=\s)|[。！？]")
_WORD = re.compile(r"\w")


@dataclass(frozen=True, slots=True)
class Asked:
    """One request of the user's: its words, the position of its turn (-1 where no turn holds it), and its uuid."""

    text: str
    position: int
    uuid: str


class Passage(NamedTuple):
    """A sentence or line of what was said, or the argument by which a tool call names something."""

    text: str
    position: int
    speaker: Speaker


class Said:
    """What was said in a session: its turns but the client's own, requests, passages, and exchanges.

    Positions count `turns`. An exchange goes from one request to the next; what stands before the first request is
    an exchange, too.
    """

    def __init__(self, session: Session) -> None:
        self.turns: tuple[Turn, ...] = tuple(
            turn for turn in session.all_turns() if not turn.is_meta and not turn.is_compact_summary
        )
        self.requests: tuple[Asked, ...] = tuple(self._requests())
        self._starts = sorted({one.position for one in self.requests})
        self.queued: tuple[Asked, ...] = tuple(
            Asked(prompt.text.strip(), -1, "")
            for prompt in session.queued_prompts
            if prompt.state != "withdrawn" and prompt.text.strip()
        )

    def exchange_at(self, position: int) -> int:
        """The number of the exchange that a turn belongs to."""
        return bisect_right(self._starts, position)

    def _requests(self) -> Iterator[Asked]:
        for position, turn in enumerate(self.turns):
            if turn.role != "user":
                continue
            for block in turn.blocks:
                said = _REFUSED.search(block.text) if block.kind == "tool_result" and block.is_error else None
                if said and said["said"].strip():
                    yield Asked(said["said"].strip(), position, turn.uuid)
            words = _words_of(turn)
            if words and (not _SLASH.match(words) or self._is_answered(position)):
                yield Asked(words, position, turn.uuid)

    def _is_answered(self, position: int) -> bool:
        """Whether the model speaks next: else a slash command spoke to the client alone."""
        for turn in self.turns[position + 1 : position + 2]:
            return turn.role == "assistant" and not turn.model.startswith("<")
        return False

    def passages(self) -> list[Passage]:
        """What user and model said, in sentences or lines, and what the calls name, in order."""
        asked: dict[int, list[str]] = {}
        for one in self.requests:
            asked.setdefault(one.position, []).append(one.text)
        found: list[Passage] = []
        for position, turn in enumerate(self.turns):
            if turn.role == "user":
                for text in asked.get(position, ()):
                    found.extend(Passage(part, position, "user") for part in split(text))
                continue
            if turn.is_api_error:
                continue
            for block in turn.blocks:
                if block.kind == "text":
                    found.extend(Passage(part, position, "model") for part in split(block.text))
                elif block.kind == "tool_use":
                    found.extend(Passage(text, position, "call") for text in _named(block))
        return found


def split(text: str) -> list[str]:
    """The sentences and lines of a text, without those that hold no word."""
    pieces = _SENTENCE_END.sub(r"\g<0>\n", text).split("\n")
    return [part for piece in pieces if (part := piece.strip()) and _WORD.search(part)]


def _named(block: Block) -> Iterator[str]:
    for name in _NAMING_ARGUMENTS:
        value = block.tool_input.get(name)
        if isinstance(value, str) and value.strip():
            yield value[:_LONGEST_ARGUMENT]


def _words_of(turn: Turn) -> str:
    """The user's words in a turn; a slash command as it was typed."""
    if turn.origin not in _USER_ORIGINS:
        return ""
    text = "\n\n".join(block.text for block in turn.blocks if block.kind == "text").strip()
    if not text or text.startswith(_NOT_SAID):
        return ""
    if "<" in text:
        command = _element(text, "command-name").removeprefix("/")
        if command:
            return f"/{command} {_element(text, 'command-args')}".strip()
        text = _REMEMBER.sub("", _WRAPPED.sub("", text))
    return _INTERRUPTED.sub("", text).strip()


def _element(text: str, name: str) -> str:
    """What stands in the first element of that name; empty if there is none."""
    _, opened, rest = text.partition(f"<{name}>")
    inner, closed, _ = rest.partition(f"</{name}>")
    return inner.strip() if opened and closed else ""
