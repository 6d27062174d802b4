"""cost and cost optimize as a person and a script use them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dualmem_mcp.cli import cli
from dualmem_mcp.errors import UsageError
from tests.handoff.conftest import PASSPHRASE, bare_environment
from tests.stores.conftest import S3Server, moto_server

__all__ = ["bare_environment", "moto_server"]


@pytest.fixture
def in_s3(moto_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    moto_server.set_environment(monkeypatch)
    return f"s3://{moto_server.make_bucket()}/memory"


class Shell:
    """The command line on one data home."""

    def __init__(self, root: Path, bucket: str) -> None:
        self.home = root / "desk"
        self.environment = {
            "DUALMEM_HOME": str(self.home),
            "DUALMEM_BUCKET": bucket,
            "DUALMEM_PASSPHRASE": PASSPHRASE,
            "DUALMEM_KEYSTORE": "file",
            "CLAUDE_CONFIG_DIR": str(root / "claude"),
        }

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(cli, arguments, env=self.environment)

    def configure(self, **fields: object) -> None:
        path = self.home / "cloud_sync_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_commands_say_what_it_costs_and_end_with_8_over_budget(tmp_path: Path, in_s3: str) -> None:
    shell = Shell(tmp_path, in_s3)
    assert shell.run("init", "--device-name", "desk").exit_code == 0
    told = shell.run("cost", "--look", "--region", "eu-west-1", "--users", "50")
    assert told.exit_code == 0, told.output
    for expected in (
        "S3 in eu-west-1",
        "storage: keys",
        "requests: writes",
        "in all, for its user",
        "too early",
        "50",
    ):
        assert expected in told.stdout
    unknown = shell.run("cost", "--json")
    assert json.loads(unknown.stdout)["region"] == "us-east-1"
    assert "region is not known" in unknown.stderr
    rules = tmp_path / "rules.json"
    proposed = shell.run("cost", "optimize", "--lifecycle", str(rules))
    assert proposed.exit_code == 0, proposed.output
    assert json.loads(rules.read_text()) == {"Rules": []}
    shell.configure(budget={"hard_usd": 0})
    over = shell.run("sync")
    assert over.exit_code == 8
    assert "budget" in over.stderr
    assert "budget" in shell.run("doctor").stdout
    shell.configure(budget={"hard_usd": -1})
    wrong = shell.run("cost")
    assert isinstance(wrong.exception, UsageError)
    assert "budget" in str(wrong.exception)
