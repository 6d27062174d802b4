"""From desk to phone and back: how long it takes, and what opening sections ahead brings.

    python benchmarks/phone.py                     all of it, over a folder and over S3, 20 runs each
    python benchmarks/phone.py --runs 5 --turns 1900 handoff
    python benchmarks/phone.py sections budgets

`handoff`: the desk's server (stdio, as for Claude Code) hands over a session that has grown by a turn; when it
has answered, the phone asks `dualmem serve --transport http` on another data home for the brief. Measured from
the first request to the last answer. `back`: the phone saves progress over HTTP, and the desk asks again and
again until it shows that: by `resume_conversation`, which catches up by itself, and by a section, which leaves
that to the polling. `sections`: the first page loaded after a brief and a second of reading, by the caller who
got the brief and by another, for whom nothing was opened ahead. `budgets`: tokens and characters of a result on
each device. `memory`: what reading a session takes, which decides what is opened ahead on a device.

S3 is moto's server on loopback. The session is the sample, `--turns` long.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import socket
from typing import Any

from stdio_server import Server, structured
from sync import s3_server

from dualmem_mcp.model.grant import DEFAULT_SCOPES, OWNER
from dualmem_mcp.ports import SystemClock
from dualmem_mcp.remote.interfaces import Unlocked
from dualmem_mcp.remote.oauth.grants import Grants
from dualmem_mcp.remote.oauth.redirects import Redirect
from dualmem_mcp.remote.oauth.registration import Client
from dualmem_mcp.remote.options import RemoteOptions
from dualmem_mcp.sample import write_sample_session
from dualmem_mcp.stores.login_store import open_logins
from dualmem_mcp.transcripts.claude_code import read_session

PASSPHRASE = "benchmarks need no secret"
DUALMEM = [sys.executable, "-m", "dualmem_mcp.cli"]
PARTS = ("handoff", "back", "sections", "budgets", "memory")


class Phone:
    """A client of the endpoint, with a connection of its own and no session, as Claude's connectors are."""

    def __init__(self, port: int, token: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._headers = {
            "Host": f"localhost:{port}",
            "Authorization": f"Bearer {token}",
            "Accept": "application/json, text/event-stream",
            "Content-Type": "application/json",
        }

    def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """The result of a tool. Raises RuntimeError for one that failed."""
        params = {"name": tool, "arguments": arguments}
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
        self._connection.request("POST", "/mcp", body, self._headers)
        response = self._connection.getresponse()
        data = response.read()
        if response.status != http.client.OK:
            raise RuntimeError(f"{response.status}: {data[:300]!r}")
        result: dict[str, Any] = json.loads(data)["result"]
        if result.get("isError"):
            raise RuntimeError(f"{tool}: {result['content']}")
        return result


@dataclass
class Devices:
    """A desk with a session of Claude Code and a server, and a host with two clients that the user let in."""

    session: Path
    desk: Server
    phone: Phone
    other: Phone

    def go_on(self) -> None:
        """One more exchange in the session."""
        records = [json.loads(line) for line in self.session.read_text(encoding="utf-8").splitlines()]
        last = next(one for one in reversed(records) if one.get("type") in ("user", "assistant"))
        made = {
            **{name: last[name] for name in ("cwd", "sessionId", "version", "gitBranch") if name in last},
            "type": "user",
            "userType": "external",
            "isSidechain": False,
            "uuid": str(uuid.uuid4()),
            "parentUuid": last["uuid"],
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime()),
            "message": {"role": "user", "content": f"and now step {uuid.uuid4()}"},
        }
        with self.session.open("a", encoding="utf-8") as file:
            print(json.dumps(made), file=file)


@contextmanager
def devices(place: Path, bucket: str, environment: dict[str, str], turns: int) -> Iterator[Devices]:
    """Desk and host, joined to one vault, their servers running."""
    place.mkdir(parents=True)
    session = write_sample_session(place / "claude", cwd="/home/you/projects/tollgate", turns=turns)
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "DUALMEM_MODEL_DIR") if name in os.environ}
    common = {
        **kept,
        **environment,
        "DUALMEM_BUCKET": bucket,
        "DUALMEM_PASSPHRASE": PASSPHRASE,
        "DUALMEM_KEYSTORE": "file",
    }
    desk = {**common, "DUALMEM_HOME": str(place / "desk"), "CLAUDE_CONFIG_DIR": str(place / "claude")}
    host = {**common, "DUALMEM_HOME": str(place / "host"), "CLAUDE_CONFIG_DIR": str(place / "none")}
    for own, command in ((desk, ["init", "--bucket", bucket]), (host, ["join", bucket])):
        subprocess.run([*DUALMEM, *command], env=own, check=True, stdout=subprocess.DEVNULL)
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with ExitStack() as running:
        os.environ["DUALMEM_KEYSTORE"] = "file"
        tokens = make_tokens(place / "host", port)
        serve = [*DUALMEM, "serve", "--transport", "http", "--port", str(port)]
        process = subprocess.Popen(serve, env=host, stderr=subprocess.DEVNULL)
        running.callback(process.wait)
        running.callback(process.terminate)
        wait_for(port)
        server = Server([sys.executable, "-m", "dualmem_mcp.server.serve"], desk)
        running.callback(server.stop)
        yield Devices(session, server, *(Phone(port, token) for token in tokens))


