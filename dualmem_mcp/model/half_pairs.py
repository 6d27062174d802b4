"""Halves of surrogate pairs: JSON can write one (`"\\ud800"`), JavaScript makes one by cutting an emoji in two.

They have no UTF-8 form. In a Python string a surrogate is always half a pair: a whole pair is one character.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

_HALF_PAIR: Final = re.compile("[\ud800-\udfff]")


def has_half_pair(text: str) -> bool:
    """Whether the text holds half of a surrogate pair."""
    return _HALF_PAIR.search(text) is not None


def escape_half_pairs(text: str) -> str:
    """The JSON text with each half pair as the escape that JSON has for it.

    Source: ECMA-262, QuoteJSONString (well-formed since ES2019).
    """
    return _HALF_PAIR.sub(lambda half: f"\\u{ord(half[0]):04x}", text)


def compact_json(value: Any) -> str:
    """The value as JSON without spaces, which has a UTF-8 form whatever texts are in it."""
    return escape_half_pairs(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
