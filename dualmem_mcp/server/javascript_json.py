"""JSON as JavaScript's `JSON.stringify(value, null, 2)` writes it: the texts of the reference memory server."""

from __future__ import annotations

import json
import re
from json.encoder import encode_basestring

# In a Python string a surrogate is always half a pair: a whole pair is one character.
_HALF_PAIR = re.compile("[\ud800-\udfff]")


def stringify(value: object) -> str:
    """The text of strings, lists and dictionaries: two spaces a level, other characters than ASCII as they are.

    The standard library agrees with JavaScript in all but half surrogate pairs, which are escaped here; but its
    encoder is slower once it indents, and a graph of 50,000 entities is written whole.
    Source: ECMA-262, SerializeJSONProperty and QuoteJSONString (well-formed since ES2019).
    """
    return _HALF_PAIR.sub(lambda half: f"\\u{ord(half[0]):04x}", _text(value, "\n"))


def _text(value: object, line_break: str) -> str:
    """`line_break` is a line break and the indentation of the level that the value stands at."""
    if isinstance(value, str):
        return encode_basestring(value)
    inner = line_break + "  "
    if isinstance(value, dict):
        members = [
            f"{encode_basestring(key)}: {encode_basestring(item) if type(item) is str else _text(item, inner)}"
            for key, item in value.items()
        ]
        return f"{{{inner}{f',{inner}'.join(members)}{line_break}}}" if members else "{}"
    if isinstance(value, (list, tuple)):
        items = [encode_basestring(item) if type(item) is str else _text(item, inner) for item in value]
        return f"[{inner}{f',{inner}'.join(items)}{line_break}]" if items else "[]"
    return json.dumps(value)
