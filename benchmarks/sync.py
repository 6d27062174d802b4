"""What syncing costs: operations a second, how soon a change is elsewhere, joining, requests and dollars, bytes.

    python benchmarks/sync.py                          all of it, some minutes
    python benchmarks/sync.py throughput latency       some of it: throughput, latency, join, idle, handoff
    python benchmarks/sync.py join --items 20000       joining a memory of another size

Devices are the real application over data homes of their own; the bucket is a folder, for the latency moto's S3
server on loopback, in a process of its own, and the devices are real servers, called over stdio.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from socket import socket
from typing import Any

import boto3
from botocore.exceptions import EndpointConnectionError
from stdio_server import Server, structured

from dualmem_mcp.app import App, open_app
from dualmem_mcp.model.cost import request_cost_usd
from dualmem_mcp.model.graph import Entity, EntityObservations, Relation
from dualmem_mcp.sample import write_sample_session
from dualmem_mcp.server.sync_loop import SyncLoop
from dualmem_mcp.settings import load_settings
from dualmem_mcp.stores.directory import DirectoryObjectStore
from dualmem_mcp.stores.logical_state import logical_hash

PASSPHRASE = "a passphrase of the benchmark"
COMMAND = [sys.executable, "-m", "dualmem_mcp.cli"]
SERVER = [sys.executable, "-m", "dualmem_mcp.server.serve"]
SYLLABLES = [a + b + c for a in "bdfgklmnprst" for b in "aeiou" for c in "lnrs"]
DAY = 86_400.0
CALLS_EVERY = 60.0
"""Seconds between two tool calls of a device in use."""


def main() -> None:
    """Measure what was asked for and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="part", help=", ".join(PARTS))
    parser.add_argument("--ops", type=int, default=10_000)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--changes", type=int, default=20)
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    for part in arguments.parts or PARTS:
        with tempfile.TemporaryDirectory(prefix="dualmem-benchmark-") as folder:
            PARTS[part](Path(folder), arguments)


# Devices


class StillClock:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.time = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time


@contextmanager
def devices(place: Path, names: Sequence[str], *, clock: StillClock | None = None) -> Iterator[list[App]]:
    """Open applications of a vault in a folder; the first makes it."""
    with ExitStack() as opened:
        apps = []
        for number, name in enumerate(names):
            settings = dataclasses.replace(
                load_settings(place / name),
                bucket=str(place / "bucket"),
                keystore="file",
                claude_dir=place / "claude",
            )
            app = opened.enter_context(open_app(settings, clock=clock))
            (app.join if number else app.init)(PASSPHRASE, device_name=name)
            apps.append(app)
        yield apps


def hash_of(app: App) -> str:
    """What the devices have to agree on."""
    with app.database.read() as connection:
        return logical_hash(connection)


def change(app: App, count: int) -> int:
    """Make so many ops of different kinds, as tools would; how many were made."""
    made = 0
    name = app.home.root.name
    for number in itertools.count():
        if made >= count:
            return made
        entities = [
            Entity(f"{name} {number}.{n}", "thing", (f"one thing about {n} of {number}", "another"))
            for n in range(20)
        ]
        app.graph.create_entities(entities)
        app.graph.add_observations([EntityObservations(one.name, (f"later: {one.name}",)) for one in entities])
        pairs = itertools.pairwise(entities)
        app.graph.create_relations([Relation(one.name, other.name, "is beside") for one, other in pairs])
        for n in range(5):
            app.records.put("task", f"{number}-{n}-{name}".ljust(32, "0"), {"text": f"task {n}", "status": "open"})
        made += 20 + 20 + 19 + 5
    return made


# What is measured


