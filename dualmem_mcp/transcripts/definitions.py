"""Agent definitions (`.claude/agents/*.md`): what their front matter says, and what changed between two sets."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from typing import Final

from dualmem_mcp.model.project import AgentDefinition, DefinitionChange, ProjectFile

MAX_DIFF_CHARACTERS: Final = 4_000
MAX_DIFF_LINES: Final = 5_000
"""Longer files are not compared line by line: that would take time out of all proportion."""

_KEY: Final = re.compile(r"([A-Za-z][A-Za-z0-9_-]*)[ \t]*:[ \t]*(.*)")


def parse_definition(file: ProjectFile) -> AgentDefinition:
    """The definition in a file; one without front matter is named after its file.

    Front matter is the plain part of YAML that such files use: `key: value`, quotes, `[a, b]`, lists of
    `- a`, folded text behind `>` or `|`. Source: Claude Code documentation, "Subagents".
    """
    stem = file.name.rsplit("/", 1)[-1].removesuffix(".md")
    values = _front_matter(file.data.decode("utf-8", "replace"))
    tools = values.get("tools", [])
    return AgentDefinition(
        name=" ".join(values.get("name", [])) or stem,
        scope="user" if file.name.startswith("user/") else "project",
        file_name=file.name,
        description=" ".join(values.get("description", [])),
        tools=tuple(tool for item in tools for part in item.strip("[]").split(",") if (tool := _unquoted(part))),
        model=" ".join(values.get("model", [])),
    )


def _front_matter(text: str) -> dict[str, list[str]]:
    """Lines of each top-level value."""
    lines = text.removeprefix("\ufeff").splitlines()
    if not lines or lines[0].strip() != "---":
        return {}
    values: dict[str, list[str]] = {}
    key = ""
    for line in lines[1:]:
        if line.strip() in {"---", "..."}:
            return values
        found = _KEY.fullmatch(line)
        if found:
            key = found.group(1).lower()
            first = _unquoted(found.group(2))
            values[key] = [first] if first not in {"", ">", "|", ">-", "|-", ">+", "|+"} else []
        elif key and line.strip():
            values[key].append(_unquoted(line.strip().removeprefix("- ")))
    return {}  # never closed: then it is no front matter


def _unquoted(value: str) -> str:
    value = value.strip()
    return value[1:-1] if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"" else value


def definition_changes(
    previous: Iterable[ProjectFile], current: Iterable[ProjectFile]
) -> tuple[DefinitionChange, ...]:
    """What was added, removed or changed among the agent definitions of two snapshots, by file name."""
    before = {file.name: file for file in previous if file.kind == "agent_definition"}
    after = {file.name: file for file in current if file.kind == "agent_definition"}
    changes = []
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old is None and new is not None:
            changes.append(DefinitionChange(name, parse_definition(new).name, "added"))
        elif new is None and old is not None:
            changes.append(DefinitionChange(name, parse_definition(old).name, "removed"))
        elif old is not None and new is not None and old.sha256 != new.sha256:
            changes.append(DefinitionChange(name, parse_definition(new).name, "changed", _diff(old, new)))
    return tuple(changes)


def _diff(old: ProjectFile, new: ProjectFile) -> str:
    before, after = (file.data.decode("utf-8", "replace").splitlines() for file in (old, new))
    if len(before) + len(after) > MAX_DIFF_LINES:
        return f"{len(before)} lines became {len(after)}; too long to compare"
    return _bounded(difflib.unified_diff(before, after, "before", "after", n=1, lineterm=""))


def _bounded(lines: Iterator[str]) -> str:
    kept: list[str] = []
    size = left_out = 0
    for line in lines:
        size += len(line) + 1
        if size <= MAX_DIFF_CHARACTERS:
            kept.append(line)
        else:
            left_out += 1
    return "\n".join([*kept, f"… {left_out} more lines"] if left_out else kept)
