"""Restores that end at every point there is; run by test_weaving in a process of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from dualmem_mcp.transcripts.claude_code import read_session
from dualmem_mcp.transcripts.weave import Strand, WovenTurn
from dualmem_mcp.transcripts.weaving import restore_with
from tests.crashes import each_crash
from tests.transcripts.conftest import SessionWriter

TURNS = tuple(WovenTurn(f"p{number}", "user", f"said {number} " * 50, None, "pocket") for number in range(4))


def main(root: Path) -> int:
    """Restore into a session that is here, beside one that went on, and where none is; how many ends there were."""
    # Short writes, so that there is a point in the middle of a line.
    write = os.write
    os.write = lambda descriptor, data: write(descriptor, data[:700])
    ends = 0
    for case in ("left", "went on", "absent", "behind"):
        claude_dir = root / case / "claude"
        desk = SessionWriter(claude_dir / "projects" / "-home-dev-app")
        desk.user("build the crane")
        desk.assistant("it stands")
        files = {desk.path.name: b"".join(desk.lines), f"{desk.path.stem}/subagents/agent-a.jsonl": b"{}\n"}
        if case == "behind":
            desk.lines[1:] = [desk.lines[1][:40]]
        if case == "went on":
            desk.user("the desk goes on")
        before = b"" if case == "absent" else b"".join(desk.lines)

        def restore(
            files: Mapping[str, bytes] = files, claude_dir: Path = claude_dir, name: str = desk.path.stem
        ) -> Path:
            strand = Strand(("u1", "u2"), TURNS, ("pocket",))
            restored = restore_with(
                [strand], files, claude_dir=claude_dir, conversation_id=name, project="-home-dev-app"
            )
            return restored.session.path

        if before:
            desk.write()
        for _ in each_crash(restore):
            ends += 1
            assert not before or desk.path.read_bytes().startswith(before), case
            path = restore()
            said = [turn.text for turn in read_session(path).all_turns()]
            assert said == ["build the crane", "it stands", *(turn.text for turn in TURNS)], case
            assert path.read_bytes().count(b'"uuid":"p0"') == 1, case
            for left in claude_dir.rglob("*"):
                if left.is_file():
                    left.unlink()
            if before:
                desk.write()
    return ends


if __name__ == "__main__":
    print(main(Path(sys.argv[1])))
