"""What each page shows and does, over a real application."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dualmem_mcp.errors import StoreUnreachableError
from dualmem_mcp.model.grant import OWNER
from dualmem_mcp.model.graph import Entity
from dualmem_mcp.ports import CLIENT_PLACES
from dualmem_mcp.remote.options import RemoteOptions
from tests.handoff.conftest import PASSPHRASE, SESSION_ID, World
from tests.remote.pages.conftest import PUBLIC_URL, Browser
from tests.remote.pages.memory import TALK, Host


@pytest.fixture
def own(own_host: Host):
    """The owner of a memory of the test's own, logged in."""
    with Browser(own_host) as client:
        client.log_in()
        yield client


def test_conversations_are_paged_from_the_newest(world: World) -> None:
    desk = world.desktop()
    for index in range(23):
        world.write_session([*TALK], f"0b5f0c66-7a3e-4f0e-9a53-0000000000{index:02}")
        desk.prepare_handoff(f"0b5f0c66-7a3e-4f0e-9a53-0000000000{index:02}")
        world.clock.advance(60)
    with Browser(Host({OWNER: desk}, RemoteOptions(PUBLIC_URL))) as client:
        client.log_in()
        first = client.get("/").text
        shown = [f"/c/0b5f0c66-7a3e-4f0e-9a53-0000000000{index:02}" in first for index in range(23)]
        assert shown == [False] * 3 + [True] * 20
        older = first.partition('href="/?after=')[2].partition('"')[0]
        second = client.get(f"/?after={older}").text
        assert [f"0000000000{index:02}" in second for index in range(4)] == [True] * 3 + [False]
        assert ">Newest<" in second
        assert ">Older<" not in second
        found = client.get("/?q=000000000007").text
        assert "/c/0b5f0c66-7a3e-4f0e-9a53-000000000007" in found
        assert "000000000008" not in found
        assert client.get("/?after=0:nope").status_code == 400


def test_empty_pages_say_what_to_do(world: World) -> None:
    with Browser(Host({OWNER: world.open("desktop")}, RemoteOptions(PUBLIC_URL))) as client:
        client.log_in()
        client.host.let_in.of[OWNER] = []
        for path, advice in (
            ("/", "dualmem handoff"),
            ("/?q=x", "Search what was said"),
            ("/search?q=x", "Nothing was found"),
            ("/devices", "dualmem join"),
            ("/clients", "/mcp"),
            ("/conflicts", "No conflicts"),
            ("/state", "not yet"),
            ("/export", "0 entities"),
        ):
            answer = client.get(path)
            assert answer.status_code == 200, path
            assert advice in answer.text, path
        # What cannot be done without a vault says so.
        missing = client.submit("/state/sync")
        assert missing.status_code == 404
        assert "vault" in missing.text


def test_a_brief_is_read_by_a_person_and_not_by_a_client(own: Browser, own_host: Host) -> None:
    place = CLIENT_PLACES + SESSION_ID
    page = own.get(f"/c/{SESSION_ID}").text
    assert "Does that also hold for files from Windows?" in page
    assert "record-" not in page
    assert "take no orders" not in page
    assert f'href="/c/{SESSION_ID}/thread"' in page
    # What a client saves later follows on what it was shown, and this page is no client.
    assert own_host.app.blobs.get(place) is None
    own_host.app.resume_conversation(SESSION_ID)
    assert own_host.app.blobs.get(place) is not None


def test_results_lead_to_their_turn(owner: Browser) -> None:
    page = owner.get("/search?q=order+of+the+rows&where=conversations").text
    assert f"/c/{SESSION_ID}/thread?at=00000000-0000-4000-8000-000000000000" in page
    assert "desk" in page
    assert "by words alone" in page
    turn = owner.get(f"/c/{SESSION_ID}/thread?at=00000002").text
    assert "Does that also hold for files from Windows?" in turn
    assert "drops the last row" not in turn.partition("<article")[2]
    chosen = owner.get("/search?q=rows&where=memory&when=30d").text
    assert '<option value="memory" selected>' in chosen
    assert '<option value="30d" selected>' in chosen
    assert chosen.count(" selected") == 2
    # Choices that there are not count as the usual ones.
    assert owner.get("/search?q=rows&where=nowhere&when=never").status_code == 200


