"""Lines of a brief about what was said: where it stands, requests, notes, decisions, compaction summary."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Container, Sequence
from dataclasses import dataclass

from dualmem_mcp.handoff.brief.view import Line, View
from dualmem_mcp.handoff.digest.cues import is_constraint, sentences
from dualmem_mcp.handoff.quoting import cut, cut_middle, fence, one_line, quoted
from dualmem_mcp.model.digest import Decision, Request


def last_reply(view: View) -> list[Line]:
    """What the model said last, cut in its middle."""
    reply = view.digest.resumption.last_reply
    if not reply.text:
        return []
    shown = cut_middle(reply.text, view.detail.reply)
    if view.detail.bare:
        shown = one_line(shown)
    head = f"**Last reply** {view.mark(reply.uuid)}:"
    return [Line("resumption", (1,), quoted(head, shown), (("last_reply", 0),), shown == reply.text)]


def unfinished(view: View) -> list[Line]:
    """That the user stopped the model, and tool calls without a result."""
    now = view.digest.resumption
    limit = max(80, view.detail.outcome)
    lines = [
        Line(
            "resumption",
            (3, index),
            f"**Unfinished call** {view.mark(tool.uuid)}: {tool.name} {cut(tool.input, limit)}".rstrip(),
            (("pending_tools", index),),
        )
        for index, tool in enumerate(now.pending_tools)
    ]
    if now.interrupted:
        lines.insert(0, Line("resumption", (2,), "**Interrupted** by the user, who then said no more."))
    return lines


def git(view: View) -> list[Line]:
    """The branch, the last commit seen, and what was edited since."""
    now, detail = view.digest.resumption.git, view.detail
    parts = [f"branch `{cut(now.branch, 120)}`"] if now.branch else []
    if now.last_commit:
        parts.append(f"last commit {cut(now.last_commit, 50 if detail.terse else 120)}")
    if now.uncommitted:
        limit = 4 if detail.terse else 10
        names = [posixpath.basename(path) if detail.terse else path for path in now.uncommitted]
        more = f" and {len(names) - limit} more" if len(names) > limit else ""
        parts.append(
            f"edited since: {len(names)} file{'' if len(names) == 1 else 's'}"
            if detail.bare
            else f"edited since: {', '.join(names[:limit])}{more}"
        )
    if now.status and not detail.terse:
        parts.append(f"git status: {now.status}")
    head = f"**Git** {view.mark(now.uuid)}".rstrip()
    return [Line("resumption", (4,), f"{head}: {'; '.join(parts)}", (("git", 0),))] if parts else []


def steps(view: View) -> list[Line]:
    """What was done after the last request."""
    return [
        Line("resumption", (5, index), f"- did {view.mark(step.uuid)}: {cut(step.text, 160)}", (("steps", index),))
        for index, step in enumerate(view.digest.resumption.steps)
    ]


@dataclass(frozen=True, slots=True)
class News:
    """Something that came after the handoff: what it is or who said it, and the text. Where not all fits, that of
    the greatest `worth` number is given up first."""

    label: str
    text: str
    uuid: str = ""
    worth: int = 0


def since_handoff(view: View, news: Sequence[News]) -> list[Line]:
    """What came after the handoff, from this device and others; the indispensable first."""
    lines = [(one.worth, _news_line(view, index, one)) for index, one in enumerate(news)]
    return [line for _, line in sorted(lines, key=lambda pair: pair[0])]


def _news_line(view: View, index: int, one: News) -> Line:
    limit = max(view.detail.request, 120)
    head = " ".join(filter(None, ("-", view.mark(one.uuid), one.label)))
    text = quoted(f"{head}:", cut(one.text, limit)) if one.text else head
    return Line("since", (index,), text, (("since", index),), len(one.text) <= limit)


def requests(view: View) -> list[Line]:
    """Every request but the last, in order; corrections and rules are flagged with `!`."""
    return [_request(view, index, one) for index, one in enumerate(view.digest.requests) if not view.is_last(one)]


def waiting(view: View) -> list[Line]:
    """The requests made after the last one that the model got: those that come next."""
    found: list[Line] = []
    for index, one in reversed(list(enumerate(view.digest.requests))):
        if one.uuid or one.kind != "queued":
            break
        found.insert(0, _request(view, index, one))
    return found


# How a request that no turn holds is named in place of one.
_UNANCHORED = {"mid-turn": "mid-turn", "withdrawn": "taken back"}


def _request(view: View, index: int, request: Request) -> Line:
    detail = view.detail
    shown = shorten_request(request.text, detail.request)
    if detail.terse and shown != request.text:
        shown = one_line(shown)
    flag = "!" if request.constraint else ""
    name = view.mark(request.uuid, flag) if request.uuid else f"[{_UNANCHORED.get(request.kind, 'queued')}{flag}]"
    text = quoted(f"- {name}", shown)
    if request.repeats:
        text += f"\n  (said {request.repeats + 1} times)" if "\n" in text else f" (×{request.repeats + 1})"
    if request.context and (not detail.terse or len(request.text) <= 12):
        text += f"\n  ↳ asked: {cut(request.context, 64 if detail.bare else 120 if detail.terse else 240)}"
    return Line("requests", (index, 0), text, (("requests", index),), shown == request.text)


def outcomes(view: View) -> list[Line]:
    """What came of each request, in the model's words."""
    limit = 160 if view.detail.terse else max(view.detail.outcome, 200)
    return [
        Line(
            "requests",
            (index, 1),
            f"  → {view.mark(one.outcome_uuid)} {cut(one.outcome, limit)}",
            (("outcomes", index),),
        )
        for index, one in enumerate(view.digest.requests)
        if one.outcome and not view.is_last(one)
    ]