def make_tokens(home: Path, port: int) -> list[str]:
    """Access tokens of two clients, as a login gives them."""
    redirect = Redirect("http://localhost:33418/callback", "http", "localhost", "33418", "/callback")
    with open_logins(home, choice="file") as store:
        grants = Grants(store, RemoteOptions(f"http://localhost:{port}", port=port), SystemClock())
        client = Client("phone", "Claude", (redirect.uri,))
        issued = [grants.issue(client, redirect, Unlocked(OWNER, b""), DEFAULT_SCOPES)[1] for _ in range(2)]
    return [answer["access_token"] for answer in issued]


def wait_for(port: int) -> None:
    """Wait until something listens there."""
    for _ in range(300):
        with socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError("the host does not listen")


def measure_handoff(place: Devices, runs: int) -> None:
    """From the desk's `prepare_handoff` to the phone's brief."""
    whole, resumes = [], []
    for run in range(runs + 1):
        place.go_on()
        begun = time.perf_counter()
        made = structured(place.desk.call("prepare_handoff", {"conversation_id": place.session.stem}))
        handed = time.perf_counter()
        brief = place.phone.call("resume_conversation")["structuredContent"]
        done = time.perf_counter()
        if brief["handoff_id"] != made["handoff_id"]:
            raise RuntimeError("the phone was shown another handoff")
        if run:  # the first opens everything
            whole.append(done - begun)
            resumes.append(done - handed)
    print(f"  handoff to brief: {pair(whole)}; of that the phone's call: {pair(resumes)}")


def measure_back(place: Devices, runs: int) -> None:
    """From the phone's `save_progress` until the desk shows it."""
    conversation = place.session.stem
    chance = random.Random(1)
    for tool, how in (("resume_conversation", "the desk resumes"), ("load_context", "the desk polls")):
        spent, calls = [], []
        for run in range(runs + 1):
            time.sleep(chance.uniform(0, 2))
            word = f"marker{uuid.uuid4().hex[:12]}"
            begun = time.perf_counter()
            place.phone.call("save_progress", conversation_id=conversation, notes=[{"text": word}])
            saved = time.perf_counter()
            arguments = {
                "conversation_id": conversation,
                **({"section": "since"} if tool == "load_context" else {}),
            }
            while word.encode() not in place.desk.call(tool, arguments):
                time.sleep(0.01)
            if run:
                spent.append(time.perf_counter() - begun)
                calls.append(saved - begun)
        print(f"  saved on the phone to shown, {how}: {pair(spent)}; of that the phone's call: {pair(calls)}")


def measure_sections(place: Devices, runs: int) -> None:
    """The first page after a brief, opened ahead or not."""
    spent: dict[tuple[str, bool], list[float]] = {}
    for run in range(runs + 1):
        place.go_on()
        place.desk.call("prepare_handoff", {"conversation_id": place.session.stem})
        brief = place.phone.call("resume_conversation")["structuredContent"]
        time.sleep(1)
        cursors = {one["name"]: one.get("end_cursor") or one["cursor"] for one in brief["sections"]}
        for name in ("requests", "agents", "commands", "thread"):
            for ahead, client in ((True, place.phone), (False, place.other)):
                begun = time.perf_counter()
                client.call(
                    "load_context", conversation_id=brief["conversation_id"], section=name, cursor=cursors[name]
                )
                if run:
                    spent.setdefault((name, ahead), []).append(time.perf_counter() - begun)
    for (name, ahead), seconds in spent.items():
        print(f"  {name}, {'opened ahead' if ahead else 'read when asked for'}: {pair(seconds)}")


def measure_budgets(place: Devices, _runs: int) -> None:
    """Tokens and characters of a brief's result on each device."""
    for device in ("ios", "android", "pwa", "desktop"):
        result = place.phone.call("resume_conversation", device=device)
        text, whole = result["content"][0]["text"], json.dumps(result, ensure_ascii=False)
        rest = {name: value for name, value in result["structuredContent"].items() if name != "brief"}
        print(
            f"  {device}: brief {-(-len(text) // 4):,} tokens, structured form beside it "
            f"{len(json.dumps(rest, ensure_ascii=False)):,} characters, whole result {len(whole):,}"
        )


def measure_memory(place: Devices, _runs: int) -> None:
    """Memory at most while a session is read, by its bytes."""
    size = place.session.stat().st_size
    tracemalloc.start()
    session = read_session(place.session)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(
        f"  reading {size:,} bytes ({session.visible_tokens:,} tokens) takes {peak / size:.1f} times that at most"
    )


def pair(seconds: Sequence[float]) -> str:
    """Median and 95th percentile in milliseconds."""
    ordered = sorted(seconds)
    late = ordered[-(-95 * len(ordered) // 100) - 1]
    return f"p50 {1000 * statistics.median(ordered):.0f} ms, p95 {1000 * late:.0f} ms"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--turns", type=int, default=600)
    parser.add_argument("--bucket", choices=["folder", "s3"], action="append")
    arguments = parser.parse_args()
    measures = {
        "handoff": measure_handoff,
        "back": measure_back,
        "sections": measure_sections,
        "budgets": measure_budgets,
        "memory": measure_memory,
    }
    with tempfile.TemporaryDirectory(prefix="dualmem-phone-") as folder:
        for kind in arguments.bucket or ("folder", "s3"):
            place = Path(folder) / kind
            with ExitStack() as running:
                environment = running.enter_context(s3_server()) if kind == "s3" else {}
                bucket = "s3://bench/phone" if kind == "s3" else str(place / "bucket")
                ready = running.enter_context(devices(place, bucket, environment, arguments.turns))
                ready.desk.call("prepare_handoff", {"conversation_id": ready.session.stem})
                print(f"{kind}, {arguments.turns} turns, {arguments.runs} runs")
                for part in arguments.parts:
                    measures[part](ready, arguments.runs)


if __name__ == "__main__":
    main()
