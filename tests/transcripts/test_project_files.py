"""Files around a conversation: which go along, in which order, what is left out, what differs later."""

from __future__ import annotations

import hashlib
import os

import pytest

from dualmem_mcp.errors import UsageError
from dualmem_mcp.model.project import ProtectedDifference
from dualmem_mcp.sample import write_sample_session
from dualmem_mcp.transcripts import project_files
from dualmem_mcp.transcripts.claude_code import read_session
from dualmem_mcp.transcripts.project_files import collect_project_files, compare_protected, named_plans


def put(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())


@pytest.fixture
def places(tmp_path):
    project, claude = tmp_path / "project", tmp_path / "claude"
    put(
        project,
        {
            ".claude/agents/dev.md": "dev",
            ".claude/agents/team/qa.md": "qa",
            ".claude/agents/notes.txt": "no definition",
            ".claude/rules/style.md": "style",
            ".claude/settings.json": "{}",
            "CLAUDE.md": "project rules",
            "CLAUDE.local.md": "own rules",
            "src/CLAUDE.md": "not at the root",
        },
    )
    put(
        claude,
        {
            "agents/reviewer.md": "reviewer",
            "CLAUDE.md": "user rules",
            "projects/-p/memory/MEMORY.md": "memory",
            "projects/-p/memory/topics/a.md": "topic",
            "projects/-other/memory/MEMORY.md": "of another project",
            "plans/owl.md": "plan",
            "plans/unnamed.md": "not named",
        },
    )
    return project, claude


def collect(places, **arguments):
    project, claude = places
    return collect_project_files(cwd=project, claude_dir=claude, project="-p", **arguments)


def test_everything_of_the_project_and_the_user_goes_along_in_order(places):
    snapshot = collect(places, plans=["owl.md", "missing.md"])
    assert [(file.kind, file.name) for file in snapshot.files] == [
        ("agent_definition", ".claude/agents/dev.md"),
        ("agent_definition", ".claude/agents/team/qa.md"),
        ("agent_definition", "user/agents/reviewer.md"),
        ("instructions", "CLAUDE.md"),
        ("instructions", "CLAUDE.local.md"),
        ("instructions", "user/CLAUDE.md"),
        ("instructions", ".claude/rules/style.md"),
        ("memory", "memory/MEMORY.md"),
        ("memory", "memory/topics/a.md"),
        ("plan", "plans/owl.md"),
    ]
    assert [file.order for file in snapshot.files] == list(range(10))
    assert all(file.sha256 == hashlib.sha256(file.data).hexdigest() for file in snapshot.files)
    assert snapshot.warnings == ()
    assert [file.name for file in snapshot.of_kind("plan")] == ["plans/owl.md"]


def test_where_there_is_nothing_there_is_nothing(tmp_path):
    assert collect_project_files(cwd=None, claude_dir=tmp_path / "none", project="").files == ()


@pytest.mark.parametrize("hostile", ["../../../secret.md", "/etc/x.md", "a/b.md", "x\0.md", "..md"])
def test_hostile_plans_and_projects_lead_nowhere(places, hostile):
    put(places[1].parent, {"secret.md": "secret"})
    snapshot = collect_project_files(cwd=None, claude_dir=places[1], project=hostile, plans=[hostile])
    assert {file.kind for file in snapshot.files} <= {"agent_definition", "instructions"}


def test_links_out_of_the_project_are_not_followed(places, tmp_path):
    put(tmp_path, {"outside/secret.md": "secret"})
    (places[0] / ".claude/agents/link.md").symlink_to(tmp_path / "outside" / "secret.md")
    (places[0] / ".claude/agents/folder").symlink_to(tmp_path / "outside")
    assert b"secret" not in [file.data for file in collect(places).files]


def test_files_beyond_the_limits_are_left_out_with_a_warning(places, monkeypatch):
    monkeypatch.setattr(project_files, "MAX_FILES", 3)
    snapshot = collect(places)
    assert len(snapshot.files) == 3
    assert snapshot.warnings[0] == "CLAUDE.md is left out: a handoff takes 3 such files along"
    monkeypatch.undo()
    put(places[0], {"CLAUDE.md": "x" * (project_files.MAX_FILE_BYTES + 1)})
    assert "CLAUDE.md is left out: 1048577 bytes are more than the 1048576" in collect(places).warnings[0]
    monkeypatch.setattr(project_files, "MAX_TOTAL_BYTES", 6)
    assert len(collect(places).files) == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_a_warning(places):
    (places[0] / "CLAUDE.md").chmod(0)
    assert "CLAUDE.md is left out: Permission denied" in collect(places).warnings


SACRED = {
    "sacred/b.md": b"second\r\n",
    "sacred/a.md": b"first\x00\xff",
    "sacred/deep/c.md": "third",
    "state.json": "{}",
}


