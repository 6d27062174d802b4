"""List prices are read as they are meant, or refused with the field that is wrong."""

from __future__ import annotations

import copy
import json
import re
from importlib.resources import files
from typing import Any

import pytest

from dualmem_mcp.cost.prices import GB, list_prices, parse_prices
from dualmem_mcp.errors import MalformedError, UsageError
from dualmem_mcp.model.cost import USD_PER_READ_REQUEST, USD_PER_WRITE_REQUEST
from dualmem_mcp.model.tiers import TIERS

DOCUMENT: dict[str, Any] = json.loads((files("dualmem_mcp") / "data" / "prices.json").read_text())


def test_the_prices_that_come_along_are_whole_dated_and_sourced() -> None:
    prices = list_prices()
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", prices.date)
    assert all(source.startswith("https://") for source in prices.sources)
    assert {"us-east-1", "eu-west-1", "eu-central-1"} <= set(prices.regions)
    assert prices.vectors_usd_1k_month == {name: tier.usd_per_1k_vectors_month for name, tier in TIERS.items()}
    for region in prices.regions.values():
        colder = [one.usd_gb_month for one in region.storage.values()]
        assert colder == sorted(colder, reverse=True)
        assert 0 < region.read_usd_1k < region.write_usd_1k


def test_a_sync_names_its_price_by_the_same_list() -> None:
    region = list_prices().region()
    assert pytest.approx(region.write_usd_1k / 1000) == USD_PER_WRITE_REQUEST
    assert pytest.approx(region.read_usd_1k / 1000) == USD_PER_READ_REQUEST


def test_small_and_archived_objects_are_billed_for_more_than_they_have() -> None:
    storage = list_prices().region("us-east-1").storage
    assert storage["STANDARD"].billed_bytes(10) == 10
    assert storage["STANDARD_IA"].billed_bytes(10) == 128 * 1024
    assert storage["STANDARD_IA"].billed_bytes(GB) == GB
    assert storage["DEEP_ARCHIVE"].billed_bytes(10) == 10 + 32 * 1024
    assert [one.reads_at_once for one in storage.values()] == [True, True, True, False]


def test_a_folder_is_free() -> None:
    free = list_prices().region().free()
    assert (free.write_usd_1k, free.read_usd_1k, free.transfer_out_usd_gb) == (0, 0, 0)
    assert free.standard.usd_gb_month == 0


@pytest.mark.parametrize(
    ("asked", "nearest"),
    [
        ("eu-central-2", "eu-central-1"),
        ("eu-west-3", "eu-west-1"),
        ("us-west-2", "us-east-1"),
        ("ap-southeast-2", "us-east-1"),
        ("mars", "us-east-1"),
    ],
)
def test_a_region_without_prices_is_an_error_that_names_those_there_are(asked: str, nearest: str) -> None:
    with pytest.raises(UsageError) as raised:
        list_prices().region(asked)
    assert asked in raised.value.message
    assert all(region in raised.value.message for region in list_prices().regions)
    assert nearest in raised.value.hint
    assert list_prices().nearest(asked) == nearest


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("format", 2),
        ("currency", "EUR"),
        ("default_region", "mars"),
        ("sources", []),
        ("date", None),
        ("regions", {}),
        ("regions.us-east-1", []),
        ("regions.us-east-1.write_usd_1k", -1),
        ("regions.us-east-1.write_usd_1k", "0.005"),
        ("regions.us-east-1.read_usd_1k", True),
        ("regions.us-east-1.storage.STANDARD", None),
        ("regions.us-east-1.storage.STANDARD_IA.transition_usd_1k", None),
        ("classes.STANDARD_IA", None),
        ("classes.STANDARD.first_byte", ""),
        ("vectors_usd_1k_month.context", None),
        ("endpoint.usd_month", 1e999),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_its_field(path: str, value: object) -> None:
    document = copy.deepcopy(DOCUMENT)
    *folders, name = path.split(".")
    place = document
    for folder in folders:
        place = place[folder]
    place[name] = value
    with pytest.raises(MalformedError) as raised:
        parse_prices(json.dumps(document).encode())
    assert name in raised.value.message or "classes" in raised.value.message


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_price_list_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_prices(data)


def test_a_region_needs_its_standard_storage() -> None:
    document = copy.deepcopy(DOCUMENT)
    del document["regions"]["eu-west-1"]["storage"]["STANDARD"]
    with pytest.raises(MalformedError, match="STANDARD"):
        parse_prices(json.dumps(document).encode())
