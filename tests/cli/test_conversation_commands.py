"""What the commands on conversations print for people."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from click.testing import CliRunner

from dualmem_mcp.app import open_app
from dualmem_mcp.cli import cli
from dualmem_mcp.sample import write_sample_session
from dualmem_mcp.settings import load_settings


def test_a_handoff_says_in_one_line_what_it_keeps(tmp_path: Path) -> None:
    runner = CliRunner()
    environment = {
        "DUALMEM_HOME": str(tmp_path / "home"),
        "DUALMEM_BUCKET": str(tmp_path / "bucket"),
        "DUALMEM_PASSPHRASE": "correct horse battery staple",
        "DUALMEM_KEYSTORE": "file",
        "CLAUDE_CONFIG_DIR": str(tmp_path / "claude"),
    }
    write_sample_session(tmp_path / "claude", cwd="/home/you/projects/tollgate")
    assert runner.invoke(cli, ["init"], env=environment).exit_code == 0
    done = runner.invoke(cli, ["handoff", "--device", "ios"], env=environment)
    assert done.exit_code == 0, done.output
    line = next(line for line in done.output.splitlines() if line.startswith("  fidelity "))
    assert line.startswith(
        "  fidelity      answers 65 of 65 questions about it, 65 on the device; 81% of its facts (by "
    )
    assert "of its sentences found again (by chance " in line


def test_a_handoff_of_almost_nothing_says_so(tmp_path: Path) -> None:
    from dualmem_mcp.cli.conversation_commands import _fidelity_text
    from dualmem_mcp.handoff.fidelity import measure_fidelity
    from tests.handoff.dialogue import Dialogue

    dialogue = Dialogue(branch="")
    assert _fidelity_text(measure_fidelity(dialogue.session(), "", device_brief="")) == (
        "nothing to ask in so short a conversation"
    )
    dialogue.user("hi")
    assert _fidelity_text(measure_fidelity(dialogue.session(), "", device_brief="")) == (
        "answers 0 of 2 questions about it, 0 on the device"
    )


def test_restore_takes_in_first_what_was_said_elsewhere(tmp_path: Path) -> None:
    runner = CliRunner()
    shared = {
        "DUALMEM_BUCKET": str(tmp_path / "bucket"),
        "DUALMEM_PASSPHRASE": "correct horse battery staple",
        "DUALMEM_KEYSTORE": "file",
    }
    desk = {**shared, "DUALMEM_HOME": str(tmp_path / "desk"), "CLAUDE_CONFIG_DIR": str(tmp_path / "claude")}
    phone = {**shared, "DUALMEM_HOME": str(tmp_path / "phone"), "CLAUDE_CONFIG_DIR": str(tmp_path / "none")}
    session = write_sample_session(tmp_path / "claude", cwd="/home/you/projects/tollgate", turns=40)
    before = session.read_bytes()
    for environment, command in (
        (desk, ["init"]),
        (desk, ["handoff"]),
        (phone, ["join", shared["DUALMEM_BUCKET"]]),
    ):
        done = runner.invoke(cli, command, env=environment)
        assert done.exit_code == 0, done.output
    shown = runner.invoke(cli, ["resume", "--json"], env=phone)
    conversation_id = json.loads(shown.stdout)["conversation_id"]
    settings = replace(load_settings(tmp_path / "phone", bucket=shared["DUALMEM_BUCKET"]), keystore="file")
    with open_app(settings) as app:
        app.save_progress(conversation_id, messages=[{"role": "user", "text": "and paint it"}], decisions=["red"])
        app.sync()

    done = runner.invoke(cli, ["restore", conversation_id], env=desk)
    assert done.exit_code == 0, done.output
    assert "With 1 turn of other devices" in done.output
    assert session.read_bytes().startswith(before)
    assert b"and paint it" in session.read_bytes()[len(before) :]
    written = json.loads(runner.invoke(cli, ["restore", conversation_id, "--json"], env=desk).stdout)
    assert (written["written"], written["woven_turns"]) == (False, 0)
    done = runner.invoke(cli, ["restore", conversation_id], env=desk)
    assert "Restored" not in done.output
    assert f"{session} has all {written['records']} records already" in done.stdout.splitlines()
    shown = runner.invoke(cli, ["resume", conversation_id, "--json"], env=desk)
    assert [one["text"] for one in json.loads(shown.stdout)["since_handoff"]["decisions"]] == ["red"]
