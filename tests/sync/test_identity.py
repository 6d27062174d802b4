"""A new identity is made once, whatever stops in between, and the data home opens with it afterwards."""

from __future__ import annotations

import pytest

from dualmem_mcp.crypto.keys import load_device
from dualmem_mcp.errors import StoreUnreachableError
from dualmem_mcp.sync.identity import KeptIdentity, told_apart
from tests.sync.conftest import Bench


def identity(bench: Bench) -> KeptIdentity:
    [desk] = bench.devices
    return KeptIdentity(desk.blobs, bench.objects, desk.clock)


def test_a_new_identity_is_joined_before_it_counts(bench: Bench) -> None:
    desk = bench.device("desk")
    kept = identity(bench)
    device_id = kept.prepare(desk.vault, bench.objects)
    assert load_device(desk.blobs)[0] == desk.first_id != device_id
    assert f"keys/d/{device_id}" in bench.objects.objects
    vault = kept.settle(device_id)
    assert (vault.device_id, vault.device_name) == (device_id, "desk (2)")
    assert load_device(desk.blobs)[0] == device_id
    assert [entry.device_id for entry in vault.devices()] == [desk.first_id, device_id]


def test_steps_can_be_repeated(bench: Bench) -> None:
    desk = bench.device("desk")
    kept = identity(bench)
    device_id = kept.prepare(desk.vault, bench.objects)
    assert kept.prepare(desk.vault, bench.objects) == device_id
    kept.settle(device_id)
    assert kept.settle(device_id).device_id == device_id
    assert len(desk.vault.devices()) == 2
    assert [entry.name for entry in desk.vault.devices()] == ["desk", "desk (2)"]
    # Another time it is another one.
    vault = kept.settle(device_id)
    assert kept.prepare(vault, bench.objects) not in {device_id, desk.first_id}
    assert [entry.name for entry in vault.devices()] == ["desk", "desk (2)", "desk (3)"]


def test_a_bucket_that_goes_away_leaves_the_old_identity(bench: Bench) -> None:
    desk = bench.device("desk")
    kept = identity(bench)
    bench.objects.away = True
    with pytest.raises(StoreUnreachableError):
        kept.prepare(desk.vault, bench.objects)
    assert load_device(desk.blobs)[0] == desk.first_id
    bench.objects.away = False
    device_id = kept.prepare(desk.vault, bench.objects)
    assert [entry.device_id for entry in desk.vault.devices()] == [desk.first_id, device_id]


@pytest.mark.parametrize(
    ("name", "taken", "expected"),
    [
        ("desk", ["desk"], "desk (2)"),
        ("desk (2)", ["desk", "desk (2)"], "desk (3)"),
        ("desk (2)", ["desk (2)"], "desk (3)"),
        ("desk", ["desk", "desk (3)"], "desk (2)"),
        ("x" * 64, ["x" * 64], "x" * 60 + " (2)"),
        ("(2)", [], "(2) (2)"),
        ("", [], "device (2)"),
    ],
)
def test_a_name_is_told_apart_by_a_number(name: str, taken: list[str], expected: str) -> None:
    assert told_apart(name, taken) == expected
    assert len(expected) <= 64


def test_who_holds_the_vault_is_told(bench: Bench) -> None:
    desk = bench.device("desk")
    told = []
    kept = KeptIdentity(desk.blobs, bench.objects, desk.clock, on_change=told.append)
    vault = kept.settle(kept.prepare(desk.vault, bench.objects))
    assert told == [vault]
