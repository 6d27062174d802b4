"""How a query is read: its words, what of it is embedded, whom it names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from dualmem_mcp.model.words import ROLES, STOP_WORDS, Trait, terms, words
from dualmem_mcp.search.time_spans import Span, read_spans

MAX_CHARACTERS: Final = 4_000
"""How much of each end of a long query is read: what is asked stands first or last, pasted material between."""

MAX_TERMS: Final = 64
"""Words that are searched at most, taken from both ends too."""

MAX_EMBEDDED: Final = 1_000
"""Characters that are embedded at most, half from each end of a longer query; the model reads no more."""

_ASKS_WHEN: Final = re.compile(
    r"\b(?:when|how long|(?:what|which) (?:day|date|week|month|year|time|season))\b", re.IGNORECASE
)
_ASKS_NUMBER: Final = re.compile(
    r"\bhow (?:many|much|old|far|tall|big|high|large|fast|heavy|often)\b|"
    r"\b(?:what|which) (?:number|amount|price|percentage|version|port|size|age)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Query:
    """A query as search needs it.

    `terms` are words to look up, different ones, in lower case. `embedded` is the text to embed, with "I" for the
    names of authors: a name would pull towards all that they ever said, and what they said of themselves is in the
    first person; empty if there is nothing to embed. `authors` are those of the known authors that are named.
    `wanted` are the traits of a text that answers, if the query tells, `spans` the time that it speaks of.
    `asked_at` is when.
    """

    terms: tuple[str, ...]
    embedded: str
    authors: tuple[str, ...]
    wanted: Trait
    spans: tuple[Span, ...]
    asked_at: datetime


def read_query(text: str, *, known_authors: Sequence[str], now: datetime) -> Query:
    """The query in any script and of any length; an empty one gives no terms and nothing to embed."""
    text = _ends(text)
    authors, without, told = _first_person(text, known_authors)
    return Query(
        terms=_terms(text),
        embedded=_embedded(told if any(map(str.isalnum, without)) else text),
        authors=authors,
        wanted=_wanted(text),
        spans=read_spans(text, now),
        asked_at=now,
    )


def _ends(text: str) -> str:
    return text if len(text) <= 2 * MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]} {text[-MAX_CHARACTERS:]}"


def _embedded(text: str) -> str:
    text = " ".join(text.split())
    half = MAX_EMBEDDED // 2
    return text if len(text) <= MAX_EMBEDDED else f"{text[: half - 1]} {text[-half:]}"


def _terms(text: str) -> tuple[str, ...]:
    # "who was it?" has no other words than these.
    found = terms(text) or list(dict.fromkeys(words(text)))
    if len(found) > MAX_TERMS:
        found = found[: MAX_TERMS // 2] + found[-MAX_TERMS // 2 :]
    return tuple(found)


def _wanted(text: str) -> Trait:
    if _ASKS_WHEN.search(text):
        return Trait.TIME
    return Trait.NUMBER if _ASKS_NUMBER.search(text) else Trait(0)


def _first_person(text: str, known_authors: Sequence[str]) -> tuple[tuple[str, ...], str, str]:
    """The authors named in the text, the text without their names, and with "I" and "my" for them."""
    whose: dict[str, list[str]] = {}
    for author in known_authors:
        if author not in ROLES:
            for name in {author, *author.split()}:
                if len(name) > 1 and name.casefold() not in STOP_WORDS:
                    whose.setdefault(name.casefold(), []).append(author)
    if not whose:
        return (), text, text
    # Who writes no capitals at all means names, too; otherwise "mark" is not Mark.
    any_case = text == text.lower()
    alternatives = "|".join(map(re.escape, sorted(whose, key=len, reverse=True)))
    pattern = re.compile(rf"(?<!\w)({alternatives})(['’]s)?(?!\w)", re.IGNORECASE)
    named: dict[str, None] = {}
    without: list[str] = []
    told: list[str] = []
    end = 0
    for found in pattern.finditer(text):
        if any_case or found[1][0].isupper() or not found[1].isascii():
            named.update(dict.fromkeys(whose.get(found[1].casefold(), ())))
            between = text[end : found.start()]
            without.append(between)
            told += [between, "my" if found[2] else "I"]
            end = found.end()
    return tuple(named), "".join([*without, text[end:]]), "".join([*told, text[end:]])
