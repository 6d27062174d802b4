"""The command line: every command by its contract, its exit codes, and what it says when something is wrong."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from dualmem_mcp import __version__
from dualmem_mcp.cli import cli, main
from dualmem_mcp.errors import DiskFullError

PASSPHRASE = "correct horse battery staple"
SESSION_ID = "0b5f0c66-7a3e-4f0e-9a53-2c1d5f1b7a10"


class Shell:
    """Runs commands in this process, with an environment of its own."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self._capsys = capsys
        self._monkeypatch = monkeypatch
        for name in list(os.environ):
            if name.startswith(("DUALMEM_", "CLAUDE_")) or name == "MEMORY_FILE_PATH":
                monkeypatch.delenv(name)
        monkeypatch.setenv("DUALMEM_KEYSTORE", "file")
        monkeypatch.setenv("DUALMEM_PASSPHRASE", PASSPHRASE)
        monkeypatch.setenv("DUALMEM_BUCKET", str(root / "bucket"))
        monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(root / "claude"))
        monkeypatch.setenv("DUALMEM_MODEL_DIR", str(root / "model"))
        monkeypatch.setattr("sys.stdin", io.StringIO())
        self.device("desktop")

    def device(self, name: str) -> None:
        self.set("DUALMEM_HOME", str(self.root / name))

    def set(self, name: str, value: str) -> None:
        self._monkeypatch.setenv(name, value)

    def unset(self, name: str) -> None:
        self._monkeypatch.delenv(name, raising=False)

    def run(self, *arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        out, err = self._capsys.readouterr()
        assert "Traceback" not in err
        return ended.value.code or 0, out, err

    def json(self, *arguments: str) -> dict:
        code, out, err = self.run(*arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    def fails(self, code: int, *arguments: str) -> tuple[str, str]:
        """The `error:` and `hint:` lines of a command that must end with that code and print nothing else."""
        ended, out, err = self.run(*arguments)
        assert (ended, out) == (code, "")
        error, _, hint = err.strip().partition("\nhint: ")
        assert error.startswith("error: ")
        assert "\n" not in error
        assert hint
        return error, hint


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    return Shell(tmp_path, capsys, monkeypatch)


@pytest.fixture
def session(shell: Shell) -> Path:
    folder = shell.root / "claude" / "projects" / "-home-you-project"
    folder.mkdir(parents=True)
    lines = []
    parent = None
    for index in range(12):
        role = "user" if index % 2 == 0 else "assistant"
        uuid = f"{index:08x}-0000-4000-8000-000000000000"
        message = {"role": role, "content": f"message {index} about the marmalade importer"}
        lines.append(
            json.dumps(
                {
                    "parentUuid": parent,
                    "isSidechain": False,
                    "cwd": "/home/you/project",
                    "sessionId": SESSION_ID,
                    "version": "2.1.200",
                    "gitBranch": "main",
                    "type": role,
                    "uuid": uuid,
                    "timestamp": f"2026-02-01T10:{index:02d}:00.000Z",
                    "message": message,
                }
            )
        )
        parent = uuid
    path = folder / f"{SESSION_ID}.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_the_whole_way_from_one_device_to_another(shell: Shell, session: Path) -> None:
    made = shell.json("init", "--device-name", "desk")
    assert set(made) == {"vault_id", "device_id", "bucket", "recovery_key"}
    handed = shell.json("handoff")
    assert handed["conversation_id"] == SESSION_ID

    shell.device("phone")
    assert set(shell.json("join", str(shell.root / "bucket"), "--device-name", "pocket")) == {
        "vault_id",
        "device_id",
    }
    brief = shell.json("resume", "--device", "ios", "--budget", "900")
    assert brief["brief_tokens"] <= 900
    assert "message 10 about" in brief["brief"]
    listed = shell.json("conversations")
    assert [row["conversation_id"] for row in listed["conversations"]] == [SESSION_ID]
    assert "message 3 about" in shell.json("show", SESSION_ID, "--section", "thread")["text"]
    restored = shell.json("restore", SESSION_ID, "--claude-dir", str(shell.root / "restored"))
    assert set(restored) == {
        "session_path",
        "session_id",
        "records",
        "sha256",
        "written",
        "woven_turns",
        "sessions",
    }
    assert Path(restored["session_path"]).read_bytes() == session.read_bytes()


def test_joining_with_the_recovery_key(shell: Shell, session: Path) -> None:
    key = shell.json("init")["recovery_key"]
    shell.json("handoff")
    shell.device("phone")
    shell.set("DUALMEM_PASSPHRASE", key.lower().replace("-", " "))
    shell.json("join", str(shell.root / "bucket"))
    assert shell.json("resume")["conversation_id"] == SESSION_ID


def test_people_get_sentences(shell: Shell, session: Path) -> None:
    code, out, _ = shell.run("init")
    assert code == 0
    assert "Recovery key" in out
    code, out, _ = shell.run("handoff")
    assert "Handed over" in out
    code, out, _ = shell.run("resume")
    assert out.startswith("# ")
    code, out, _ = shell.run("conversations")
    assert SESSION_ID in out
    code, out, _ = shell.run("status")
    assert "vault id" in out
    code, out, _ = shell.run("doctor")
    assert code == 0
    assert "FAIL" not in out


def test_the_recovery_key_is_written_to_no_file(shell: Shell) -> None:
    key = shell.json("init")["recovery_key"]
    blob = b"\0".join(path.read_bytes() for path in shell.root.rglob("*") if path.is_file())
    assert key.encode() not in blob
    assert PASSPHRASE.encode() not in blob


def test_every_documented_exit_code(shell: Shell, session: Path) -> None:
    shell.fails(3, "handoff")  # no vault yet
    shell.json("init")
    shell.fails(7, "init")
    shell.fails(2, "handoff", "../../x")
    shell.fails(2, "handoff", "--device", "toaster")
    shell.fails(3, "resume")
    shell.fails(3, "handoff", "--transcript", str(shell.root / "nothing.jsonl"))
    handed = shell.json("handoff")

    shell.device("phone")
    shell.set("DUALMEM_PASSPHRASE", "not the passphrase at all")
    error, _ = shell.fails(4, "join", str(shell.root / "bucket"))
    assert "not the passphrase" not in error
    shell.unset("DUALMEM_PASSPHRASE")
    error, hint = shell.fails(4, "join", str(shell.root / "bucket"))
    assert "DUALMEM_PASSPHRASE_FILE" in hint
    shell.set("DUALMEM_PASSPHRASE", PASSPHRASE)
    shell.json("join", str(shell.root / "bucket"))

    package = shell.root / "bucket" / "packages" / handed["handoff_id"]
    whole = package.read_bytes()
    package.write_bytes(whole[:400] + bytes([whole[400] ^ 1]) + whole[401:])
    error, _ = shell.fails(5, "resume")
    assert "marmalade" not in error
    package.write_bytes(whole)
    (shell.root / "bucket").rename(shell.root / "unplugged")
    shell.run("conversations")
    code, _, err = shell.run("resume")
    assert code in (3, 6)
    assert "hint: " in err
    shell.fails(6, "join", str(shell.root / "bucket"))


def test_a_bucket_that_is_away_is_a_warning_and_exit_0(shell: Shell, session: Path) -> None:
    shell.json("init")
    (shell.root / "bucket").rename(shell.root / "unplugged")
    code, out, err = shell.run("handoff", "--json")
    assert code == 0
    assert json.loads(out)["queued"] is True
    assert "warning: not uploaded yet" in err
    assert shell.json("status")["waiting_uploads"] > 0
    (shell.root / "unplugged").rename(shell.root / "bucket")
    assert shell.json("handoff")["queued"] is False
    assert shell.json("status")["waiting_uploads"] == 0


@pytest.mark.skipif(sys.platform == "win32", reason="has no pseudo-terminals")
def test_a_person_sees_what_a_long_command_is_doing(shell: Shell, session: Path) -> None:
    import pty

    shell.json("init")
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "dualmem_mcp.cli", "handoff", "--json"],
        env={**os.environ, "TERM": "xterm"},
        stdout=subprocess.PIPE,
        stderr=theirs,
        check=True,
    )
    os.close(theirs)
    seen = os.read(ours, 1 << 16)
    os.close(ours)
    assert b"opening the data home" in seen
    assert seen.endswith(b"\x1b[2K")  # gone again
    assert json.loads(done.stdout)["queued"] is False


