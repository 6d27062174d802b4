"""Which sessions of this device may be indexed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dualmem_mcp.model.index_scope import IndexScope
from dualmem_mcp.transcripts.local_sessions import LocalSessions, scope_of_project
from dualmem_mcp.transcripts.slug import project_slug
from tests.transcripts.conftest import SessionWriter


@pytest.fixture
def claude(tmp_path: Path) -> Path:
    """Sessions in /srv/a, /srv/a/sub, /home/b and in a folder of which none says where it was."""
    for number, cwd in enumerate(("/srv/a", "/srv/a/sub", "/home/b", "")):
        folder = tmp_path / "projects" / (project_slug(cwd) if cwd else "-opt-c")
        writer = SessionWriter(folder, f"session-{number}")
        writer.beside("mode")
        writer.user("hello", cwd=cwd)
        os.utime(writer.write(), (1_700_000_000 + number, 1_700_000_000 + number))
    return tmp_path


def names(claude: Path, scope: IndexScope, project_dir: str = "") -> list[str]:
    return [Path(path).stem for path in LocalSessions(claude, scope, project_dir).paths()]


def test_the_current_project_alone_by_default(claude: Path) -> None:
    assert names(claude, IndexScope(), "/srv/a") == ["session-0"]
    assert names(claude, IndexScope(), "/nowhere") == []


def test_all_projects_the_newest_first(claude: Path) -> None:
    assert names(claude, IndexScope("all")) == ["session-3", "session-2", "session-1", "session-0"]


@pytest.mark.parametrize(
    ("projects", "found"),
    [
        (("/srv/a",), ["session-1", "session-0"]),
        (("/srv/*",), ["session-1", "session-0"]),
        (("/home/b", "/srv/a/sub"), ["session-2", "session-1"]),
        (("/opt/c",), ["session-3"]),
        ((), []),
    ],
)
def test_projects_that_are_named(claude: Path, projects: tuple[str, ...], found: list[str]) -> None:
    assert names(claude, IndexScope(projects)) == found


def test_excluded_projects_are_left_out_whatever_else_is_said(claude: Path) -> None:
    assert names(claude, IndexScope("all", ("/srv/a/sub", "/opt/c"))) == ["session-2", "session-0"]
    assert names(claude, IndexScope("current", ("/srv/*",)), "/srv/a") == []
    assert names(claude, scope_of_project(IndexScope("current", ("/srv/a",)), "/srv/a")) == []


def test_projects_that_share_a_folder_are_told_apart(claude: Path) -> None:
    folder = claude / "projects" / project_slug("/srv/x.y")
    assert folder.name == project_slug("/srv/x-y")
    for number, cwd in enumerate(("/srv/x.y", "/srv/x-y", "/srv/x.y")):
        writer = SessionWriter(folder, f"shared-{number}")
        writer.user("hello", cwd=cwd)
        os.utime(writer.write(), (1_800_000_000 + number, 1_800_000_000 + number))
    assert names(claude, IndexScope(("/srv/x-y",))) == ["shared-1"]
    assert names(claude, IndexScope(exclude=("/srv/x.y",)), "/srv/x-y") == ["shared-1"]


def test_a_project_named_for_once(claude: Path) -> None:
    assert names(claude, scope_of_project(IndexScope(("/home/b",)), "/srv/a/sub")) == ["session-1"]
    assert len(names(claude, scope_of_project(IndexScope(("/home/b",)), "all"))) == 4


def test_a_folder_that_is_not_there_has_no_sessions(tmp_path: Path) -> None:
    assert names(tmp_path / "nowhere", IndexScope("all")) == []


def test_what_agents_know_of_a_project(claude: Path) -> None:
    memory = claude / "projects" / project_slug("/srv/a") / "memory"
    memory.mkdir()
    (memory / "MEMORY.md").write_text("The shed is red.")
    (claude / "agents").mkdir()
    (claude / "agents" / "painter.md").write_text("---\nname: painter\n---\nPaint.")
    found = dict(LocalSessions(claude, IndexScope(), "/srv/a").changed_knowledge())
    assert list(found) == [project_slug("/srv/a")]
    files = {file.name: file.data for file in found[project_slug("/srv/a")]}
    assert files == {
        "memory/MEMORY.md": b"The shed is red.",
        "user/agents/painter.md": b"---\nname: painter\n---\nPaint.",
    }


def test_what_agents_know_is_read_when_it_has_changed(claude: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = claude / "projects" / project_slug("/srv/a") / "memory"
    memory.mkdir()
    (memory / "MEMORY.md").write_text("The shed is red.")
    sessions = LocalSessions(claude, IndexScope("all"), "")
    read: list[Path] = []
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path) or read_bytes(path))

    def changed() -> dict[str, list[bytes]]:
        read.clear()
        return {project: [file.data for file in files] for project, files in sessions.changed_knowledge()}

    everything = changed()
    assert everything[project_slug("/srv/a")] == [b"The shed is red."]
    assert len(everything) == 4  # those without such files, too: there may have been some
    assert (changed(), read) == ({}, [])
    (memory / "MEMORY.md").write_text("The shed is blue")
    (memory / "more.md").write_text("And so is the boat.")
    assert changed() == {project_slug("/srv/a"): [b"The shed is blue", b"And so is the boat."]}
    (memory / "more.md").unlink()
    assert changed() == {project_slug("/srv/a"): [b"The shed is blue"]}
    assert (changed(), read) == ({}, [])
    (claude / "agents").mkdir()
    (claude / "agents" / "painter.md").write_text("Paint.")
    assert changed().keys() == everything.keys()  # every project knows the user's agents


def test_knowledge_that_could_not_be_kept_is_given_again(claude: Path) -> None:
    sessions = LocalSessions(claude, IndexScope(), "/srv/a")
    first = next(sessions.changed_knowledge())  # and then something fails
    assert list(sessions.changed_knowledge()) == [first]
    assert list(sessions.changed_knowledge()) == []


@pytest.mark.parametrize(
    ("scope", "said"),
    [
        (IndexScope(), "no session of /srv/a under {}/projects; `--project all` takes all"),
        (
            IndexScope(("/home/b", "/home/c")),
            "no session of /home/b, /home/c under {}/projects; `--project all` takes all",
        ),
        (IndexScope("all"), "no session of any project under {}/projects; CLAUDE_CONFIG_DIR or --claude-dir names"),
    ],
)
def test_where_no_session_was_found_it_says_where_it_looked(tmp_path: Path, scope: IndexScope, said: str) -> None:
    assert LocalSessions(tmp_path, scope, "/srv/a").none_found().startswith(said.format(tmp_path))


def test_where_a_file_system_ignores_case_a_folder_that_no_session_names_is_excluded_so_too(claude: Path) -> None:
    folder = claude / "projects" / project_slug("/srv/Private")
    writer = SessionWriter(folder, "unnamed")
    writer.user("hello", cwd="")
    writer.write()
    assert "unnamed" in names(claude, IndexScope("all", ("/srv/private",)))
    assert "unnamed" not in names(claude, IndexScope("all", ("/srv/private",), ignores_case=True))
