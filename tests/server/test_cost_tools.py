"""The tool that tells what the memory costs, on a server as clients have it."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from dualmem_mcp.server.protocol import TOOLS
from tests.server.conftest import Vault

OUTPUT_SCHEMA = next(tool.output_schema for tool in TOOLS if tool.name == "estimate_costs")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, make_vault: Any) -> Any:
    vault: Vault = make_vault(tmp_path_factory.mktemp("costs") / "vault")
    vault.configure("desk", sync={"automatic": False}, budget={"soft_usd": 1, "hard_usd": 3})
    return vault.server("desk")


def test_a_folder_is_free_and_a_region_prices_it(desk: Any) -> None:
    free = desk.call("estimate_costs", {})
    jsonschema.validate(free["structuredContent"], OUTPUT_SCHEMA)
    assert free["structuredContent"]["usd_month"] == 0
    priced = desk.call("estimate_costs", {"region": "eu-west-1", "users": 12})
    found = priced["structuredContent"]
    jsonschema.validate(found, OUTPUT_SCHEMA)
    assert found["usd_month"] > 0
    assert found["projection"][0]["users"] == 12
    assert (found["budget"]["soft_usd"], found["budget"]["hard_usd"]) == (1, 3)
    told = priced["content"][0]["text"]
    for expected in ("S3 in eu-west-1", "requests: writes", "too early", "Budget: soft $1.00, hard $3.00"):
        assert expected in told


def test_a_region_without_prices_names_those_there_are(desk: Any) -> None:
    refused = desk.call("estimate_costs", {"region": "eu-central-2"})
    assert refused["isError"]
    assert "us-east-1, eu-west-1, eu-central-1" in refused["content"][0]["text"]
    assert "The nearest is eu-central-1" in refused["content"][0]["text"]


def test_it_reads_only(desk: Any) -> None:
    (listed,) = [tool for tool in desk.ask("tools/list")["result"]["tools"] if tool["name"] == "estimate_costs"]
    assert listed["annotations"]["readOnlyHint"]
