"""JSON as JavaScript's `JSON.stringify(value, null, 2)` writes it: the texts of the reference memory server."""

from __future__ import annotations

import json
import re

# In a Python string a surrogate is always half a pair: a whole pair is one character.
_HALF_PAIR = re.compile("[\ud800-\udfff]")


def stringify(value: object) -> str:
    """The text of strings, lists and dicts: two spaces a level, other characters than ASCII as they are.

    The standard library agrees with JavaScript in all but half surrogate pairs, which are escaped here.
    Source: ECMA-262, QuoteJSONString (well-formed since ES2019).
    """
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return _HALF_PAIR.sub(lambda half: f"\\u{ord(half[0]):04x}", text)
