"""How long a plan of moves between the tiers takes, and what tiers cost and answer beside one tier for all.

    python benchmarks/tiering.py --items 1000000     a plan over so many items; two minutes, most of it to make them
    python benchmarks/tiering.py --days 90           a made-up record of accesses, planned, applied and served

--items: memory.db with a placement for every item and accesses of three in ten, made by the product's own stores,
and item columns as the indexes give them, a fiftieth of them repeated. In a process of its own the tables are
read and the plan is made. Peak memory is what the system says (`ru_maxrss`), beside what it was when the columns
had been loaded. The tiers hold 26,000 points at most, so that nearly all of a million are evicted: no plan has
more to do.

--days: items and accesses come from `access_trace.py`. After each hour of work the product's plan is made and
applied to its tables (--plans-a-day 1: after the last hour only); the service is modelled by these alone. Each
access is answered where it is found first, in as many ms as the tier aims at (`model/tiers.py`; nothing here
measures a service): in the small cache of a device (--cached, the product's working set), else in the tier where
the item lies. One that lies in no tier is missed. That is done twice: by the rules alone, and as the product does
it, which gives recent items that the rules leave on the edge what room there is (`tiers/allotment.py`).
All-critical has every item in `critical` from the same moment on at which the tiers could have it, without a
maximum, behind the same cache.

Costs are the list's prices for points and hours. Two scores, each as a share of all-critical's:

- Apdex with T = 50 ms, the target of `critical`: 1 for an answer up to T, 1/2 up to 4 T, 0 above and for what is
missed.
  Source: Apdex Alliance, "Application Performance Index - Apdex Technical Specification", version 1.1, 2007.
- The mean of 1 / (1 + ms / 100), 0 for what is missed: 10 ms is worth .91, 50 ms .67, 150 ms .40, 300 ms .25.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from access_trace import HOURS_A_DAY, Items, hours, make_items
from numpy.typing import NDArray

from dualmem_mcp.cost.prices import DAYS_A_MONTH, list_prices
from dualmem_mcp.model.search import COLLECTION_OF, KINDS, Collection, SearchItem, key_digest
from dualmem_mcp.model.tier_plan import Plan
from dualmem_mcp.model.tiers import TIERS, TierName
from dualmem_mcp.ports import ItemColumns
from dualmem_mcp.ports.placements import Placement
from dualmem_mcp.search.working_set import WorkingSet
from dualmem_mcp.stores.access_log import DatabaseAccessLog
from dualmem_mcp.stores.database import Database
from dualmem_mcp.stores.placements import DatabasePlacements
from dualmem_mcp.tiers.plan import make_plan

BEGIN = datetime(2026, 3, 2, 9, tzinfo=UTC)  # a Monday
EPOCH = 1 << 32
KEY = bytes(32)
BATCH = 20_000
DAY = 86_400_000_000
PRICES = list_prices().vectors_usd_1k_month
SERVICE: tuple[TierName, ...] = ("critical", "context", "historical")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, help="make a plan over so many items")
    parser.add_argument("--days", type=int, help="serve a record of so many days")
    parser.add_argument("--accesses", type=float, default=100, help="items given as answers on a working day")
    parser.add_argument("--cached", type=int, default=75, help="items that the device keeps (an Android phone's)")
    parser.add_argument("--plans-a-day", type=int, choices=(1, HOURS_A_DAY), default=HOURS_A_DAY)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--fill", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fill is not None:
        fill(options.fill, options.items)
    elif options.measure is not None:
        measure(options.measure)
    else:
        if options.items:
            print_plan(options.items)
        if options.days:
            print_record(options)
        if not (options.items or options.days):
            parser.error("nothing to do: give --items or --days")


# A plan over many items


def print_plan(number: int) -> None:
    """Make the tables in one process and the plan in another, so that the first one's memory does not count."""
    with tempfile.TemporaryDirectory() as folder:
        script = [sys.executable, __file__]
        subprocess.run([*script, "--items", str(number), "--fill", folder], check=True)
        done = subprocess.run([*script, "--measure", folder], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    whole = found["placements_s"] + found["accesses_s"] + found["plan_s"]
    print(f"{found['items']:,} items, {found['placements']:,} placements, {found['accesses']:,} accesses")
    print(f"reading placements {found['placements_s']:.2f} s, accesses {found['accesses_s']:.2f} s")
    print(f"plan {found['plan_s']:.2f} s: {found['moved']:,} items in {found['moves']} moves")
    print(f"in all {whole:.2f} s (aim: 10); peak {found['peak_mb']:.0f} MB (aim: 500),")
    print(f"of which {found['start_mb']:.0f} MB were there with the columns of the indexes")


def fill(folder: Path, number: int) -> None:
    """Make memory.db with its placements and accesses, and the columns as files."""
    rng = np.random.default_rng(1)
    kinds = rng.choice(len(KINDS), number, p=(0.9, 0.01, 0.03, 0.02, 0.03, 0.01)).astype(np.uint8)
    days = rng.exponential(200, number)
    passages = rng.choice(np.arange(1, 5), number, p=(0.85, 0.1, 0.03, 0.02)).astype(np.int32)
    likenesses = np.arange(1, number + 1)
    likenesses[rng.integers(0, number, number // 50)] = likenesses[rng.integers(0, number, number // 50)]
    names = [f"{KINDS[kind]}/conversation-{place // 60:026d}/item-{place:031d}" for place, kind in enumerate(kinds)]
    keys = np.array([key_digest(name) for name in names])
    now = (BEGIN - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    columns = ItemColumns(
        ids=np.arange(1, number + 1),
        keys=keys,
        kinds=kinds,
        conversations=np.arange(number) // 60 + 1,
        ordinals=np.where(kinds == KINDS.index("turn"), np.arange(number) % 60, -1).astype(np.int32),
        times=now - (days * DAY).astype(np.int64),
        words=np.full(number, 40, np.int32),
        passages=passages,
        contents=keys ^ 5,
        likenesses=likenesses,
    )
    for collection in Collection:
        codes = np.array([COLLECTION_OF[kind] == collection for kind in KINDS])
        some = codes[kinds]
        for one in fields(ItemColumns):
            np.save(folder / f"{collection.value}.{one.name}.npy", getattr(columns, one.name)[some])
    tiers = rng.choice(SERVICE, number, p=(0.01, 0.09, 0.9))
    with Database.open(folder / "memory.db", KEY) as database:
        placements, accesses = DatabasePlacements(database), DatabaseAccessLog(database)
        for start in range(0, number, BATCH):
            placements.put(
                [
                    Placement(names[place], str(tiers[place]), EPOCH, int(passages[place]), int(keys[place]) ^ 5)
                    for place in range(start, min(start + BATCH, number))
                ]
            )
            end = min(start + BATCH, number)
            used = start + rng.permutation(end - start)[: (end - start) * 3 // 10]
            at = BEGIN - timedelta(days=float(rng.exponential(20)))
            accesses.add([(names[place], 0.5) for place in used], at)


def measure(folder: Path) -> None:
    """Read the tables and make the plan; print what it took as JSON."""
    items = {
        collection: ItemColumns(
            **{one.name: np.load(folder / f"{collection.value}.{one.name}.npy") for one in fields(ItemColumns)}
        )
        for collection in Collection
    }
    start_mb = peak_mb()
    with Database.open(folder / "memory.db", KEY) as database:
        begin = time.perf_counter()
        placements = DatabasePlacements(database).columns()
        placements_read = time.perf_counter()
        accesses = DatabaseAccessLog(database).columns()
        accesses_read = time.perf_counter()
        plan = make_plan(
            items,
            accesses,
            placements,
            now=BEGIN,
            prices=PRICES,
            present_epoch=EPOCH,
            renew_epochs=set(),
            words=False,
        )
        made = time.perf_counter()
    found = {
        "items": plan.items,
        "placements": len(placements.keys),
        "accesses": len(accesses.keys),
        "placements_s": placements_read - begin,
        "accesses_s": accesses_read - placements_read,
        "plan_s": made - accesses_read,
        "moves": len(plan.moves),
        "moved": sum(map(len, plan.moves)),
        "start_mb": start_mb,
        "peak_mb": peak_mb(),
    }
    print(json.dumps(found))


def peak_mb() -> float:
    """The most memory that this process had so far."""
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes / 1e6 if sys.platform == "darwin" else kilobytes / 1e3


# A record of accesses, served


@dataclass
class Served:
    """What accesses met, and what the points cost."""

    milliseconds: list[float] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    usd: float = 0.0
    moved: int = 0

    @property
    def apdex(self) -> float:
        """See the top."""
        target = TIERS["critical"].target_latency_ms
        found = np.array(self.milliseconds)
        return float(np.mean((found <= target) * 0.5 + (found <= 4 * target) * 0.5))

    @property
    def mean_score(self) -> float:
        """See the top; what is missed takes for ever."""
        return float(np.mean(1 / (1 + np.array(self.milliseconds) / 100)))

    def answer(self, place: str) -> None:
        """Note where an access was answered."""
        self.places.append(place)
        latency = TIERS[place].target_latency_ms if place in TIERS else np.inf
        self.milliseconds.append(latency)


class Vault:
    """The items of a record as the product has them: columns, tables, and a service that is the placements
    alone."""

    def __init__(self, items: Items, database: Database) -> None:
        self.items = items
        self.names = [f"{KINDS[kind]}/c/{place}" for place, kind in enumerate(items.kinds)]
        self.keys = np.array([key_digest(name) for name in self.names])
        self.place_of = {int(key): place for place, key in enumerate(self.keys)}
        self.placements, self.accesses = DatabasePlacements(database), DatabaseAccessLog(database)
        self.tiers: dict[int, TierName] = {}

    def columns(self, arrived: int) -> Mapping[Collection, ItemColumns]:
        """Those of the items that have arrived."""
        found = {}
        for collection in Collection:
            codes = np.array([COLLECTION_OF[kind] == collection for kind in KINDS])
            some = np.flatnonzero(codes[self.items.kinds[:arrived]])
            found[collection] = self._columns(some)
        return found

    def _columns(self, some: NDArray[np.int64]) -> ItemColumns:
        begin = (BEGIN - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
        return ItemColumns(
            ids=some + 1,
            keys=self.keys[some],
            kinds=self.items.kinds[some],
            conversations=self.items.conversations[some],
            ordinals=self.items.ordinals[some],
            times=begin + (self.items.times[some] * DAY).astype(np.int64),
            words=np.full(len(some), 40, np.int32),
            passages=self.items.passages[some],
            contents=self.keys[some] ^ 5,
            likenesses=some + 1,
        )

    def plan(self, arrived: int, now: datetime, *, guests: bool) -> Plan:
        """The product's plan."""
        return make_plan(
            self.columns(arrived),
            self.accesses.columns(),
            self.placements.columns(),
            now=now,
            prices=PRICES,
            present_epoch=EPOCH,
            renew_epochs=set(),
            words=False,
            guests=guests,
        )

    def apply(self, plan: Plan) -> int:
        """Do it; returns how many items moved."""
        for move in plan.moves:
            places = [self.place_of[key] for key in move.keys.tolist()]
            if move.target == "edge":
                self.placements.remove([self.names[place] for place in places])
                for place in places:
                    self.tiers.pop(place, None)
                continue
            self.placements.put(
                [
                    Placement(
                        self.names[place],
                        move.target,
                        EPOCH,
                        int(self.items.passages[place]),
                        int(self.keys[place]) ^ 5,
                    )
                    for place in places
                ]
            )
            self.tiers.update(dict.fromkeys(places, move.target))
        return sum(map(len, plan.moves))


@dataclass(frozen=True, slots=True)
class Outcome:
    """A record served by the tiers, and by one tier for all; the points in the tiers at the end."""

    tiers: Served
    critical: Served
    points: Mapping[TierName, int]


def served(options: argparse.Namespace, items: Items, *, guests: bool) -> Outcome:
    """The record as the tiers serve it, and as one tier for all does."""
    tiers, critical = Served(), Served()
    cache = WorkingSet(options.cached)
    placed, before = 0, 0.0
    with tempfile.TemporaryDirectory() as folder, Database.open(Path(folder) / "memory.db", KEY) as database:
        vault = Vault(items, database)
        for count, hour in enumerate(hours(items, options.days, options.accesses, options.seed), start=1):
            lasted = (hour.ends - before) / DAYS_A_MONTH
            before = hour.ends
            for tier, points in vault.placements.counts().items():
                tiers.usd += points / 1000 * PRICES[tier] * lasted
            critical.usd += int(items.passages[:placed].sum()) / 1000 * PRICES["critical"] * lasted
            uses = list(zip(hour.used.tolist(), hour.scores.tolist(), strict=True))
            for place, score in uses:
                name = vault.names[place]
                if name in cache.keys():  # noqa: SIM118  (a method of the working set)
                    tiers.answer("edge")
                    critical.answer("edge")
                else:
                    tiers.answer(vault.tiers.get(place, "missed"))
                    critical.answer("critical" if place < placed else "missed")
                cache.use(SearchItem(name, KINDS[items.kinds[place]], ""), None, score)
            now = BEGIN + timedelta(days=hour.ends)
            vault.accesses.add([(vault.names[place], score) for place, score in uses], now)
            if count % (HOURS_A_DAY // options.plans_a_day) == 0:
                tiers.moved += vault.apply(vault.plan(hour.arrived, now, guests=guests))
                placed = hour.arrived
        return Outcome(tiers, critical, dict(vault.placements.counts()))


def print_record(options: argparse.Namespace) -> None:
    """Costs, where accesses were answered, and the two scores."""
    begin = time.perf_counter()
    items = make_items(options.days, options.seed)
    alone, whole = (served(options, items, guests=guests) for guests in (False, True))
    points = int(items.passages.sum())
    print(f"{options.days} days, {len(items.times):,} items with {points:,} vectors; {len(whole.tiers.places):,}")
    how = f"{options.cached} items cached, {options.plans_a_day} plans on a working day, seed {options.seed}"
    print(f"accesses, {how}")
    for name, outcome in (("rules alone", alone), ("as it is", whole)):
        lies = ", ".join(f"{count:,} in {tier}" for tier, count in outcome.points.items())
        print(f"{name}: {outcome.tiers.moved:,} times an item moved; at the end {lies}")
    columns = (alone.tiers, whole.tiers, whole.critical)
    print(f"\n{'':<28}{'rules alone':>13}{'as it is':>13}{'all-critical':>14}")
    for place in ("edge", *SERVICE, "missed"):
        shares = "".join(
            f"{of.places.count(place) / len(of.places):>{width}.1%}"
            for of, width in zip(columns, (13, 13, 14), strict=True)
        )
        print(f"{'answered by ' + place if place in TIERS else place:<28}{shares}")
    print_scores("US dollars in all", [of.usd for of in columns], "60% at most")
    print_scores("Apdex, T = 50 ms", [of.apdex for of in columns], "92% at least")
    print_scores("mean of 1 / (1 + ms / 100)", [of.mean_score for of in columns], "92% at least")
    print(f"\n{time.perf_counter() - begin:.0f} s")


def print_scores(name: str, values: list[float], aim: str) -> None:
    """A row of figures, and one with their shares of all-critical's, which is the last."""
    alone, whole, critical = values
    print(f"{name:<28}{alone:>13.3f}{whole:>13.3f}{critical:>14.3f}")
    print(f"{'  share of all-critical':<28}{alone / critical:>13.1%}{whole / critical:>13.1%}{'aim: ' + aim:>20}")


if __name__ == "__main__":
    main()
