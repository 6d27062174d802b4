"""What counts as a word: one reading for what is indexed and for what is searched.

An index stores `index_text(text)` and a query is split by `words(query)`; both see the same words because both
come from here. A full-text tokenizer that takes letters and digits as words (SQLite's `unicode61`) then splits at
the right places: identifiers are there whole and in parts, and scripts written without spaces between words as
pairs of characters.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from enum import IntFlag
from typing import Final

_STOP_WORDS: Final = """
    a about above after again against all also am an and any are as at be because been before being below between
    both but by can could did do does doing done down during each either else ever few for from further get gets
    getting go goes going gone got had has have having he her here hers herself him himself his how i if in into is
    it its itself just let like lot made make makes making many may me might more most much must my myself no nor
    not now of off oh on once one only or other our ours ourselves out over own really same shall she should so some
    something still such than that the their theirs them themselves then there these they thing things this those
    through to too under until up us very was we were what when where which while who whom whose why will with would
    yes yet you your yours yourself yourselves
"""
STOP_WORDS: Final = frozenset(_STOP_WORDS.split())
"""English words that tell nothing of what a text is about."""

ROLES: Final = frozenset({"", "user", "assistant", "system", "model"})
"""Authors that are no persons' names."""

# Scripts that put no spaces between words: kana, Han with its extensions, Hangul (its words carry their particles),
# Thai, Lao, Burmese, Khmer. Source: Unicode 16, Blocks.txt.
UNSPACED: Final = "぀-ヿㇰ-ㇿ㐀-䶿一-鿿豈-﫿가-힣ｦ-ﾝ\U00020000-\U0003fffd\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
"""The ranges of these scripts, as a set of characters in a pattern holds them."""

_UNSPACED_RUN: Final = re.compile(f"[{UNSPACED}]+")

# Marks that belong to the letter before them: Latin and Greek accents, Hebrew and Arabic points, the vowel signs of
# Indian scripts (their full stops are none).
_MARKS: Final = "\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u0900-\u0963\u0966-\u0dff"
_RUN: Final = rf"(?:[^\W_][{_MARKS}]*)+"

# Letters and digits, held together by one of the signs that identifiers, versions and host names are made with.
_NAME: Final = re.compile(rf"{_RUN}(?:[_.'’-]{_RUN})*")
_PLAIN_NAME: Final = re.compile(r"[^\W_]+(?:[_.'-][^\W_]+)*", re.ASCII)
_PART: Final = re.compile(_RUN)
_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_VERSION: Final = re.compile(r"v?\d+[_.-]\d", re.IGNORECASE)
_NEGATION: Final = re.compile(r"[^\W_]+n['’]t", re.IGNORECASE)
_CONTRACTION: Final = re.compile(r"['’](?:s|t|re|ve|ll|d|m)\b", re.IGNORECASE)

# What is said of a picture, after the text.
_BRACKETED_END: Final = re.compile(r"\s*\[[^\[\]]*\]\s*$")

_TIME: Final = re.compile(
    r"\b(?:yesterday|today|tonight|tomorrow|ago|since|weekend|"
    r"(?:last|next|this|past) (?:night|morning|evening|spring|summer|autumn|fall|winter)|"
    r"(?:hour|day|night|week|month|year|decade)s?|(?:mon|tues|wednes|thurs|fri|satur|sun)days?|"
    r"january|february|(?-i:March|May)|april|june|july|august|september|october|november|december|"
    r"(?:19|20)\d\d)\b",
    re.IGNORECASE,
)
_NUMBER: Final = re.compile(
    r"\d|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|"
    r"seventeen|eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundreds?|thousands?|"
    r"million|dozen|half|couple|first|second|third|once|twice)\b",
    re.IGNORECASE,
)

MAX_NAME: Final = 64
"""Longer runs (base64, hashes, minified code) are no words: they are not searched whole, nor joined."""