def test_import_and_export(shell: Shell) -> None:
    source = shell.root / "memory.json"
    source.write_text(
        '{"type":"entity","name":"a","entityType":"t","observations":["x"],"colour":"blue"}\n'
        "not json\n"
        '{"type":"relation","from":"a","to":"b","relationType":"knows"}',
        encoding="utf-8",
    )
    code, out, err = shell.run("import", str(source), "--json")
    assert code == 0
    counts = json.loads(out)
    assert (counts["entities"], counts["relations"], counts["observations"], counts["skipped"]) == (1, 1, 1, 1)
    assert "line 2" in err
    target = shell.root / "out.jsonl"
    assert shell.json("export", str(target))["entities"] == 1
    assert '"colour":"blue"' in target.read_text(encoding="utf-8")
    assert target.stat().st_mode & 0o777 == 0o600
    shell.fails(7, "export", str(target))
    shell.fails(3, "import", str(shell.root / "nothing"))
    (shell.root / "binary").write_bytes(bytes(range(256)) * 10)
    shell.fails(2, "import", str(shell.root / "binary"))


TURNS = (
    '{"conversation_id": "boat", "id": "t0", "role": "user", "author": "Jonas", "text": "The winch is broken.",'
    ' "timestamp": "2026-02-01T10:00:00Z"}\n'
    '{"conversation_id": "kiln", "id": "t0", "role": "user", "text": "The glaze came out blistered."}\n'
    "not json\n"
)


