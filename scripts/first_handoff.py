"""Does the product's main job once, with the real commands, in a temporary place, and shows what came of it.

The newest local Claude Code conversation (or a sample session where there is none) is handed over from a
"desktop" data home through a bucket folder to a "phone" data home. Usage: first_handoff.py [--sample] [--keep]
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

DUALMEM = [sys.executable, "-m", "dualmem_mcp.cli"]


def main() -> int:
    """Run the demonstration; returns the exit code of the first command that failed, else 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", action="store_true", help="use the sample session even if there are real ones")
    parser.add_argument("--keep", action="store_true", help="keep the temporary folder")
    arguments = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="dualmem-first-handoff-"))
    try:
        _show(place, use_sample=arguments.sample)
    except KeyboardInterrupt:
        return 130
    except subprocess.CalledProcessError as error:
        sys.stderr.write(error.stderr)
        return error.returncode
    else:
        return 0
    finally:
        if arguments.keep:
            print(f"\nEverything is kept in {place}.")
        else:
            shutil.rmtree(place, ignore_errors=True)


def _show(place: Path, *, use_sample: bool) -> None:
    bucket = place / "bucket"
    session, claude_dir = _choose_session(place, use_sample=use_sample)
    # Never printed, never kept: this vault lives as long as the demonstration.
    common = {
        **os.environ,
        "DUALMEM_PASSPHRASE": secrets.token_urlsafe(24),
        "DUALMEM_BUCKET": str(bucket),
        "DUALMEM_KEYSTORE": "file",
        "CLAUDE_CONFIG_DIR": str(claude_dir),
    }
    desktop = {**common, "DUALMEM_HOME": str(place / "desktop")}
    phone = {**common, "DUALMEM_HOME": str(place / "phone"), "DUALMEM_DEVICE": "ios"}
    for name in ("CLAUDE_CODE_SESSION_ID", "CLAUDE_PROJECT_DIR", "MEMORY_FILE_PATH"):
        desktop.pop(name, None)
        phone.pop(name, None)

    made, seconds = _run(desktop, "init", "--device-name", "desktop")
    _line("desktop", "init", seconds, f"vault {made['vault_id'][:8]}… in {bucket}")
    handoff, handoff_seconds = _run(desktop, "handoff", "--transcript", str(session))
    _line("desktop", "handoff", handoff_seconds, f"package of {handoff['package_bytes']:,} bytes")
    _, seconds = _run(phone, "join", str(bucket), "--device-name", "phone")
    _line("phone", "join BUCKET", seconds, "")
    brief, resume_seconds = _run(phone, "resume", "--device", "ios")
    _line("phone", "resume", resume_seconds, f"brief of {brief['brief_tokens']:,} tokens")
    print(f"\n{'─' * 30} the brief {'─' * 30}\n{brief['brief']}\n{'─' * 71}\n")

    print(f"Messages              {handoff['message_count']:,}")
    print(f"Session files         {handoff['transcript_bytes']:,} bytes")
    print(f"Sealed package        {handoff['package_bytes']:,} bytes")
    print(f"What the model saw    {handoff['visible_tokens']:,} tokens (estimated)")
    print(f"Digest                {handoff['digest_tokens']:,} tokens: {handoff['reduction']:.2%} less")
    print(f"Handoff               {handoff_seconds:.2f} s as a process, {handoff['duration_ms']:.0f} ms of work")
    timings = ", ".join(f"{name} {value:.0f} ms" for name, value in brief["timings_ms"].items())
    print(f"Resume                {resume_seconds:.2f} s as a process ({timings})")
    words, files, found = _search_plaintext(session, [bucket, place / "desktop", place / "phone"])
    print(f"Plaintext             {words:,} lines of the session looked for in {files} files: {found} found")

    server = Path(sys.executable).with_name("dualmem-mcp")
    print("\nAdd the server to Claude Code:\n")
    print(f"    claude mcp add --scope user dualmem -- {server}")
    print("\nand make a vault of your own, in a bucket of your own or a folder that your devices share:\n")
    print(f"    {server.with_name('dualmem')} init --bucket s3://BUCKET/PREFIX")


def _choose_session(place: Path, *, use_sample: bool) -> tuple[Path, Path]:
    claude_dir = Path(os.environ.get("CLAUDE_CONFIG_DIR") or Path.home() / ".claude")
    found = (claude_dir / "projects").glob("*/*.jsonl")
    # Older versions of Claude Code laid the files of subagents beside the sessions.
    sessions = [] if use_sample else [path for path in found if not path.name.startswith("agent-")]
    if sessions:
        newest = max(sessions, key=lambda path: path.stat().st_mtime)
        print(f"Handing over your newest Claude Code conversation, {newest.name}, from one data home to another:\n")
        return newest, claude_dir
    from dualmem_mcp.sample import write_sample_session  # noqa: PLC0415  (only where it is needed)

    sample_dir = place / "claude"
    print("Handing over a sample session (no Claude Code conversation was looked for or found):\n")
    return write_sample_session(sample_dir, cwd="/home/you/projects/tollgate"), sample_dir


def _line(device: str, command: str, seconds: float, outcome: str) -> None:
    print(f"  {device:<8} dualmem {command:<12} {seconds:5.2f} s   {outcome}")


def _run(environment: dict[str, str], *arguments: str) -> tuple[dict[str, Any], float]:
    start = time.perf_counter()
    command = [*DUALMEM, *arguments, "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout), time.perf_counter() - start


def _search_plaintext(session: Path, places: list[Path]) -> tuple[int, int, int]:
    """Lines of the session's texts, files searched for them, and how many of the lines were found."""
    needles: set[bytes] = set()
    for line in session.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
            content = record["message"]["content"]
        except (ValueError, KeyError, TypeError):
            continue
        texts = [content] if isinstance(content, str) else [str(block.get("text") or "") for block in content]
        lines = (part.strip() for text in texts for part in text.splitlines())
        needles.update(part.encode() for part in lines if len(part) > 24)
    files = [path for folder in places for path in folder.rglob("*") if path.is_file()]
    haystack = b"\0".join(path.read_bytes() for path in files)
    return len(needles), len(files), sum(needle in haystack for needle in needles)


if __name__ == "__main__":
    sys.exit(main())
