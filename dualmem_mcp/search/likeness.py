"""Which items share their vectors: those of whose texts the model makes the same, or as good as the same."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Final

from dualmem_mcp.model.search import key_digest

# What is passed over, and what is not, was measured with MiniLM (all-MiniLM-L6-v2, which is uncased) on 1,200 turns
# of dialogues, as the cosine of each with itself changed (median; share below .99):
#   capitals, white space               1.000; 0     exactly the same vector
#   a full stop at the end              .994; 19 %   passed over: it says nothing, and nobody looks for it
#   curly quotes for straight ones      .995; 13 %   passed over: the keyboard makes them, not who writes
#   commas and stops at ends of words   .974; 91 %   kept, as all other signs: `a, b` is not `a b`, nor `!x` `x`
#   an exclamation mark at the end      .985; 65 %   kept: `sort!` is another method than `sort`
#   a question mark at the end          .981; 87 %   kept: a question is no statement
#   full-width forms                    .058; 100 %  kept: the model does not know them, and NFKC makes `x2` of `x²`
# Words that overlap by 95 % and more were looked for, too, in real sessions, and none were found that did not agree
# in all of them (benchmarks/duplicates.py).
_QUOTES: Final = str.maketrans("‘’‚‛“”„‟", "''''\"\"\"\"")

# After a letter alone: `cd ..` is another command than `cd .`, and `wait...` is no end.
_LAST_STOP: Final = re.compile(r"(?<=[^\W\d_])\.\Z")


def likeness(passages: Sequence[str]) -> int:
    """A digest (63 bits) of the texts that are embedded of an item, the same for items that may share vectors.

    Indexes keep it: with another rule what they have would merely be like nothing that comes.
    """
    return key_digest("\0".join(map(alike, passages)))


def alike(text: str) -> str:
    """What the model reads of a text: in lower case, with single spaces, straight quotes, in composed characters
    (NFC), and without a full stop that ends it.

    Not `casefold`, which makes `Masse` of `Maße`: these are two words, and the model reads them as two.
    """
    composed = unicodedata.normalize("NFC", text.translate(_QUOTES))
    # Lower case takes some characters apart (`İ` is an i with a dot).
    lower = unicodedata.normalize("NFC", composed.lower())
    return _LAST_STOP.sub("", " ".join(lower.split()))
