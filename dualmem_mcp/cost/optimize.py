"""What would cost less: proposals computed from a vault's own counts, each with its price in time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from dualmem_mcp.cost.estimate import MonthlyUse, Rates
from dualmem_mcp.cost.objects import PACKAGES, BucketContents, Stored
from dualmem_mcp.cost.prices import GB, RegionPrices, StorageClass
from dualmem_mcp.model.ids import HandoffId
from dualmem_mcp.model.sync_timing import SyncTiming
from dualmem_mcp.ports import PackageFact

LEAST_OBJECT_BYTES: Final = 131_072
"""Smaller objects stay: the colder classes bill them as that large. Source: S3 User Guide, "Storage classes"."""
ARCHIVE_AFTER_DAYS: Final = 180
"""Source: the product's requirements: archive after 6 months."""
_AFTER_DAYS: Final = {"STANDARD_IA": 30, "GLACIER_IR": 90}
"""Ages at which objects move; STANDARD_IA takes none that are younger. Source: S3 User Guide, "Transitioning
objects using Amazon S3 Lifecycle"."""
_WORTH_USD: Final = 0.0001
"""Less a month is no proposal."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What proposals are computed from. `prefix` is that of the vault in its bucket, empty or ending in a slash."""

    packages: Sequence[PackageFact]
    contents: BucketContents
    use: MonthlyUse
    rates: Rates
    regions: Sequence[RegionPrices]
    timing: SyncTiming
    now: datetime
    prefix: str


@dataclass(frozen=True, slots=True)
class Proposal:
    """One thing that would cost less: US dollars saved a month and spent once, and what it costs in latency. `rule`
    is an S3 lifecycle rule that does it, where there is one."""

    kind: str
    title: str
    saves_usd_month: float
    once_usd: float
    latency: str
    notes: tuple[str, ...] = ()
    rule: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields of `dualmem cost optimize --json`, dollars to the billionth."""
        rounded = {"saves_usd_month": round(self.saves_usd_month, 9), "once_usd": round(self.once_usd, 9)}
        return {**asdict(self), **rounded, "notes": list(self.notes)}


Proposer = Callable[[Facts], Sequence[Proposal]]
"""Looks at the facts and proposes what is worth it. Moves between tiers and deduplication add theirs."""


def propose(facts: Facts, proposers: Sequence[Proposer]) -> Sequence[Proposal]:
    """All proposals that save something, the most first."""
    found = [one for proposer in proposers for one in proposer(facts) if one.saves_usd_month >= _WORTH_USD]
    return sorted(found, key=lambda one: -one.saves_usd_month)


def lifecycle(proposals: Sequence[Proposal]) -> dict[str, Any]:
    """The configuration that `aws s3api put-bucket-lifecycle-configuration` takes, with the proposals' rules."""
    return {"Rules": [one.rule for one in proposals if one.rule is not None]}


def colder_classes(facts: Facts) -> Sequence[Proposal]:
    """Packages that are old, in the class that saves most of those that can be read at once."""
    options = [
        _moved(facts, storage, _AFTER_DAYS[name])
        for name, storage in facts.rates.region.storage.items()
        if name in _AFTER_DAYS
    ]
    return [max(options, key=lambda one: one.saves_usd_month)] if options else []


def archive(facts: Facts) -> Sequence[Proposal]:
    """Packages older than 6 months, in the cheapest class that has to be asked before it can be read."""
    classes = [one for one in facts.rates.region.storage.values() if not one.reads_at_once]
    if not classes:
        return []
    storage = min(classes, key=lambda one: one.usd_gb_month)
    moving = _older(facts, ARCHIVE_AFTER_DAYS)
    needed = _needed(facts.packages, {one.handoff_id for one in moving})
    size = sum(one.size_bytes for one in moving)
    restore_usd = size / GB * storage.retrieval_usd_gb + len(moving) / 1000 * storage.retrieval_usd_1k
    proposal = _moved(facts, storage, ARCHIVE_AFTER_DAYS, enabled=False)
    return [
        Proposal(
            "archive",
            proposal.title,
            proposal.saves_usd_month,
            proposal.once_usd,
            f"What is archived opens {storage.first_byte} (`aws s3api restore-object`); until then a resume of it "
            "fails on devices that do not keep it.",
            (
                f"Restoring all of it once costs ${restore_usd:.4f}; it has to stay {storage.least_days} days.",
                (
                    f"{needed} of {len(moving)} are the newest handoff of their conversation, or what a newer one "
                    "builds on: a rule by age cannot leave them out."
                ),
                'The rule is written with the status "Disabled".',
            ),
            proposal.rule,
        )
    ]


