"""The examples of the README, run as they stand there, but for names of buckets and folders."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dualmem_mcp.sample import write_sample_session

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


def examples() -> list[str]:
    """The lines of the README's shell blocks that call `dualmem`, in order, without their comments."""
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    lines = [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("dualmem ")]


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    """What stands in the README, and what it is in this test."""
    session = write_sample_session(tmp_path / "claude", cwd="/home/you/projects/tollgate")
    (tmp_path / "memory.jsonl").write_text('{"type":"entity","name":"a","entityType":"t","observations":[]}')
    (tmp_path / "mine").mkdir()
    return {
        "s3://my-bucket/dualmem": str(tmp_path / "bucket"),
        "~/projects/mine": str(tmp_path / "mine"),
        "~/memory.jsonl": str(tmp_path / "memory.jsonl"),
        " ID": f" {session.stem}",
    }


def test_the_examples_do_what_they_say(tmp_path: Path, places: dict[str, str], model_dir: Path) -> None:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("DUALMEM_", "CLAUDE_"))},
        "DUALMEM_PASSPHRASE": "correct horse battery staple",
        "DUALMEM_KEYSTORE": "file",
        "CLAUDE_CONFIG_DIR": str(tmp_path / "claude"),
        "CLAUDE_PROJECT_DIR": "/home/you/projects/tollgate",
        "DUALMEM_MODEL_DIR": str(model_dir),
    }

    def run(line: str, home: str) -> str:
        for words, place in places.items():
            line = line.replace(words, place)
        command = [sys.executable, "-m", "dualmem_mcp.cli", *shlex.split(line)[1:]]
        done = subprocess.run(
            command,
            env={**environment, "DUALMEM_HOME": str(tmp_path / home)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, f"{line}: {done.stderr}"
        return done.stdout

    def serving(line: str, home: str) -> str:
        """What it says once it serves, on whatever port is free."""
        command = [sys.executable, "-m", "dualmem_mcp.cli", *shlex.split(line)[1:], "--port", "0"]
        own = {**environment, "DUALMEM_HOME": str(tmp_path / home)}
        with subprocess.Popen(command, env=own, stderr=subprocess.PIPE, text=True) as server:
            watchdog = threading.Timer(60, server.kill)
            watchdog.start()
            told = ""
            while "listening" not in told and (line := server.stderr.readline()):
                told += line
            server.terminate()
            told += server.stderr.read()
            watchdog.cancel()
        assert server.returncode == -signal.SIGTERM, told
        return told

    lines = examples()
    commands = [
        *("init", "join", "resume", "restore", "sync", "conflicts", "note", "offline"),
        *("serve", "model", "index", "search"),
        *("tiers", "tiers", "tiers", "tiers", "import"),
    ]
    assert [line.split()[1] for line in lines] == commands
    init, join, resume, restore, sync, conflicts, note, offline, serve, *others = lines
    pull, index, search, made, enable, plan, apply, imported = others
    assert "Recovery key" in run(init, "desktop")
    assert "Handed over" in run("dualmem handoff", "desktop")
    assert "is now one of vault" in run(join, "phone")
    assert run(resume, "phone").startswith("# ")
    assert "claude --resume" in run(restore, "phone")
    assert list((tmp_path / "claude" / "projects").glob("*-mine/*.jsonl"))
    assert "The crane lifts" in run(note, "desktop")
    assert re.search(r"Sent \d+ changes", run(sync, "desktop"))
    assert re.search(r"Received \d+ changes", run(sync, "phone"))
    assert "No conflicts" in run(conflicts, "phone")
    assert "Ready without a network" in run(offline, "phone")
    assert "https://memory.example.org" in serving(serve, "desktop")
    assert "is ready" in run(pull, "desktop")
    assert re.search(r"Indexed \d{2,} new turns of 1 conversation", run(index, "desktop"))
    assert "turn · " in run(search, "desktop")
    environment["DUALMEM_QDRANT_URL"] = str(tmp_path / "service")
    assert "dualmem-critical" in run(made, "desktop")
    assert "On: vectors go to" in run(f"{enable} --yes", "desktop")
    assert re.search(r"place +edge +\w+ +\d+", run(plan, "desktop"))
    assert re.search(r"Vectors: \d+ placed", run(apply, "desktop"))
    assert "Imported 1 entities" in run(imported, "phone")


def test_the_tools_table_names_every_tool_and_no_other() -> None:
    from dualmem_mcp.server.protocol import TOOLS

    table = README.partition("## Tools")[2].partition("Prompts:")[0]
    named = set(re.findall(r"`([a-z_]+)`", table))
    assert named == {tool.name for tool in TOOLS}
