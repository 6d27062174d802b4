"""The server as a process: start, end, signals, and that nothing but the protocol ever reaches stdout."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

import pytest

HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}


def only_protocol(server: Any) -> bool:
    return all(json.loads(line)["jsonrpc"] == "2.0" for line in server.stdout_lines)


def test_initialize_is_answered_before_anything_is_opened(start_server: Any, tmp_path: Any) -> None:
    server = start_server()
    result = server.ask("initialize", HELLO)["result"]
    # The data home is made by the first thing that opens it.
    assert not (tmp_path / "data").exists()
    assert result["protocolVersion"] == "2025-11-25"
    assert result["serverInfo"]["name"] == "dualmem-mcp"
    assert result["capabilities"]["resources"] == {"subscribe": True, "listChanged": True}
    assert "prepare_handoff" in result["instructions"]
    server.notify("notifications/initialized")
    assert server.call("read_graph")["structuredContent"] == {"entities": [], "relations": []}
    assert (tmp_path / "data").exists()


def test_what_opening_imports_is_not_imported_for_initialize(start_server: Any) -> None:
    heavy = (
        "boto3",
        "keyring",
        "sqlcipher3",
        "sqlite_utils",
        "detect_secrets",
        "dualmem_mcp.app",
        "dualmem_mcp.settings",
    )
    code = (
        "import sys, atexit, dualmem_mcp.server.serve as serve\n"
        f"atexit.register(lambda: print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr))\n"
        "serve.main()"
    )
    server = start_server(code=code)
    server.ask("initialize", HELLO)
    server.ask("tools/list")
    assert server.close_input() == 0
    assert server.stderr.splitlines()[-1] == "[]"


def test_a_server_that_cannot_open_says_so_at_every_call_and_goes_on(start_server: Any, tmp_path: Any) -> None:
    (tmp_path / "data").write_text("in the way")
    server = start_server()
    server.initialize()
    for _ in range(2):
        result = server.call("read_graph")
        assert result["isError"]
        assert result["content"][0]["text"].startswith("error: ")
    assert server.ask("ping")["result"] == {}
    (tmp_path / "data").unlink()
    assert "isError" not in server.call("read_graph")


def test_input_that_ends_at_once_ends_the_server(start_server: Any) -> None:
    server = start_server()
    assert server.close_input() == 0
    assert server.stdout_lines == []


def test_every_call_sent_before_the_input_ended_is_answered_and_kept(start_server: Any) -> None:
    server = start_server()
    server.initialize()
    ids = [
        server.request(
            "tools/call",
            {
                "name": "create_entities",
                "arguments": {"entities": [{"name": f"n{i}", "entityType": "t", "observations": []}]},
            },
        )
        for i in range(30)
    ]
    server.send(b'{"jsonrpc":"2.0","id":99,"method":"too')
    assert server.close_input() == 0
    for identity in ids:
        assert len(server.answer(identity)["result"]["structuredContent"]["entities"]) == 1
    again = start_server()
    again.initialize()
    assert len(again.call("read_graph")["structuredContent"]["entities"]) == 30


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_though_its_input_stays_open(
    start_server: Any, number: int, tmp_path: Any
) -> None:
    mirror = tmp_path / "memory.jsonl"
    server = start_server(MEMORY_FILE_PATH=str(mirror))
    server.initialize()
    kept = {"name": "kept", "entityType": "t", "observations": ["o"]}
    assert server.call("create_entities", {"entities": [kept]})["structuredContent"] == {"entities": [kept]}
    server.process.send_signal(number)
    assert server.wait() == -number
    assert "Traceback" not in server.stderr
    assert json.loads(mirror.read_text())["name"] == "kept"
    again = start_server()
    again.initialize()
    assert [entity["name"] for entity in again.call("read_graph")["structuredContent"]["entities"]] == ["kept"]


ENDLESS = """
import sys, time
import dualmem_mcp.server.serve as serve
from dataclasses import replace
from dualmem_mcp.server import protocol

def work_for_ever(call):
    try:
        for step in range(10**9):
            call.progress(step, 10**9, "still at it")
            time.sleep(0.01)
    finally:
        print("left off", file=sys.stderr, flush=True)

endless = [replace(tool, handler=work_for_ever) for tool in protocol.TOOLS if tool.name == "prepare_handoff"]
protocol.TOOLS = (*endless, *protocol.TOOLS[:9])
serve.main()
"""


def test_a_cancelled_call_is_left_off_and_never_answered(start_server: Any) -> None:
    server = start_server(code=ENDLESS)
    server.initialize()
    identity = server.request("tools/call", {"name": "prepare_handoff", "_meta": {"progressToken": 1}})
    while not server.notifications:  # until it is at work
        assert server.ask("ping")["result"] == {}
    server.notify("notifications/cancelled", {"requestId": identity, "reason": "enough"})
    server.wait_for_stderr("left off")
    assert "isError" not in server.call("read_graph")
    assert server.close_input() == 0
    assert identity not in server.answers
    assert server.notifications[0]["params"]["message"] == "still at it"


STUCK = """
import sys, time
import dualmem_mcp.server.serve as serve
from dataclasses import replace
from dualmem_mcp.server import protocol