def words(text: str) -> Iterator[str]:
    """The words to look up for a text, in their order, in lower case, stop words among them.

    What is held together by signs or capitals is one word, lest a name of three parts weighs as three words:
    `user_id` and `userId` give `userid`, `well-known` gives `wellknown`, `3.12` gives `3x12`. A run of a script
    without spaces gives its pairs of characters, or its only character.
    """
    yield from _split(text, stored=False)


def index_text(text: str) -> str:
    """The text as a full-text index stores it: its words, with a space between them.

    `getUserName` is there as `getusername get user name`, `user_id` as `userid user id`, `3.12` as `3x12 3 12`,
    a run of a script without spaces as its characters and their pairs.
    """
    return " ".join(_split(text, stored=True))


def index_text_of(author: str, text: str) -> str:
    """`index_text` with the author's name before it, if it is one: who looks for what a person said names them."""
    return index_text(text if author in ROLES else f"{author} {text}")


def terms(text: str) -> list[str]:
    """The different words of the text that are no stop words, in the order in which they come first."""
    return list(dict.fromkeys(word for word in words(text) if word not in STOP_WORDS))


def term_count(text: str) -> int:
    """How many words of the text are no stop words: what a text's length is for ranking."""
    return sum(word not in STOP_WORDS for word in words(text))


class Trait(IntFlag):
    """What ranking wants to know of a text, told from its form alone."""

    QUESTION = 1
    """It ends with a question mark; smileys after it and what is said of a picture do not count."""
    TIME = 2
    """It says when or how long: "yesterday", "last week", "in May", "for two years", a date. English."""
    NUMBER = 4
    """It holds a number, in digits of any script or as an English word."""


def traits(text: str) -> Trait:
    """The traits that the text has."""
    end = _BRACKETED_END.sub("", text[-400:])
    closing = next((sign for sign in reversed(end) if sign.isalnum() or sign in ".!?。！？؟"), "")
    found = Trait.QUESTION if closing in {"?", "？", "؟"} else Trait(0)
    if _TIME.search(text):
        found |= Trait.TIME
    if _NUMBER.search(text):
        found |= Trait.NUMBER
    return found


def _split(text: str, *, stored: bool) -> Iterator[str]:
    if not text.isascii():
        # Full-width letters, ligatures and letters with detached accents are the same as the plain ones.
        text = unicodedata.normalize("NFKC", text)
    for found in (_PLAIN_NAME if text.isascii() else _NAME).finditer(text):
        name = found.group()
        if name.isascii():
            yield from _western(name, stored=stored)
        else:
            yield from _mixed(name, stored=stored)


def _mixed(name: str, *, stored: bool) -> Iterator[str]:
    position = 0
    for run in _UNSPACED_RUN.finditer(name):
        if run.start() > position:
            yield from _western(name[position : run.start()], stored=stored)
        characters = run.group()
        if stored or len(characters) == 1:
            yield from characters
        yield from (characters[at : at + 2] for at in range(len(characters) - 1))
        position = run.end()
    if position < len(name):
        yield from _western(name[position:], stored=stored)


def _western(name: str, *, stored: bool) -> Iterator[str]:
    if name.isalpha() and (name.islower() or name[1:].islower()):
        # By far the most words: one of small letters, perhaps after a capital.
        if len(name) <= MAX_NAME:
            yield name.lower()
        return
    spoken = "'" in name or "’" in name
    if spoken:
        if _NEGATION.fullmatch(name):
            return
        name = _CONTRACTION.sub("", name)
    parts = [part for part in _PART.findall(name) if len(part) <= MAX_NAME]
    if len(parts) > 1 and len(name) <= MAX_NAME and not spoken:
        # With a letter between digits, so that 3.12 is not 312.
        yield ("x" if _VERSION.match(name) else "").join(parts).lower()
        if not stored:
            return
    for part in parts:
        yield part.lower()
        humps = _HUMP.split(part) if stored else []
        if len(humps) > 1:
            yield from (hump.lower() for hump in humps)
