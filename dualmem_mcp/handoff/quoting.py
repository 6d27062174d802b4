"""Text of others made fit to be shown: without control characters, on one line, cut, or fenced as it stands."""

from __future__ import annotations

import re

# Terminal escapes: CSI, OSC (ended by BEL or ST), then any other two-character escape.
# Source: ECMA-48, 5th edition, sections 5.3 to 5.6.
_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[PX^_].*?(?:\x1b\\|$)|\x1b.?", re.DOTALL
)

# C0 and C1 controls but tab and newline; the bidirectional controls, which reorder what is displayed; other
# invisible format characters that hide text. ZWJ and ZWNJ (U+200C, U+200D) stay: emoji and scripts need them.
# Source: Unicode Standard Annex #9 (bidirectional controls), Unicode 16 general category Cf.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f\ud800-\udfff]"
)
_NEEDS_CLEANING = re.compile(f"\\x1b|\\r|{_INVISIBLE.pattern}")

_BLANK_LINES = re.compile(r"\n(?:[ \t]*\n){2,}")
_FENCES = re.compile(r"`{3,}")
_LINK = re.compile(r"\[([^\[\]\n]{1,300})\]\((?:[^()\s]|\([^()\s]{0,200}\)){1,2000}\)")
_TAG = re.compile(r"<[A-Za-z/!?]")

# Source: Claude Code 1.0 to 2.1 transcripts, and the tags of tool calls in Claude's prompts.
_CLIENT_TAGS = re.compile(
    r"<(/?(?:system|system-reminder|task-notification|teammate-message|command-(?:name|message|args|contents)|"
    r"local-command-\w+|bash-(?:input|stdout|stderr)|user-prompt-submit-hook|session-start-hook|user-memory-input|"
    r"function_calls|function_results|invoke|parameter|antml:\w+|tool_use_error|persisted-output|env|claudeMd)\b)"
)
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)


def clean(text: str) -> str:
    """The text without terminal escapes, control, bidirectional and invisible characters; lines end in \\n."""
    # What is printable holds none of them, and that is told ten times as fast.
    if text.replace("\n", " ").isprintable() or not _NEEDS_CLEANING.search(text):
        return text.strip()
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u2028", "\n").replace("\u2029", "\n")
    return _INVISIBLE.sub("", _ESCAPES.sub("", text)).strip()


def one_line(text: str) -> str:
    """The cleaned text with every run of white space as one space."""
    return " ".join(clean(text).split())


def squeeze(text: str) -> str:
    """The cleaned text with runs of blank lines as one."""
    return _BLANK_LINES.sub("\n\n", clean(text))


def cut(text: str, limit: int) -> str:
    """The text if it has at most `limit` characters, else its beginning, ended by `…`, within the limit.

    Cuts at white space where some stands near, so that no word, number or key is shown in half.
    """
    if len(text) <= limit:
        return text
    if limit <= 1:
        return "…"[:limit]
    head = text[: limit - 1]
    space = max(head.rfind(" "), head.rfind("\n"))
    if space >= limit * 4 // 5:
        head = head[:space]
    return head.rstrip() + "…"


def cut_middle(text: str, limit: int) -> str:
    """The text within `limit` characters: where it is longer, its beginning and its end around a `[…]`."""
    if len(text) <= limit:
        return text
    mark = "\n[…]\n" if "\n" in text else " […] "
    room = limit - len(mark)
    if room < 40:
        return cut(text, limit)
    tail = text[-(room // 3) :]
    space = min((at for at in (tail.find(" "), tail.find("\n")) if at >= 0), default=-1)
    if 0 <= space < len(tail) // 3:
        tail = tail[space + 1 :]
    return cut(text, room - len(tail)) + mark + tail


def without_link_targets(text: str) -> str:
    """The text with each Markdown link as its label alone, and no emphasis marks."""
    return _LINK.sub(r"\1", text).replace("**", "")


def fence(text: str) -> str:
    """The text, character for character, in a code fence that nothing in it can close."""
    longest = max((len(run) for run in _FENCES.findall(text)), default=2)
    marks = "`" * (longest + 1)
    return f"{marks}\n{text}\n{marks}"


def quoted(prefix: str, text: str) -> str:
    """The text as it stands after its prefix: beside it if it is one line without tags, else fenced below."""
    return f"{prefix}\n{fence(text)}" if "\n" in text or _TAG.search(text) else f"{prefix} {text}"


def defuse(text: str) -> str:
    """The text with `‹` for `<` in the tags by which a client speaks to a model; as long as before.

    Recalled text must not pass for the client's own words.
    """
    return _CLIENT_TAGS.sub(r"‹\1", text)


def short_id(uuid: str) -> str:
    """How a turn is named in a brief: the first 8 characters of a UUID, up to 24 of another id."""
    return uuid[:8] if _UUID.fullmatch(uuid) else one_line(uuid)[:24].replace("]", "")


def mark(uuid: str) -> str:
    """The turn that a line comes from, as it stands at the line's end or head: `[1a2b3c4d]`; empty without one."""
    return f"[{short_id(uuid)}]" if uuid else ""


def relative_path(path: str, cwd: str) -> str:
    """The path relative to the folder if it lies below it, else as it is, always with `/` on Windows paths too."""
    path, cwd = one_line(path), one_line(cwd).rstrip("/\\")
    if cwd and len(path) > len(cwd) and path.startswith(cwd) and path[len(cwd)] in "/\\":
        path = path[len(cwd) + 1 :]
        return path.replace("\\", "/") if "\\" in cwd else path
    return path