def test_turns_are_imported_and_found(shell: Shell) -> None:
    source = shell.root / "turns.jsonl"
    source.write_text(TURNS)
    code, out, err = shell.run("import", "--format", "turns", str(source))
    assert (code, out) == (0, "Imported 2 turns; skipped 1.\n")
    assert "warning: line 3: not a JSON object; skipped" in err
    again = shell.json("import", str(source))
    assert {key: again[key] for key in ("form", "entities", "relations", "observations", "turns", "skipped")} == {
        "form": "turns",
        "entities": 0,
        "relations": 0,
        "observations": 0,
        "turns": 0,
        "skipped": 1,
    }
    found = shell.json("search", "who said the winch is broken?", "--limit", "1")
    assert set(found) == {"results", "partial", "tiers", "timings_ms", "warnings"}
    assert found["partial"]  # there is no model
    (result,) = found["results"]
    assert result == {
        "id": "turn/boat/t0",
        "kind": "turn",
        "text": "The winch is broken.",
        "score": result["score"],
        "conversation_id": "boat",
        "turn_id": "t0",
        "author": "Jonas",
        "timestamp": "2026-02-01T10:00:00+00:00",
        "device": result["device"],
    }
    code, out, err = shell.run("search", "glaze", "--conversation", "kiln", "--kind", "turn")
    assert code == 0
    assert "The glaze came out blistered." in out
    assert "[kiln t0]" in out
    assert "dualmem model pull" in err


def test_nothing_of_an_imported_turn_speaks_to_the_terminal(shell: Shell) -> None:
    source = shell.root / "turns.jsonl"
    turn = {
        "conversation_id": "boat",
        "id": "t\x1b[2J0",
        "role": "user",
        "author": "A\x1b]0;x\x07\nB",
        "text": "oak\x1bc",
    }
    source.write_text(json.dumps(turn))
    shell.json("import", str(source))
    code, out, _ = shell.run("search", "oak")
    assert code == 0
    assert "turn · A B" in out
    assert "[boat t0]" in out
    assert not any(char < " " for char in out.replace("\n", ""))


def test_sessions_are_indexed_once_and_found_as_they_are_searched(shell: Shell, session: Path) -> None:
    counts = shell.json("index", "--project", "all")
    assert set(counts) >= {"conversations", "turns_indexed", "skipped", "duration_ms"}
    assert (counts["conversations"], counts["turns_indexed"] > 0) == (1, True)
    code, out, _ = shell.run("index", "--project", "all")
    assert (code, out.partition(" in ")[0]) == (0, "Indexed 0 new turns of 0 conversations")
    source = shell.root / "memory.json"
    source.write_text('{"type":"entity","name":"cutter","entityType":"boat","observations":["oak on oak"]}')
    shell.json("import", str(source))
    # What is new is indexed before the search is answered.
    (result,) = shell.json("search", "cutter", "--scope", "memory")["results"]
    assert (result["kind"], result["text"], result["conversation_id"]) == (
        "entity",
        "cutter (boat)\noak on oak",
        None,
    )


def test_items_that_say_the_same_are_counted(shell: Shell, session: Path, model_dir: Path) -> None:
    shell.set("DUALMEM_MODEL_DIR", str(model_dir))
    fork = "11111111-2222-4333-8444-555555555555"
    text = session.read_text(encoding="utf-8").replace(session.stem, fork)
    session.with_name(f"{fork}.jsonl").write_text(text, encoding="utf-8")
    code, out, _ = shell.run("index", "--project", "all")
    shared = shell.json("status")["deduplicated"]
    assert shared > 10
    assert (code, f"{shared:,} items say the same as others, and share their vectors." in out) == (0, True)


