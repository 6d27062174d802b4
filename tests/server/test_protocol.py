"""Both protocol eras, spoken by the SDK's own client and in raw JSON-RPC."""

from __future__ import annotations

import json
import sys
from typing import Any

import anyio
import pytest
from mcp import Client, MCPError, StdioServerParameters
from mcp.server.subscriptions import ResourceUpdated

from dualmem_mcp.server.protocol import INSTRUCTIONS, TOOLS

HANDSHAKES = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
MODERN = "2026-07-28"
GRAPH_URI = "memory://knowledge-graph"
ADA = {"name": "Ada", "entityType": "person", "observations": ["wrote the first program"]}


@pytest.fixture
def parameters(own_environment: Any, tmp_path: Any) -> StdioServerParameters:
    command = [sys.executable, "-m", "dualmem_mcp.server.serve"]
    return StdioServerParameters(command=command[0], args=command[1:], env=own_environment(tmp_path))


@pytest.mark.parametrize("version", HANDSHAKES)
def test_every_handshake_of_the_older_era(start_server: Any, version: str) -> None:
    server = start_server()
    assert server.initialize(version)["protocolVersion"] == version
    listed = server.ask("tools/list")["result"]
    assert set(listed) == {"tools"}  # no field of the newer era
    assert [tool["name"] for tool in listed["tools"]] == [tool.name for tool in TOOLS]
    created = server.call("create_entities", {"entities": [ADA]})
    assert set(created) == {"content", "structuredContent"}
    assert created["structuredContent"] == {"entities": [ADA]}
    assert json.loads(created["content"][0]["text"]) == [ADA]
    assert server.ask("server/discover")["error"]["code"] == -32601


def test_an_unknown_version_is_offered_the_newest_handshake(start_server: Any) -> None:
    assert start_server().initialize("1999-01-01")["protocolVersion"] == HANDSHAKES[-1]


def test_calls_before_the_handshake_are_refused(start_server: Any) -> None:
    server = start_server()
    assert server.ask("tools/list")["error"]["code"] == -32602
    assert server.initialize()["protocolVersion"] == HANDSHAKES[-1]
    assert "tools" in server.ask("tools/list")["result"]


def test_the_newer_era_without_a_handshake(start_server: Any) -> None:
    server = start_server()
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    discovered = server.ask("server/discover", {"_meta": meta})["result"]
    assert discovered["supportedVersions"] == [MODERN]
    assert discovered["instructions"] == INSTRUCTIONS
    assert discovered["capabilities"]["resources"]["subscribe"] is True
    listed = server.ask("tools/list", {"_meta": meta})["result"]
    assert listed["resultType"] == "complete"
    assert listed["ttlMs"] > 0
    assert "execution" not in listed["tools"][0]  # gone from this version's schema
    called = server.ask("tools/call", {"_meta": meta, "name": "create_entities", "arguments": {"entities": [ADA]}})
    assert called["result"]["resultType"] == "complete"
    assert called["result"]["structuredContent"] == {"entities": [ADA]}
    unknown = server.ask("resources/read", {"_meta": meta, "uri": "memory://other"})["error"]
    assert (unknown["code"], unknown["data"]) == (-32602, {"uri": "memory://other"})
    hello = {"protocolVersion": HANDSHAKES[-1], "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    assert "error" in server.ask("initialize", hello)
    assert server.close_input() == 0


@pytest.mark.parametrize("mode", ["legacy", MODERN])
async def test_the_sdks_client_uses_everything(parameters: StdioServerParameters, mode: str) -> None:
    with anyio.fail_after(60):
        async with Client(parameters, mode=mode) as client:
            tools = (await client.list_tools()).tools
            assert [tool.name for tool in tools] == [tool.name for tool in TOOLS]
            # The client checks structured content against the output schema.
            created = await client.call_tool("create_entities", {"entities": [ADA]})
            assert (created.is_error, created.structured_content) == (False, {"entities": [ADA]})
            failed = await client.call_tool("search_nodes", {"query": 1})
            assert failed.is_error
            resources = (await client.list_resources()).resources
            assert [str(resource.uri) for resource in resources] == [GRAPH_URI]
            contents = (await client.read_resource(GRAPH_URI)).contents
            assert json.loads(contents[0].text) == {"entities": [ADA], "relations": []}
            templates = (await client.list_resource_templates()).resource_templates
            assert [template.uri_template for template in templates] == [
                "dualmem://conversation/{id}/brief",
                "dualmem://conversation/{id}/{section}",
            ]
            prompts = (await client.list_prompts()).prompts
            assert [prompt.name for prompt in prompts] == ["handoff", "resume"]
            assert not any(argument.required for prompt in prompts for argument in prompt.arguments)
            with pytest.raises(MCPError, match="memory://other not found"):
                await client.read_resource("memory://other")
            if mode == MODERN:
                async with client.listen(resource_subscriptions=[GRAPH_URI]) as changes:
                    await client.call_tool("delete_entities", {"entityNames": ["Ada"]})
                    assert await anext(aiter(changes)) == ResourceUpdated(GRAPH_URI)


def test_prompts_name_the_tool_and_what_was_given(server: Any) -> None:
    expected = (
        ("handoff", {}, ("prepare_handoff", "next_steps")),
        ("handoff", {"target_device": "ios", "note": "the red folder"}, ("ios", "the red folder")),
        ("resume", {}, ("resume_conversation", "handed over last")),
        ("resume", {"conversation_id": "abc"}, ('conversation_id "abc"',)),
    )
    for name, arguments, words in expected:
        (message,) = server.ask("prompts/get", {"name": name, "arguments": arguments})["result"]["messages"]
        assert message["role"] == "user"
        assert all(text in message["content"]["text"] for text in words)


def test_all_tools_together_stay_small() -> None:
    """A model reads names, descriptions and input schemas in every conversation."""
    listed = [
        {"name": tool.name, "description": tool.description, "inputSchema": tool.input_schema} for tool in TOOLS
    ]
    assert len(json.dumps(listed)) < 12 * 1024


def test_every_tool_is_fully_described() -> None:
    for tool in TOOLS:
        assert tool.title
        assert tool.description
        assert set(tool.annotations) == {"readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint"}
        assert tool.output_schema["type"] == "object"
        assert tool.entry()["name"] == tool.name
        assert tool.name.replace("_", "").isalnum()
        assert len(tool.name) <= 64
