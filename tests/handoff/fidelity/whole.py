"""The whole conversation written as a digest: what nothing is missing from."""

from __future__ import annotations

from dualmem_mcp.handoff.fidelity.said import Said
from dualmem_mcp.handoff.quoting import clean, defuse, fence, mark
from dualmem_mcp.model.conversation import Block, Session


def whole_brief(session: Session, *, without: frozenset[str] = frozenset()) -> str:
    """Every turn as a line with its mark, but those of `without`; the branch in the first line."""
    said = Said(session)
    asked: dict[str, list[str]] = {}
    for one in said.requests:
        asked.setdefault(one.uuid, []).append(one.text)
    lines = ["## Where it stands", f"- on branch `{session.git_branch}`"]
    lines += [f"- [queued]\n{fence(one.text)}" for one in said.queued]
    for turn in said.turns:
        if turn.uuid not in without:
            texts = [*asked.get(turn.uuid, ()), *(_shown(block, session.cwd) for block in turn.blocks)]
            lines += [f"- {mark(turn.uuid)}\n{fence(clean(text))}" for text in texts if clean(text)]
    lines += [
        f"- {mark(run.launched_by)} {path}".replace(f"{session.cwd}/", "")
        for run in session.agents
        for path, _ in run.edited_files
    ]
    return defuse("\n".join(lines))


def _shown(block: Block, cwd: str) -> str:
    if block.kind != "tool_use":
        return block.text
    given = [block.tool_input]
    texts = []
    while given:
        value = given.pop()
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, dict):
            given += value.values()
        elif isinstance(value, list):
            given += value
    return "\n".join(texts).replace(f"{cwd}/", "")
