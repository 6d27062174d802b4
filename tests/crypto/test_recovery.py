"""The recovery key as people copy it: round trips, and typing errors named by group."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp.crypto.recovery import format_recovery_key, is_recovery_key, new_recovery_key, parse_recovery_key
from dualmem_mcp.errors import LockedError

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
KEYS = st.binary(min_size=32, max_size=32)
EXAMPLE = format_recovery_key(bytes(range(32)))


def test_the_form_is_fixed():
    assert re.fullmatch(r"DMR1(-[0-9A-HJKMNP-TV-Z]{5}){13}", EXAMPLE)
    # By hand: 00 01 02 is 00000 00000 00000 10000 … in groups of five bits.
    assert EXAMPLE.startswith("DMR1-000G")
    assert len(new_recovery_key()) == 32
    assert new_recovery_key() != new_recovery_key()


@given(KEYS)
def test_round_trip(key):
    text = format_recovery_key(key)
    assert is_recovery_key(text)
    assert parse_recovery_key(text) == key


@given(KEYS, st.sampled_from([str.lower, str.title, lambda text: text.replace("-", " "), lambda text: text + "\n"]))
def test_case_spaces_and_dashes_do_not_matter(key, change):
    text = change(format_recovery_key(key))
    assert parse_recovery_key(text) == key
    assert parse_recovery_key(text.replace("-", "\u2013")) == key


def test_without_its_prefix_and_with_look_alikes():
    text = EXAMPLE.removeprefix("DMR1-")
    assert is_recovery_key(text)
    assert parse_recovery_key(text.replace("0", "o").replace("1", "l")) == bytes(range(32))
    assert parse_recovery_key(text.replace("1", "I")) == bytes(range(32))


@given(KEYS, st.integers(0, 12), st.integers(0, 4), st.integers(1, 31))
def test_every_wrong_character_is_found_and_its_group_named(key, group, place, difference):
    groups = format_recovery_key(key).split("-")[1:]
    letters = list(groups[group])
    letters[place] = ALPHABET[(ALPHABET.index(letters[place]) + difference) % 32]
    groups[group] = "".join(letters)
    with pytest.raises(LockedError, match=rf"in group {group + 1} of 13"):
        parse_recovery_key("DMR1-" + "-".join(groups))


@given(KEYS, st.integers(0, 12), st.integers(0, 3))
def test_every_swap_of_neighbours_is_found(key, group, place):
    groups = format_recovery_key(key).split("-")[1:]
    letters = list(groups[group])
    if letters[place] == letters[place + 1]:
        return
    letters[place], letters[place + 1] = letters[place + 1], letters[place]
    groups[group] = "".join(letters)
    with pytest.raises(LockedError, match=rf"in group {group + 1} of 13"):
        parse_recovery_key("-".join(groups))


@given(KEYS, st.integers(0, 12), st.integers(0, 12))
def test_every_swap_of_groups_is_found(key, one, other):
    groups = format_recovery_key(key).split("-")[1:]
    if one == other:
        return
    groups[one], groups[other] = groups[other], groups[one]
    first, second = sorted((one + 1, other + 1))
    with pytest.raises(LockedError, match=rf"group {first} and {second} of"):
        parse_recovery_key("DMR1-" + "-".join(groups))


def test_the_check_over_the_whole_key():
    """A last group of another key: its own check holds, the bits of SHA-256 behind the key do not."""
    with pytest.raises(LockedError, match=r"is mistyped$"):
        parse_recovery_key(EXAMPLE[:-5] + format_recovery_key(bytes(31) + b"\x1e")[-5:])


@pytest.mark.parametrize("length", [0, 1, 5, 64, 66, 5000])
def test_a_wrong_length_is_named(length):
    with pytest.raises(LockedError, match=f"has {length} characters"):
        parse_recovery_key("DMR1-" + "0" * length)


def test_characters_outside_the_alphabet():
    with pytest.raises(LockedError, match="group 1 of 13"):
        parse_recovery_key("DMR1-U000" + EXAMPLE[9:])
    with pytest.raises(LockedError, match="group 2 of 13"):
        parse_recovery_key(EXAMPLE[:11] + "é" + EXAMPLE[12:])


def test_the_error_does_not_quote_the_key():
    with pytest.raises(LockedError) as caught:
        parse_recovery_key(EXAMPLE[:-1] + "Z")
    said = caught.value.message + caught.value.hint + caught.value.subject
    assert not any(group in said for group in EXAMPLE.split("-")[1:])


@pytest.mark.parametrize("text", ["correct horse battery staple", "", "hunter2", "0" * 64, "tr0ub4dor&3" * 6])
def test_passphrases_are_none(text):
    assert not is_recovery_key(text)
