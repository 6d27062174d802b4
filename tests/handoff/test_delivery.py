"""Delivery: in order, each object once, and nothing is given up when the store is away."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from dualmem_mcp.errors import ConflictError, NotFoundError, TamperedError
from dualmem_mcp.handoff.delivery import Delivery, deliver
from dualmem_mcp.stores.objects import open_object_store


class Waiting:
    """An outbox in memory."""

    def __init__(self, **objects: bytes) -> None:
        self.objects = dict(objects)
        self.hidden: set[str] = set()
        self.damaged: set[str] = set()

    def add(self, key: str, data: bytes) -> None:
        self.objects[key] = data

    def pending(self) -> Sequence[str]:
        return list(self.objects)

    def read(self, key: str) -> bytes:
        if key in self.hidden:
            raise NotFoundError(key)
        if key in self.damaged:
            raise TamperedError(key)
        return self.objects[key]

    def remove(self, key: str) -> None:
        self.objects.pop(key, None)


@pytest.fixture
def seen() -> list[str]:
    return []


def test_everything_goes_in_order(tmp_path: Path, seen: list[str]) -> None:
    store = open_object_store(str(tmp_path / "b"), create=True)
    outbox = Waiting(key=b"k", package=b"pp", record=b"r")
    assert deliver(outbox, store, on_delivered=seen.append, mend=pytest.fail) == Delivery(3, 4, 0)
    assert not outbox.pending()
    assert seen == ["key", "package", "record"]
    assert store.get("package") == b"pp"
    assert deliver(outbox, store, on_delivered=seen.append, mend=pytest.fail) == Delivery(0, 0, 0)


def test_a_store_that_is_away_keeps_everything_waiting(tmp_path: Path, seen: list[str]) -> None:
    outbox = Waiting(key=b"k", record=b"r")
    delivery = deliver(
        outbox, open_object_store(str(tmp_path / "unplugged")), on_delivered=seen.append, mend=pytest.fail
    )
    assert (delivery.uploaded, delivery.waiting) == (0, 2)
    assert delivery.reason
    assert outbox.pending() == ["key", "record"]
    store = open_object_store(str(tmp_path / "unplugged"), create=True)
    assert deliver(outbox, store, on_delivered=seen.append, mend=pytest.fail).uploaded == 2


def test_an_object_that_arrived_earlier_counts_as_delivered(tmp_path: Path, seen: list[str]) -> None:
    store = open_object_store(str(tmp_path / "b"), create=True)
    store.put("key", b"k")
    assert deliver(Waiting(key=b"k"), store, on_delivered=seen.append, mend=pytest.fail).uploaded == 1


def test_an_object_of_somebody_elses_is_never_overwritten(tmp_path: Path, seen: list[str]) -> None:
    store = open_object_store(str(tmp_path / "b"), create=True)
    store.put("key", b"other")
    outbox = Waiting(key=b"k", record=b"r")
    with pytest.raises(ConflictError):
        deliver(outbox, store, on_delivered=seen.append, mend=pytest.fail)
    assert store.get("key") == b"other"
    assert outbox.pending() == ["key", "record"]


def test_what_another_process_delivered_meanwhile_is_passed_over(tmp_path: Path, seen: list[str]) -> None:
    store = open_object_store(str(tmp_path / "b"), create=True)
    outbox = Waiting(gone=b"g", record=b"r")
    outbox.hidden.add("gone")
    assert deliver(outbox, store, on_delivered=seen.append, mend=pytest.fail).uploaded == 1
    assert store.get("record") == b"r"


def test_a_damaged_object_that_was_mended_is_delivered(tmp_path: Path, seen: list[str]) -> None:
    store = open_object_store(str(tmp_path / "b"), create=True)
    outbox = Waiting(package=b"p", record=b"r")
    outbox.damaged.add("package")
    assert deliver(outbox, store, on_delivered=seen.append, mend=outbox.damaged.discard).uploaded == 2
    assert seen == ["package", "record"]


def test_a_damaged_object_that_was_taken_out_does_not_hold_up_the_rest(tmp_path: Path, seen: list[str]) -> None:
    store = open_object_store(str(tmp_path / "b"), create=True)
    outbox = Waiting(package=b"p", record=b"r")
    outbox.damaged.add("package")

    def take_out(key: str) -> None:
        outbox.remove(key)
        outbox.hidden.add(key)

    assert deliver(outbox, store, on_delivered=seen.append, mend=take_out).uploaded == 1
    assert seen == ["record"]


def test_a_damaged_object_that_could_not_be_mended_is_told(tmp_path: Path, seen: list[str]) -> None:
    store = open_object_store(str(tmp_path / "b"), create=True)
    outbox = Waiting(package=b"p", record=b"r")
    outbox.damaged.add("package")
    with pytest.raises(TamperedError):
        deliver(outbox, store, on_delivered=seen.append, mend=lambda key: None)
    assert not seen
