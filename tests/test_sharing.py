"""What devices share, as applications see it: names, what a sync costs, and who hears of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dualmem_mcp.app import App
from dualmem_mcp.errors import NotFoundError, UsageError
from dualmem_mcp.model.ids import ConversationId
from dualmem_mcp.model.index_scope import IndexScope
from dualmem_mcp.sync.engine import Merged
from tests.conftest import SteppingClock
from tests.handoff.conftest import SESSION_ID, World, bare_environment

__all__ = ["bare_environment"]

OTHER_ID = "11111111-7a3e-4f0e-9a53-2c1d5f1b7a10"


@pytest.fixture
def world(tmp_path: Path, clock: SteppingClock) -> Iterator[World]:
    made = World(tmp_path, clock)
    yield made
    made.close()


def devices_of_turns(app: App, conversation_id: str) -> list[str]:
    return [link.device for link in app.threads.links(ConversationId(conversation_id))]


def test_a_device_has_its_name_from_the_moment_it_belongs_to_a_vault(world: World) -> None:
    desk = world.open("desktop", index=IndexScope("all"))
    assert desk.settings.device_name == ""
    desk.init("correct horse battery staple", device_name="desk")
    world.write_session(["What holds the harbour?", "Rust."])
    desk.local_edge.catch_up()
    assert devices_of_turns(desk, SESSION_ID) == ["desk", "desk"]
    world.write_session(["What is for lunch?", "Soup."], OTHER_ID)
    desk.prepare_handoff(OTHER_ID)
    assert devices_of_turns(desk, OTHER_ID) == ["desk", "desk"]
    desk.sync()
    phone = world.phone()
    phone.sync()
    assert {one["device_name"] for one in phone.list_conversations()["conversations"]} == {"desk"}


def test_a_copied_data_home_gets_a_name_of_its_own_and_what_it_has_not_told_yet_is_under_it(world: World) -> None:
    desk = world.desktop(index=IndexScope("all"))
    world.write_session(["What holds the harbour?", "Rust."])
    desk.prepare_handoff(SESSION_ID)
    desk.sync()
    desk.close()
    shutil.copytree(world.root / "desktop", world.root / "copy")
    desk = world.open("desktop")
    desk.save_progress(SESSION_ID, messages=[{"role": "user", "text": "said at the desk"}])
    desk.sync()
    copy = world.open("copy")
    copy.save_progress(SESSION_ID, messages=[{"role": "user", "text": "said at the copy"}])
    copy.save_progress(OTHER_ID, messages=[{"role": "user", "text": "begun at the copy"}])
    report = copy.sync()
    assert any("as a new device, 'desk (2)'" in warning for warning in report["warnings"])
    desk.sync()
    for app in (desk, copy):
        assert [one["name"] for one in app.sharing.devices()] == ["desk", "desk (2)"]
        assert sorted(devices_of_turns(app, SESSION_ID)) == ["desk", "desk", "desk", "desk (2)"]
        listed = {one["conversation_id"]: one for one in app.list_conversations()["conversations"]}
        assert listed[OTHER_ID]["device_name"] == "desk (2)"
        assert sorted(branch["devices"] for branch in listed[SESSION_ID]["branches"]) == [["desk"], ["desk (2)"]]
    status = copy.status()
    assert (status["device_name"], status["device_id"]) == ("desk (2)", copy.sharing.devices()[1]["device_id"])
    copy.save_progress(OTHER_ID, messages=[{"role": "assistant", "text": "said later"}])
    assert devices_of_turns(copy, OTHER_ID) == ["desk (2)", "desk (2)"]


def test_what_is_found_of_notes_and_tasks_says_where_they_were_made(world: World) -> None:
    desk = world.desktop()
    phone = world.phone()
    phone.notebook.add_note("The winch is greased")
    phone.sync()
    desk.sync()
    desk.notebook.add_task("Paint the winch")
    for app in (desk, phone):
        app.sync()
    for app in (desk, phone):
        app.local_edge.catch_up(embed=False)
        found = app.local_edge.search("winch")["results"]
        assert {one["text"]: one["device"] for one in found} == {
            "The winch is greased": "pocket",
            "[open] Paint the winch": "desk",
        }


def test_what_snapshots_ask_of_the_bucket_is_counted(world: World) -> None:
    desk = world.desktop()
    desk.notebook.add_note("one")
    desk.compact(force=True, grace_days=0)
    desk.notebook.add_note("two")
    desk.compact(force=True, grace_days=0)
    phone = world.phone()
    objects = phone.channel().objects
    get, asked = objects.get, []

    def noted(key: str, **how: int) -> bytes:
        asked.append(key)
        return get(key, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objects, "get", noted)
        requests = phone.sync()["requests"]
    assert {one.fields["text"] for one in phone.records.find()} == {"one", "two"}
    assert sum(key.startswith("snapshots/") for key in asked) >= 3  # pointer, manifest, part
    assert requests["get"] == sum(not key.startswith("keys/") for key in asked)


def test_listeners_hear_of_what_came_in_before_an_error(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = world.desktop()
    phone = world.phone()
    desk.notebook.add_note("one")
    desk.sync()
    told: list[Merged] = []
    phone.sharing.on_synced(told.append)

    def fail(*_: object) -> None:
        raise ValueError("a fault")

    with monkeypatch.context() as patch:
        patch.setattr(phone.sharing.log, "unsealed", fail)
        with pytest.raises(ValueError, match="a fault"):
            phone.sync()
    assert len(told) == 1
    assert len(told[0].subjects) == 1
    assert phone.status()["sync_problem"].endswith("an internal fault (ValueError)")
    phone.sync()
    assert len(told) == 1


def test_a_bookmark_is_on_a_turn_that_there_is(world: World) -> None:
    desk = world.desktop()
    world.write_session(["What holds the harbour?", "Rust."])
    desk.prepare_handoff(SESSION_ID)
    turn = "00000001-0000-4000-8000-000000000000"
    for name in (turn, turn[:8]):
        assert desk.notebook.add_bookmark(SESSION_ID, name, label="rust")["turn_uuid"] == turn
    unseen = "2b5f0c66-7a3e-4f0e-9a53-2c1d5f1b7a10"
    assert desk.notebook.add_bookmark(SESSION_ID, unseen)["turn_uuid"] == unseen
    with pytest.raises(UsageError, match="no turn of the conversation begins with 'zzzz'"):
        desk.notebook.add_bookmark(SESSION_ID, "zzzz")
    with pytest.raises(UsageError, match="2 turns of the conversation begin with '0000'"):
        desk.notebook.add_bookmark(SESSION_ID, "0000")
    with pytest.raises(NotFoundError, match=f"there is no conversation {OTHER_ID} here"):
        desk.notebook.add_bookmark(OTHER_ID, turn)
    assert len(desk.notebook.entries()) == 3
