"""Which device a brief is fitted to for remote callers that name none."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from dualmem_mcp.app import App, open_app
from dualmem_mcp.model.device import is_claude_code
from dualmem_mcp.model.grant import UserId
from dualmem_mcp.remote.interfaces import Caller
from dualmem_mcp.remote.options import RemoteOptions
from dualmem_mcp.remote.tenant import McpTenant
from dualmem_mcp.sample import write_sample_session
from dualmem_mcp.settings import Settings, load_settings
from tests.remote.mcp_host import META, Client, hosting, initialize, modern, request, token

TOKENS = {"ios": 700, "android": 900, "pwa": 400, "desktop": 1_500}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A data home with a conversation that was handed over, and limits by which profiles are told apart."""
    monkeypatch.setenv("DUALMEM_PASSPHRASE", "correct horse battery staple")
    write_sample_session(tmp_path / "claude", cwd="/home/dev/tollgate", turns=600)
    home = tmp_path / "home"
    home.mkdir()
    profiles = {name: {"context_tokens": tokens} for name, tokens in TOKENS.items()}
    (home / "cloud_sync_config.json").write_text(json.dumps({"profiles": profiles}))
    made = load_settings(home, bucket=str(tmp_path / "bucket"))
    made = dataclasses.replace(made, keystore="file", claude_dir=tmp_path / "claude")
    with open_app(made) as app:
        app.init("correct horse battery staple", device_name="host")
        app.prepare_handoff()
    return made


def opened(settings: Settings) -> App:
    return open_app(settings)


def profile_of(result: dict[str, Any]) -> str:
    """The profile whose budget was used: the smallest that holds the brief."""
    tokens = result["structuredContent"]["brief_tokens"]
    return next(name for name, most in sorted(TOKENS.items(), key=lambda pair: pair[1]) if tokens <= most)


async def resumed(client: Client, **arguments: str) -> str:
    """The profile of the brief that a client without a session gets."""
    call = request("tools/call", {"name": "resume_conversation", "arguments": arguments})
    answer = await client.post(call)
    return profile_of(answer.json()["result"])


async def test_a_remote_caller_is_a_phone_unless_it_says_otherwise(settings: Settings, tmp_path: Path) -> None:
    tenant = McpTenant(UserId("ana"), lambda: opened(settings), RemoteOptions("http://localhost"))
    async with hosting(tmp_path, tenant) as host:
        assert await resumed(host.client()) == "ios"
        assert await resumed(host.client(), device="android") == "android"
        assert await resumed(host.client(), device="desktop") == "desktop"
        uri = f"dualmem://conversation/{tenant.app.opened.catalogue.newest_handoff().conversation_id}/brief"  # type: ignore[union-attr]
        read = await host.client().post(request("resources/read", {"uri": uri}))
        assert len(read.json()["result"]["contents"][0]["text"]) <= 4 * TOKENS["ios"]


async def test_the_host_says_which_device_that_is(settings: Settings, tmp_path: Path) -> None:
    options = RemoteOptions("http://localhost", profile="pwa")
    async with hosting(tmp_path, McpTenant(UserId("ana"), lambda: opened(settings), options)) as host:
        assert await resumed(host.client()) == "pwa"


async def test_claude_code_sits_at_a_desk_by_whichever_name_it_gives(settings: Settings, tmp_path: Path) -> None:
    tenant = McpTenant(UserId("ana"), lambda: opened(settings), RemoteOptions("http://localhost"))
    async with hosting(tmp_path, tenant) as host:
        registered = host.client(grant="registered")
        caller = host.callers[token("ana", "registered")]
        named = dataclasses.replace(caller.grant, client_name="Claude Code (dualmem)")
        host.callers[token("ana", "registered")] = Caller(named, b"")
        assert await resumed(registered) == "desktop"
        assert await resumed(registered, device="pwa") == "pwa"

        introduced = host.client(grant="introduced")
        hello = initialize()
        hello["params"]["clientInfo"]["name"] = "claude-code"
        begun = await introduced.post(hello)
        introduced.session = {"Mcp_Session_Id": begun.headers["Mcp-Session-Id"]}
        answers = await introduced.ask("tools/call", {"name": "resume_conversation", "arguments": {}})
        assert profile_of(answers[-1]["result"]) == "desktop"

        info = {"name": "claude-code", "version": "2.1"}
        for meta, profile in (({"io.modelcontextprotocol/clientInfo": info}, "desktop"), (META, "ios")):
            call = modern("tools/call", {"name": "resume_conversation", "arguments": {}}, **meta)
            said = {
                "MCP_Protocol_Version": "2026-07-28",
                "Mcp_Method": "tools/call",
                "Mcp_Name": "resume_conversation",
            }
            answer = await host.client(grant="modern").post(call, **said)
            assert profile_of(answer.json()["result"]) == profile, answer.text[:300]


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("claude-code", True),
        ("Claude Code", True),
        ("Claude Code (dualmem)", True),
        ("claude-ai", False),
        ("Claude", False),
        ("", False),
        ("not Claude Code", False),
    ],
)
def test_claude_code_is_known_by_its_name(name: str, is_one: bool) -> None:
    assert is_claude_code(name) is is_one
