"""save_progress: what is kept of a call, where its turns hang, and that nothing is kept twice."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dualmem_mcp.errors import DiskFullError, NotFoundError, UsageError
from dualmem_mcp.model.branches import TurnLink
from dualmem_mcp.model.conversation import Block, Turn
from dualmem_mcp.model.handoff import HandoffRecord
from dualmem_mcp.model.ids import ConversationId, DeviceId, HandoffId
from dualmem_mcp.model.record import RecordType
from dualmem_mcp.model.source import PROGRESS
from dualmem_mcp.stores.blob_cache import DatabaseBlobCache
from dualmem_mcp.stores.conversation_store import ConversationStore
from dualmem_mcp.stores.database import Database
from dualmem_mcp.stores.erasure_rows import ErasedConversations
from dualmem_mcp.stores.record_store import RecordStore
from dualmem_mcp.stores.thread_store import ThreadStore
from dualmem_mcp.stores.turn_rows import add_turns
from dualmem_mcp.sync.progress import ProgressKeeper, remember_shown, save_progress
from dualmem_mcp.sync.progress_input import parse_progress
from tests.conftest import SteppingClock

CHAT = ConversationId("0b5f0c66-7a3e-4f0e-9a53-2c1d5f1b7a10")
PHONE = DeviceId("ab" * 16)


@dataclass
class Phone:
    """One data home, with the stores that save_progress works on."""

    database: Database
    clock: SteppingClock
    name: str = "pocket"
    keeper: ProgressKeeper = field(init=False)

    def __post_init__(self) -> None:
        self.keeper = ProgressKeeper(
            catalogue=ConversationStore(self.database, self.clock, lambda: self.name),
            threads=ThreadStore(self.database, self.clock),
            records=RecordStore(self.database, self.clock, PHONE),
            blobs=DatabaseBlobCache(self.database),
            clock=self.clock,
            device_id=PHONE,
            device_name=self.name,
        )

    def save(self, conversation_id: str | None = CHAT, **given: Any) -> dict[str, Any]:
        return save_progress(self.keeper, conversation_id, parse_progress(**given, now=self.clock.now()))

    def say(self, *texts: str, conversation_id: str | None = CHAT) -> dict[str, Any]:
        roles = ("user", "assistant")
        return self.save(
            conversation_id,
            messages=[{"role": roles[index % 2], "text": text} for index, text in enumerate(texts)],
        )

    def chain(self) -> list[tuple[str | None, str]]:
        """Parent and text of each turn, in order."""
        links = self.keeper.threads.links(CHAT)
        texts = self.keeper.threads.texts(CHAT, [link.uuid for link in links])
        said = {link.uuid: texts[link.uuid] for link in links}
        return [(said.get(link.parent_uuid or "", link.parent_uuid), texts[link.uuid]) for link in links]

    def links(self) -> list[TurnLink]:
        return list(self.keeper.threads.links(CHAT))

    def hand_over(self, last: str, number: int = 1, conversation_id: ConversationId = CHAT) -> None:
        """A handoff that came from the desk."""
        record = HandoffRecord(
            handoff_id=HandoffId(f"{number:032x}"),
            conversation_id=conversation_id,
            title="The crane",
            cwd="/home/ada/crane",
            created_at=self.clock.now(),
            device_id=DeviceId("cd" * 16),
            device_name="desk",
            base=None,
            package_key=f"packages/{number:032x}",
            package_bytes=1,
            manifest_key=f"manifests/a/{number}",
            message_count=4,
            visible_tokens=1,
            digest_tokens=1,
            last_turn_uuid=last,
        )
        self.keeper.catalogue.save_handoff(record)

    def fields(self, kind: RecordType) -> list[dict[str, Any]]:
        found = self.keeper.records.find(conversation_id=CHAT, types=(kind,))
        return [dict(record.fields) for record in found]


@pytest.fixture
def phone(tmp_path: Path, clock: SteppingClock) -> Iterator[Phone]:
    clock.step = timedelta(milliseconds=10)
    with Database.open(tmp_path / "memory.db", bytes(32)) as database:
        yield Phone(database, clock)


def test_messages_follow_on_the_handoff(phone: Phone) -> None:
    phone.hand_over("d")
    report = phone.say("paint it", "red now", "and the hook")
    assert report["saved"]["turns"] == 3
    assert report["conversation_id"] == CHAT
    assert report["title"] == "The crane"
    assert phone.chain() == [("d", "paint it"), ("paint it", "red now"), ("red now", "and the hook")]
    assert {(link.origin, link.device) for link in phone.links()} == {(PROGRESS, "pocket")}
    assert [link.role for link in phone.links()] == ["user", "assistant", "user"]


def test_without_an_id_it_is_the_conversation_handed_over_last(phone: Phone) -> None:
    phone.hand_over("x", 1, ConversationId("older"))
    phone.clock.advance(60)
    phone.hand_over("d", 2)
    assert phone.say("paint it", conversation_id=None)["conversation_id"] == CHAT
    assert phone.chain() == [("d", "paint it")]


def test_without_an_id_and_without_a_handoff_it_says_what_to_do(phone: Phone) -> None:
    with pytest.raises(NotFoundError) as caught:
        phone.say("paint it", conversation_id=None)
    assert "conversation_id" in caught.value.hint


def test_the_same_call_again_saves_nothing(phone: Phone) -> None:
    phone.hand_over("d")
    everything: dict[str, Any] = {
        "messages": [{"role": "user", "text": "paint it"}, {"role": "assistant", "text": "red now"}],
        "summary": "it is painted",
        "decisions": ["red"],
        "next_steps": ["the hook"],
        "notes": ["mind the wind", {"title": "paint", "text": "two coats"}],
        "tasks": ["buy paint", {"text": "clean up", "status": "done"}],
        "bookmarks": [{"turn_id": "d", "label": "where it began"}],
    }
    first = phone.save(**everything)
    assert first["saved"] == {
        "turns": 2, "summary": 1, "decisions": 1, "next_steps": 1, "notes": 2, "tasks": 2, "bookmarks": 1,
    }  # fmt: skip
    assert first["op_count"] == 10
    before = phone.chain()
    phone.clock.advance(3600)
    again = phone.save(**everything)
    assert set(again["saved"].values()) == {0}
    assert again["op_count"] == 0
    assert again["warnings"] == ["these messages were saved before"]
    assert phone.chain() == before


def test_a_client_that_passes_all_that_was_said_so_far_adds_the_rest(phone: Phone) -> None:
    phone.hand_over("d")
    phone.say("one", "two")
    assert phone.say("one", "two", "three", "four")["saved"]["turns"] == 2
    assert phone.say("three", "four", "five")["saved"]["turns"] == 1
    assert [text for _, text in phone.chain()] == ["one", "two", "three", "four", "five"]
    assert phone.chain()[-1] == ("four", "five")


def test_the_same_words_said_again_later_are_kept(phone: Phone) -> None:
    phone.hand_over("d")
    phone.say("go on", "done with A")
    assert phone.say("go on", "done with B")["saved"]["turns"] == 2
    assert [text for _, text in phone.chain()] == ["go on", "done with A", "go on", "done with B"]


def test_a_crash_before_the_place_was_noted_leaves_no_second_branch(phone: Phone) -> None:
    phone.hand_over("d")
    phone.say("one", "two")
    phone.keeper.blobs.put(f"place/{CHAT}", b"{}")
    phone.say("three")
    assert phone.chain()[-1] == ("two", "three")


def test_a_crash_among_the_turns_is_made_good_by_the_same_call(phone: Phone, monkeypatch) -> None:
    phone.hand_over("d")
    put = RecordStore.put

    def fails(self, kind, *given, **more):
        if kind == "task":
            raise DiskFullError("there is no space left", operation="write database")
        return put(self, kind, *given, **more)

    arguments: dict[str, Any] = {
        "messages": [{"role": "user", "text": "one"}],
        "decisions": ["red"],
        "tasks": ["buy paint"],
    }
    with monkeypatch.context() as patched:
        patched.setattr(RecordStore, "put", fails)
        with pytest.raises(DiskFullError):
            phone.save(**arguments)
    assert phone.save(**arguments)["saved"] | {"turns": 0} == {
        "turns": 0, "summary": 0, "decisions": 0, "next_steps": 0, "notes": 0, "tasks": 1, "bookmarks": 0,
    }  # fmt: skip
    assert phone.chain() == [("d", "one")]
    assert phone.fields("task") == [{"text": "buy paint", "status": "open"}]


def test_what_was_shown_last_is_what_is_gone_on_with(phone: Phone) -> None:
    phone.hand_over("d")
    phone.say("one")
    phone.clock.advance(60)
    phone.hand_over("h", 2)
    phone.say("still in the old chat")
    assert phone.chain()[-1] == ("one", "still in the old chat")
    remember_shown(phone.keeper.blobs, CHAT, "h")
    phone.say("in a new chat")
    assert phone.chain()[-1] == ("h", "in a new chat")
    # The answer to the old chat's call was lost, and it calls again.
    assert phone.say("in a new chat")["saved"]["turns"] == 0


def test_a_call_repeated_after_another_device_was_shown_saves_nothing(phone: Phone) -> None:
    phone.hand_over("d")
    phone.say("one", "two")
    tablet = Turn("t1", "d", "user", phone.clock.now(), (Block("text", "from the tablet"),), origin=PROGRESS)
    with phone.database.write() as connection:
        add_turns(connection, CHAT, [tablet], device_name="tablet")
    remember_shown(phone.keeper.blobs, CHAT, "t1")
    assert phone.say("one", "two")["saved"]["turns"] == 0
    phone.say("three")
    assert phone.chain()[-1] == ("from the tablet", "three")


def test_a_new_id_begins_a_conversation(phone: Phone) -> None:
    report = phone.say("  What makes\na crane stand? ", "Its counterweight.")
    assert report["title"] == "What makes a crane stand?"
    assert phone.chain()[0] == (None, "What makes\na crane stand?")
    listed, _ = phone.keeper.catalogue.conversations()
    assert [(one.title, one.message_count) for one in listed] == [("What makes a crane stand?", 2)]
    assert phone.say("  What makes\na crane stand? ", "Its counterweight.")["saved"]["turns"] == 0


def test_notes_alone_begin_a_conversation_too(phone: Phone) -> None:
    phone.save(decisions=["cranes are yellow"])
    listed, _ = phone.keeper.catalogue.conversations()
    assert [(one.title, one.message_count) for one in listed] == [("cranes are yellow", 0)]


def test_the_newer_summary_of_a_device_takes_the_place_of_the_older(phone: Phone) -> None:
    phone.hand_over("d")
    phone.save(summary="half done")
    phone.save(summary="done")
    assert phone.fields("summary") == [{"text": "done", "origin": "model"}]


def test_a_task_named_again_stays_as_it_is_and_can_be_ended(phone: Phone) -> None:
    phone.hand_over("d")
    phone.save(tasks=[{"text": "buy paint"}])
    (task,) = phone.keeper.records.find(conversation_id=CHAT, types=("task",))
    phone.save(tasks=[{"id": task.id[:8], "status": "done"}])
    assert phone.fields("task") == [{"text": "buy paint", "status": "done"}]
    phone.save(tasks=["buy paint"])
    assert phone.fields("task") == [{"text": "buy paint", "status": "done"}]
    phone.save(tasks=[{"text": "buy paint", "status": "open"}])
    assert phone.fields("task") == [{"text": "buy paint", "status": "open"}]


def test_ids_that_a_client_gives_its_tasks_are_its_conversations_own(phone: Phone) -> None:
    phone.hand_over("d")
    phone.save(tasks=[{"id": "1", "text": "buy paint"}])
    phone.save("another", tasks=[{"id": "1", "text": "something else"}])
    phone.save(tasks=[{"id": "1", "status": "completed"}])
    assert phone.fields("task") == [{"text": "buy paint", "status": "done"}]


def test_a_task_that_is_not_there_is_refused_before_anything_is_written(phone: Phone) -> None:
    phone.hand_over("d")
    with pytest.raises(UsageError, match="no task"):
        phone.save(messages=[{"role": "user", "text": "one"}], tasks=[{"id": "nothing", "status": "done"}])
    assert phone.chain() == []


def test_what_was_deleted_stays_deleted_and_is_told(phone: Phone) -> None:
    phone.hand_over("d")
    phone.save(decisions=["red"])
    (record,) = phone.keeper.records.find(types=("decision",))
    phone.keeper.records.delete("decision", record.id)
    report = phone.save(decisions=["red"])
    assert report["saved"]["decisions"] == 0
    assert "deleted" in report["warnings"][0]


def test_bookmarks_take_the_beginning_of_a_uuid(phone: Phone) -> None:
    phone.hand_over("d")
    phone.say("one", "two")
    uuid = phone.links()[1].uuid
    phone.save(bookmarks=[{"turn_id": uuid[:8], "label": "good"}, {"turn_id": uuid, "label": "better"}])
    assert phone.fields("bookmark") == [{"turn_uuid": uuid, "label": "better"}]
    unseen = "8c9f1d7e-0000-4000-8000-000000000000"
    phone.save(bookmarks=[unseen])
    assert phone.fields("bookmark")[-1] == {"turn_uuid": unseen, "label": ""}
    for name in ("zzzz", "1", ""):
        with pytest.raises(UsageError):
            phone.save(bookmarks=[name])


def test_nothing_to_save_is_refused(phone: Phone) -> None:
    phone.hand_over("d")
    with pytest.raises(UsageError, match="nothing to save"):
        phone.save(messages=[{"role": "user", "text": "  "}])


@pytest.mark.parametrize("name", ["../x", "", "a b"])
def test_an_id_that_cannot_be_one_is_refused(phone: Phone, name: str) -> None:
    with pytest.raises(UsageError):
        phone.save(name, decisions=["red"])


def test_an_erased_conversation_takes_nothing(phone: Phone) -> None:
    erased = ErasedConversations(phone.database, phone.clock, PHONE, name_of=lambda one: one.encode().hex()[:32])
    phone.hand_over("d")
    phone.say("one")
    assert erased.erase(CHAT)
    with phone.database.read() as connection:
        ops = connection.execute("SELECT count(*) FROM ops").fetchone()
    with pytest.raises(NotFoundError, match="erased"):
        phone.save(messages=[{"role": "user", "text": "two"}], decisions=["red"])
    assert phone.chain() == []
    with phone.database.read() as connection:
        assert connection.execute("SELECT count(*) FROM ops").fetchone() == ops


def test_half_of_a_surrogate_pair_is_kept(phone: Phone) -> None:
    phone.hand_over("d")
    phone.say("a \ud83d half")
    assert phone.chain() == [("d", "a \ud83d half")]
    assert phone.say("a \ud83d half")["saved"]["turns"] == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a process that can be copied")
def test_an_end_at_any_moment_and_the_same_call_again_leave_everything_once(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.sync.crashes_of_progress", str(tmp_path)],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 15
