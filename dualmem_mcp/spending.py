"""What this data home spends: the meter and the budget that its bucket passes, estimates and proposals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from datetime import timedelta
from typing import Any, Final

from dualmem_mcp.cost.budget import BudgetGate
from dualmem_mcp.cost.estimate import (
    Component,
    Holdings,
    Rates,
    components,
    per_conversation_usd,
    standing,
    total_usd,
)
from dualmem_mcp.cost.forecast import SCALES, Recorded, assumptions, forecast, projection, recorded
from dualmem_mcp.cost.meter import Meter, MeteredObjectStore
from dualmem_mcp.cost.objects import BucketContents, known_contents, look
from dualmem_mcp.cost.optimize import PROPOSERS, Facts, Proposer, lifecycle, propose
from dualmem_mcp.cost.prices import DAYS_A_MONTH, RegionPrices, list_prices
from dualmem_mcp.handoff.channel import Channel
from dualmem_mcp.model.tiers import TIER_NAMES, TierName
from dualmem_mcp.ports import BlobCache, Clock, CostCounts, ObjectStore
from dualmem_mcp.settings import Settings
from dualmem_mcp.stores.bucket_access import kept_bucket_access

_S3: Final = "s3://"
_MONTH: Final = timedelta(days=DAYS_A_MONTH)


class Spending:
    """The costs of one data home. Safe to use from any thread; `meter.flush` at its end.

    `edge_vectors` gives how many vectors this device has itself, `placed` how many points lie in which tier of a
    search service; `channel` the open vault, None without one.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        counts: CostCounts,
        blobs: BlobCache,
        clock: Clock,
        channel: Callable[[], Channel | None],
        edge_vectors: Callable[[], int],
        placed: Callable[[], Mapping[TierName, int]],
    ) -> None:
        self._settings = settings
        self.counts = counts
        self._blobs = blobs
        self._clock = clock
        self._channel = channel
        self._edge_vectors = edge_vectors
        self._placed = placed
        self.meter = Meter(counts, clock)
        self.proposers: list[Proposer] = list(PROPOSERS)
        """What `optimize` asks for proposals; whoever knows of more adds it."""
        self.gate = BudgetGate(
            settings.budget,
            counts=counts,
            meter=self.meter,
            clock=clock,
            prices=self._prices,
            standing_usd=self._standing_usd,
        )

    def metered(self, objects: ObjectStore) -> ObjectStore:
        """The bucket, counted; one that costs is refused when the budget is spent."""
        costs = objects.location.startswith(_S3)
        return MeteredObjectStore(objects, self.meter, self.gate.check if costs else _allow)

    def estimate(self, *, looking: bool = False, region: str = "", users: int | None = None) -> dict[str, Any]:
        """What this vault costs a month and will cost: the fields of `dualmem cost --json`.

        With `looking` the bucket is listed first, a request for each 1,000 objects. With a region a bucket in a
        folder is priced as if it were there, too. Without a vault there is nothing to look at. Raises UsageError
        for a region without prices, and with `looking` StoreUnreachableError.
        """
        prices = list_prices()
        rates = self._rates(self._region(region))
        holdings = self._holdings(looking)
        record = self.recorded()
        use = record.a_month.times(holdings.devices)
        parts = components(holdings, use, rates)
        ahead = forecast(record, total_usd(standing(holdings, rates)), rates.region, holdings.devices)
        scales = sorted({*SCALES, *([users] if users else [])})
        spent = self.gate.spent()
        per_conversation = per_conversation_usd(parts, holdings)
        return {
            "prices_date": prices.date,
            "region": rates.region.region,
            "is_folder": self._is_folder and not region,
            "components": [_rounded(part) for part in parts],
            "usd_month": _usd(total_usd(parts)),
            "usd_conversation": None if per_conversation is None else _usd(per_conversation),
            "usd_user_month": _usd(total_usd(parts)),
            "conversations": holdings.conversations,
            "conversations_month": holdings.conversations_month,
            "devices": holdings.devices,
            "objects": holdings.contents.count,
            "stored_bytes": holdings.contents.size_bytes,
            "looked_at": holdings.contents.looked_at and holdings.contents.looked_at.isoformat(timespec="seconds"),
            "recorded_since": record.first_day and record.first_day.isoformat(),
            "forecast": {name: _usd(value) for name, value in asdict(ahead).items()},
            "projection": [
                {name: _usd(value) for name, value in asdict(one).items()}
                for one in projection(parts, rates, scales)
            ],
            "assumptions": assumptions(rates, holdings.devices),
            "budget": {
                **asdict(self._settings.budget),
                "use_usd": _usd(spent.use_usd),
                "standing_usd": _usd(spent.standing_usd),
                "spent_usd": _usd(spent.usd),
            },
            "warnings": [*self._warnings(region, holdings.contents), *self.gate.warnings()],
        }

    def optimize(self, *, region: str = "") -> dict[str, Any]:
        """What would cost less: `proposals`, the S3 `lifecycle` configuration with their rules, region, usd_month,
        warnings.

        Nothing is asked of the bucket. Raises UsageError for a region without prices.
        """
        rates = self._rates(self._region(region))
        holdings = self._holdings(looking=False)
        use = self.recorded().a_month.times(holdings.devices)
        facts = Facts(
            packages=self.counts.packages(),
            contents=holdings.contents,
            use=use,
            rates=rates,
            regions=list(list_prices().regions.values()) if region or not self._is_folder else [rates.region],
            timing=self._settings.sync,
            now=self._clock.now(),
            prefix=self._prefix(),
        )
        found = propose(facts, self.proposers)
        warnings = self._warnings(region, holdings.contents)
        if self._is_folder and not region:
            warnings.append("the bucket is a folder, which is free; --region shows what S3 would cost there")
        return {
            "usd_month": _usd(total_usd(components(holdings, use, rates))),
            "region": rates.region.region,
            "proposals": [one.to_json() for one in found],
            "lifecycle": lifecycle(found),
            "warnings": warnings,
        }

    def _prefix(self) -> str:
        if self._is_folder:
            return ""
        prefix = self._settings.bucket.removeprefix(_S3).partition("/")[2].strip("/")
        return f"{prefix}/" if prefix else ""

    def recorded(self) -> Recorded:
        """Use of this device by day, up to yesterday."""
        self.meter.flush()
        today = self._clock.now().date()
        return recorded(self.counts.use(today - timedelta(days=60)), today)

    @property
    def _is_folder(self) -> bool:
        return not self._settings.bucket.startswith(_S3)

    def _known_region(self) -> str:
        if self._settings.cost.region:
            return self._settings.cost.region
        access = kept_bucket_access(self._blobs)
        return access.region if access is not None else ""

    def _region(self, asked: str) -> RegionPrices:
        """Prices of the region asked for, else of the bucket's. Raises UsageError if there are none."""
        found = list_prices().region(asked or self._known_region())
        return found.free() if self._is_folder and not asked else found

    def _prices(self) -> RegionPrices:
        """Prices for the budget, which has to have some: of the nearest region."""
        prices = list_prices()
        known = self._known_region()
        found = prices.region(prices.nearest(known) if known else "")
        return found.free() if self._is_folder else found

    def vector_prices(self) -> Mapping[TierName, float]:
        """US dollars for 1,000 vectors and a month, by tier."""
        listed, own = list_prices().vectors_usd_1k_month, self._settings.cost.vectors_usd_1k_month
        return {name: own.get(name, listed[name]) for name in TIER_NAMES}

    def check_placing(self) -> None:
        """Raises BudgetSpentError if the hard budget is spent, by what lies in the tiers at this moment."""
        self.gate.look_again()
        self.gate.check()

    def _rates(self, region: RegionPrices) -> Rates:
        prices, own = list_prices(), self._settings.cost
        machine = prices.endpoint_usd_month if own.endpoint_usd_month is None else own.endpoint_usd_month
        return Rates(region, self.vector_prices(), machine, own.endpoint_users)

    def _holdings(self, looking: bool) -> Holdings:
        channel = self._channel()
        if looking and channel is not None:
            contents = look(channel.objects, self._blobs, self._clock)
        else:
            contents = known_contents(self._blobs, self.counts)
        devices = channel.vault.devices() if channel is not None else []
        return Holdings(
            vectors={**self._placed(), "edge": self._edge_vectors()},
            contents=contents,
            conversations=self.counts.conversations(),
            conversations_month=self.counts.conversations(self._clock.now() - _MONTH),
            devices=max(1, sum(one.revoked_after is None for one in devices)),
            served=self._settings.remote.public_url is not None,
        )

    def _standing_usd(self) -> float:
        # Without what a device has itself: that takes a look at its indexes, and is free unless the user prices it.
        known = Holdings(self._placed(), known_contents(self._blobs, self.counts), 0, 0, 1, self._is_served)
        return total_usd(standing(known, self._rates(self._prices())))

    @property
    def _is_served(self) -> bool:
        return self._settings.remote.public_url is not None

    def _warnings(self, asked: str, contents: BucketContents) -> list[str]:
        warnings = []
        if contents.looked_at is None:
            warnings.append("only packages are known of the bucket; `dualmem cost --look` lists it")
        if not asked and not self._is_folder and not self._known_region():
            warnings.append(
                f"the bucket's region is not known: prices are those of {list_prices().default_region}; "
                'give --region, or set {"cost": {"region": …}}'
            )
        return warnings


def _allow() -> None:
    """A folder costs nothing."""


def _usd(value: Any) -> Any:
    return round(value, 9) if isinstance(value, float) else value


def _rounded(part: Component) -> dict[str, Any]:
    return asdict(replace(part, quantity=round(part.quantity, 2), usd_month=round(part.usd_month, 9)))