def test_a_conflict_is_decided_for_either_side(own: Browser, own_host: Host) -> None:
    [conflict] = own_host.app.list_conflicts()["conflicts"]
    form = {"conflict": conflict["conflict_id"], "seen": conflict["kept"]["stamp"]}
    for unclear in ({}, {"keep": "yes", "take": conflict["lost"][0]["stamp"]}):
        assert own.submit("/conflicts/decide", **form, **unclear).status_code == 400
    stale = own.submit("/conflicts/decide", conflict=conflict["conflict_id"], seen="deleted", keep="yes")
    assert stale.status_code == 409
    assert "since you looked" in stale.text
    assert own.submit("/conflicts/decide", **form, take="0" * 16 + "-" + "0" * 32).status_code == 400
    assert own_host.app.list_conflicts()["count"] == 1
    taken = own.submit("/conflicts/decide", **form, take=conflict["lost"][0]["stamp"])
    assert taken.headers["location"] == "/conflicts?done=taken"
    assert own_host.app.list_conflicts()["count"] == 0
    [crane] = own_host.app.graph.open_nodes(["harbour crane!"]).entities
    assert crane.entity_type == conflict["lost"][0]["value"]
    again = own.submit("/conflicts/decide", **form, keep="yes")
    assert again.status_code == 404
    assert "decided already" in again.text
    assert 'class="button" href="/conflicts"' in again.text


def test_state_tells_of_a_bucket_that_is_away(own: Browser, own_host: Host, world: World) -> None:
    assert own.submit("/state/sync").headers["location"] == "/state?done=synced"
    assert "Synced just now" in own.get("/state?done=synced").text
    world.bucket.rename(world.root / "elsewhere")
    assert own.submit("/state/sync").headers["location"] == "/state?done=away"
    page = own.get("/state?done=away").text
    assert "tried again by itself" in page
    assert "<script" not in own.get("/state?done=<script>").text
    # What is on this host can be read all the same.
    assert "marmalade importer" in own.get("/").text
    assert own.get(f"/c/{SESSION_ID}").status_code == 200
    assert own.submit("/devices/revoke", device="x", passphrase=PASSPHRASE).status_code == 404


def test_the_export_is_the_graph_line_by_line(own: Browser, own_host: Host, world: World, tmp_path: Path) -> None:
    own_host.app.graph.create_entities([Entity("half", "pair", ("\ud83d",))])
    answer = own.submit("/export", passphrase=PASSPHRASE)
    assert answer.headers["content-type"].startswith("application/jsonl")
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''memory-2026-03-01.jsonl"
    lines = [json.loads(line) for line in answer.content.splitlines()]
    assert {line["name"] for line in lines if line["type"] == "entity"} >= {"Ada", "marmalade importer", "half"}
    (tmp_path / "memory.jsonl").write_bytes(answer.content)
    other = world.open("other")
    other.import_file(tmp_path / "memory.jsonl")
    assert len(other.graph.read_graph().entities) == len(own_host.app.graph.read_graph().entities)
    assert own.get("/").status_code == 200  # half a pair breaks no page


def test_a_device_is_revoked_once_whatever_comes_after(
    own: Browser, own_host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise StoreUnreachableError("the bucket went away", operation="write", hint="Run `dualmem compact` later.")

    monkeypatch.setattr(own_host.app.sharing, "_replace_snapshot", fail)
    devices = {one["name"]: one["device_id"] for one in own_host.app.sharing.devices()}
    assert own.submit("/devices/revoke", device=devices["desk"], passphrase=PASSPHRASE).status_code == 404
    assert "shown once" in own.get(f"/devices/revoke?device={devices['pocket']}").text
    with ThreadPoolExecutor(2) as pool:
        form = {"device": devices["pocket"], "passphrase": PASSPHRASE}
        answers = list(pool.map(lambda _: own.submit("/devices/revoke", **form), range(2)))
    done, again = sorted(answers, key=lambda answer: answer.status_code)
    assert done.status_code == 200
    assert "DMR1-" in done.text
    assert "The bucket went away" in done.text or "the bucket went away" in done.text
    assert again.status_code == 409
    assert "recovery-key new" in again.text
    assert "DMR1-" not in again.text


def test_a_data_home_that_fails_is_a_page(owner: Browser, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise StoreUnreachableError("the disk is full of sand", operation="read", hint="Shake it.")

    monkeypatch.setattr(host.app, "list_conversations", fail)
    answer = owner.get("/")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "10"
    assert "The disk is full of sand." in answer.text
    assert "Shake it." in answer.text
