"""A sample session, for demonstration and benchmarks where there is no conversation of one's own."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from dualmem_mcp.sample.concerns import load_concerns
from dualmem_mcp.sample.recorder import Recorder
from dualmem_mcp.sample.story import Story
from dualmem_mcp.sample.workspace import Workspace
from dualmem_mcp.transcripts.slug import project_slug

_SEED: Final = 20260202
_AGENT_DEFINITION: Final = """---
name: limits-reviewer
description: Tries to get around rate limits; use after changes to stores
tools: Read, Grep, Glob, Bash
model: sonnet
---

You want more requests than your limit allows. Look for races between check and charge, for clocks that can be
moved, and for keys that count apart but mean the same. Report each finding with file, line and severity.
"""


def write_sample_session(claude_dir: Path, *, cwd: str, turns: int = 600) -> Path:
    """The path of a sample session written below `claude_dir`, as if Claude Code had run in `cwd`.

    The same arguments give the same bytes. About `turns` turns (at least 300) with three subagents in files
    of their own, a plan, an agent definition and a memory file; 600 turns are some 1.2 MB, and the size grows
    in proportion. Files that are there already are written over.
    """
    numbers = random.Random(f"{_SEED}-{turns}")  # noqa: S311 - varied, and the same in every run
    concerns = load_concerns()
    recorder = Recorder(
        session_id="",
        cwd=cwd,
        branch="feature/shared-storage",
        slug="patient-counting-heron",
        numbers=numbers,
        now=datetime(2026, 2, 2, 8, 58, 12, tzinfo=UTC),
    )
    recorder.session_id = recorder.new_id()
    story = Story(recorder, Workspace(cwd, concerns, numbers), concerns)
    story.tell(max(300, turns))
    project = claude_dir / "projects" / project_slug(cwd)
    agents = project / recorder.session_id / "subagents"
    for folder in (agents, project / "memory", claude_dir / "plans", claude_dir / "agents"):
        folder.mkdir(parents=True, exist_ok=True)
    for agent_id, (agent, meta) in story.subagents.files.items():
        (agents / f"agent-{agent_id}.jsonl").write_bytes(agent.data())
        (agents / f"agent-{agent_id}.meta.json").write_text(json.dumps(meta), encoding="utf-8")
    (project / "memory" / "MEMORY.md").write_text(
        "# tollgate\n\n- API keys differ in case: never fold it.\n- Staging belongs to billing until Thursday.\n",
        encoding="utf-8",
    )
    (claude_dir / "plans" / f"{recorder.slug}.md").write_text(story.plan, encoding="utf-8")
    (claude_dir / "agents" / "limits-reviewer.md").write_text(_AGENT_DEFINITION, encoding="utf-8")
    path = project / f"{recorder.session_id}.jsonl"
    path.write_bytes(recorder.data())
    return path
