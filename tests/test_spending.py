"""Costs of real applications: counted, bounded, and nothing lost at the bound."""

from __future__ import annotations

from typing import Any

import pytest

from dualmem_mcp.errors import BudgetSpentError, NotFoundError, UsageError
from dualmem_mcp.model.budget import Budget, CostSettings
from dualmem_mcp.ports.placements import Placement
from dualmem_mcp.stores.cost_counts import DatabaseCostCounts
from dualmem_mcp.stores.placements import DatabasePlacements
from tests.conftest import SteppingClock
from tests.handoff.conftest import PASSPHRASE, SESSION_ID, World, bare_environment, world
from tests.stores.conftest import S3Server, moto_server

__all__ = ["bare_environment", "moto_server", "world"]


def components(found: dict[str, Any]) -> dict[str, float]:
    return {one["name"]: one["usd_month"] for one in found["components"]}


def test_use_outlives_the_application_and_is_counted_where_requests_pass(world: World) -> None:
    desk = world.desktop()
    world.write_session(["one", "two"])
    desk.prepare_handoff(SESSION_ID)
    counted = dict(desk.spending.meter.pending())
    assert counted["bucket_writes"] >= 3
    assert counted["bytes_in"] > 4_096
    desk.close()
    again = world.open("desktop")
    (day,) = DatabaseCostCounts(again.database).use(world.clock.now().date()).values()  # type: ignore[attr-defined]
    assert day == counted


def test_a_folder_is_free_and_can_be_priced_as_if_it_were_s3(world: World) -> None:
    desk = world.desktop()
    world.write_session(["one", "two"])
    desk.prepare_handoff(SESSION_ID)
    free = desk.spending.estimate()
    assert free["is_folder"]
    assert free["usd_month"] == 0
    assert any("--look" in warning for warning in free["warnings"])
    priced = desk.spending.estimate(region="eu-central-1", looking=True, users=7)
    assert not priced["is_folder"]
    parts = components(priced)
    assert {"storage: packages", "storage: keys", "storage: manifests", "storage: vault"} <= set(parts)
    assert parts["requests: writes"] > 0
    assert priced["usd_month"] == pytest.approx(sum(parts.values()), abs=1e-5)
    assert priced["usd_conversation"] == priced["usd_month"]
    assert [one["users"] for one in priced["projection"]] == [7, 1_000, 10_000, 100_000]
    files = [path for path in world.bucket.rglob("*") if path.is_file() and ".dualmem" not in str(path)]
    assert priced["objects"] == len([path for path in files if not path.name.startswith(".")])
    # What the look found is remembered.
    later = desk.spending.estimate()
    assert (later["objects"], later["looked_at"] is None) == (priced["objects"], False)
    assert desk.spending.optimize(region="us-east-1")["lifecycle"] == {"Rules": []}


def test_costs_need_no_vault(world: World) -> None:
    alone = world.open("desktop")
    found = alone.spending.estimate()
    assert (found["devices"], found["objects"], found["usd_conversation"]) == (1, 0, None)
    assert found["forecast"]["is_early"]
    with pytest.raises(UsageError, match="ap-south-1"):
        alone.spending.estimate(region="ap-south-1")


def test_a_month_of_use_is_forecast(world: World, clock: SteppingClock) -> None:
    desk = world.desktop()
    for _ in range(10):
        desk.sync()
        desk.spending.meter.flush()
        clock.advance(86_400)
    ahead = desk.spending.estimate(region="us-east-1")["forecast"]
    assert (ahead["is_early"], ahead["days"]) == (False, 10)
    assert 0 < ahead["low_usd"] <= ahead["usd_month"] <= ahead["high_usd"]


