"""Content of messages: blocks as the model saw them, and what a record says of a tool's result beside them."""

from __future__ import annotations

from typing import Any, Final

from dualmem_mcp.model.conversation import Block
from dualmem_mcp.transcripts.json_values import bounded, json_text, list_of, object_of, text_of

MAX_DETAIL_TEXT: Final = 8_000
"""Characters kept of one string inside a tool's structured result."""

# What a tool's structured result says again that the result's text or the call's input already says.
_REPEATED_KEYS: Final = frozenset(
    """
    originalFile originalFileContents stdout oldString newString content prompt oldTodos edits base64 result
    durationMs totalDurationMs results output
    """.split()  # noqa: SIM905 - a list of one word a line says no more
)

_TAGS: Final = (
    ("<task-notification>", "task-notification"),
    ("<command-name>", "slash-command"),
    ("<command-message>", "slash-command"),
    ("<local-command-", "local-command-output"),
    ("<bash-input>", "bash-input"),
    ("<bash-stdout>", "bash-output"),
    ("<bash-stderr>", "bash-output"),
    ("[Request interrupted by user", "interruption"),
)


def blocks_of(content: object) -> tuple[Block, ...]:
    """The blocks of a message's content: a string, or a list of content blocks."""
    if isinstance(content, str):
        return (Block("text", text_of(content)),) if content else ()
    return tuple(_block(item) for item in list_of(content))


def _block(item: object) -> Block:
    if isinstance(item, str):
        return Block("text", text_of(item))
    data = object_of(item)
    kind = text_of(data.get("type"))
    if kind == "text":
        return Block("text", text_of(data.get("text")))
    if kind in {"thinking", "redacted_thinking"}:
        return Block("thinking", text_of(data.get("thinking")))
    if kind == "tool_use" or kind.endswith("_tool_use"):
        tool_input = bounded(object_of(data.get("input")))
        return Block(
            "tool_use",
            json_text(tool_input),
            tool_name=text_of(data.get("name")),
            tool_use_id=text_of(data.get("id")),
            tool_input=tool_input,
        )
    if kind == "tool_result" or kind.endswith("_tool_result"):
        return Block(
            "tool_result",
            result_text(data.get("content")),
            tool_use_id=text_of(data.get("tool_use_id")),
            is_error=data.get("is_error") is True,
        )
    return Block("image") if kind == "image" else Block("other")


def result_text(content: object) -> str:
    """A tool result's content as text: the string itself, or its text parts one below the other."""
    if isinstance(content, str):
        return text_of(content)
    parts = (item if isinstance(item, str) else object_of(item).get("text") for item in list_of(content))
    return "\n".join(text for part in parts if (text := text_of(part)))


def tagged_origin(blocks: tuple[Block, ...]) -> str:
    """What a user record is if the client, not the user, wrote it: by the tag that its text starts with."""
    first = next((block.text for block in blocks if block.kind == "text"), "").lstrip()
    if not first.startswith(("<", "[")):  # as most do not
        return ""
    return next((origin for tag, origin in _TAGS if first.startswith(tag)), "")


def detail_of(value: object) -> Any:
    """A tool's structured result without what its text or the call's input says already."""
    if isinstance(value, str):
        return bounded(value, max_text=MAX_DETAIL_TEXT)
    if not isinstance(value, dict):
        return None
    kept = {key: item for key, item in value.items() if key not in _REPEATED_KEYS}
    if isinstance(file := kept.get("file"), dict):
        kept["file"] = {key: item for key, item in file.items() if key not in _REPEATED_KEYS}
    return bounded(kept, max_text=MAX_DETAIL_TEXT)