def wait_for_the_bucket(call):
    print("stuck", file=sys.stderr, flush=True)
    time.sleep(3600)

serve._STOPPING_SECONDS = 0.5
stuck = [replace(tool, handler=wait_for_the_bucket) for tool in protocol.TOOLS if tool.name == "prepare_handoff"]
protocol.TOOLS = (*stuck, *protocol.TOOLS[:9])
serve.main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_signal_ends_the_server_though_a_call_is_stuck(start_server: Any) -> None:
    server = start_server(code=STUCK)
    server.initialize()
    server.request("tools/call", {"name": "prepare_handoff"})
    server.wait_for_stderr("stuck")
    assert server.call("read_graph")["structuredContent"]["entities"] == []
    server.process.send_signal(signal.SIGTERM)
    assert server.wait() == -signal.SIGTERM


def test_a_client_that_reads_no_more_ends_the_server(own_environment: Any, tmp_path: Any) -> None:
    from_server, to_client = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "dualmem_mcp.server.serve"],
        env=own_environment(tmp_path),
        stdin=subprocess.PIPE,
        stdout=to_client,
        stderr=subprocess.PIPE,
    )
    os.close(to_client)
    os.close(from_server)
    with process:
        process.stdin.write(
            json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": HELLO}).encode() + b"\n"
        )
        process.stdin.flush()
        assert process.wait(30) == 0
        assert b"Traceback" not in process.stderr.read()


PRINTING = """
import os, subprocess, sys
import dualmem_mcp.server.serve as serve
from dualmem_mcp.server import handoff_tools

def loud_app(home):
    print("printed"); sys.stdout.flush(); os.write(1, b"written\\n"); subprocess.run(["echo", "from a child"])
    assert sys.stdin.read() == ""
    assert subprocess.run(["cat"], capture_output=True).stdout == b""
    return open_app(home)

open_app, serve._open_app = serve._open_app, loud_app
serve.main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="programs of POSIX")
def test_what_libraries_and_children_print_never_reaches_the_client(start_server: Any) -> None:
    server = start_server(code=PRINTING)
    server.initialize()
    assert "isError" not in server.call("read_graph")
    assert server.close_input() == 0
    assert only_protocol(server)
    for text in ("printed", "written", "from a child"):
        assert text in server.stderr


def test_malformed_and_unknown_messages_do_not_end_the_server(start_server: Any) -> None:
    server = start_server()
    server.send(b"before any request\n\n{}")
    server.initialize()
    server.send(b'{"jsonrpc":"2.0","id":')
    server.send(b"\x00\xff\xfe")
    server.send("[]")
    server.notify("notifications/unheard_of", {"x": 1})
    server.send({"jsonrpc": "2.0", "id": "never asked", "result": {}})
    assert server.ask("nope/nope")["error"]["code"] == -32601
    assert server.ask("tools/call", {"name": 5})["error"]["code"] == -32602
    assert server.ask("prompts/get", {"name": "nope"})["error"]["code"] == -32602
    assert server.ask("ping")["result"] == {}
    assert server.close_input() == 0
    assert only_protocol(server)
    assert "Traceback" not in server.stderr


def test_a_huge_message_is_served(server: Any) -> None:
    text = "x" * 8_000_000
    server.call("create_entities", {"entities": [{"name": "big", "entityType": "t", "observations": [text]}]})
    assert server.call("open_nodes", {"names": ["big"]})["structuredContent"]["entities"][0]["observations"] == [
        text
    ]


def test_half_a_surrogate_pair_is_stored_and_given_back(server: Any) -> None:
    entity = {"name": "\ud83d", "entityType": "t", "observations": ["cut \ude00"]}
    created = server.call("create_entities", {"entities": [entity]})
    assert created["structuredContent"] == {"entities": [entity]}
    assert '"name": "\\ud83d"' in created["content"][0]["text"]


def test_without_stdin_the_server_ends_cleanly(own_environment: Any, tmp_path: Any) -> None:
    command = [
        sys.executable,
        "-c",
        "import os; os.close(0); import dualmem_mcp.server.serve as serve; serve.main()",
    ]
    ended = subprocess.run(command, env=own_environment(tmp_path), capture_output=True, timeout=30, check=False)
    assert (ended.returncode, ended.stdout) == (0, b""), ended.stderr.decode()