@pytest.fixture
def in_s3(moto_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    moto_server.set_environment(monkeypatch)
    return f"s3://{moto_server.make_bucket()}/memory"


def test_a_hard_budget_keeps_everything_and_the_next_month_sends_it(
    world: World, clock: SteppingClock, in_s3: str
) -> None:
    desk = world.open("desktop", bucket=in_s3)
    desk.init(PASSPHRASE, device_name="desk")
    world.write_session(["one", "two"])
    desk.prepare_handoff(SESSION_ID)
    desk.sync()
    desk.close()
    tight = world.open("desktop", bucket=in_s3, budget=Budget(hard_usd=0.000001))
    before = dict(tight.spending.meter.pending())
    world.write_session(["one", "two", "three", "four"])
    report = tight.prepare_handoff(SESSION_ID)
    assert (report["queued"], report["over_budget"], report["message_count"]) == (True, True, 4)
    assert any("hard budget" in warning for warning in report["warnings"])
    tight.notebook.add_note("the winch is greased")
    result = tight.sync()
    assert (result["over_budget"], result["away"], result["refused"]) == (True, True, False)
    assert result["queued"] >= 3
    # Local work goes on, and nothing was asked.
    assert tight.resume_conversation(SESSION_ID)["conversation_id"] == SESSION_ID
    assert len(tight.list_conversations()["conversations"]) == 1
    assert tight.spending.meter.pending() == before
    assert "hard budget" in tight.status()["budget_problem"]
    for asking in (lambda: tight.spending.estimate(looking=True), tight.compact):
        with pytest.raises(BudgetSpentError):
            asking()
    waiting = tight.sync_waiting()
    tight.close()
    ample = world.open("desktop", bucket=in_s3, budget=Budget(soft_usd=0.000001, hard_usd=100.0))
    assert ample.sync_waiting() == waiting
    sent = ample.sync()
    assert (sent["queued"], sent["over_budget"]) == (0, False)
    assert any("soft budget" in warning for warning in sent["warnings"])
    other = world.open("phone", bucket=in_s3)
    other.join(PASSPHRASE, device_name="pocket")
    other.sync()
    assert "the winch is greased" in {one.fields["text"] for one in other.records.find()}
    assert other.resume_conversation(SESSION_ID)["handoff_id"] == report["handoff_id"]


def test_a_budget_is_no_limit_for_a_folder(world: World) -> None:
    desk = world.desktop(budget=Budget(hard_usd=0.0))
    assert desk.sync()["away"] is False


def test_a_look_without_a_vault_counts_nothing(world: World) -> None:
    alone = world.open("desktop")
    assert alone.spending.estimate(looking=True)["objects"] == 0
    with pytest.raises(NotFoundError):
        alone.channel()


def test_points_in_a_service_cost_and_count_towards_the_budget(world: World) -> None:
    desk = world.open(
        "desktop", budget=Budget(hard_usd=0.5), cost=CostSettings(vectors_usd_1k_month={"context": 2.0})
    )
    desk.spending.check_placing()
    assert desk.spending.gate.spent().standing_usd == 0
    placements = DatabasePlacements(desk.database)
    placements.put([Placement(f"turn/a/{n}", "critical", 1, 10, n) for n in range(10)])
    placements.put([Placement(f"turn/b/{n}", "context", 1, 1, n) for n in range(50)])
    found = components(desk.spending.estimate())
    assert found["vectors: critical"] == pytest.approx(0.075)
    assert found["vectors: context"] == pytest.approx(0.1)
    assert found["vectors: edge"] == 0
    # What the gate knows may be a minute old; whoever places looks at what lies there now.
    desk.spending.check_placing()
    assert desk.spending.gate.spent().standing_usd == pytest.approx(0.175)
    placements.put([Placement(f"turn/c/{n}", "historical", 1, 16, n) for n in range(200)])
    with pytest.raises(BudgetSpentError, match="hard budget"):
        desk.spending.check_placing()
    (warning,) = desk.spending.gate.warnings()
    assert "nothing is placed in a search service" in warning
    assert desk.spending.vector_prices() == {"critical": 0.75, "context": 2.0, "historical": 0.12, "edge": 0.0}
