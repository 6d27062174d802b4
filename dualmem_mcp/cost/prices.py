"""List prices: one dated file, read and checked. Source: docs/cost.md, "Prices"."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any, Final

from dualmem_mcp.errors import MalformedError, UsageError
from dualmem_mcp.model.tiers import TIER_NAMES, TierName

GB: Final = 2**30
"""Bytes that object storage bills as one GB. Source: Amazon S3 pricing, footnotes."""
DAYS_A_MONTH: Final = 365.25 / 12
STANDARD: Final = "STANDARD"
_FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class StorageClass:
    """One class of storage in one region, in US dollars: a GB and month; moving 1,000 objects there; reading a GB
    back, and asking for 1,000 objects back. An object is billed for `least_days` and `least_bytes` at least, and
    for `extra_bytes` in its class and `extra_standard_bytes` in STANDARD on top. `first_byte` is how long a read
    waits.
    """

    name: str
    usd_gb_month: float
    transition_usd_1k: float
    retrieval_usd_gb: float
    retrieval_usd_1k: float
    least_days: int
    least_bytes: int
    extra_bytes: int
    extra_standard_bytes: int
    first_byte: str

    @property
    def reads_at_once(self) -> bool:
        """Whether an object can be read without having been asked for before."""
        return self.first_byte == "milliseconds"

    def billed_bytes(self, size_bytes: int) -> int:
        """What an object of that size is billed for in its class."""
        return max(size_bytes, self.least_bytes) + self.extra_bytes


@dataclass(frozen=True, slots=True)
class RegionPrices:
    """Object storage in one region, in US dollars: 1,000 writes (PUT, LIST), 1,000 reads (GET, HEAD), a GB sent out
    to the internet, and the classes of storage whose prices are known there."""

    region: str
    name: str
    write_usd_1k: float
    read_usd_1k: float
    transfer_out_usd_gb: float
    storage: Mapping[str, StorageClass]

    @property
    def standard(self) -> StorageClass:
        """Storage as objects are put."""
        return self.storage[STANDARD]

    def free(self) -> RegionPrices:
        """The same of a folder, which costs nothing."""
        storage = {name: replace(one, usd_gb_month=0.0) for name, one in self.storage.items()}
        return replace(self, write_usd_1k=0.0, read_usd_1k=0.0, transfer_out_usd_gb=0.0, storage=storage)


@dataclass(frozen=True, slots=True)
class Prices:
    """All list prices, in US dollars, as of `date` (ISO 8601), from the pages of `sources`."""

    date: str
    sources: tuple[str, ...]
    default_region: str
    regions: Mapping[str, RegionPrices]
    vectors_usd_1k_month: Mapping[TierName, float]
    endpoint_name: str
    endpoint_usd_month: float

    def region(self, name: str = "") -> RegionPrices:
        """Prices of a region, by default the default one. Raises UsageError that names those there are."""
        try:
            return self.regions[name or self.default_region]
        except KeyError:
            raise UsageError(
                f"there are no prices for the region {name!r}; there are for {', '.join(self.regions)}",
                operation="read prices",
                subject=name,
                hint=f"The nearest is {self.nearest(name)}: give --region {self.nearest(name)}, or set "
                '{"cost": {"region": …}}.',
            ) from None

    def nearest(self, name: str) -> str:
        """The region with prices that has the most of a name's beginning, by whole parts; else the default one."""
        parts = name.lower().split("-")

        def alike(region: str) -> int:
            same = 0
            for one, other in zip(region.split("-"), parts, strict=False):
                if one != other:
                    break
                same += 1
            return same

        best = max(self.regions, key=lambda region: (alike(region), region == self.default_region))
        return best if alike(best) else self.default_region


@cache
def list_prices() -> Prices:
    """The prices that come with this version."""
    return parse_prices((files("dualmem_mcp") / "data" / "prices.json").read_bytes())


