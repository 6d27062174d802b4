"""What docs/remote.md tells people to type."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from dualmem_mcp.cli.serve_command import remote_options, serve
from dualmem_mcp.config_file import CONFIG_FILE, RemoteSettings
from dualmem_mcp.remote.options import Limits
from dualmem_mcp.settings import load_settings

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = (ROOT / "docs" / "remote.md").read_text()


def block(language: str) -> str:
    [found] = re.findall(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)
    return found


def test_the_caddyfile_is_one(tmp_path: Path) -> None:
    caddy = shutil.which("caddy")
    if caddy is None:
        pytest.skip("needs Caddy")
    (tmp_path / "Caddyfile").write_text(block("caddyfile"))
    command = [caddy, "validate", "--config", str(tmp_path / "Caddyfile"), "--adapter", "caddyfile"]
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "XDG_DATA_HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path),
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "Valid configuration" in done.stdout + done.stderr


def test_the_unit_is_well_formed(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("needs systemd-analyze")
    unit = tmp_path / "dualmem.service"
    unit.write_text(block("ini").replace("%h/dualmem/bin/dualmem", str(Path(sys.executable).parent / "dualmem")))
    (tmp_path / "run").mkdir(mode=0o700)
    command = [analyze, "--user", "verify", "--man=no", str(unit)]
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_settings_are_taken(tmp_path: Path) -> None:
    (tmp_path / CONFIG_FILE).write_text(block("json"))
    options = remote_options(RemoteSettings(), load_settings(tmp_path).remote)
    assert options.public_url == "https://memory.example.org"
    assert (options.host, options.port, options.certificate) == ("127.0.0.1", 8787, None)
    assert options.extra_hosts == ("other-name.example.org",)
    assert options.extra_origins == ("http://localhost:6274",)
    assert options.extra_redirects == ("https://other-client.example/callback",)
    assert set(json.loads(block("json"))["remote"]) == {field.name for field in fields(RemoteSettings)}


def test_the_commands_options_are_there() -> None:
    typed = set(re.findall(r"(--[a-z-]+)", " ".join(re.findall(r"dualmem serve[^`]*", DOCUMENT))))
    known = {name for parameter in serve.params for name in parameter.opts}
    assert {"--public-url", "--certificate", "--key"} <= typed <= known


def test_the_limits_are_those_of_the_code() -> None:
    limits = Limits()
    table = DOCUMENT.partition("## What is refused")[2].partition("##")[0]
    assert f"{limits.body_bytes >> 20} MiB; {limits.form_bytes >> 10} KiB before a login" in table
    assert f"{limits.body_seconds:.0f} s, {limits.header_seconds:.0f} s" in table
    assert f"{limits.header_bytes >> 10} KiB" in table
    assert f"{limits.requests:,} and {limits.stranger_requests}" in table
    assert f"{limits.streams:,} (of one user {limits.streams_per_user:,}) and {limits.connections:,}" in table
    assert f"| {limits.request_seconds:.0f} s |" in table
