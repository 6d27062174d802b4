"""The files around a conversation that travel with it: agent definitions, instructions, memory, plans,
and the files that the user declared protected."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from dualmem_mcp.errors import UsageError
from dualmem_mcp.model.conversation import Session
from dualmem_mcp.model.project import (
    CarriedChecksum,
    ProjectFile,
    ProjectFileKind,
    ProjectSnapshot,
    ProtectedDifference,
)
from dualmem_mcp.transcripts.json_values import text_of

MAX_FILE_BYTES: Final = 2**20
MAX_PROTECTED_BYTES: Final = 16 * 2**20
MAX_TOTAL_BYTES: Final = 64 * 2**20
MAX_FILES: Final = 1_000

KnowledgeState = tuple[tuple[str, int, int, int], ...]
"""Files that have not changed are in the same state: name, size in bytes, time of the last change in ns, inode."""

_PLAN: Final = re.compile(r"[/\\]plans[/\\]([A-Za-z0-9][A-Za-z0-9._-]{0,120}\.md)\b")


class _Collector:
    """Files so far, within the limits, and what was left out."""

    def __init__(self) -> None:
        self.files: list[ProjectFile] = []
        self.warnings: list[str] = []
        self._total = 0
        self._names: set[tuple[str, str]] = set()

    def add(self, kind: ProjectFileKind, name: str, path: Path, *, limit: int = MAX_FILE_BYTES) -> None:
        if (kind, name) in self._names:
            return
        try:
            if path.is_symlink() or not path.is_file():
                return
            size = path.stat().st_size
            if size > limit or self._total + size > MAX_TOTAL_BYTES or len(self.files) >= MAX_FILES:
                self.warnings.append(f"{name} is left out: {_reason(size, limit, len(self.files))}")
                return
            data = path.read_bytes()
        except OSError as error:
            self.warnings.append(f"{name} is left out: {error.strerror or type(error).__name__}")
            return
        self._names.add((kind, name))
        self._total += len(data)
        self.files.append(ProjectFile.of(kind, name, data, len(self.files)))


def _reason(size: int, limit: int, count: int) -> str:
    if size > limit:
        return f"{size} bytes are more than the {limit} that one such file may have"
    if count >= MAX_FILES:
        return f"a handoff takes {MAX_FILES} such files along"
    return f"a handoff takes {MAX_TOTAL_BYTES} bytes of such files along"


def collect_project_files(
    *,
    cwd: Path | None,
    claude_dir: Path,
    project: str,
    plans: Iterable[str] = (),
    protected_globs: Sequence[str] = (),
    protected_root: Path | None = None,
) -> ProjectSnapshot:
    """Everything of the project that goes along, in a fixed order; symbolic links are not followed.

    `project` names the folder below `projects/`, `plans` the plan files that the session speaks of
    (see `named_plans`). Raises UsageError for a protected glob that leads out of its root.
    """
    found = _Collector()
    for path, name in _definitions(cwd, claude_dir):
        found.add("agent_definition", name, path)
    for base, prefix, names in (
        (cwd, "", ("CLAUDE.md", "CLAUDE.local.md", ".claude/CLAUDE.md")),
        (claude_dir, "user/", ("CLAUDE.md",)),
    ):
        for name in names if base else ():
            found.add("instructions", prefix + name, (base or claude_dir) / name)
    for path, name in _below(cwd, ".claude/rules", "**/*.md"):
        found.add("instructions", name, path)
    for path, name in _memory(claude_dir, project):
        found.add("memory", name, path)
    for name in dict.fromkeys(plans):
        if _PLAN.fullmatch(f"/plans/{name}"):
            found.add("plan", f"plans/{name}", claude_dir / "plans" / name)
    if protected_root is not None:
        for path, name in _protected(protected_root, protected_globs, found.warnings):
            found.add("protected", name, path, limit=MAX_PROTECTED_BYTES)
    elif [_relative_glob(pattern) for pattern in protected_globs]:
        found.warnings.append(
            "the protected files are left out: the folder of this conversation is not on this device; "
            "protected_root in cloud_sync_config.json names another"
        )
    return ProjectSnapshot(tuple(found.files), tuple(found.warnings))


def knowledge_state(*, cwd: Path | None, claude_dir: Path, project: str) -> KnowledgeState:
    """The state in which the files of `collect_knowledge` are now; none of them is read."""
    found = []
    for path, name in (*_definitions(cwd, claude_dir), *_memory(claude_dir, project)):
        try:
            state = path.lstat()
        except OSError:  # it has gone since it was listed
            continue
        found.append((name, state.st_size, state.st_mtime_ns, state.st_ino))
    return tuple(found)


def collect_knowledge(*, cwd: Path | None, claude_dir: Path, project: str) -> tuple[ProjectFile, ...]:
    """What the agents of a project know: their definitions and the files of its memory, as far as they go along."""
    found = _Collector()
    for path, name in _definitions(cwd, claude_dir):
        found.add("agent_definition", name, path)
    for path, name in _memory(claude_dir, project):
        found.add("memory", name, path)
    return tuple(found.files)


def _definitions(cwd: Path | None, claude_dir: Path) -> list[tuple[Path, str]]:
    return [*_below(cwd, ".claude/agents", "**/*.md"), *_below(claude_dir, "agents", "**/*.md", "user/")]


def _memory(claude_dir: Path, project: str) -> Iterator[tuple[Path, str]]:
    if project in {"", ".", ".."} or any(sign in project for sign in "/\\\0"):
        return iter(())
    return _below(claude_dir / "projects" / project, "memory", "**/*")


def _below(base: Path | None, folder: str, pattern: str, prefix: str = "") -> Iterator[tuple[Path, str]]:
    """Files of `base/folder` by name, each with its name relative to `base`; `**` follows no links to folders."""
    if base is None:
        return
    start = base / folder
    try:
        paths = sorted(path for path in start.glob(pattern) if path.is_file())
    except OSError:
        return
    for path in paths[: MAX_FILES + 1]:
        yield path, prefix + path.relative_to(base).as_posix()


def _inside(path: Path, root: Path) -> bool:
    """Whether the path, all links followed, lies below the root."""
    try:
        return path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):
        return False


def _relative_glob(pattern: str) -> str:
    """The glob with slashes. Raises UsageError for one that could lead out of the folder it is for."""
    parts = PurePosixPath(pattern.replace("\\", "/")).parts
    if not parts or ".." in parts or parts[0].startswith(("/", "~")) or ":" in parts[0] or "\0" in pattern:
        raise UsageError(
            f"the protected glob {pattern!r} does not stay below its folder",
            operation="collect protected files",
            subject=pattern,
            hint="In cloud_sync_config.json, protected_files takes globs relative to protected_root, or to the "
            "folder of the conversation.",
        )
    return "/".join(parts)


def _protected(root: Path, globs: Sequence[str], warnings: list[str]) -> Iterator[tuple[Path, str]]:
    """Protected files in the order of the globs, within one glob by name: that order is part of what is kept."""
    for pattern in globs:
        relative = _relative_glob(pattern)
        try:
            paths = sorted(path for path in root.glob(relative) if path.is_file() and _inside(path, root))
        except OSError:  # a name longer than any that a file can have
            paths = []
        if not paths:
            warnings.append(f"the protected glob {pattern!r} matches no file")
        for path in paths:
            if path.is_symlink():
                warnings.append(f"{path.relative_to(root).as_posix()} is left out: it is a symbolic link")
            yield path, path.relative_to(root).as_posix()


def named_plans(session: Session) -> tuple[str, ...]:
    """Names of the plan files that the session wrote, read or approved, oldest first."""
    names: dict[str, None] = {}
    for turn in session.all_turns():
        texts = [text_of(block.tool_input.get("file_path")) for block in turn.blocks_of("tool_use")]
        if isinstance(turn.detail, dict) and "plan" in turn.detail:
            texts.append(text_of(turn.detail.get("filePath")))
        for text in texts:
            names.update(dict.fromkeys(_PLAN.findall(text)))
    return tuple(names)


def compare_protected(
    expected: Iterable[CarriedChecksum], root: Path, *, globs: Sequence[str] = ()
) -> tuple[ProtectedDifference, ...]:
    """How the protected files below `root` differ from those that were carried, in their carried order.

    With `globs`, files that match here but were not carried, and a changed order, count too. Nothing is
    written. Raises UsageError for a glob that leads out of its root.
    """
    carried = sorted(expected, key=lambda file: file.order)
    differences: list[ProtectedDifference] = []
    for file in carried:
        found = _checksum(root, file.name)
        if not found:
            differences.append(ProtectedDifference(file.name, "missing", file.sha256))
        elif found != file.sha256:
            differences.append(ProtectedDifference(file.name, "changed", file.sha256, found))
    if not globs:
        return tuple(differences)
    here = list(dict.fromkeys(name for path, name in _protected(root, globs, []) if not path.is_symlink()))
    names = {file.name for file in carried}
    differences += [
        ProtectedDifference(name, "extra", "", _checksum(root, name)) for name in here if name not in names
    ]
    common = [file for file in carried if file.name in here]
    order_here = [name for name in here if name in names]
    differences += [
        ProtectedDifference(file.name, "reordered", file.sha256, file.sha256)
        for file, name in zip(common, order_here, strict=True)
        if file.name != name
    ]
    return tuple(differences)


def _checksum(root: Path, name: str) -> str:
    """SHA-256 of a regular file below the root, or an empty string; the name comes from a package."""
    path = root / name
    try:
        if "\0" in name or path.is_symlink() or not path.is_file() or not _inside(path, root):
            return ""
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(2**20):
                digest.update(chunk)
    except OSError:
        return ""
    return digest.hexdigest()
