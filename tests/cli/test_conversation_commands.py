"""What the commands on conversations print for people."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from dualmem_mcp.cli import cli
from dualmem_mcp.sample import write_sample_session


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
