"""Words by which a request tells a rule, a sentence a finding, and a reply a process; and sentence boundaries.

The lists are short on purpose: a cue only orders material that is quoted anyway, it never makes up any.
Languages: English in full; the plainest words of German, French, Spanish, Portuguese, Italian, Russian,
Chinese, Japanese, Korean, Arabic, Hebrew and Hindi.
"""

from __future__ import annotations

import re

from dualmem_mcp.handoff.quoting import without_link_targets

_CONSTRAINT_WORDS = (
    # English
    r"no[,.;:! ]+(?!problem|worries|idea)|nope\b|nah\b|wait[,.! ]|hang on|stop (?:it|that|doing|the|using)|"
    r"(?:do not|don'?t|doesn'?t have to|never|always|must(?:n'?t)?|instead|avoid|ensure|make sure|only)\b|"
    r"(?:let'?s not|should(?:n'?t)?|rather than|prefer|without|revert|roll ?back|undo|wrong|actually)\b|"
    r"(?:not yet|for now|separate(?:ly)?|intentional(?:ly)?|by default|deferr?ed|required|needs to|has to)\b|"
    r"(?:keep (?:it|the|them|that)|leave (?:it|the|them|that)|as is|please use|not (?:the|that|this|in|a))\b|"
    # German, French, Spanish, Portuguese, Italian
    r"(?:nein|nicht|keine?n?|niemals|immer|muss|müssen|stattdessen|nur|sondern)\b|"
    r"(?:non|jamais|toujours|doit|plutôt|seulement|surtout pas|ne \w+ pas)\b|"
    r"(?:nunca|siempre|sempre|debe|deve|solamente|solo|só|em vez|en lugar|en vez|invece|não)\b|"
    # Russian
    r"(?:нет|не надо|не нужно|нельзя|никогда|всегда|долж(?:ен|на|но|ны)|вместо|только)\b"
)
_CONSTRAINT_SCRIPTS = (
    "不要|不是|不能|别|必须|一定|而不是|始终|永远|应该|只能|改为|不對|不对|"
    "ないで|しないで|必ず|絶対|代わりに|ではなく|べき|だけ|やめて|"
    "하지 ?마|말고|반드시|항상|대신|절대|"
    "يجب|لا ت|دائم|أبد|بدلا|"
    "חייב|תמיד|במקום|אסור|אל ת|"
    "नहीं|मत |हमेशा|ज़रूर|जरूर"
)
_CONSTRAINT = re.compile(rf"(?<![\w'])(?:{_CONSTRAINT_WORDS})|{_CONSTRAINT_SCRIPTS}", re.IGNORECASE)

# In a question, "should" and "need to" ask; these still tell.
_RULE_IN_QUESTION = re.compile(
    r"\b(?:instead|rather than|without|don'?t want|do not want|must|never|only|separate|for now)\b", re.IGNORECASE
)

# The user doubts or contradicts what the model has just said.
_CHALLENGE = re.compile(
    r"(?:no\b|nope|nah|are you sure|really\?|i mean\b|that'?s (?:not|wrong)|wrong|not (?:quite|really|true)|"
    r"but\b|wait\b"
    r"|actually\b|why (?:would|did) you|nein\b|non\b|нет\b|不对|不是|違う|아니)",
    re.IGNORECASE,
)

_PROCESS = re.compile(
    r"(?:ok(?:ay)?[,.! ]+|good[,.! ]+|great[,.! ]+|perfect[,.! ]+|clean[,.! ]+|right[,.! ]+|now,? +|so +|"
    r"all (?:good|green)[,.! ]+)*"
    r"(?:let me|let's|let us|i'?ll|i will|i'?m going to|i am going to|i need to|i should|first,? let|next,? |"
    r"now (?:i|let|add|fix|update|"
    r"verify|check|remove|run|commit|the)|need to|here'?s (?:the|a|what|my)|want me to|would you like|shall i|"
    r"ready to|"
    r"no response requested|starting with|looking at|checking|i(?:'ve| have) (?:searched|completed|gathered|"
    r"read|now|all)|now i have|you'?re (?:absolutely )?right|good (?:catch|question|point|idea)|ich werde|"
    r"je vais|voy a|vou |我来|让我|"
    r"我将|これから|먼저)",
    re.IGNORECASE,
)

