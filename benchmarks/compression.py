"""What compression takes off what travels: log segments, second handoffs, checkpoints of agents.

    python benchmarks/compression.py [--claude-dir DIR] [--least-bytes N]    all of it
    python benchmarks/compression.py handoffs checkpoints                    some of it

Takes the sessions of `$CLAUDE_CONFIG_DIR`, `~/.claude` or DIR whose files have at least N bytes; without any, the
sample. Three tables:

- *segments*: the turns of each session as ops, so many a segment; bytes of all of them plain, by zstd, by zstd with
  a dictionary of 64 KiB trained on the ops of the other sessions, and with the last 128 KiB of the log before as
  dictionary; then the same as they lie in the bucket, padded to Padmé of at least 4 KiB.
- *handoffs*: each session handed over without its last twentieth and then with it; bytes of both packages, and what
  a resume on another device fetches before it has the brief: requests and bytes. With `--device ios` for a target
  that takes along what its search has at hand, of sessions that are indexed (`DUALMEM_MODEL_DIR`).
- *checkpoints*: fifty checkpoints of each session that has agents, while it grows, or fewer where the agents did
  less; bytes of their ops, and in the bucket, where each goes up in a segment of its own.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import zstandard

from dualmem_mcp.app import open_app
from dualmem_mcp.crypto.envelope import COMPRESSION_LEVEL
from dualmem_mcp.crypto.padding import SECTION_FLOOR_BYTES, padded_length
from dualmem_mcp.handoff.agent_states import agents_to_json
from dualmem_mcp.handoff.checkpoints import Checkpoints
from dualmem_mcp.handoff.reconstruct import find_handoff, open_package, refresh_catalogue
from dualmem_mcp.model.conversation import Session
from dualmem_mcp.model.half_pairs import compact_json
from dualmem_mcp.model.index_scope import IndexScope
from dualmem_mcp.model.oplog import Op, Stamp
from dualmem_mcp.ports import ObjectStore
from dualmem_mcp.sample import write_sample_session
from dualmem_mcp.settings import load_settings
from dualmem_mcp.sync.op_lines import op_line
from dualmem_mcp.transcripts.claude_code import ClaudeCode, read_session

DEVICE = "07" * 16
DICTIONARY_BYTES = 64 << 10
BEFORE_BYTES = 128 << 10
GROWTH = 1.05
"""How much longer the second handoff's session is."""

CHECKPOINTS = 50
MOMENTS = 200
"""Into which a session is cut to find as many different states of its agents."""