@pytest.fixture
def home(tmp_path):
    put(tmp_path / "home", SACRED)
    return tmp_path / "home"


GLOBS = ("state.json", "sacred/**/*.md")


def protected(places, home, globs=GLOBS):
    return collect(places, protected_globs=globs, protected_root=home)


def test_protected_files_go_along_byte_for_byte_in_the_order_of_the_globs(places, home):
    files = protected(places, home).of_kind("protected")
    assert [(file.name, file.data) for file in files] == [
        ("state.json", b"{}"),
        ("sacred/a.md", b"first\x00\xff"),
        ("sacred/b.md", b"second\r\n"),
        ("sacred/deep/c.md", b"third"),
    ]
    assert [file.order for file in files] == sorted(file.order for file in files)


def test_a_protected_glob_that_matches_nothing_or_a_link_is_a_warning(places, home):
    (home / "sacred" / "link.md").symlink_to(home / "state.json")
    snapshot = protected(places, home, ("sacred/*.md", "nothing/*"))
    assert snapshot.warnings == (
        "sacred/link.md is left out: it is a symbolic link",
        "the protected glob 'nothing/*' matches no file",
    )


def test_a_protected_glob_does_not_lead_through_a_linked_folder(places, home, tmp_path):
    put(tmp_path, {"outside/secret.md": "secret"})
    (home / "linked").symlink_to(tmp_path / "outside")
    assert protected(places, home, ("linked/*.md",)).of_kind("protected") == ()


@pytest.mark.parametrize("glob", ["../*.md", "/etc/*", "~/x", "a/../../b", "", "C:/x", "..\\x", "a\0"])
def test_a_protected_glob_that_leads_outside_is_refused(places, home, glob):
    with pytest.raises(UsageError) as caught:
        protected(places, home, (glob,))
    assert "cloud_sync_config.json" in caught.value.hint


def test_protected_files_of_a_folder_that_is_not_here_are_said_to_be_left_out(places):
    warnings = protected(places, None).warnings
    assert [warning for warning in warnings if warning.startswith("the protected files are left out")]
    assert protected(places, None, ()).warnings == ()
    with pytest.raises(UsageError):
        protected(places, None, ("../*",))


def test_a_glob_longer_than_any_name_matches_nothing(places, home):
    warnings = protected(places, home, ("x" * 300,)).warnings
    assert [warning for warning in warnings if warning.endswith("matches no file")]


def test_unchanged_protected_files_do_not_differ(places, home):
    files = protected(places, home).of_kind("protected")
    assert compare_protected(files, home, globs=GLOBS) == ()


def test_every_difference_of_protected_files_is_found(places, home):
    files = protected(places, home).of_kind("protected")
    (home / "state.json").unlink()
    (home / "sacred/a.md").write_bytes(b"first\x00\xfe")
    put(home, {"sacred/new.md": "new"})
    differences = compare_protected(files, home, globs=GLOBS)
    assert [(entry.name, entry.difference) for entry in differences] == [
        ("state.json", "missing"),
        ("sacred/a.md", "changed"),
        ("sacred/new.md", "extra"),
    ]
    assert differences[1].expected_sha256 != differences[1].found_sha256
    assert differences[0].sentence == "protected file state.json is not on this device"
    assert len(compare_protected(files, home)) == 2


def test_another_order_of_protected_files_is_a_difference(places, home):
    files = protected(places, home).of_kind("protected")
    differences = compare_protected(files, home, globs=("sacred/**/*.md", "state.json"))
    assert {entry.difference for entry in differences} == {"reordered"}


@pytest.mark.parametrize("name", ["../outside.md", "/etc/hostname", "link.md", "a\0b"])
def test_names_out_of_a_package_are_not_followed_outside(home, tmp_path, name):
    put(tmp_path, {"outside.md": "x"})
    (home / "link.md").symlink_to(tmp_path / "outside.md")

    class Carried:
        sha256, order = hashlib.sha256(b"x").hexdigest(), 0

    Carried.name = name
    assert compare_protected([Carried], home) == (ProtectedDifference(name, "missing", Carried.sha256),)


def test_plans_that_a_session_speaks_of_are_named(writer, use, tmp_path):
    writer.user("plan it")
    writer.assistant(use("w", "Write", file_path="/home/dev/.claude/plans/quick-owl.md"))
    writer.result("w", toolUseResult={"plan": "# P", "filePath": r"C:\Users\dev\.claude\plans\second.md"})
    writer.assistant(use("r", "Read", file_path="/home/dev/app/docs/plan.md"))
    assert named_plans(read_session(writer.write())) == ("quick-owl.md", "second.md")
    sample = read_session(write_sample_session(tmp_path / "c", cwd="/home/dev/tollgate", turns=300))
    assert named_plans(sample) == ("patient-counting-heron.md",)
