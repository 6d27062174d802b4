"""The sessions of this device that may be indexed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from dualmem_mcp.model.conversation import Session
from dualmem_mcp.model.index_scope import IndexScope, folder_name
from dualmem_mcp.model.project import ProjectFile
from dualmem_mcp.model.source import ReadMark, SessionChunk
from dualmem_mcp.transcripts.claude_code import ClaudeCode, SessionEntry, read_session
from dualmem_mcp.transcripts.json_values import object_of, text_of
from dualmem_mcp.transcripts.project_files import KnowledgeState, collect_knowledge, knowledge_state
from dualmem_mcp.transcripts.slug import project_slug
from dualmem_mcp.transcripts.tail import read_tail

_HEAD_LINES: Final = 50
_HEAD_LINE_BYTES: Final = 1 << 20


class LocalSessions:
    """SessionFiles of one Claude Code folder, as a scope allows. `project_dir` is the current project's folder."""

    def __init__(self, claude_dir: Path, scope: IndexScope, project_dir: str) -> None:
        self._claude = ClaudeCode(claude_dir)
        self._scope = scope
        self._project_dir = project_dir
        self._stated: dict[Path, tuple[int, str]] = {}
        self._cwds: dict[Path, str] = {}
        self._knowledge: dict[str, KnowledgeState] = {}

    def paths(self) -> Sequence[str]:
        """As the port says."""
        return [str(entry.path) for entry in self._entries()]

    def none_found(self) -> str:
        """What to say where there is no session: where was looked, and how to look elsewhere."""
        projects = self._scope.projects
        of = (
            self._project_dir
            if projects == "current"
            else "any project"
            if projects == "all"
            else ", ".join(projects)
        )
        hint = (
            "CLAUDE_CONFIG_DIR or --claude-dir names another folder"
            if projects == "all"
            else "`--project all` takes all"
        )
        return f"no session of {of} under {self._claude.root / 'projects'}; {hint}"

    def read_tail(self, path: str, mark: ReadMark | None) -> Iterator[SessionChunk]:
        """As the port says."""
        return read_tail(Path(path), mark)

    def read_session(self, path: str) -> Session:
        """As the port says."""
        return read_session(Path(path))

    def changed_knowledge(self) -> Iterator[tuple[str, Sequence[ProjectFile]]]:
        """As the port says; whether a file has changed is told by its size, its time and its inode."""
        seen: set[str] = set()
        for entry in self._entries():
            folder = entry.path.parent
            if folder.name in seen:
                continue
            seen.add(folder.name)
            stated = self._cwd(folder, entry)
            cwd = Path(stated) if stated and os.path.isdir(stated) else None  # noqa: PTH112 - see source.py
            # Before they are read: what changes meanwhile is read again.
            state = knowledge_state(cwd=cwd, claude_dir=self._claude.root, project=folder.name)
            if self._knowledge.get(folder.name) != state:
                yield folder.name, collect_knowledge(cwd=cwd, claude_dir=self._claude.root, project=folder.name)
                self._knowledge[folder.name] = state

    def _entries(self) -> list[SessionEntry]:
        current = self._project_dir if self._scope.projects == "current" else None
        return [entry for entry in self._claude.sessions(current) if self._allows(entry)]

    def _allows(self, entry: SessionEntry) -> bool:
        folder = entry.path.parent
        if cwd := self._cwd(folder, entry):
            return self._scope.allows(cwd)
        # No session of the folder says where it was: its name does, as far as it goes.
        slugs = {self._folded(project_slug(pattern)): pattern for pattern in (*self._named(), *self._scope.exclude)}
        pattern = slugs.get(self._folded(folder.name))
        return self._scope.allows(pattern) if pattern else isinstance(self._scope.projects, str)

    def _folded(self, name: str) -> str:
        return folder_name(name, ignores_case=self._scope.ignores_case)

    def _named(self) -> tuple[str, ...]:
        return () if isinstance(self._scope.projects, str) else self._scope.projects

    def _cwd(self, folder: Path, entry: SessionEntry) -> str:
        """The working directory that the session states and its folder is named after, else what another one of
        the folder states: directories whose names differ in their signs alone have one folder."""
        size_bytes, cwd = self._stated.get(entry.path, (-1, ""))
        if not cwd and size_bytes != entry.size_bytes:
            cwd = _stated_cwd(entry.path)
            self._stated[entry.path] = entry.size_bytes, cwd
        if not self._cwds.get(folder):
            self._cwds[folder] = cwd
        return cwd if cwd and project_slug(cwd) == folder.name else self._cwds[folder]


def _stated_cwd(path: Path) -> str:
    """The first working directory that the session's file states and its folder is named after, else the first."""
    first = ""
    try:
        with path.open("rb") as file:
            for _ in range(_HEAD_LINES):
                line = file.readline(_HEAD_LINE_BYTES)
                if not line:
                    break
                cwd = _cwd_of(line)
                if cwd and project_slug(cwd) == path.parent.name:
                    return cwd
                first = first or cwd
    except OSError:
        return ""
    return first


def _cwd_of(line: bytes) -> str:
    try:
        return text_of(object_of(json.loads(line)).get("cwd"))
    except (ValueError, RecursionError):
        return ""


def scope_of_project(scope: IndexScope, project: str) -> IndexScope:
    """The scope for a project that is named for once: `all`, or a folder; what is excluded stays so."""
    return replace(scope, projects="all" if project == "all" else (project,))