def test_a_search_that_does_not_fit_or_finds_nothing(shell: Shell) -> None:
    error, hint = shell.fails(2, "search", "x", "--since", "tomorrow")
    assert "tomorrow" in error
    assert "7d" in hint
    shell.fails(3, "model", "pull", "--from", str(shell.root / "nothing"))
    shell.fails(3, "import", "--format", "turns", str(shell.root / "nothing"))
    error, hint = shell.fails(3, "search", "x", "--conversation", "another")
    assert error == "error: no conversation another is known on this device"
    assert "dualmem conversations" in hint


def test_a_search_within_a_conversation_of_which_nothing_fits(shell: Shell) -> None:
    source = shell.root / "turns.jsonl"
    source.write_text(TURNS)
    shell.json("import", str(source))
    code, out, _ = shell.run("search", "zeppelin", "--author", "nobody", "--conversation", "boat")
    assert (code, out) == (0, "Nothing was found.\n")
    assert shell.fails(3, "search", "zeppelin", "--conversation", "boa")[0].startswith("error: no conversation")


@pytest.mark.skipif(sys.platform == "win32", reason="has no pseudo-terminals")
def test_a_person_sees_how_far_indexing_is(shell: Shell) -> None:
    import pty

    source = shell.root / "turns.jsonl"
    source.write_text("".join(TURNS.splitlines(keepends=True)[0].replace("t0", f"t{n}") for n in range(450)))
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "dualmem_mcp.cli", "import", "--json", str(source)],
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    seen = b""
    with contextlib.suppress(OSError):  # which is how a pseudo-terminal ends
        while part := os.read(ours, 1 << 16):
            seen += part
    os.close(ours)
    out, _ = process.communicate(timeout=30)
    assert json.loads(out)["turns"] == 450
    assert b"450/450" in seen
    assert b"\x1b[2Kwarning: " in seen  # the bar is gone again


def test_a_new_recovery_key_for_one_that_was_never_seen(shell: Shell) -> None:
    shell.fails(3, "recovery-key", "new")  # there is no vault yet
    made = shell.json("init")
    renewed = shell.json("recovery-key", "new")
    assert renewed.keys() == {"vault_id", "recovery_key"}
    assert renewed["vault_id"] == made["vault_id"]
    shell.device("phone")
    shell.set("DUALMEM_PASSPHRASE", made["recovery_key"])
    error, _ = shell.fails(4, "join", str(shell.root / "bucket"))
    assert "recovery key does not open" in error
    shell.set("DUALMEM_PASSPHRASE", renewed["recovery_key"])
    assert shell.json("join", str(shell.root / "bucket"))["vault_id"] == made["vault_id"]
    code, out, _ = shell.run("recovery-key", "new")
    assert code == 0
    assert re.search(r"^    DMR1(-[0-9A-Z]{5}){13}$", out, re.MULTILINE)
    assert out.endswith("The old one opens the vault no more.\n")


def test_sessions_that_are_no_sessions(shell: Shell) -> None:
    shell.json("init")
    for name, data in {"empty": b"", "binary": bytes(range(256)) * 50, "html": b"<html>\n</html>\n"}.items():
        path = shell.root / f"{name}.jsonl"
        path.write_bytes(data)
        error, _ = shell.fails(2, "handoff", "--transcript", str(path))
        assert path.name in error
    error, _ = shell.fails(2, "handoff", "--transcript", str(shell.root))
    assert f"{shell.root.name} is a folder" in error
    assert shell.json("conversations")["conversations"] == []


def test_a_torn_session_is_handed_over_with_what_it_has(shell: Shell, session: Path) -> None:
    shell.json("init")
    data = session.read_bytes()
    session.write_bytes(b"\x00\xff binary junk\n" + data + b'{"type":"user","uuid":"torn')
    assert shell.json("handoff")["message_count"] == 12
    restored = shell.json("restore", SESSION_ID, "--claude-dir", str(shell.root / "restored"))
    assert Path(restored["session_path"]).read_bytes() == session.read_bytes()


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("resume", "--budget", "0"),
        ("resume", "--budget", "many"),
        ("show", SESSION_ID),
        ("handoff", "a", "b"),
        ("conversations", "--limit", "100000"),
        ("--nonsense",),
    ],
)
def test_usage_errors(shell: Shell, arguments: tuple[str, ...]) -> None:
    _, hint = shell.fails(2, *arguments)
    assert "--help" in hint


