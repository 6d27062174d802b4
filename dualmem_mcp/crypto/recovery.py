"""The recovery key as a text that people can write down: 256 bits, mistyped groups named.

Source: docs/format.md, "Recovery key"; the alphabet is Crockford's base32 (crockford.com/base32.html).
"""

from __future__ import annotations

import hashlib
import os
import re

from dualmem_mcp.errors import LockedError

RECOVERY_KEY_BYTES = 32
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_VALUES = {character: value for value, character in enumerate(_ALPHABET)} | {"I": 1, "L": 1, "O": 0}
_PREFIX = "DMR1"
_GROUPS = 13
_GROUP_LENGTH = 5
_TEXT_LENGTH = _GROUPS * _GROUP_LENGTH


def new_recovery_key() -> bytes:
    """32 random bytes."""
    return os.urandom(RECOVERY_KEY_BYTES)


def format_recovery_key(key: bytes) -> str:
    """`DMR1-` and 13 groups of five characters."""
    bits = int.from_bytes(key) << 4 | hashlib.sha256(key).digest()[0] >> 4
    digits = [bits >> shift & 31 for shift in range(255, -5, -5)]
    groups = []
    for number in range(_GROUPS):
        group = digits[4 * number : 4 * number + 4]
        groups.append("".join(_ALPHABET[digit] for digit in (*group, _check(number, group))))
    return "-".join((_PREFIX, *groups))


def is_recovery_key(text: str) -> bool:
    """Whether a secret is meant as a recovery key, right or mistyped, rather than as a passphrase."""
    letters = _letters(text)
    return letters.startswith(_PREFIX) or (
        len(letters) == _TEXT_LENGTH and all(letter in _VALUES for letter in letters)
    )


def parse_recovery_key(text: str) -> bytes:
    """The 32 bytes of a recovery key; case, spaces and dashes do not matter, I and L are 1, O is 0.

    Raises LockedError that says how many characters are missing or which groups are mistyped. The groups
    are counted, not quoted: an error may end up in a log.
    """
    letters = _letters(text).removeprefix(_PREFIX)
    if len(letters) != _TEXT_LENGTH:
        raise _mistyped(f"has {len(letters)} characters after DMR1 instead of {_TEXT_LENGTH}")
    bits = 0
    wrong = []
    for number in range(_GROUPS):
        group = letters[_GROUP_LENGTH * number : _GROUP_LENGTH * (number + 1)]
        digits = [_VALUES.get(letter, -1) for letter in group]
        if -1 in digits or _check(number, digits[:4]) != digits[4]:
            wrong.append(str(number + 1))
            continue
        for digit in digits[:4]:
            bits = bits << 5 | digit
    if wrong:
        raise _mistyped(f"is mistyped in group {' and '.join(wrong)} of {_GROUPS} after DMR1")
    key = (bits >> 4).to_bytes(RECOVERY_KEY_BYTES)
    if hashlib.sha256(key).digest()[0] >> 4 != bits & 15:
        raise _mistyped("is mistyped")
    return key


def _letters(text: str) -> str:
    return re.sub(r"[\s\-\u2010-\u2015]", "", text).upper()


def _check(number: int, digits: list[int]) -> int:
    """The check of a group: a weighted sum in GF(2^5), so that one wrong character or two swapped ones show."""
    check = number
    for power, digit in enumerate(digits, start=1):
        for _ in range(power):
            digit = digit << 1 ^ (0b100101 if digit & 16 else 0)  # noqa: PLW2901 - times x, modulo x^5 + x^2 + 1
        check ^= digit
    return check


def _mistyped(what: str) -> LockedError:
    return LockedError(
        f"the recovery key {what}",
        operation="read recovery key",
        hint="Compare it with what you wrote down: DMR1 and 13 groups of five letters and digits.",
    )