def other_region(facts: Facts) -> Sequence[Proposal]:
    """The region in which the same storage and use cost least."""
    here = facts.rates.region
    now = _bucket_usd(facts, here)
    cheapest = min(facts.regions, key=lambda region: _bucket_usd(facts, region))
    if cheapest.region == here.region:
        return []
    size, objects = facts.contents.size_bytes, facts.contents.count
    once = (
        size / GB * here.transfer_out_usd_gb
        + objects / 1000 * here.read_usd_1k
        + objects / 1000 * cheapest.write_usd_1k
    )
    return [
        Proposal(
            "region",
            f"the bucket in {cheapest.region} ({cheapest.name}) instead of {here.region}",
            now - _bucket_usd(facts, cheapest),
            once,
            "Every request takes as long as the way there: look with `ping` before.",
            ("Where data may lie is a question of law, too.",),
        )
    ]


def fewer_segments(facts: Facts) -> Sequence[Proposal]:
    """A snapshot in the place of the log, as far as the last look at the bucket shows one."""
    log = facts.contents.kinds.get("log", Stored())
    if facts.contents.looked_at is None:
        return []
    return [
        Proposal(
            "snapshot",
            f"`dualmem compact` each time 64 segments have come together ({log.count:,} are there)",
            log.size_bytes / GB * facts.rates.region.standard.usd_gb_month,
            log.count / 1000 * facts.rates.region.read_usd_1k,
            "A device that joins is ready sooner; one away for longer than the grace starts from the snapshot.",
            ("What a snapshot has replaced stays for 14 days.",),
        )
    ]


def fewer_looks(facts: Facts) -> Sequence[Proposal]:
    """Looks for changes half as often."""
    reads = facts.use.reads / 1000 * facts.rates.region.read_usd_1k
    poll, idle = facts.timing.poll_seconds, facts.timing.idle_seconds
    return [
        Proposal(
            "interval",
            f"looks every {2 * poll:g} s in use and {2 * idle:g} s at rest, instead of {poll:g} and {idle:g}",
            reads / 2,
            0.0,
            f"A change made elsewhere is seen up to {poll:g} s later in use, {idle:g} s at rest.",
            (
                "At most: reads that are no looks stay.",
                f'Set {{"sync": {{"poll_seconds": {2 * poll:g}, "idle_seconds": {2 * idle:g}}}}} on every device.',
            ),
        )
    ]


PROPOSERS: Final[tuple[Proposer, ...]] = (colder_classes, archive, other_region, fewer_segments, fewer_looks)


def _older(facts: Facts, days: int) -> Sequence[PackageFact]:
    before = facts.now - timedelta(days=days)
    return [one for one in facts.packages if one.created_at <= before and one.size_bytes > LEAST_OBJECT_BYTES]


def _moved(facts: Facts, storage: StorageClass, days: int, *, enabled: bool = True) -> Proposal:
    moving = _older(facts, days)
    standard = facts.rates.region.standard.usd_gb_month
    now = sum(one.size_bytes for one in moving) / GB * standard
    then = sum(storage.billed_bytes(one.size_bytes) for one in moving) / GB * storage.usd_gb_month
    then += len(moving) * storage.extra_standard_bytes / GB * standard
    return Proposal(
        "storage class",
        f"packages older than {days} days in {storage.name} ({len(moving):,} of {len(facts.packages):,})",
        now - then,
        len(moving) / 1000 * storage.transition_usd_1k,
        f"Read back {storage.first_byte} after it is asked for, as before.",
        (f"Reading costs ${storage.retrieval_usd_gb:g} a GB more; each has to stay {storage.least_days} days.",),
        _rule(facts.prefix, storage.name, days, enabled),
    )


def _rule(prefix: str, storage_class: str, days: int, enabled: bool) -> dict[str, Any]:
    return {
        "ID": f"dualmem-{PACKAGES}-{storage_class.lower().replace('_', '-')}",
        "Status": "Enabled" if enabled else "Disabled",
        "Filter": {
            "And": {"Prefix": f"{prefix}{PACKAGES}/", "ObjectSizeGreaterThan": LEAST_OBJECT_BYTES},
        },
        "Transitions": [{"Days": days, "StorageClass": storage_class}],
    }


def _needed(packages: Sequence[PackageFact], moving: Collection[HandoffId]) -> int:
    """How many of the packages that move are needed still, to resume a conversation from them or a newer one."""
    by_id = {one.handoff_id: one for one in packages}
    newest = {one.conversation_id: one for one in packages}  # they come in order of time
    needed: set[HandoffId] = set()
    for one in newest.values():
        at: PackageFact | None = one
        while at is not None and at.handoff_id not in needed:
            needed.add(at.handoff_id)
            at = by_id.get(at.base) if at.base is not None else None
    return len(needed & set(moving))


def _bucket_usd(facts: Facts, region: RegionPrices) -> float:
    return (
        facts.contents.size_bytes / GB * region.standard.usd_gb_month
        + facts.use.reads / 1000 * region.read_usd_1k
        + facts.use.writes / 1000 * region.write_usd_1k
        + facts.use.bytes_out / GB * region.transfer_out_usd_gb
    )