def replies(view: View) -> list[Line]:
    """The model's last words on each request, in place of the one sentence; the newest first."""
    limit = min(1_500, view.detail.reply)
    return [
        Line(
            "requests",
            (index, 1),
            f"  → {view.mark(one.outcome_uuid)}\n{fence(cut_middle(one.reply, limit))}",
            (("outcomes", index),),
        )
        for index, one in reversed(list(enumerate(view.digest.requests)))
        if one.reply and not view.is_last(one)
    ]


def shorten_request(text: str, limit: int) -> str:
    """A request within about `limit` characters: as it stands, else its beginning, then what else the user said in
    it that sets a rule or asks, and how long it is in all."""
    if len(text) <= limit:
        return text
    if limit < 120:
        return cut(text, limit)
    rest_mark = f" […{len(text):,} characters in all]"
    room = limit - len(rest_mark)
    said = min(max(_before_paste(text), 100), room * 2 // 3)
    head = cut(text, said).rstrip("…").rstrip()
    kept, left = "", room - len(head)
    for sentence in sentences(text[len(head) :]):
        line = one_line(sentence)
        asks = line.endswith(("?", "？", "؟"))
        if (
            12 <= len(line) <= 300
            and (asks or is_constraint(line))
            and not _looks_pasted(line)
            and len(line) + 3 <= left
        ):
            kept += f" … {line}"
            left -= len(line) + 3
    if not kept:
        head = cut(text, room).rstrip("…").rstrip()
    return head + kept + rest_mark


def _before_paste(text: str) -> int:
    """How far the user's own words go before what looks pasted, in characters; all of it if nothing does."""
    at = 0
    for line in text.split("\n"):
        if line.startswith("```") or (line.strip() and _looks_pasted(line)):
            return at
        at += len(line) + 1
    return len(text)


# How lines of logs, terminals, diffs and traces begin.
_PASTED = re.compile(
    r"\s*(?:\d{4}-\d\d-\d\d|[A-Z][a-z]{2} {1,2}\d{1,2} \d\d:|\d\d:\d\d:\d\d|[❯⏺⎿$%] |at \w+[.(]|Traceback|"
    r"diff --git|@@ |\+\+\+)"
)


def _looks_pasted(line: str) -> bool:
    """Whether a line is output or data that the user pasted rather than said."""
    odd = sum(char in '{}[]"=|<>/\\;' for char in line)
    return (len(line) > 20 and odd > len(line) / 12) or bool(_PASTED.match(line))


def notes(view: View) -> list[Line]:
    """What the calling model passed at the handoff."""
    digest, limit = view.digest, max(view.detail.reply, 160)
    lines = []
    if digest.summary:
        whole = len(digest.summary) <= limit * 2
        lines.append(
            Line("notes", (0,), quoted("Summary:", cut(digest.summary, limit * 2)), (("notes", 0),), whole)
        )
    decided = [one.text for one in digest.decisions if one.origin == "model"]
    kinds = (("Next", digest.next_steps), ("Open", digest.open_questions), ("Decided", decided))
    for place, (label, texts) in enumerate(kinds, start=1):
        lines += [
            Line(
                "notes",
                (place, index),
                f"- {label}: {cut(one_line(text), limit)}",
                (("notes", place * 10_000 + index),),
                len(text) <= limit,
            )
            for index, text in enumerate(texts)
        ]
    return lines


def choices(view: View, shown: Container[str]) -> list[Line]:
    """What the user decided when asked, but for answers that stand among the shown requests."""
    return [
        Line(
            "decisions",
            (0, index),
            f"- user chose {view.mark(one.uuid)}: {_question(one)}{cut(one_line(one.text), 300)}",
            (("decisions", index),),
        )
        for index, one in enumerate(view.digest.decisions)
        if one.origin == "user" and one.uuid not in shown
    ]


def _question(decision: Decision) -> str:
    return f"{cut(decision.question, 200)} — " if decision.question else ""


def findings(view: View) -> list[Line]:
    """Candidates quoted from the model, the most telling first; shown in the order of the session."""
    limit = 200 if view.detail.terse else 320
    return [
        Line(
            "decisions",
            (1, int(one.timestamp.timestamp()) if one.timestamp else 0, index),
            f"- {view.mark(one.uuid)} {cut(one_line(one.text), limit)}",
            (("decisions", index),),
        )
        for index, one in enumerate(view.digest.decisions)
        if one.origin == "extracted"
    ]


# Headings of Claude Code's compaction summaries, those first that tell where the work stands.
# Source: Claude Code 2.1 transcripts.
_HEADING = re.compile(
    r"\s{0,3}(?:\*\*)?\d{1,2}\.\s*(?:\*\*)?(?P<title>[A-Z][A-Za-z /&,()-]{3,60}?)(?:\*\*)?:(?:\*\*)?\s*(?P<rest>.*)"
    r"|#{1,4}\s+(?:\d{1,2}\.\s*)?(?P<heading>[^#\s].{2,60}?):?"
)
_WORTH = (
    "pending",
    "current work",
    "next step",
    "primary request",
    "problem",
    "errors",
    "all user",
    "files",
    "key technical",
)
_RESUME_ORDERS = re.compile(
    r"(?:If you need specific details from before compaction|Please continue the conversation from where).*",
    re.DOTALL,
)


def compaction(view: View) -> list[Line]:
    """The parts of the latest compaction summary, the most useful first."""
    quote = view.digest.compaction_summary
    limit = 300 if view.detail.terse else 900
    parts = sorted(
        compaction_parts(quote.text),
        key=lambda part: next((at for at, word in enumerate(_WORTH) if word in part[0].lower()), 99),
    )
    time = f" (as of {quote.timestamp:%Y-%m-%d %H:%M})" if quote.timestamp else ""
    mark = f"- {view.mark(quote.uuid)}".rstrip()
    return [
        Line(
            "compaction_summary",
            (rank,),
            f"{mark} {title}{'' if rank else time}: {cut(text, limit)}",
            (("compaction_summary", rank),),
            whole=False,
        )
        for rank, (title, text) in enumerate(parts)
        if text and not text.lower().startswith("none")
    ]


def compaction_parts(text: str) -> list[tuple[str, str]]:
    """Title and text of each part of a compaction summary; what stands before "Summary:" is the model thinking
    aloud, what follows the last part orders to itself, and both are left out."""
    body = re.split(r"^[ \t]*Summary:[ \t]*$", _RESUME_ORDERS.sub("", text), maxsplit=1, flags=re.MULTILINE)[-1]
    parts: list[tuple[str, list[str]]] = []
    for line in body.split("\n"):
        heading = _HEADING.fullmatch(line)
        if heading:
            parts.append(((heading["title"] or heading["heading"]).strip(), [heading["rest"] or ""]))
        elif parts:
            parts[-1][1].append(line)
    if not parts and body.strip():
        return [("Summary", one_line(body))]
    return [(title, one_line(" ".join(rest))) for title, rest in parts]
