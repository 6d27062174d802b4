"""What compression takes off what travels: log segments with and without a dictionary, and second handoffs.

    python benchmarks/compression.py [--claude-dir DIR] [--least-bytes N]

Takes the sessions of `$CLAUDE_CONFIG_DIR`, `~/.claude` or DIR whose files have at least N bytes; without any, the
sample. Two tables:

- *segments*: the turns of each session as ops, so many a segment; bytes of all of them plain, by zstd, by zstd with
  a dictionary of 64 KiB trained on the ops of the other sessions, and with the last 128 KiB of the log before as
  dictionary; then the same as they lie in the bucket, padded to Padmé of at least 4 KiB.
- *handoffs*: each session handed over without its last twentieth and then with it; bytes of both packages, and how
  much of the second one its patches are.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import zstandard

from dualmem_mcp.app import open_app
from dualmem_mcp.crypto.envelope import COMPRESSION_LEVEL
from dualmem_mcp.crypto.padding import SECTION_FLOOR_BYTES, padded_length
from dualmem_mcp.handoff.channel import package_key
from dualmem_mcp.model.conversation import Session
from dualmem_mcp.model.half_pairs import compact_json
from dualmem_mcp.model.oplog import Op, Stamp
from dualmem_mcp.sample import write_sample_session
from dualmem_mcp.settings import load_settings
from dualmem_mcp.sync.op_lines import op_line
from dualmem_mcp.transcripts.claude_code import ClaudeCode, read_session

DEVICE = "07" * 16
DICTIONARY_BYTES = 64 << 10
BEFORE_BYTES = 128 << 10
GROWTH = 1.05
"""How much longer the second handoff's session is."""


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--claude-dir", type=Path)
    parser.add_argument("--least-bytes", type=int, default=300_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dualmem-benchmark-") as folder:
        place = Path(folder)
        claude = arguments.claude_dir or Path(os.environ.get("CLAUDE_CONFIG_DIR", "~/.claude")).expanduser()
        files = [path for path in _sessions(claude) if path.stat().st_size >= arguments.least_bytes]
        if not files:
            print("no session that is long enough: the sample")
            files = [write_sample_session(place / "sample", cwd="/home/you/projects/tollgate")]
        segments([read_session(path) for path in files])
        print()
        handoffs(files, place)


def segments(sessions: Sequence[Session]) -> None:
    """Bytes of the sessions' turns as segments of several sizes."""
    streams = [_lines(session) for session in sessions]
    count = sum(map(len, streams))
    size = sum(len(line) for stream in streams for line in stream)
    print(f"segments: {count:,} turns of {len(streams)} sessions, {size / max(count, 1):,.0f} bytes each\n")
    print("turns a    segments      plain       zstd  trained  before | in the bucket: zstd  trained   before")
    for turns in (1, 5, 20, 64):
        plain, number = 0, 0
        sizes, padded = [0, 0, 0], [0, 0, 0]
        for index, stream in enumerate(streams):
            others = [line for other, lines in enumerate(streams) if other != index for line in lines] or stream
            # At most half of the samples: the library refuses to train a larger one.
            trained = zstandard.train_dictionary(min(DICTIONARY_BYTES, len(b"".join(others)) // 2), others)
            log = b""
            for start in range(0, len(stream), turns):
                segment = b"".join(stream[start : start + turns])
                before = zstandard.ZstdCompressionDict(
                    log[-BEFORE_BYTES:], dict_type=zstandard.DICT_TYPE_RAWCONTENT
                )
                log += segment
                plain, number = plain + len(segment), number + 1
                for way, dictionary in enumerate((None, trained, before)):
                    compressor = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL, dict_data=dictionary)
                    length = len(compressor.compress(segment))
                    sizes[way] += length
                    padded[way] += padded_length(length, floor=SECTION_FLOOR_BYTES)
        shares = [f"{size / sizes[0]:8.1%}" for size in sizes[1:]]
        bucket = [f"{size / padded[0]:8.1%}" for size in padded[1:]]
        print(
            f"{turns:>7}{number:>12,}{plain:>11,}{sizes[0]:>11,}{' '.join(shares)} | "
            f"{padded[0]:>19,} {' '.join(bucket)}"
        )


def handoffs(files: Sequence[Path], place: Path) -> None:
    """Bytes of the packages of each session without and with its last twentieth."""
    print(f"handoffs: a session that grew by {GROWTH - 1:.0%}\n")
    print("session       bytes   first package   second   of the first   of it patches")
    for number, path in enumerate(files):
        data = path.read_bytes()
        cut = data.rfind(b"\n", 0, int(len(data) / GROWTH)) + 1
        grown = place / f"grown-{number}" / path.name
        grown.parent.mkdir()
        os.environ |= {"DUALMEM_KEYSTORE": "file", "CLAUDE_CONFIG_DIR": str(place / "none")}
        with open_app(load_settings(place / f"home-{number}", bucket=str(place / f"bucket-{number}"))) as app:
            app.init("a passphrase of the benchmark")
            packages = []
            for bytes_now in (data[:cut], data):
                grown.write_bytes(bytes_now)
                packages.append(app.prepare_handoff(transcript=grown))
            channel = app.channel()
            key = package_key(packages[1]["handoff_id"])
            patches = [
                entry
                for entry in _stored(channel.objects.get(key), channel, key)
                if entry[0] == "patches" or entry[0].startswith("thread/")
            ]
        first, second = (package["package_bytes"] for package in packages)
        share = sum(size for _, size in patches) / second
        print(f"{path.stem[:8]:<9}{len(data):>10,}{first:>16,}{second:>9,}{second / first:>15.1%}{share:>16.1%}")


def _stored(data: bytes, channel: object, key: str) -> list[tuple[str, int]]:
    from dualmem_mcp.crypto.envelope import ObjectKind, bytes_reader  # noqa: PLC0415

    reader = channel.open(ObjectKind.PACKAGE, key, bytes_reader(data))  # type: ignore[attr-defined]
    return [(name, reader.entry(name).sealed_size) for name in reader.names]


def _lines(session: Session) -> list[bytes]:
    """The session's turns as lines of a log, one op each."""
    lines = []
    for turn in session.all_turns():
        if not turn.text or turn.is_meta:
            continue
        row = {
            "uuid": turn.uuid,
            "parent": turn.parent_uuid,
            "role": turn.role,
            "timestamp": turn.timestamp.isoformat() if turn.timestamp else None,
            "text": turn.text,
            "tokens": turn.visible_tokens,
            "message_id": turn.message_id,
        }
        payload = {"conversation_id": session.conversation_id, "device_name": "desk", "turns": [row]}
        stamp = Stamp.parse(f"{0x019CA9450A000000 + len(lines):016x}-{DEVICE}")
        lines.append(op_line(Op(stamp, len(lines) + 1, "turn.add", compact_json(payload))))
    return lines


def _sessions(claude: Path) -> list[Path]:
    """Session files below a folder, in Claude Code's own layout or any other, agents' transcripts left out."""
    if (claude / "projects").is_dir():
        return [entry.path for entry in ClaudeCode(claude).sessions()]
    return [
        path
        for path in sorted(claude.rglob("*.jsonl"))
        if "subagents" not in path.parts and not path.name.startswith("agent-") and _is_session(path)
    ]


def _is_session(path: Path) -> bool:
    try:
        return "uuid" in json.loads(path.open(encoding="utf-8").readline() or "{}") or path.stat().st_size > 100_000
    except ValueError:
        return False


if __name__ == "__main__":
    main()
