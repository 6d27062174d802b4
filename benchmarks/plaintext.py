"""Looks for every word of a conversation and of a memory graph in every file, and every file name, that handoffs,
indexing and searches leave: the data homes of both devices, and the bucket.

    python benchmarks/plaintext.py [--claude-dir DIR]

Takes all sessions of `$CLAUDE_CONFIG_DIR` or DIR; the sample session where there is none. A word is a run of seven
or more letters, digits and `._/-` in a message, a uuid, or a working directory; those that stand in this program's
own files (names of JSON members, of folders) are no find: they are looked for first in what the handoff of an empty
conversation leaves. Exit status 1 if a word is found.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from dualmem_mcp.app import App, open_app
from dualmem_mcp.model.graph import Entity
from dualmem_mcp.sample import write_sample_session
from dualmem_mcp.settings import load_settings
from dualmem_mcp.transcripts.claude_code import ClaudeCode

WORD = re.compile(r"[A-Za-z0-9._/-]{7,}")
# What an encrypted file shows of a text, if it shows any: a run of printable characters.
PRINTABLE = re.compile(rb"[\x20-\x7e]{7,}")


def main() -> int:
    """Hand everything over, resume it, search, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--claude-dir", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dualmem-plaintext-") as folder:
        place = Path(folder)
        claude_dir = arguments.claude_dir or Path(os.environ.get("CLAUDE_CONFIG_DIR", Path.home() / ".claude"))
        if not ClaudeCode(claude_dir).sessions():
            claude_dir = place / "claude"
            write_sample_session(claude_dir, cwd="/home/you/projects/tollgate")
        sessions = [entry.path for entry in ClaudeCode(claude_dir).sessions()]
        words = set().union(*map(words_of, sessions))
        own = leave(place / "own", claude_dir, [invented_session(place)])
        left = leave(place / "full", claude_dir, sessions)
        looked_for = {word for word in words if word not in own}
        found = sorted(word for word in looked_for if word in left)
        print(f"{len(sessions)} sessions, {len(looked_for):,} words; {len(left):,} printable bytes and names")
        print(f"found: {len(found)}" + (f": {b', '.join(found[:20]).decode()}" if found else ""))
        return 1 if found else 0


def index_and_search(app: App) -> None:
    """Index everything, and leave access counts and a working set behind."""
    app.local_edge.index(project="all")
    for question in ("which test failed", "what was decided", "which file was changed"):
        app.local_edge.search(question)


def invented_session(place: Path) -> Path:
    """A session of one short message: what a vault with it shows are this program's own words."""
    path = place / "invented.jsonl"
    path.write_text('{"type":"user","uuid":"u","message":{"role":"user","content":"hi"}}\n', encoding="utf-8")
    return path


def words_of(session: Path) -> set[bytes]:
    """The words, uuids and working directories of a session file."""
    words: set[str] = {session.stem}
    for line in session.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        words.update(WORD.findall(json.dumps(record.get("message", ""), ensure_ascii=False)))
        words.update(value for value in (record.get("uuid"), record.get("cwd")) if isinstance(value, str))
    return {word.encode() for word in words if len(word) >= 7}


def leave(place: Path, claude_dir: Path, sessions: list[Path]) -> bytes:
    """Printable runs of all files, and all names, after the sessions went from one device to another."""
    settings = replace(
        load_settings(place / "desktop", bucket=str(place / "bucket")), keystore="file", claude_dir=claude_dir
    )
    with open_app(settings) as desktop:
        desktop.init("the passphrase of a measurement")
        for session in sessions:
            report = desktop.prepare_handoff(transcript=session)
            # The graph gets the words of the conversation, too.
            told = tuple(word.decode() for word in sorted(words_of(session))[:200])
            desktop.graph.create_entities([Entity(report["title"], "conversation", told)])
        index_and_search(desktop)
    # A phone keeps a working set beside its indexes.
    pocket = replace(settings, home=place / "phone", profile=settings.profile_for("ios"))
    with open_app(pocket) as phone:
        phone.join("the passphrase of a measurement")
        for row in phone.list_conversations(limit=200)["conversations"]:
            phone.resume_conversation(row["conversation_id"])
        index_and_search(phone)
    files = [path for path in place.rglob("*") if path.is_file()]
    content = b"\n".join(run for path in files for run in PRINTABLE.findall(path.read_bytes()))
    return content + b"\n" + "\n".join(str(path.relative_to(place)) for path in files).encode()


if __name__ == "__main__":
    sys.exit(main())
