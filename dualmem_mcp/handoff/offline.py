"""What a device without a network needs of a conversation: its last messages and what they rest on.

All of it is made from the package, which is kept whole on the device; nothing here is stored a second time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dualmem_mcp.handoff.quoting import clean, fence, one_line, quoted
from dualmem_mcp.handoff.reconstruct import OpenedPackage
from dualmem_mcp.handoff.redact import redact
from dualmem_mcp.handoff.redact_session import redact_turn
from dualmem_mcp.model.conversation import Session, Turn
from dualmem_mcp.model.digest import AgentEntry, Decision

SECTION: Final = "offline"

# Source: the product's requirements, "last 10 messages, decisions, project summary, key code snippets, agent
# essentials"; the lengths are what fits a phone's context with room for the conversation (docs/sync.md).
MESSAGES: Final = 10
_MESSAGE_CHARACTERS: Final = 2_000
_SNIPPETS: Final = 8
_SNIPPET_LINES: Final = 40
_SNIPPET_CHARACTERS: Final = 1_600
_INSTRUCTION_CHARACTERS: Final = 2_000
_AGENT_CHARACTERS: Final = 600

_NEW_TEXT: Final = {"Write": "content", "Edit": "new_string", "NotebookEdit": "new_source"}
_PATHS: Final = ("file_path", "notebook_path")


@dataclass(frozen=True, slots=True)
class Snippet:
    """What was last written into a file, from its beginning, and the turn that wrote it."""

    path: str
    text: str
    uuid: str


@dataclass(frozen=True, slots=True)
class OfflinePack:
    """The parts, each redacted: texts as they were said, cut where they are long."""

    title: str
    project: str
    last_request: str
    messages: tuple[Turn, ...]
    decisions: tuple[Decision, ...]
    snippets: tuple[Snippet, ...]
    agents: tuple[AgentEntry, ...]

    def counts(self) -> dict[str, int]:
        """How many messages, decisions, snippets and agents it has."""
        return {name: len(getattr(self, name)) for name in ("messages", "decisions", "snippets", "agents")}

    def text(self) -> str:
        """The pack as Markdown. What was said is quoted: it is data, and no instruction to whoever reads it."""
        parts = [
            f"# {one_line(self.title)}",
            f"## Project\n\n{self.project}",
            f"## Last request\n\n{quoted('', self.last_request).strip()}" if self.last_request else "",
            _listed("Decisions", [f"- {one_line(one.text)} [{one_line(one.uuid)}]" for one in self.decisions]),
            _listed(
                "Code", [f"{one_line(one.path)} [{one_line(one.uuid)}]\n{fence(one.text)}" for one in self.snippets]
            ),
            _listed("Agents", [_agent_line(agent) for agent in self.agents]),
            _listed("Last messages", [_message(turn) for turn in self.messages], between="\n\n"),
        ]
        return "\n\n".join(part for part in parts if part) + "\n"


def offline_pack(package: OpenedPackage, session: Session) -> OfflinePack:
    """The pack of a handed-over conversation, from its package and the session in it.

    Raises TamperedError if a section that it needs is not as it was sealed.
    """
    digest = package.digest
    said = [turn for turn in session.all_turns() if turn.text and not turn.is_meta]
    return OfflinePack(
        title=digest.title,
        project=_project(package),
        last_request=clean(digest.resumption.last_request.text)[:_MESSAGE_CHARACTERS],
        messages=tuple(map(redact_turn, said[-MESSAGES:])),
        decisions=digest.decisions,
        snippets=tuple(_snippets(session)),
        agents=digest.agents,
    )


def _project(package: OpenedPackage) -> str:
    facts = package.manifest.facts
    lines = [
        f"{label}: {one_line(str(facts[name]))}"
        for label, name in (("Folder", "cwd"), ("Branch", "git_branch"))
        if facts.get(name)
    ]
    lines += [f"Last commit: {one_line(package.digest.resumption.git.last_commit)}"] * bool(
        package.digest.resumption.git.last_commit
    )
    for file, data in package.carried_files(("instructions",)):
        text = redact(data.decode("utf-8", "replace"))[:_INSTRUCTION_CHARACTERS]
        lines.append(f"{one_line(file.name)}:\n{fence(clean(text))}")
    return "\n".join(lines) or "Nothing is known of it."


def _snippets(session: Session) -> Iterator[Snippet]:
    """The last text written into each file, the files changed last first."""
    seen: set[str] = set()
    for turn in reversed(session.turns):
        for block in reversed(list(turn.blocks_of("tool_use"))):
            path, text = _written(block.tool_name, block.tool_input)
            if not text.strip() or path in seen:
                continue
            seen.add(path)
            # Redacted before it is cut: half a key is none that a detector knows.
            lines = redact(clean(text)).splitlines()[:_SNIPPET_LINES]
            yield Snippet(redact(path), "\n".join(lines)[:_SNIPPET_CHARACTERS], turn.uuid)
            if len(seen) == _SNIPPETS:
                return


def _written(tool: str, values: Mapping[str, Any]) -> tuple[str, str]:
    """The file that a call wrote into, and what; empty for a call that writes none."""
    path = next((values[name] for name in _PATHS if isinstance(values.get(name), str)), "")
    text = values.get(_NEW_TEXT.get(tool, ""), "")
    if tool == "MultiEdit":
        edits = values.get("edits")
        last = edits[-1] if isinstance(edits, list) and edits and isinstance(edits[-1], Mapping) else {}
        text = last.get("new_string", "")
    return (path, text) if path and isinstance(text, str) else ("", "")


def _listed(heading: str, entries: Sequence[str], between: str = "\n") -> str:
    return f"## {heading}\n\n{between.join(entries)}" if entries else ""


def _agent_line(agent: AgentEntry) -> str:
    said = redact(agent.result or agent.last_message)
    lines = [
        f"- {one_line(agent.type)} [{one_line(agent.id)}] {one_line(agent.status)}: {one_line(agent.description)}"
    ]
    return "\n".join([*lines, quoted("  ", clean(said[:_AGENT_CHARACTERS])).strip("\n")] if said else lines)


def _message(turn: Turn) -> str:
    text = clean(turn.text)
    shown = text if len(text) <= _MESSAGE_CHARACTERS else f"{text[:_MESSAGE_CHARACTERS]} …"
    return f"{turn.role} [{one_line(turn.uuid)}]\n{quoted('', shown).strip()}"