def main() -> None:
    """Print the tables that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", metavar="table", help=", ".join(TABLES))
    parser.add_argument("--claude-dir", type=Path)
    parser.add_argument("--least-bytes", type=int, default=300_000)
    parser.add_argument("--device", default="desktop", help="the target of the handoffs")
    arguments = parser.parse_args()
    if unknown := set(arguments.tables) - set(TABLES):
        parser.error(f"there is no table {', '.join(sorted(unknown))}; there are {', '.join(TABLES)}")
    with tempfile.TemporaryDirectory(prefix="dualmem-benchmark-") as folder:
        place = Path(folder)
        claude = arguments.claude_dir or Path(os.environ.get("CLAUDE_CONFIG_DIR", "~/.claude")).expanduser()
        files = [path for path in _sessions(claude) if path.stat().st_size >= arguments.least_bytes]
        if not files:
            print("no session that is long enough: the sample")
            files = [write_sample_session(place / "sample", cwd="/home/you/projects/tollgate")]
        for number, name in enumerate(arguments.tables or TABLES):
            print(end="\n" if number else "")
            TABLES[name](files, place, arguments.device)


def segments(files: Sequence[Path], _place: Path, _device: str) -> None:
    """Bytes of the sessions' turns as segments of several sizes."""
    streams = [_lines(read_session(path)) for path in files]
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
            trained = zstandard.train_dictionary(min(DICTIONARY_BYTES, len(b"".join(others)) // 2), [*others])
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


def handoffs(files: Sequence[Path], place: Path, device: str) -> None:
    """Bytes of the packages of each session without and with its last twentieth."""
    print(f"handoffs to {device}: a session that grew by {GROWTH - 1:.0%}\n")
    print("session       bytes   first package   second   of the first   a brief's requests   bytes   preloaded")
    for number, path in enumerate(files):
        data = path.read_bytes()
        cut = data.rfind(b"\n", 0, int(len(data) / GROWTH)) + 1
        grown = place / f"grown-{number}" / "projects" / "grown" / path.name
        grown.parent.mkdir(parents=True)
        os.environ |= {"DUALMEM_KEYSTORE": "file", "CLAUDE_CONFIG_DIR": str(place / f"grown-{number}")}
        bucket = str(place / f"bucket-{number}")
        settings = load_settings(place / f"home-{number}", bucket=bucket)
        with open_app(dataclasses.replace(settings, index=IndexScope("all"))) as app:
            app.init("a passphrase of the benchmark")
            packages, preloaded = [], []
            for bytes_now in (data[:cut], data):
                grown.write_bytes(bytes_now)
                if settings.profile_for(device).has_small_cache:
                    app.local_edge.index()
                made = app.prepare_handoff(transcript=grown, target_device=device)
                packages.append(made["package_bytes"])
                preloaded += [step["bytes"] for step in made["operations"] if step["name"] == "preload"]
        first, second = packages
        requests, fetched = _brief_costs(place / f"other-{number}", bucket)
        print(
            f"{path.stem[:8]:<9}{len(data):>10,}{first:>16,}{second:>9,}{second / first:>15.1%}"
            f"{requests:>21}{fetched:>8,}   {', '.join(f'{size:,}' for size in preloaded)}"
        )


def _brief_costs(home: Path, bucket: str) -> tuple[int, int]:
    """Requests and bytes that another device needs of the packages until it has the digest."""
    with open_app(load_settings(home, bucket=bucket)) as app:
        app.join("a passphrase of the benchmark")
        channel = app.channel()
        refresh_catalogue(channel)
        counted = _CountedObjects(channel.objects)
        record = find_handoff(channel, None)
        assert open_package(dataclasses.replace(channel, objects=counted), record).digest.requests  # type: ignore[arg-type]
        return counted.requests, counted.bytes


class _CountedObjects:
    """The objects of a bucket, and what of its packages was read."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self.requests = self.bytes = 0

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """As the port says."""
        data = self._objects.get(key, start=start, length=length)
        if key.startswith("packages/"):
            self.requests, self.bytes = self.requests + 1, self.bytes + len(data)
        return data


def checkpoints(files: Sequence[Path], place: Path, _device: str) -> None:
    """Bytes of the checkpoints of each session's agents while it grows."""
    print(f"checkpoints: {CHECKPOINTS} at most of each session that has agents, while it grows\n")
    print("session     agents   state made   ops: bytes   longest   in the bucket   kept")
    for number, path in enumerate(files):
        session = read_session(path)
        if not session.agents:
            continue
        with open_app(load_settings(place / f"checkpoints-{number}", bucket=str(place / "none"))) as app:
            kept = Checkpoints(app.records, app.device_id, app.clock)
            known, made, segment_sizes, bucket = 0, 0, [0], 0
            state = b""
            for state in _growing_states(path, place / f"growing-{number}" / path.name):
                made += kept.save(session.conversation_id, state) is not None
                ops = app.sharing.log.unsealed(1_000_000, 1 << 30)
                segment = b"".join(map(op_line, ops[known:]))
                known = len(ops)
                if segment:
                    compressed = len(zstandard.ZstdCompressor(level=COMPRESSION_LEVEL).compress(segment))
                    segment_sizes.append(len(segment))
                    bucket += padded_length(compressed, floor=SECTION_FLOOR_BYTES)
            print(
                f"{path.stem[:8]:<9}{len(session.agents):>9}{len(state):>8,}{made:>5}{sum(segment_sizes):>13,}"
                f"{max(segment_sizes):>10,}{bucket:>16,}{len(kept.find(session.conversation_id)):>7}"
            )


def _growing_states(path: Path, copy: Path) -> list[bytes]:
    """Different states of a session's agents while its files grow, the first to the last."""
    sources = {path: copy} | {
        file: copy.parent / copy.stem / file.relative_to(path.parent / path.stem)
        for file in (path.parent / path.stem).rglob("*.jsonl")
    }
    lines: dict[Path, list[tuple[str, bytes]]] = {
        file: [(_moment(line), line) for line in file.read_bytes().splitlines(True)] for file in sources
    }
    moments = sorted(moment for timed in lines.values() for moment, _ in timed)
    states: dict[bytes, None] = {}
    for number in range(1, MOMENTS + 1):
        until = moments[len(moments) * number // MOMENTS - 1]
        for file, target in sources.items():
            if there := b"".join(line for moment, line in lines[file] if moment <= until):
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(there)
        if copy.exists() and (session := read_session(copy)).agents:
            states[agents_to_json(session, ())] = None
    count = min(len(states), CHECKPOINTS)
    return [list(states)[len(states) * number // count - 1] for number in range(1, count + 1)]


def _moment(line: bytes) -> str:
    try:
        record = json.loads(line)
    except ValueError:
        return ""
    moment = record.get("timestamp") if isinstance(record, dict) else None
    return moment if isinstance(moment, str) else ""


def _lines(session: Session) -> list[bytes]:
    """The session's turns as lines of a log, one op each."""
    lines: list[bytes] = []
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


TABLES: Mapping[str, Callable[[Sequence[Path], Path, str], None]] = {
    "segments": segments,
    "handoffs": handoffs,
    "checkpoints": checkpoints,
}

if __name__ == "__main__":
    main()
