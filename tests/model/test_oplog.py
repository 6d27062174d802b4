"""Stamps and tags: unique, ordered alike in all their forms, monotone whatever the clock does."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp.errors import MalformedError
from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.model.oplog import Stamp, Tag, next_ticks, physical_ticks, split_tags

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)

device_ids = st.binary(min_size=16, max_size=16).map(lambda data: DeviceId(data.hex()))
stamps = st.builds(Stamp, st.integers(0, 2**63 - 1), device_ids)
tags = st.builds(Tag, stamps, st.integers(0, 2**32 - 1))


def test_ticks_are_milliseconds_above_a_counter() -> None:
    assert physical_ticks(datetime(1970, 1, 1, 0, 0, 1, 999_999, tzinfo=UTC)) == 1999 << 16


def test_a_later_clock_is_taken_over() -> None:
    assert next_ticks(physical_ticks(NOON), NOON + timedelta(milliseconds=1)) == physical_ticks(NOON) + (1 << 16)


def test_a_clock_that_stands_still_counts() -> None:
    assert next_ticks(physical_ticks(NOON), NOON) == physical_ticks(NOON) + 1


def test_a_full_counter_carries_into_the_milliseconds() -> None:
    full = physical_ticks(NOON) + 0xFFFF
    assert next_ticks(full, NOON) == physical_ticks(NOON + timedelta(milliseconds=1))


@given(st.integers(0, 2**62), st.lists(st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1)), max_size=20))  # noqa: DTZ001
def test_ticks_only_grow(last: int, readings: list[datetime]) -> None:
    for reading in readings:
        ticks = next_ticks(last, reading.replace(tzinfo=UTC))
        assert ticks > last
        last = ticks


@given(stamps, stamps)
def test_stamps_order_alike_as_values_text_and_bytes(one: Stamp, other: Stamp) -> None:
    assert (one < other) == (str(one) < str(other)) == (one.to_bytes() < other.to_bytes())


@given(tags)
def test_tags_come_back_from_text_and_bytes(tag: Tag) -> None:
    assert Tag.parse(str(tag)) == tag
    assert Tag.from_bytes(tag.to_bytes()) == tag
    assert len(tag.to_bytes()) == Tag.SIZE_BYTES
    assert Stamp.parse(str(tag.stamp)) == tag.stamp


@given(st.lists(tags, max_size=5))
def test_tags_lie_side_by_side(items: list[Tag]) -> None:
    assert split_tags(b"".join(tag.to_bytes() for tag in items)) == items


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0" * 16,
        "0" * 16 + "-" + "a" * 31,
        "8" + "0" * 15 + "-" + "a" * 32,
        "0" * 16 + "-" + "A" * 32,
        "0" * 16 + "-" + "a" * 32 + "\n",
    ],
)
def test_other_texts_are_no_stamps(text: str) -> None:
    with pytest.raises(MalformedError):
        Stamp.parse(text)


@pytest.mark.parametrize("item", ["", "01", "-1", "4294967296", "1 "])
def test_other_texts_are_no_tags(item: str) -> None:
    with pytest.raises(MalformedError):
        Tag.parse("0" * 16 + "-" + "a" * 32 + "." + item)
