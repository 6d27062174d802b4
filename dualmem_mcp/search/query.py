"""How a query is read: its words, what of it is embedded, whom it names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from dualmem_mcp.model.words import ROLES, STOP_WORDS, terms, words

MAX_CHARACTERS: Final = 4_000
"""How much of each end of a long query is read: what is asked stands first or last, pasted material between."""

MAX_TERMS: Final = 64
"""Words that are searched at most, taken from both ends too."""

MAX_EMBEDDED: Final = 1_000
"""Characters that are embedded at most; the model reads no more."""


@dataclass(frozen=True, slots=True)
class Query:
    """A query as search needs it.

    `terms` are words to look up, different ones, in lower case. `embedded` is the text to embed: without the names
    of authors, which would pull towards all they ever said; empty if there is nothing to embed. `authors` are
    those of the known authors that are named. `asked_at` is when.
    """

    terms: tuple[str, ...]
    embedded: str
    authors: tuple[str, ...]
    asked_at: datetime


def read_query(text: str, *, known_authors: Sequence[str], now: datetime) -> Query:
    """The query in any script and of any length; an empty one gives no terms and nothing to embed."""
    text = _ends(text)
    authors, rest = _without_authors(text, known_authors)
    return Query(
        terms=_terms(text),
        embedded=" ".join((rest if any(map(str.isalnum, rest)) else text).split())[:MAX_EMBEDDED],
        authors=authors,
        asked_at=now,
    )


def _ends(text: str) -> str:
    return text if len(text) <= 2 * MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]} {text[-MAX_CHARACTERS:]}"


def _terms(text: str) -> tuple[str, ...]:
    # "who was it?" has no other words than these.
    found = terms(text) or list(dict.fromkeys(words(text)))
    if len(found) > MAX_TERMS:
        found = found[: MAX_TERMS // 2] + found[-MAX_TERMS // 2 :]
    return tuple(found)


def _without_authors(text: str, known_authors: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """The authors named in the text, and the text without their names."""
    whose: dict[str, list[str]] = {}
    for author in known_authors:
        if author not in ROLES:
            for name in {author, *author.split()}:
                if len(name) > 1 and name.casefold() not in STOP_WORDS:
                    whose.setdefault(name.casefold(), []).append(author)
    if not whose:
        return (), text
    # Who writes no capitals at all means names, too; otherwise "mark" is not Mark.
    any_case = text == text.lower()
    named: dict[str, None] = {}

    def take_out(found: re.Match[str]) -> str:
        name = found[1]
        if not any_case and not name[:1].isupper() and name.isascii():
            return found[0]
        named.update(dict.fromkeys(whose[name.casefold()]))
        return " "

    alternatives = "|".join(map(re.escape, sorted(whose, key=len, reverse=True)))
    rest = re.sub(rf"(?<!\w)({alternatives})(?:['’]s)?(?!\w)", take_out, text, flags=re.IGNORECASE)
    return tuple(named), rest
