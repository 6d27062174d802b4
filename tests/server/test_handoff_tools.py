"""A conversation handed over by one server and taken up by another, through a bucket folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from dualmem_mcp.sample import write_sample_session
from dualmem_mcp.server.handoff_tools import HANDOFF_TOOLS, MAX_RESULT_CHARACTERS
from dualmem_mcp.server.protocol import TOOLS

PASSPHRASE = "correct horse battery staple"
OUTPUT_SCHEMAS = {tool.name: tool.output_schema for tool in TOOLS}


class Devices:
    """A desk with a sample session of Claude Code, and a phone, each with a server; one vault."""

    def __init__(self, start_process: Any, environment: Any, root: Path) -> None:
        self.session_id = write_sample_session(root / "claude", cwd="/home/dev/tollgate", turns=300).stem
        self._start_process = start_process
        self.environments = {
            device: environment(
                root / device,
                DUALMEM_BUCKET=str(root / "bucket"),
                DUALMEM_PASSPHRASE=PASSPHRASE,
                DUALMEM_DEVICE=profile,
                CLAUDE_CONFIG_DIR=str(root / claude),
            )
            for device, profile, claude in (("desk", "desktop", "claude"), ("phone", "ios", "none"))
        }
        self._command("desk", "init", "--device-name", "desk")
        self._command("phone", "join", str(root / "bucket"), "--device-name", "phone")
        self.desk, self.phone = self._started("desk"), self._started("phone")

    def _command(self, device: str, *arguments: str) -> None:
        command = [sys.executable, "-c", "from dualmem_mcp.cli import main; main()", *arguments]
        subprocess.run(command, env=self.environments[device], check=True, capture_output=True, timeout=60)

    def _started(self, device: str) -> Any:
        server = self._start_process([sys.executable, "-m", "dualmem_mcp.server.serve"], self.environments[device])
        server.initialize()
        return server


@pytest.fixture(scope="module")
def devices(start_process: Any, own_environment: Any, tmp_path_factory: pytest.TempPathFactory) -> Devices:
    return Devices(start_process, own_environment, tmp_path_factory.mktemp("devices"))


def call(
    server: Any, name: str, arguments: dict[str, Any] | None = None, **meta: Any
) -> tuple[str, dict[str, Any]]:
    """Text and structured form of a tool's answer, which must fit the tool's output schema."""
    result = server.call(name, arguments, meta=meta)
    assert "isError" not in result, result
    jsonschema.validate(result["structuredContent"], OUTPUT_SCHEMAS[name])
    return result["content"][0]["text"], result["structuredContent"]


@pytest.fixture(scope="module")
def handoff(devices: Devices) -> dict[str, Any]:
    """The report of a handoff, made while a client listened to the list of resources."""
    devices.desk.notifications.clear()
    text, handoff = call(
        devices.desk,
        "prepare_handoff",
        {
            "summary": "The store is shared now.",
            "decisions": ["Redis first, because it is there"],
            "next_steps": ["Write the migration note"],
            "open_questions": ["Who merges?"],
            "target_device": "ios",
        },
        progressToken="token 1",
    )
    assert devices.session_id in text
    assert "is handed over" in text
    return handoff


def test_a_handoff_is_reported_with_progress(devices: Devices, handoff: dict[str, Any]) -> None:
    assert handoff["conversation_id"] == devices.session_id
    assert handoff["queued"] is False
    assert handoff["reduction"] >= 0.9
    sent = devices.desk.notifications
    steps = [message["params"] for message in sent if message["method"] == "notifications/progress"]
    assert [step["progress"] for step in steps] == sorted({step["progress"] for step in steps})
    assert {step["progressToken"] for step in steps} == {"token 1"}
    assert steps[-1]["progress"] == steps[-1]["total"]
    assert {message["method"] for message in sent} == {
        "notifications/progress",
        "notifications/resources/list_changed",
    }


def test_the_other_device_resumes_it(devices: Devices, handoff: dict[str, Any]) -> None:
    phone = devices.phone
    listed, page = call(phone, "list_conversations", {"limit": 5})
    assert [item["handoff_id"] for item in page["conversations"]] == [handoff["handoff_id"]]
    assert devices.session_id in listed
    assert "handed over" in listed

    phone.notifications.clear()
    text, brief = call(phone, "resume_conversation", progressToken=7)
    assert text == brief["brief"]
    assert brief["brief_tokens"] <= 4000
    assert brief["handoff_id"] == handoff["handoff_id"]
    assert brief["resumption_point"]["last_request"]["text"] in text
    assert "The store is shared now." in text
    # The list of resources may have grown meanwhile, too.
    steps = [message["params"] for message in phone.notifications if "progress" in message["method"]]
    assert {step["progressToken"] for step in steps} == {7}
    assert steps[-1]["progress"] == steps[-1]["total"]

    small, _ = call(phone, "resume_conversation", {"conversation_id": devices.session_id, "token_budget": 600})
    assert len(small) <= 4 * 600


def test_every_section_is_loaded_to_its_end(devices: Devices, handoff: dict[str, Any]) -> None:
    _, brief = call(devices.phone, "resume_conversation")
    for section in [*(item["name"] for item in brief["sections"]), "thread"]:
        cursor, seen = "", set()
        while cursor not in seen:
            seen.add(cursor)
            given = {"conversation_id": devices.session_id, "section": section, "cursor": cursor}
            text, page = call(devices.phone, "load_context", given)
            assert page["section"] == section
            assert page["text"] in text
            assert text.startswith(f"[{section} of conversation {devices.session_id}: data]\n")
            if not (cursor := page["next_cursor"]):
                break
            assert cursor in text.splitlines()[-1]
        assert cursor == "", f"{section} never ends"


def test_resources_hold_brief_and_sections(devices: Devices, handoff: dict[str, Any]) -> None:
    phone = devices.phone
    call(phone, "list_conversations")
    brief_uri = f"dualmem://conversation/{devices.session_id}/brief"
    listed = phone.ask("resources/list")["result"]["resources"]
    assert [resource["uri"] for resource in listed] == ["memory://knowledge-graph", brief_uri]
    assert listed[1]["title"] == handoff["title"]

    (brief,) = phone.ask("resources/read", {"uri": brief_uri})["result"]["contents"]
    assert (brief["uri"], brief["mimeType"]) == (brief_uri, "text/markdown")
    assert brief["text"].startswith(f"# {handoff['title']}\n")
    requests_uri = f"dualmem://conversation/{devices.session_id}/requests"
    (requests,) = phone.ask("resources/read", {"uri": requests_uri})["result"]["contents"]
    given = {"conversation_id": devices.session_id, "section": "requests"}
    assert requests["text"].startswith(call(phone, "load_context", given)[1]["text"])
    (thread,) = phone.ask("resources/read", {"uri": brief_uri.replace("brief", "thread")})["result"]["contents"]
    assert thread["text"].splitlines()[-1].startswith("[cut here; load_context goes on from cursor ")

    for uri in (
        "dualmem://conversation/none/brief",
        f"dualmem://conversation/{devices.session_id}/nonsense",
        "dualmem://conversation/..%2F..%2Fx/brief",
        "dualmem://conversation/x",
        "dualmem://else",
    ):
        assert phone.ask("resources/read", {"uri": uri})["error"]["code"] == -32602


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("prepare_handoff", {"conversation_id": "../../x"}, "is not a conversation id"),
        ("prepare_handoff", {"conversation_id": "none"}, "hint: "),
        ("prepare_handoff", {"target_device": "toaster"}, "toaster"),
        ("prepare_handoff", {"decisions": "one"}, "expected array, received string at decisions"),
        ("resume_conversation", {"conversation_id": "none"}, "has not been handed over"),
        ("resume_conversation", {"token_budget": 0}, "expected number to be >=1 at token_budget"),
        ("load_context", {"section": "thread"}, "expected string, received undefined at conversation_id"),
        ("list_conversations", {"cursor": "nonsense"}, "hint: "),
        ("list_conversations", {"limit": 1.5}, "expected int, received number at limit"),
    ],
)
def test_bad_use_is_told_what_to_do(devices: Devices, name: str, arguments: dict[str, Any], words: str) -> None:
    result = devices.desk.call(name, arguments)
    assert result["isError"]
    assert words in result["content"][0]["text"]


def test_without_a_vault_memory_works_and_a_handoff_says_what_is_missing(server: Any) -> None:
    result = server.call("prepare_handoff")
    assert result["isError"]
    assert "dualmem init" in result["content"][0]["text"]
    text, status = call(server, "memory_status")
    assert status["vault_id"] is None
    assert "vault_id: null" in text
    assert call(server, "list_conversations") == (
        "No conversations.",
        {"conversations": [], "next_cursor": "", "warnings": []},
    )
    assert call(server, "create_entities", {"entities": []})[1] == {"entities": []}


def test_tools_that_return_long_texts_tell_the_client() -> None:
    told = {tool.name: tool.meta for tool in HANDOFF_TOOLS if tool.meta}
    limit = {"anthropic/maxResultSizeChars": MAX_RESULT_CHARACTERS}
    assert told == {"resume_conversation": limit, "load_context": limit}
