"""Servers of different devices over one bucket: what one writes, the other's clients hear of."""

from __future__ import annotations

import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.server.conftest import Vault, entity

GRAPH_URI = "memory://knowledge-graph"
UPDATED = "notifications/resources/updated"
QUICK = {"sync": {"poll_seconds": 0.2, "idle_seconds": 0.2, "batch_ms": 50, "background_seconds": 1}}


def names(server: Any) -> list[str]:
    return [found["name"] for found in server.call("read_graph")["structuredContent"]["entities"]]


@pytest.fixture
def vault(tmp_path: Path, make_vault: Any) -> Vault:
    return make_vault(tmp_path / "vault")


def test_a_write_on_one_device_is_heard_on_the_other(vault: Vault) -> None:
    for device in ("desk", "phone"):
        vault.configure(device, **QUICK)
    desk, phone = vault.server("desk"), vault.server("phone")
    phone.ask("resources/subscribe", {"uri": GRAPH_URI})
    desk.call("create_entities", {"entities": [entity("crane")]})
    assert phone.hear(UPDATED) == {"uri": GRAPH_URI}
    assert names(phone) == ["crane"]
    desk.ask("resources/subscribe", {"uri": GRAPH_URI})
    phone.call("create_entities", {"entities": [entity("winch")]})
    assert desk.hear(UPDATED) == {"uri": GRAPH_URI}
    assert names(desk) == ["crane", "winch"]
    for server in (desk, phone):
        assert server.close_input() == 0
        assert server.stderr == ""


def test_what_a_process_of_the_data_home_syncs_the_other_ones_clients_hear(vault: Vault) -> None:
    vault.configure("phone", sync={"automatic": False})
    listener, syncing, desk = vault.server("phone"), vault.server("phone"), vault.server("desk")
    listener.ask("resources/subscribe", {"uri": GRAPH_URI})
    desk.call("create_entities", {"entities": [entity("crane")]})
    desk.call("sync_memory")
    syncing.call("sync_memory")
    assert listener.hear(UPDATED) == {"uri": GRAPH_URI}
    assert names(listener) == ["crane"]


def test_progress_on_one_device_is_heard_by_who_follows_the_conversation_on_the_other(vault: Vault) -> None:
    for device in ("desk", "phone"):
        vault.configure(device, **QUICK)
    desk, phone = vault.server("desk"), vault.server("phone")
    conversation = "0b5f0c66-7a3e-4f0e-9a53-2c1d5f1b7a10"
    uri = f"dualmem://conversation/{conversation}/brief"
    desk.ask("resources/subscribe", {"uri": uri})
    for progress in ({"summary": "Found it."}, {"notes": [{"text": "Mind the tide."}]}):
        saved = phone.call("save_progress", {"conversation_id": conversation, **progress})
        assert saved["structuredContent"]["op_count"] >= 1
        assert desk.hear(UPDATED) == {"uri": uri}


def test_what_was_written_last_is_sent_before_the_server_ends(vault: Vault) -> None:
    vault.configure("desk", sync={"poll_seconds": 3600, "batch_ms": 3_600_000, "batch_changes": 100})
    desk = vault.server("desk")
    desk.call("create_entities", {"entities": [entity("last words")]})
    assert desk.close_input() == 0
    assert len(vault.log_objects()) == 1
    assert desk.stderr == ""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_signal_leaves_time_for_what_was_written_last(vault: Vault) -> None:
    vault.configure("desk", sync={"poll_seconds": 3600, "batch_ms": 3_600_000, "batch_changes": 100})
    desk = vault.server("desk")
    desk.call("create_entities", {"entities": [entity("last words")]})
    desk.process.send_signal(signal.SIGTERM)
    assert desk.wait() == -signal.SIGTERM
    assert len(vault.log_objects()) == 1


def test_a_bucket_that_is_away_costs_the_server_a_line_in_the_log(vault: Vault) -> None:
    vault.configure("desk", **QUICK)
    (vault.root / "bucket").rename(vault.root / "elsewhere")
    desk = vault.server("desk")
    desk.call("create_entities", {"entities": [entity("offline")]})
    desk.wait_for_stderr("bucket")
    (vault.root / "elsewhere").rename(vault.root / "bucket")
    desk.call("create_entities", {"entities": [entity("online")]})
    phone = vault.server("phone")
    phone.call("sync_memory")
    while names(phone) != ["offline", "online"]:
        phone.call("sync_memory")
    assert len(desk.stderr.splitlines()) == 1


def test_a_bucket_that_never_answers_does_not_keep_the_server(vault: Vault, start_process: Any) -> None:
    vault.configure("desk", **QUICK)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        mute.settimeout(30)
        environment = {
            **vault.environment("desk"),
            "DUALMEM_BUCKET": "s3://some-bucket/prefix",
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{mute.getsockname()[1]}",
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
            "AWS_REGION": "us-east-1",
        }
        desk = start_process([sys.executable, "-m", "dualmem_mcp.server.serve"], environment)
        desk.initialize()
        desk.call("create_entities", {"entities": [entity("waits")]})
        with mute.accept()[0]:  # a sync waits for its first answer, and will for half a minute
            assert names(desk) == ["waits"]
            began = time.monotonic()
            assert desk.close_input() == 0
            assert time.monotonic() - began < 20
    assert "Traceback" not in desk.stderr
    assert "Fatal" not in desk.stderr


def test_a_device_without_a_vault_leaves_no_trace_of_sync(start_server: Any, tmp_path: Path) -> None:
    server = start_server()
    server.initialize()
    server.call("create_entities", {"entities": [entity("kept here")]})
    assert server.close_input() == 0
    assert server.stderr == ""
    assert not (tmp_path / "bucket").exists()
    assert not (tmp_path / "data" / ".last_sync").exists()
