"""A whole handoff through a real S3 server, with the real commands on both sides."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dualmem_mcp.sample import write_sample_session


@pytest.fixture(params=["moto_server", pytest.param("radosgw_server", marks=pytest.mark.radosgw)])
def environment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    server = request.getfixturevalue(request.param)
    server.set_environment(monkeypatch)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DUALMEM_", "CLAUDE_"))}
    return {
        **kept,
        "DUALMEM_BUCKET": f"s3://{server.make_bucket()}/vaults/mine",
        "DUALMEM_PASSPHRASE": "correct horse battery staple",
        "DUALMEM_KEYSTORE": "file",
        "CLAUDE_CONFIG_DIR": str(tmp_path / "claude"),
    }


def run(environment: dict[str, str], home: Path, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "dualmem_mcp.cli", "--home", str(home), *arguments, "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_session_arrives_byte_for_byte(environment: dict[str, str], tmp_path: Path) -> None:
    session = write_sample_session(tmp_path / "claude", cwd="/home/you/projects/tollgate")
    desktop, phone = tmp_path / "desktop", tmp_path / "phone"
    run(environment, desktop, "init")
    report = run(environment, desktop, "handoff", "--transcript", str(session))
    assert (report["queued"], report["mobile_ready"]) == (False, True)
    upload = next(step for step in report["operations"] if step["name"] == "upload")
    assert upload["cost_usd"] > 0

    run(environment, phone, "join", environment["DUALMEM_BUCKET"])
    brief = run(environment, phone, "resume", "--device", "ios")
    assert brief["brief_tokens"] <= 4000
    target = tmp_path / "restored"
    restored = run(environment, phone, "restore", brief["conversation_id"], "--claude-dir", str(target))
    assert Path(restored["session_path"]).read_bytes() == session.read_bytes()

    with session.open("a", encoding="utf-8") as file:
        file.write(session.read_text(encoding="utf-8").splitlines()[-1] + "\n")
    again = run(environment, desktop, "handoff", "--transcript", str(session))
    assert again["package_bytes"] < report["package_bytes"] / 2
