"""Facts of a conversation, and the share of them that a text holds.

A fact is a word that cannot be guessed: a number, version, hash, error code, identifier, option, file name, address
or name. Which words count and what each weighs is in docs/fidelity.md.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dualmem_mcp.handoff.fidelity.said import Passage, Speaker

_RUN = re.compile(r"[A-Za-z0-9_~./\\-][A-Za-z0-9_~./\\@:,%+-]+")
_TRIM = ".,:/\\+-~@"
# A word with a capital inside a sentence, in scripts that have capitals. The space first: that is found fast.
_NAME = re.compile(r" (?<=[^\W_] )([^\W\d_a-zß-öø-ÿ][^\W\d_]{2,})(?!\w)")
_WORD = re.compile(r"\w+")

_NUMBER = re.compile(r"v?\d+(?:[.:]\d+)*(?:%|[a-zA-Z]{1,3})?")
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_HASH = re.compile(r"(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{7,64}")
_INNER_CAPITAL = re.compile(r"[a-z][A-Z]|[A-Z]{2}[a-z]")
_DOTTED = re.compile(r"[A-Za-z_]\w+(?:\.[A-Za-z_]\w+)+")
_PLACE_IN_FILE = re.compile(r":[\d:,-]*\Z")
_HASH_SHOWN = 7
"""Characters by which a hash is compared: conversations and digests abbreviate them."""

_SPEAKER_WEIGHT: Mapping[Speaker, float] = {"user": 3.0, "model": 2.0, "call": 0.0}


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts of a conversation with their weights, and how many of them each of its passages holds."""

    weights: Mapping[str, float]
    in_passage: Sequence[int]


class _Judged(dict[str, str]):
    """The facts of runs of characters, each judged when it is first asked for; `names` are those in capitals."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __missing__(self, run: str) -> str:
        fact = self[run] = _fact(run)
        if fact and run.strip(_TRIM).isupper():
            self.names.add(fact)
        return fact


class FactReader:
    """Reads facts out of texts; each distinct word is judged once."""

    def __init__(self) -> None:
        self._known = _Judged()
        self._names = self._known.names

    def facts(self, text: str) -> set[str]:
        """The facts in a text, each in the one form in which facts are compared; names are not among them."""
        found = set(map(self._known.__getitem__, set(_RUN.findall(text))))
        found.discard("")
        return found

    def weigh(self, passages: Sequence[Passage]) -> Facts:
        """The facts of a conversation.

        A fact that the user said weighs 3, one that only the model said 2, times 1 + ln of the number of turns that
        say it or name it in a tool call. What only tool calls name was said by nobody; a name that is also written
        small is a common word.
        """
        found = [self._facts_of(passage) for passage in passages]
        common = self._names & self._written_small(passages)
        turns: dict[str, set[int]] = {}
        said: dict[str, float] = {}
        for passage, facts in zip(passages, found, strict=True):
            weight = _SPEAKER_WEIGHT[passage.speaker]
            facts.difference_update(common)
            for fact in facts:
                turns.setdefault(fact, set()).add(passage.position)
                said[fact] = max(said.get(fact, 0.0), weight)
        weights = {fact: said[fact] * (1 + math.log(len(where))) for fact, where in turns.items() if said[fact]}
        return Facts(weights, [len(facts) for facts in found])

    def _facts_of(self, passage: Passage) -> set[str]:
        found = self.facts(passage.text)
        # An argument of a call is no sentence, in which a capital would mean something.
        if passage.speaker != "call":
            names = {name.casefold() for name in _NAME.findall(passage.text) if name[0].isupper()}
            self._names |= names
            found |= names
        return found

    def _written_small(self, passages: Sequence[Passage]) -> set[str]:
        """The words of the passages as they are written."""
        words = {run.strip(_TRIM) for run in self._known}
        if not all(map(str.isascii, self._names)):
            words.update(_WORD.findall("\n".join(passage.text for passage in passages)))
        return words

    def coverage(self, facts: Facts, text: str, *, words: Iterable[str] | None = None) -> float | None:
        """The weight of the facts that stand in a text, as a share of the weight of all; None without facts.

        A name counts as held wherever its word stands, with a capital or not. `words` are those of the text, case
        folded, where they have been read already.
        """
        total = sum(facts.weights.values())
        if not total:
            return None
        held = self.facts(text).union(_WORD.findall(text.casefold()) if words is None else words)
        return sum(weight for fact, weight in facts.weights.items() if fact in held) / total


def _fact(run: str) -> str:
    """The form in which a run of characters is compared as a fact; empty if it is none."""
    if run.isalpha() and run.islower():
        return ""
    word = run.strip(_TRIM)
    if "://" in run or (run.startswith("--") and word.strip("_")):
        fact = run.rstrip(_TRIM)
    elif "/" in word or "\\" in word or run[0] in "/~" or run.startswith("./"):
        fact = _file_name(run, word)
    elif any(map(str.isdigit, word)):
        fact = _with_digits(word)
    elif "_" in word.strip("_") or _INNER_CAPITAL.search(word) or _DOTTED.fullmatch(word):
        fact = word
    else:
        fact = word if len(word) >= 3 and word.isupper() else ""
    return fact.casefold()


def _file_name(run: str, word: str) -> str:
    """A path by its last name: a digest shows folders in other forms than a conversation does. `and/or` is none."""
    parts = _PLACE_IN_FILE.sub("", word).replace("\\", "/").split("/")
    name = parts[-1]
    is_path = len(parts) > 2 or "." in name[1:] or run[0] in "/~" or run.startswith(("./", "../"))
    return name if is_path and len(name) > 1 else ""


def _with_digits(word: str) -> str:
    if _HASH.fullmatch(word):
        return word[:_HASH_SHOWN]
    if _THOUSANDS.fullmatch(word):
        return word.replace(",", "")
    word = _PLACE_IN_FILE.sub("", word) or word
    # A single digit is a place in a list or a count that stands in any text.
    return word if len(word) > 1 and (_NUMBER.fullmatch(word) or len(word) > 2) else ""