def throughput(place: Path, arguments: argparse.Namespace) -> None:
    """All changes of three devices, exchanged over a folder."""
    with devices(place, ["desk", "laptop", "phone"]) as apps:
        for app in apps:
            app.sync()
        ops = sum(change(app, arguments.ops // len(apps)) for app in apps)
        rows = []
        for app in (*apps, *apps[:2]):
            before = time.perf_counter()
            report = app.sync()
            seconds = time.perf_counter() - before
            rows.append((app.home.root.name, report["pushed"]["ops"], report["pulled"]["ops"], seconds))
        agree = len({hash_of(app) for app in apps}) == 1
    print(f"\n{ops:,} ops of three devices over a folder\n")
    print("| sync of | pushed | pulled | seconds | ops/s |\n|---|---:|---:|---:|---:|")
    for name, pushed, pulled, seconds in rows:
        print(f"| {name} | {pushed:,} | {pulled:,} | {seconds:.2f} | {(pushed + pulled) / seconds:,.0f} |")
    moved, spent = sum(row[1] + row[2] for row in rows), sum(row[3] for row in rows)
    print(f"| all | {sum(row[1] for row in rows):,} | {sum(row[2] for row in rows):,} | {spent:.2f} |", end="")
    print(f" {moved / spent:,.0f} |\n\nthe same memory on all: {agree}")


def latency(place: Path, arguments: argparse.Namespace) -> None:
    """From the answer to a change on one device until another shows it, while both are called."""
    with s3_server() as environment:
        for poll in (None, 1.0):
            spent = _latencies(place / str(poll), environment, arguments.changes, poll)
            what = "default settings" if poll is None else f"poll_seconds {poll:g}"
            print(
                f"change to visible over S3 on loopback, {what}: median {statistics.median(spent):.2f} s, "
                f"90 % {sorted(spent)[int(len(spent) * 0.9)]:.2f} s, most {max(spent):.2f} s ({len(spent)} changes)"
            )


def _latencies(place: Path, environment: dict[str, str], changes: int, poll: float | None) -> list[float]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    bucket = f"s3://bench/{place.name}"
    with ExitStack() as running:
        servers = []
        for number, name in enumerate(("desk", "phone")):
            own = {
                **environment,
                "DUALMEM_HOME": str(place / name),
                "DUALMEM_BUCKET": bucket,
                "DUALMEM_KEYSTORE": "file",
                "DUALMEM_PASSPHRASE": PASSPHRASE,
                "CLAUDE_CONFIG_DIR": str(place / "claude"),
            }
            arguments = ["join", bucket] if number else ["init", "--bucket", bucket]
            subprocess.run(
                [*COMMAND, *arguments, "--device-name", name],
                env={**kept, **own},
                check=True,
                stdout=subprocess.PIPE,
            )
            if poll is not None:
                config = place / name / "cloud_sync_config.json"
                told = json.loads(config.read_text()) if config.exists() else {}
                config.write_text(json.dumps({**told, **_polling(poll)}))
            server = Server(SERVER, own)
            running.callback(server.stop)
            servers.append(server)
        desk, phone = servers
        spent = []
        chance = random.Random(1)
        for number in range(-2, changes):  # the first two meet, and are not counted
            name = f"entity {number}"
            desk.call("create_entities", {"entities": [{"name": name, "entityType": "x", "observations": ["y"]}]})
            before = time.perf_counter()
            while not structured(phone.call("open_nodes", {"names": [name]}))["entities"]:
                time.sleep(0.02)
            if number >= 0:
                spent.append(time.perf_counter() - before)
            time.sleep(chance.uniform(0, 3))  # at any moment between two looks
        return spent


def _polling(seconds: float) -> dict[str, Any]:
    return {"sync": {"poll_seconds": seconds}}


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """An S3 server with a bucket named bench, and the environment that leads there."""
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], **quiet)  # type: ignore[call-overload]
    environment = {
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
    }
    try:
        client = boto3.client(
            "s3",
            endpoint_url=environment["AWS_ENDPOINT_URL_S3"],
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
            region_name="us-east-1",
        )
        for _ in range(100):
            with contextlib.suppress(EndpointConnectionError):  # it has not begun to listen yet
                client.create_bucket(Bucket="bench")
                break
            time.sleep(0.1)
        yield environment
    finally:
        process.terminate()
        process.wait()