def parse_prices(data: bytes) -> Prices:
    """Prices from a file's bytes. Raises MalformedError that names the field that does not fit."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise _unfit("the file", "is not JSON") from None
    top = _Fields(document, "")
    if top.number("format") != _FORMAT:
        raise _unfit("format", f"is not {_FORMAT}")
    classes = {name: _Fields(one, f"classes.{name}") for name, one in top.table("classes").items()}
    regions = {
        name: _region(name, _Fields(one, f"regions.{name}"), classes) for name, one in top.table("regions").items()
    }
    default_region = top.text("default_region")
    if default_region not in regions:
        raise _unfit("default_region", "has no prices")
    vectors = _Fields(top.table("vectors_usd_1k_month"), "vectors_usd_1k_month")
    endpoint = _Fields(top.table("endpoint"), "endpoint")
    sources = document.get("sources")
    if not isinstance(sources, list) or not sources or not all(isinstance(one, str) for one in sources):
        raise _unfit("sources", "has to be a list of texts")
    if top.text("currency") != "USD":
        raise _unfit("currency", "is not USD")
    return Prices(
        date=top.text("date"),
        sources=tuple(sources),
        default_region=default_region,
        regions=regions,
        vectors_usd_1k_month={name: vectors.number(name) for name in TIER_NAMES},
        endpoint_name=endpoint.text("name"),
        endpoint_usd_month=endpoint.number("usd_month"),
    )


def _region(name: str, fields: _Fields, classes: Mapping[str, _Fields]) -> RegionPrices:
    storage = {}
    for class_name, one in fields.table("storage").items():
        if class_name not in classes:
            raise _unfit(f"classes.{class_name}", "is missing")
        storage[class_name] = _storage_class(
            class_name, _Fields(one, f"{fields.path}.storage.{class_name}"), classes[class_name]
        )
    if STANDARD not in storage:
        raise _unfit(f"{fields.path}.storage.{STANDARD}", "is missing")
    return RegionPrices(
        region=name,
        name=fields.text("name"),
        write_usd_1k=fields.number("write_usd_1k"),
        read_usd_1k=fields.number("read_usd_1k"),
        transfer_out_usd_gb=fields.number("transfer_out_usd_gb"),
        storage=storage,
    )


def _storage_class(name: str, prices: _Fields, rules: _Fields) -> StorageClass:
    def price(field: str) -> float:
        return 0.0 if name == STANDARD else prices.number(field)

    return StorageClass(
        name=name,
        usd_gb_month=prices.number("usd_gb_month"),
        transition_usd_1k=price("transition_usd_1k"),
        retrieval_usd_gb=price("retrieval_usd_gb"),
        retrieval_usd_1k=prices.number("retrieval_usd_1k", default=0.0),
        least_days=int(rules.number("least_days")),
        least_bytes=int(rules.number("least_bytes")),
        extra_bytes=int(rules.number("extra_bytes", default=0.0)),
        extra_standard_bytes=int(rules.number("extra_standard_bytes", default=0.0)),
        first_byte=rules.text("first_byte"),
    )


class _Fields:
    """A JSON object whose fields are checked as they are read."""

    def __init__(self, value: Any, path: str) -> None:
        if not isinstance(value, dict):
            raise _unfit(path or "the file", "has to be an object")
        self._value: dict[str, Any] = value
        self.path = path

    def table(self, name: str) -> dict[str, Any]:
        value = self._value.get(name)
        if not isinstance(value, dict) or not value:
            raise _unfit(self._at(name), "has to be an object with fields")
        return value

    def text(self, name: str) -> str:
        value = self._value.get(name)
        if not isinstance(value, str) or not value:
            raise _unfit(self._at(name), "has to be a text")
        return value

    def number(self, name: str, *, default: float | None = None) -> float:
        value = self._value.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise _unfit(self._at(name), "has to be a number from 0 on")
        return value

    def _at(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name


def _unfit(field: str, what: str) -> MalformedError:
    return MalformedError(
        f"prices: {field} {what}", operation="read prices", subject=field, hint="docs/cost.md has the file's form."
    )
