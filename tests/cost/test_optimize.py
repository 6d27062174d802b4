"""Proposals come from the vault's own counts, and only where they save something."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dualmem_mcp.cost.estimate import MonthlyUse, Rates
from dualmem_mcp.cost.objects import BucketContents, Stored
from dualmem_mcp.cost.optimize import PROPOSERS, Facts, Proposal, lifecycle, propose
from dualmem_mcp.cost.prices import GB, list_prices
from dualmem_mcp.model.ids import ConversationId, HandoffId
from dualmem_mcp.model.sync_timing import SyncTiming
from dualmem_mcp.ports import PackageFact

NOW = datetime(2026, 11, 1, tzinfo=UTC)
PRICES = list_prices()


def package(name: str, days: float, size: int = GB, base: str = "", conversation: str = "") -> PackageFact:
    return PackageFact(
        HandoffId(name),
        ConversationId(conversation or name),
        size,
        NOW - timedelta(days=days),
        HandoffId(base) if base else None,
    )


def facts(*packages: PackageFact, region: str = "us-east-1", use: MonthlyUse | None = None) -> Facts:
    ordered = sorted(packages, key=lambda one: one.created_at)
    size = sum(one.size_bytes for one in packages)
    return Facts(
        packages=ordered,
        contents=BucketContents({"packages": Stored(len(packages), size)} if packages else {}, None),
        use=use or MonthlyUse(),
        rates=Rates(PRICES.region(region), PRICES.vectors_usd_1k_month, 10.0),
        regions=list(PRICES.regions.values()),
        timing=SyncTiming(),
        now=NOW,
        prefix="memory/",
    )


def by_kind(given: Facts) -> dict[str, Proposal]:
    return {one.kind: one for one in propose(given, PROPOSERS)}


def test_a_vault_with_nothing_to_save_gets_no_proposals() -> None:
    assert propose(facts(), PROPOSERS) == []
    assert by_kind(facts(package("new", 3), package("small", 400, size=131_072))) == {}


def test_old_packages_in_a_colder_class_save_what_the_list_says() -> None:
    found = by_kind(facts(package("a", 100), package("b", 90), package("c", 40), package("d", 1)))
    # Two GB in GLACIER_IR save more than three in STANDARD_IA.
    assert found["storage class"].saves_usd_month == pytest.approx(2 * (0.023 - 0.004))
    assert found["storage class"].once_usd == pytest.approx(2 / 1000 * 0.02)
    assert "2 of 4" in found["storage class"].title
    young = by_kind(facts(package("c", 40), package("d", 31)))
    assert young["storage class"].saves_usd_month == pytest.approx(2 * (0.023 - 0.0125))
    assert "archive" not in young


def test_where_only_one_class_has_a_price_that_one_is_proposed() -> None:
    found = by_kind(facts(package("a", 300), region="eu-west-1"))
    assert "STANDARD_IA" in found["storage class"].title
    assert "archive" not in found


def test_an_archive_says_what_a_restore_takes_and_what_is_needed_still() -> None:
    found = by_kind(
        facts(
            package("old-base", 300, conversation="c"),
            package("old-unneeded", 290, conversation="c"),
            package("newest", 5, base="old-base", conversation="c"),
            package("only", 200, conversation="d"),
        )
    )["archive"]
    assert found.saves_usd_month == pytest.approx(3 * (0.023 - 0.00099), rel=1e-3)
    assert "12 hours" in found.latency
    assert "restore" in found.latency
    assert any("2 of 3 are the newest handoff" in note for note in found.notes)
    assert any(f"${3 * 0.02 + 3 / 1000 * 0.1:.4f}" in note for note in found.notes)
    assert found.rule is not None
    assert found.rule["Status"] == "Disabled"
    assert found.rule["Transitions"] == [{"Days": 180, "StorageClass": "DEEP_ARCHIVE"}]


def test_bases_that_name_each_other_do_not_hang() -> None:
    given = facts(package("a", 300, base="b", conversation="c"), package("b", 200, base="a", conversation="c"))
    assert any("2 of 2" in note for note in by_kind(given)["archive"].notes)


def test_the_lifecycle_configuration_is_one_that_s3_takes() -> None:
    rules = lifecycle(propose(facts(package("a", 300)), PROPOSERS))["Rules"]
    assert {rule["Status"] for rule in rules} == {"Enabled", "Disabled"}
    for rule in rules:
        assert rule["Filter"] == {"And": {"Prefix": "memory/packages/", "ObjectSizeGreaterThan": 131_072}}
        assert len(rule["ID"]) <= 255
    assert len({rule["ID"] for rule in rules}) == len(rules)


def test_a_cheaper_region_is_proposed_with_the_price_of_moving() -> None:
    found = by_kind(facts(package("a", 1, size=100 * GB), region="eu-central-1"))["region"]
    assert found.saves_usd_month == pytest.approx(100 * (0.0245 - 0.023))
    assert found.once_usd == pytest.approx(100 * 0.09, rel=1e-3)
    assert "region" not in by_kind(facts(package("a", 1, size=100 * GB), region="us-east-1"))


def test_requests_are_saved_by_looking_less_often() -> None:
    found = by_kind(facts(use=MonthlyUse(reads=1_000_000)))["interval"]
    assert found.saves_usd_month == pytest.approx(0.2)
    poll = SyncTiming().poll_seconds
    assert f"{2 * poll:g} s" in found.title
    assert "later" in found.latency


def test_a_log_that_was_seen_is_worth_a_snapshot() -> None:
    given = facts()
    seen = replace(given, contents=BucketContents({"log": Stored(500, GB)}, NOW))
    assert by_kind(seen)["snapshot"].saves_usd_month == pytest.approx(0.023)
    assert "snapshot" not in by_kind(replace(given, contents=BucketContents({"log": Stored(500, GB)}, None)))


def test_others_add_proposals_and_the_largest_saving_comes_first() -> None:
    def moves(_: Facts) -> list[Proposal]:
        return [Proposal("tier", "cold vectors to historical", 9.0, 0.0, "300 ms instead of 50 ms")]

    found = propose(facts(package("a", 300)), (*PROPOSERS, moves))
    assert found[0].kind == "tier"
    assert found[0].to_json()["saves_usd_month"] == 9.0
