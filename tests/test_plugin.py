"""What clients install: the Claude Code plugin, its marketplace, the MCPB bundle, the MCP registry's entry."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import dualmem_mcp
from dualmem_mcp.server.prompts import PROMPTS
from dualmem_mcp.server.protocol import TOOLS
from scripts import bundle

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = ROOT / "plugin"
COMMANDS = sorted((PLUGIN / "commands").glob("*.md"))
TOOL_NAMES = [tool.entry()["name"] for tool in TOOLS]

NO_OTHERS: dict[str, Any] = {"type": "object", "additionalProperties": False}
TEXT = {"type": "string", "minLength": 1}
TEXTS = {"type": "array", "items": TEXT}
KEBAB = {"type": "string", "pattern": "^[a-z0-9]+(-[a-z0-9]+)*$"}
VERSION = {"type": "string", "pattern": r"^\d+\.\d+\.\d+$"}


def load(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def check(document: object, schema: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(schema).validate(document)


# The plugin


def test_the_marketplace_lists_the_plugin() -> None:
    # Source: Claude Code's documentation, "Plugin marketplaces": name, owner and plugins are required; a relative
    # source starts with ./ and from the folder that holds .claude-plugin.
    market = load(ROOT / ".claude-plugin" / "marketplace.json")
    entry = {
        **NO_OTHERS,
        "required": ["name", "source"],
        "properties": {
            "name": KEBAB,
            "source": {"type": "string", "pattern": r"^\./"},
            "description": TEXT,
            "category": TEXT,
            "license": TEXT,
        },
    }
    owner = {**NO_OTHERS, "required": ["name"], "properties": {"name": TEXT, "email": TEXT}}
    check(
        market,
        {
            **NO_OTHERS,
            "required": ["name", "owner", "plugins"],
            "properties": {
                "$schema": TEXT,
                "name": KEBAB,
                "description": TEXT,
                "owner": owner,
                "plugins": {"type": "array", "items": entry},
            },
        },
    )
    (listed,) = market["plugins"]
    assert (ROOT / listed["source"]).resolve() == PLUGIN
    assert listed["name"] == load(PLUGIN / ".claude-plugin" / "plugin.json")["name"]
    # The two lines that the documents promise.
    lines = f"/plugin marketplace add PATH\n/plugin install {listed['name']}@{market['name']}"
    for document in ("README.md", "docs/claude-code.md"):
        text = (ROOT / document).read_text()
        for line in lines.splitlines():
            assert re.search(re.escape(line).replace("PATH", r"\S+"), text), (document, line)


def test_the_plugins_manifest() -> None:
    # Source: Claude Code's documentation, "Plugins reference": name is required, paths are found by convention.
    manifest = load(PLUGIN / ".claude-plugin" / "plugin.json")
    author = {**NO_OTHERS, "required": ["name"], "properties": {"name": TEXT, "email": TEXT, "url": TEXT}}
    properties = {
        "name": KEBAB,
        "version": VERSION,
        "description": TEXT,
        "author": author,
        "license": TEXT,
        "keywords": TEXTS,
    }
    check(manifest, {**NO_OTHERS, "required": ["name"], "properties": properties})
    assert manifest["version"] == dualmem_mcp.__version__
    # In .claude-plugin lies the manifest alone: what else is put there is not found.
    assert [path.name for path in (PLUGIN / ".claude-plugin").iterdir()] == ["plugin.json"]


def test_the_hooks_are_those_of_claude_code_and_end_well() -> None:
    # Source: Claude Code's documentation, "Hooks": events, matchers, seconds.
    document = load(PLUGIN / "hooks" / "hooks.json")
    one = {
        **NO_OTHERS,
        "required": ["type", "command", "timeout"],
        "properties": {
            "type": {"const": "command"},
            "command": {"type": "string", "pattern": r"2>/dev/null \|\| true$"},
            "timeout": {"type": "integer", "minimum": 1, "maximum": 10},
        },
    }
    group = {
        **NO_OTHERS,
        "required": ["hooks"],
        "properties": {"matcher": {"const": "startup|resume"}, "hooks": {"type": "array", "items": one}},
    }
    events = {
        name: {"type": "array", "items": group} for name in ("SessionStart", "PostCompact", "Stop", "SessionEnd")
    }
    hooks = {**NO_OTHERS, "properties": events, "required": list(events)}
    check(document, {**NO_OTHERS, "required": ["hooks"], "properties": {"description": TEXT, "hooks": hooks}})
    assert [event for event, groups in document["hooks"].items() if "matcher" in groups[0]] == ["SessionStart"]
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts["dualmem-hook"] == "dualmem_mcp.hook:main"


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.stem)
def test_commands_use_tools_that_there_are(path: Path) -> None:
    front, body = front_matter(path)
    assert front.keys() == {"description", "argument-hint", "allowed-tools"}
    assert "$ARGUMENTS" in body
    # Source: Claude Code's documentation, "MCP": a plugin's tools are mcp__plugin_<plugin>_<server>__<tool>.
    servers = load(PLUGIN / ".mcp.json")["mcpServers"]
    prefix = f"mcp__plugin_{load(PLUGIN / '.claude-plugin' / 'plugin.json')['name']}_{next(iter(servers))}__"
    allowed = [name.strip() for name in front["allowed-tools"].split(",")]
    assert all(name.startswith(prefix) for name in allowed)
    tools = {name.removeprefix(prefix) for name in allowed}
    assert tools <= set(TOOL_NAMES)
    # Nothing that takes away, decides or sends is allowed without asking.
    assert all(
        tool.reads_only or tool.entry()["name"] in ("prepare_handoff", "save_progress")
        for tool in TOOLS
        if tool.entry()["name"] in tools
    )
    known = {"search_memory", "prepare_handoff", "resume_conversation", "list_conversations", "load_context"}
    named = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", body))
    arguments = {name for tool in TOOLS for name in tool.entry()["inputSchema"].get("properties", {})}
    assert named <= set(TOOL_NAMES) | arguments
    assert named & known


def test_there_are_the_three_commands_and_the_skill() -> None:
    assert [path.stem for path in COMMANDS] == ["handoff", "recall", "resume"]
    assert [path.parent.name for path in (PLUGIN / "skills").glob("*/SKILL.md")] == ["handoff-summary"]


def test_the_skill_names_the_nine_sections_in_their_order() -> None:
    front, body = front_matter(PLUGIN / "skills" / "handoff-summary" / "SKILL.md")
    assert front["name"] == "handoff-summary"
    assert len(front["description"]) <= 1024  # Source: the Agent Skills specification
    assert re.findall(r"^\d\. \*\*(.+?)\*\*", body, re.MULTILINE) == [
        "Primary request and intent",
        "Key technical concepts",
        "Files and code",
        "Errors and fixes",
        "Problem solving",
        "All user messages",
        "Pending tasks",
        "Current work",
        "Next step",
    ]
    for name in ("prepare_handoff", "decisions", "next_steps", "open_questions", "save_progress"):
        assert f"`{name}`" in body
    assert "`handoff-summary`" in (PLUGIN / "commands" / "handoff.md").read_text()


def front_matter(path: Path) -> tuple[dict[str, str], str]:
    matched = re.fullmatch(r"---\n(.*?)\n---\n(.*)", path.read_text(encoding="utf-8"), re.DOTALL)
    assert matched is not None
    return yaml.safe_load(matched[1]), matched[2]


# What starts the server


@pytest.fixture
def starter(tmp_path: Path) -> list[str]:
    servers = load(PLUGIN / ".mcp.json")["mcpServers"]
    assert list(servers) == ["dualmem"]
    server = servers["dualmem"]
    assert server.keys() == {"command", "args"}
    shell = shutil.which(server["command"])
    if shell is None:
        pytest.skip("needs a POSIX shell")
    return [shell, *(argument.replace("${CLAUDE_PLUGIN_ROOT}", str(PLUGIN)) for argument in server["args"])]


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)


def start(command: list[str], tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    plain = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "HOME": str(tmp_path / "home"), **environment}
    return subprocess.run(command, env=plain, capture_output=True, text=True, timeout=30, check=False)


def test_the_installed_server_is_started(starter: list[str], tmp_path: Path) -> None:
    script(tmp_path / "home" / ".local" / "bin" / "dualmem-mcp", "echo by its own folder")
    assert start(starter, tmp_path).stdout == "by its own folder\n"
    script(tmp_path / "bin" / "dualmem-mcp", "echo by the path")
    assert start(starter, tmp_path, DUALMEM_FROM="elsewhere").stdout == "by the path\n"


def test_else_what_the_user_names_is_run(starter: list[str], tmp_path: Path) -> None:
    script(tmp_path / "bin" / "pipx", 'echo pipx "$@"')
    assert start(starter, tmp_path, DUALMEM_FROM="a b").stdout == "pipx run --spec a b dualmem-mcp\n"
    script(tmp_path / "bin" / "uvx", 'echo uvx "$@"')
    assert start(starter, tmp_path, DUALMEM_FROM="a b").stdout == "uvx --from a b dualmem-mcp\n"


@pytest.mark.parametrize("named", ["", "somewhere"])
def test_else_it_says_how_to_install_and_runs_nothing_by_its_mere_name(
    starter: list[str], tmp_path: Path, named: str
) -> None:
    if not named:
        script(tmp_path / "bin" / "uvx", "echo fetched")
        script(tmp_path / "bin" / "pipx", "echo fetched")
    ended = start(starter, tmp_path, DUALMEM_FROM=named)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "error: dualmem-mcp is not installed\nhint: " in ended.stderr
    assert "Traceback" not in ended.stderr


def test_scripts_of_the_plugin_can_be_run() -> None:
    for path in (PLUGIN / "scripts").iterdir():
        assert path.stat().st_mode & stat.S_IXUSR, path
        subprocess.run(["sh", "-n", path], check=True)


# The bundle


def test_the_bundles_manifest() -> None:
    # Source: modelcontextprotocol/mcpb, schemas/mcpb-manifest-v0.4.schema.json: nothing but these members, and of a
    # server of type uv the entry point; repository, icons, user configuration and their like are not used here.
    manifest = load(ROOT / "mcpb" / "manifest.json")
    named = {**NO_OTHERS, "required": ["name"], "properties": {"name": TEXT, "description": TEXT}}
    run = {
        **NO_OTHERS,
        "required": ["command"],
        "properties": {
            "command": TEXT,
            "args": TEXTS,
            "env": {"type": "object", "additionalProperties": {"type": "string"}},
        },
    }
    server = {
        **NO_OTHERS,
        "required": ["type", "entry_point"],
        "properties": {"type": {"const": "uv"}, "entry_point": TEXT, "mcp_config": run},
    }
    compatibility = {
        **NO_OTHERS,
        "properties": {
            "claude_desktop": TEXT,
            "platforms": {"type": "array", "items": {"enum": ["darwin", "win32", "linux"]}},
            "runtimes": {**NO_OTHERS, "properties": {"python": TEXT, "node": TEXT}},
        },
    }
    author = {**NO_OTHERS, "required": ["name"], "properties": {"name": TEXT, "email": TEXT, "url": TEXT}}
    check(
        manifest,
        {
            **NO_OTHERS,
            "required": ["manifest_version", "name", "version", "description", "author", "server"],
            "properties": {
                "$schema": TEXT,
                "manifest_version": {"const": "0.4"},
                **dict.fromkeys(("name", "display_name", "description", "long_description", "license"), TEXT),
                "version": VERSION,
                "author": author,
                "server": server,
                "tools": {"type": "array", "items": named},
                "prompts_generated": {"type": "boolean"},
                "keywords": TEXTS,
                "compatibility": compatibility,
            },
        },
    )
    assert manifest["version"] == dualmem_mcp.__version__
    assert [tool["name"] for tool in manifest["tools"]] == TOOL_NAMES
    assert manifest["prompts_generated"] is bool(PROMPTS)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert manifest["compatibility"]["runtimes"]["python"] == project["requires-python"]


def test_the_bundle_is_the_program_and_runs(tmp_path: Path) -> None:
    built = bundle.build(tmp_path / "dist")
    again = bundle.build(tmp_path / "again")
    assert built.read_bytes() == again.read_bytes()
    assert built.name == f"dualmem-mcp-{dualmem_mcp.__version__}.mcpb"
    place = tmp_path / "installed"
    with zipfile.ZipFile(built) as archive:
        names = archive.namelist()
        archive.extractall(place)
    # What uv builds the project from, and nothing that tools left beside it.
    assert {"manifest.json", "server.py", "pyproject.toml", "README.md", "LICENSE", "dualmem_mcp/py.typed"} <= set(
        names
    )
    assert [name for name in names if re.search(r"(^|/)(\.|__pycache__)|\.pyc$", name)] == []
    assert built.stat().st_size < 2 << 20
    # What developers need is not installed for whoever runs the bundle; all else is as it is here.
    ours, its = (tomllib.loads((folder / "pyproject.toml").read_text()) for folder in (ROOT, place))
    assert ours.pop("dependency-groups")
    assert its == ours
    manifest = load(place / "manifest.json")
    environment = {**os.environ, "DUALMEM_HOME": str(tmp_path / "home"), "DUALMEM_KEYSTORE": "file"}
    hello = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        },
    }
    # As the host does, but with this Python in the place of the one that uv would make.
    ended = subprocess.run(
        [sys.executable, place / manifest["server"]["entry_point"]],
        input=json.dumps(hello) + "\n",
        capture_output=True,
        text=True,
        env=environment,
        cwd=place,
        timeout=60,
        check=True,
    )
    assert json.loads(ended.stdout)["result"]["serverInfo"]["version"] == manifest["version"]


# The registry


def test_the_entry_for_the_registry() -> None:
    # Source: modelcontextprotocol/registry, server.schema.json of 2025-12-11, and its requirements for publishing.
    entry = load(ROOT / "server.json")
    variable = {
        **NO_OTHERS,
        "required": ["name"],
        "properties": {
            "name": TEXT,
            "description": TEXT,
            "format": {"enum": ["string", "number", "boolean", "filepath"]},
            "isSecret": {"type": "boolean"},
        },
    }
    package = {
        **NO_OTHERS,
        "required": ["registryType", "identifier", "version", "transport"],
        "properties": {
            "registryType": {"const": "pypi"},
            "identifier": TEXT,
            "version": VERSION,
            "runtimeHint": {"const": "uvx"},
            "transport": {"const": {"type": "stdio"}},
            "environmentVariables": {"type": "array", "items": variable},
        },
    }
    check(
        entry,
        {
            **NO_OTHERS,
            "required": ["$schema", "name", "description", "version", "packages"],
            "properties": {
                "$schema": {
                    "const": "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json"
                },
                "name": {"pattern": r"^[a-zA-Z0-9.-]+/[a-zA-Z0-9._-]+$", "minLength": 3, "maxLength": 200},
                "title": {"type": "string", "minLength": 1, "maxLength": 100},
                "description": {"type": "string", "minLength": 1, "maxLength": 100},
                "version": VERSION,
                "packages": {"type": "array", "minItems": 1, "items": package},
            },
        },
    )
    (published,) = entry["packages"]
    assert entry["version"] == published["version"] == dualmem_mcp.__version__
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert published["identifier"] == project["name"]
    assert project["name"] in project["scripts"]  # what uvx runs
    # The registry looks for this in the README as it was published.
    assert f"<!-- mcp-name: {entry['name']} -->" in (ROOT / project["readme"]).read_text()
    from dualmem_mcp.settings import _Environment

    known = {str(field.validation_alias) for field in _Environment.model_fields.values()}
    assert {one["name"] for one in published["environmentVariables"]} <= known
