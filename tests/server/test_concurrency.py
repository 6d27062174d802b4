"""Nothing is lost, whoever writes at the same time."""

from __future__ import annotations

import json
from typing import Any


def entity(name: str) -> dict[str, Any]:
    return {"name": name, "entityType": "t", "observations": [f"of {name}"]}


def create(server: Any, *names: str) -> int:
    arguments = {"entities": [entity(name) for name in names]}
    return server.request("tools/call", {"name": "create_entities", "arguments": arguments})


def names_in(server: Any) -> list[str]:
    return [item["name"] for item in server.call("read_graph")["structuredContent"]["entities"]]


def test_twenty_creations_at_once_keep_all_twenty(server: Any) -> None:
    ids = [create(server, f"n{number}") for number in range(20)]
    for number, identity in enumerate(ids):
        assert server.answer(identity)["result"]["structuredContent"] == {"entities": [entity(f"n{number}")]}
    assert names_in(server) == [f"n{number}" for number in range(20)]


def test_a_reading_call_sees_what_was_sent_before_it(server: Any) -> None:
    """Without waiting for the answers between: the calls take effect in the order in which they were sent."""
    reads = []
    for number in range(20):
        create(server, f"n{number}")
        reads.append(server.request("tools/call", {"name": "open_nodes", "arguments": {"names": [f"n{number}"]}}))
    for number, read in enumerate(reads):
        assert server.answer(read)["result"]["structuredContent"]["entities"] == [entity(f"n{number}")]
    for number in range(20):
        server.request("tools/call", {"name": "delete_entities", "arguments": {"entityNames": [f"n{number}"]}})
    assert names_in(server) == []


def test_four_servers_on_one_data_home_keep_every_write(start_server: Any, tmp_path: Any) -> None:
    mirror = tmp_path / "memory.jsonl"
    servers = [start_server(MEMORY_FILE_PATH=str(mirror)) for _ in range(4)]
    for server in servers:  # all of them open, and make, the data home at once
        server.request(
            "initialize",
            {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
        )
        server.notify("notifications/initialized")
    ids = [
        (server, create(server, f"s{index} n{number}"), create(server, f"shared {number}"))
        for number in range(15)
        for index, server in enumerate(servers)
    ]
    created_shared = 0
    for server, own, shared in ids:
        assert len(server.answer(own)["result"]["structuredContent"]["entities"]) == 1
        created_shared += len(server.answer(shared)["result"]["structuredContent"]["entities"])
    assert created_shared == 15  # each by whoever was first
    expected = {f"s{index} n{number}" for number in range(15) for index in range(4)}
    expected |= {f"shared {number}" for number in range(15)}
    for server in servers:
        assert set(names_in(server)) == expected
        assert server.close_input() == 0
        assert "Traceback" not in server.stderr
    lines = mirror.read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["name"] for line in lines} == expected