def test_a_config_that_does_not_fit_is_named(shell: Shell) -> None:
    home = shell.root / "desktop"
    home.mkdir()
    (home / "cloud_sync_config.json").write_text("{", encoding="utf-8")
    error, _ = shell.fails(2, "status")
    assert "cloud_sync_config.json" in error


def all_commands(group: click.Group, before: str = "") -> Iterator[tuple[str, click.Command]]:
    """The commands of the group and of the groups in it, by the words that call them."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            assert command.help, name
            yield from all_commands(command, f"{before}{name} ")
        else:
            yield before + name, command


def test_every_command_has_help_and_a_json_form() -> None:
    for name, command in all_commands(cli):
        assert command.help, name
        options = {option for parameter in command.params for option in parameter.opts}
        assert "--json" in options or name == "serve"


def test_every_command_is_in_the_readme() -> None:
    readme = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
    for name, _ in all_commands(cli):
        assert re.search(rf"dualmem {name}\b", readme), name


def test_version_and_help_are_quick_and_need_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "DUALMEM_HOME": str(tmp_path / "untouched")}
    code = "import sys; sys.argv = ['dualmem', '--version']\nfrom dualmem_mcp import cli\n"
    code += "heavy = {'mcp', 'boto3', 'keyring', 'pydantic'}\n"
    code += "try:\n    cli.main()\nfinally:\n    print(sorted(heavy & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert __version__ in done.stdout
    assert done.stdout.strip().endswith("[]")
    assert not (tmp_path / "untouched").exists()


def test_an_empty_home_is_refused(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in `--home "$UNSET"`: the current folder would become a data home, closed to everybody else."""
    monkeypatch.chdir(shell.root)
    shell.fails(2, "--home", "", "status")
    assert list(shell.root.iterdir()) == []
    assert shell.json("--home", ".", "status")["home"] == str(shell.root)


def test_names_that_are_no_text_come_out_as_valid_json(shell: Shell) -> None:
    bucket = os.fsdecode(os.fsencode(shell.root) + b"/b\xfccket")
    shell.set("DUALMEM_BUCKET", bucket)
    assert shell.json("init")["bucket"] == bucket


def test_what_the_outputs_encoding_does_not_have_is_no_fault(shell: Shell) -> None:
    """As in a file or pipe on Windows, whose code pages have no Japanese."""
    shell.set("PYTHONIOENCODING", "cp1252")
    shell.set("DUALMEM_BUCKET", str(shell.root / "記憶"))
    command = [sys.executable, "-m", "dualmem_mcp.cli", "status"]
    assert b"??" in subprocess.run(command, capture_output=True, check=True).stdout
    as_json = subprocess.run([*command, "--json"], capture_output=True, check=True).stdout
    assert json.loads(as_json.decode("cp1252"))["bucket"] == str(shell.root / "記憶")


def test_the_recovery_key_is_shown_even_when_the_settings_cannot_be_saved(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(home: Path, values: object) -> None:
        raise DiskFullError("there is no space left", hint="Free some.")

    monkeypatch.setattr("dualmem_mcp.vault_access.save_config", full)
    code, out, err = shell.run("init", "--json")
    assert code == 0
    assert json.loads(out)["recovery_key"]
    assert "warning: there is no space left" in err
    assert "DUALMEM_BUCKET=" in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_output_that_cannot_be_written_is_an_error(shell: Shell) -> None:
    for command in (["--help"], ["status"], ["status", "--json"]):
        with Path("/dev/full").open("w") as full:
            ended = subprocess.run(
                [sys.executable, "-m", "dualmem_mcp.cli", *command],
                stdout=full,
                stderr=subprocess.PIPE,
                check=False,
            )
        assert ended.returncode == 6
        assert ended.stderr.startswith(b"error: the output cannot be written: No space left on device\nhint: ")


def test_a_reader_that_goes_ends_the_command_as_sigpipe_does(shell: Shell) -> None:
    for command in (["--help"], ["status"]):
        reader, writer = os.pipe()
        os.close(reader)
        ended = subprocess.run(
            [sys.executable, "-m", "dualmem_mcp.cli", *command], stdout=writer, stderr=subprocess.PIPE, check=False
        )
        os.close(writer)
        assert (ended.returncode, ended.stderr) == (141, b"")


def test_an_internal_fault_shows_no_traceback(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dualmem_mcp.app.App.status", lambda self: 1 / 0)
    error, hint = shell.fails(1, "status")
    assert "ZeroDivisionError" in error
    assert "--debug" in hint