_CAUSE = (
    r"root cause|culprit|smoking gun|turns? out|"
    r"the (?:real |actual |key )?(?:issue|problem|bug|cause|fix|answer) (?:is|was)\b"
)
_CHOICE = (
    r"decided|decision|we(?:'ll| will) (?:go|use|keep)|agreed|chosen?\b|going with|instead of|rather than|deferred|"
    r"follow-?up"
)
_REASON = r"because|caused by|due to|(?:which|that) means|this (?:is why|explains|means)|so that|therefore"
_BEHAVIOUR = (
    r"confirmed|introduced|regression|never (?:gets?|calls?|runs?|sets?)|only (?:when|if|called|used|runs?)|"
    r"must(?:n't)?\b|cannot|can't|without"
)
_CHANGE = (
    r"\bfixed\b|the fix|resolved|replaced|removed|added|renamed|created|updated|merged|pushed|committed|refactor|"
    r"implemented|extracted|inlined|dropped|reverted"
)
_LIMIT = (
    r"note that|important|caveat|trade-?off|limitation|known issue|remaining|still (?:open|needs|fails)|todo|"
    r"not yet|won't|downside|risk"
)
_OTHER_LANGUAGES = (
    r"ursache|weil\b|stattdessen|entschieden|cause\b|parce que|porque|en lugar de|потому что|вместо|причин|"
    r"因为|原因|根本|修复|决定|改用|ため|原因は|代わりに|決定|때문|원인|대신|결정"
)
# Looked for in small letters: that takes a third of the time that `re.IGNORECASE` takes.
_FINDINGS: tuple[tuple[float, re.Pattern[str]], ...] = tuple(
    (weight, re.compile(pattern))
    for weight, pattern in (
        (3.0, _CAUSE),
        (2.5, _CHOICE),
        (2.0, _REASON),
        (2.0, _BEHAVIOUR),
        (2.0, _CHANGE),
        (1.5, _LIMIT),
        (2.0, _OTHER_LANGUAGES),
    )
)

# What makes a sentence worth keeping: names of code, numbers, paths, ids.
_FACT = re.compile(
    r"`[^`\n]+`|[\w./~-]+/[\w./-]+|\b\w+\.(?:[a-z]{1,4})\b(?::\d+)?|\b[a-z]+[A-Z]\w*|\b[A-Z]\w*[a-z][A-Z]\w*|"
    r"\b\w+_\w+|"
    r"\b[A-Z]{2,}-\d+|#\d+|\b\d[\d.,:%]*\w*|\b[0-9a-f]{7,40}\b|\*\*[^*\n]+\*\*"
)

_SENTENCE_END = re.compile(
    r"(?<=[.!?])[*_)\"'”’]*\s+(?=[\W\dA-ZА-ЯÀ-Þ\u0590-\u06ff\u0900-\u097f\u3040-\u9fff\uac00-\ud7af])|(?<=[。！？])"
)
_CODE_BLOCK = re.compile(r"^[ \t]*(`{3,}|~{3,}).*?(?:^[ \t]*\1[ \t]*$|\Z)", re.DOTALL | re.MULTILINE)
_LIST_MARK = re.compile(r"^\s*(?:[-*+•]|\d{1,2}[.)]|#{1,6}|>)\s+")
_TABLE_RULE = re.compile(r"^[\s|:+-]+$")
_ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|etc|vs|cf|approx|no)|\b[A-Z])\.$", re.IGNORECASE)
_LONGEST_ABBREVIATION = 10
"""Characters in which an abbreviation ends, with what stands before it."""


def is_constraint(text: str) -> bool:
    """Whether a request corrects the model or sets a rule: by the words of its first 1,500 characters."""
    text = text[:1500]
    if text.rstrip().endswith(("?", "？", "؟")) and "\n" not in text and not _CONSTRAINT.match(text):
        return bool(_RULE_IN_QUESTION.search(text))
    return bool(_CONSTRAINT.search(text))


def is_challenge(text: str) -> bool:
    """Whether a request doubts what was said just before it."""
    return bool(_CHALLENGE.match(text.lstrip("*_\"' (.…")))


def is_process(sentence: str) -> bool:
    """Whether a sentence tells what the model is about to do, which says nothing once it is done."""
    return bool(_PROCESS.match(sentence.lstrip("*_\"' -")))


def finding_weight(sentence: str) -> float:
    """How strongly a sentence is worded as a finding or decision: the sum of its cues, 0 without any."""
    lowered = sentence.lower()
    return sum(weight for weight, pattern in _FINDINGS if pattern.search(lowered))


def fact_count(sentence: str) -> int:
    """How many names of code, paths, numbers and ids a sentence holds."""
    return len(_FACT.findall(sentence))


def without_code_blocks(text: str) -> str:
    """The text without its fenced code."""
    return _CODE_BLOCK.sub("\n", text) if "```" in text or "~~~" in text else text


def sentences(text: str) -> list[str]:
    """The sentences of a Markdown text in order: list items and table rows apart, fenced code left out."""
    found: list[str] = []
    for line in without_link_targets(without_code_blocks(text)).split("\n"):
        if not line.strip() or _TABLE_RULE.match(line):
            continue
        bare = _LIST_MARK.sub("", line).strip()
        if bare.startswith("|"):
            found.append(" — ".join(cell.strip() for cell in bare.strip("|").split("|") if cell.strip()))
            continue
        found.extend(_sentences_of_line(bare))
    return found


def _sentences_of_line(line: str) -> list[str]:
    parts: list[list[str]] = []
    for part in _SENTENCE_END.split(line):
        # Only the end is looked at, and nothing is joined yet: a line may be one long run of abbreviations.
        if parts and _ABBREVIATION.search(parts[-1][-1][-_LONGEST_ABBREVIATION:]):
            parts[-1].append(part)
        elif part.strip():
            parts.append([part.strip()])
    return [" ".join(pieces) for pieces in parts]