def join(place: Path, arguments: argparse.Namespace) -> None:
    """A device that is new takes the whole memory from a snapshot."""
    items = arguments.items
    with devices(place, ["desk"]) as (desk,):
        before = time.perf_counter()
        chance = random.Random(1)
        for start in range(0, items // 2, 1000):
            names = range(start, min(start + 1000, items // 2))
            desk.graph.create_entities([Entity(f"entity {n}", "thing", (_sentence(chance),)) for n in names])
        made = time.perf_counter() - before
        before = time.perf_counter()
        desk.sync()
        pushed = time.perf_counter() - before
        before = time.perf_counter()
        compacted = desk.compact(force=True, grace_days=0)
        written = time.perf_counter() - before
        expected = hash_of(desk)
    size = sum(path.stat().st_size for path in (place / "bucket" / "snapshots").rglob("*") if path.is_file())
    print(
        f"\n{items:,} items: made in {made:.1f} s, pushed in {pushed:.1f} s, snapshot of {size / 1e6:.1f} MB",
        end="",
    )
    print(f" and {compacted['ops']:,} ops written in {written:.1f} s")
    environment = {
        **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
        "DUALMEM_HOME": str(place / "phone"),
        "DUALMEM_BUCKET": str(place / "bucket"),
        "DUALMEM_KEYSTORE": "file",
        "DUALMEM_PASSPHRASE": PASSPHRASE,
    }
    total, peak = 0.0, 0.0
    for command in (["join", str(place / "bucket"), "--device-name", "phone"], ["sync"]):
        seconds, megabytes = _timed([*COMMAND, *command], environment)
        print(f"dualmem {command[0]}: {seconds:.1f} s, {megabytes:.0f} MB")
        total, peak = total + seconds, max(peak, megabytes)
    settings = dataclasses.replace(load_settings(place / "phone"), bucket=str(place / "bucket"), keystore="file")
    with open_app(settings) as phone:
        same = hash_of(phone) == expected
    print(f"joining: {total:.1f} s in all, most memory {peak:.0f} MB, the same memory: {same}")


def _sentence(chance: random.Random) -> str:
    """Fifteen words of some thousands that there could be: text that does not shrink to nothing."""
    return " ".join(chance.choice(SYLLABLES) + chance.choice(SYLLABLES) for _ in range(15))


def _timed(command: Sequence[str], environment: dict[str, str]) -> tuple[float, float]:
    """Seconds and the most megabytes in memory of a process that succeeds."""
    before = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{command} failed")
    scale = 1e6 if sys.platform == "darwin" else 1e3
    return time.perf_counter() - before, used.ru_maxrss / scale


def idle(place: Path, arguments: argparse.Namespace) -> None:
    """Requests of a device's server in a day in which it is not used, and in one in which it is for eight hours."""
    del arguments
    print("\n| devices | hours in use | GET | PUT | LIST | HEAD | a day | a month |\n" + "|---:" * 8 + "|")
    for count, hours in itertools.product((2, 3, 5), (0, 8)):
        asked = _requests_of_a_day(place / f"{count}-{hours}", count, hours)
        writes, reads = asked["put"] + asked["list"], asked["get"] + asked["stat"]
        dollars = request_cost_usd("s3://", writes=writes, reads=reads)
        print(
            f"| {count} | {hours} | {asked['get']:,} | {asked['put']:,} | {asked['list']:,} | {asked['stat']:,} "
            f"| ${dollars:.5f} | ${dollars * 30:.3f} |"
        )


def _requests_of_a_day(place: Path, count: int, hours: float) -> Counter[str]:
    clock = StillClock()
    with devices(place, [f"device{n}" for n in range(count)], clock=clock) as apps:
        for app in (*apps, *apps):
            change(app, 60)
            app.sync()
        seconds = 0.0

        def move(by: float) -> None:
            nonlocal seconds
            seconds += by
            clock.time += timedelta(seconds=by)

        loop = SyncLoop(apps[0], clock=lambda: seconds, chance=lambda: 0.5)
        for _ in range(2):  # the first looks are those of a server that starts
            move(loop.turn() + 0.001)
        end = seconds + DAY
        with counted() as asked:
            used = seconds - CALLS_EVERY
            while seconds < end:
                if seconds < end - DAY + hours * 3600 and seconds >= used + CALLS_EVERY:
                    used = seconds
                    loop.used()
                move(min(loop.turn() + 0.001, 60.0))
        return asked


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """What is asked of buckets in folders meanwhile."""
    asked: Counter[str] = Counter()
    before = {name: getattr(DirectoryObjectStore, name) for name in ("get", "put", "list", "stat", "delete")}

    def counting(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            asked[name] += 1
            return method(*arguments, **options)

        return call

    for name, method in before.items():
        setattr(DirectoryObjectStore, name, counting(name, method))
    try:
        yield asked
    finally:
        for name, method in before.items():
            setattr(DirectoryObjectStore, name, method)


def handoff(place: Path, arguments: argparse.Namespace) -> None:
    """What a second handoff sends of a conversation that grew by a twentieth."""
    del arguments
    with devices(place, ["desk"]) as (desk,):
        session = write_sample_session(place / "claude", cwd="/home/you/a", turns=1_900)
        path = next(path for path in (place / "claude").rglob("*.jsonl") if path.parent.parent.name == "projects")
        del session
        lines = path.read_bytes().splitlines(keepends=True)
        print()
        rows = []
        for part in (lines[: len(lines) * 20 // 21], lines):
            path.write_bytes(b"".join(part))
            before = _bucket_bytes(place / "bucket")
            report = desk.prepare_handoff(transcript=path)
            packed = _bucket_bytes(place / "bucket") - before
            desk.sync()
            rows.append(
                (len(b"".join(part)), report["package_bytes"], packed, _bucket_bytes(place / "bucket") - before)
            )
    print("| handoff | session | package | uploaded by the handoff | with the log |\n|---|---:|---:|---:|---:|")
    for name, row in zip(("first", "second, 5 % longer"), rows, strict=True):
        print(f"| {name} | " + " | ".join(f"{value:,}" for value in row) + " |")
    shares = [second / first for first, second in zip(*rows, strict=True)]
    print("| share | | " + " | ".join(f"{share:.1%}" for share in shares[1:]) + " |")


def _bucket_bytes(bucket: Path) -> int:
    files = [path for path in bucket.rglob("*") if path.is_file() and ".dualmem" not in path.parts]
    return sum(path.stat().st_size for path in files)


PARTS: dict[str, Callable[[Path, argparse.Namespace], None]] = {
    "throughput": throughput,
    "latency": latency,
    "join": join,
    "idle": idle,
    "handoff": handoff,
}

if __name__ == "__main__":
    main()
