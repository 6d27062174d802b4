"""From the desk to the phone and back: two data homes, one bucket, one session file."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dualmem_mcp.app import App
from dualmem_mcp.errors import NotFoundError
from dualmem_mcp.handoff.reconstruct import PackageGoneError
from dualmem_mcp.model.ids import ConversationId
from dualmem_mcp.model.index_scope import IndexScope
from dualmem_mcp.model.source import PROGRESS
from dualmem_mcp.transcripts.claude_code import read_session
from dualmem_mcp.transcripts.slug import project_slug
from tests.conftest import SteppingClock
from tests.handoff.conftest import SESSION_ID, World, bare_environment

__all__ = ["bare_environment"]

TALK = [f"desk message {number}" for number in range(20)]


@pytest.fixture
def world(tmp_path: Path, clock: SteppingClock) -> Iterator[World]:
    made = World(tmp_path, clock)
    yield made
    made.close()


class Trip:
    """A desk that handed its session over, and a phone that took it up."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.path = world.write_session(TALK)
        self.desk = world.desktop(device_name="desk", index=IndexScope("all"))
        self.first = self.desk.prepare_handoff()
        self.phone = world.phone(device_name="pocket")
        world.clock.advance(60)  # type: ignore[attr-defined]
        self.phone.resume_conversation()

    def on_the_road(self, *texts: str, device: App | None = None, **given: Any) -> dict[str, Any]:
        """What the phone's client saves, half a minute later."""
        self.world.clock.advance(30)  # type: ignore[attr-defined]
        roles = ("user", "assistant")
        messages = [{"role": roles[index % 2], "text": text} for index, text in enumerate(texts)]
        return (device or self.phone).save_progress(SESSION_ID, messages=messages, **given)

    def at_the_desk(self, *texts: str, path: Path | None = None) -> None:
        """Claude Code goes on with the session, after a hook's record as newer versions write one."""
        self.world.clock.advance(30)  # type: ignore[attr-defined]
        path = path or self.path
        records = [json.loads(line) for line in path.read_bytes().splitlines()]
        parent = records[-1]["uuid"]
        copied = ("isSidechain", "userType", "cwd", "version", "gitBranch")
        model = {name: records[0][name] for name in copied if name in records[0]}
        lines = []
        for index, text in enumerate(("hook", *texts)):
            number = len(records) + len(lines)
            uuid = f"{number:08x}-1111-4000-8000-000000000000"
            role = "assistant" if index % 2 == 0 else "user"
            content = text if role == "user" else [{"type": "text", "text": text}]
            message = (
                {"type": role, "message": {"role": role, "content": content}}
                if index
                else {"type": "attachment", "attachment": {"type": "hook_success"}}
            )
            time = self.world.clock.now().isoformat().replace("+00:00", "Z")  # type: ignore[attr-defined]
            record = {
                **model,
                **message,
                "sessionId": path.stem,
                "uuid": uuid,
                "parentUuid": parent,
                "timestamp": time,
            }
            lines.append(json.dumps(record) + "\n")
            parent = uuid
        with path.open("a") as file:
            file.writelines(lines)

    def exchange(self, *devices: App) -> None:
        """Everybody's changes reach everybody."""
        devices = devices or (self.phone, self.desk)
        for app in (*devices, *devices):
            app.sync()

    def said(self, path: Path | None = None) -> list[str]:
        return [turn.text for turn in read_session(path or self.path).all_turns()]


@pytest.fixture
def trip(world: World) -> Trip:
    return Trip(world)


def test_there_and_back_again(trip: Trip) -> None:
    trip.on_the_road(
        "paint it",
        "red now",
        summary="it is painted",
        decisions=["red, as the neighbour's is green"],
        next_steps=["the hook"],
        tasks=["buy paint", {"text": "measure it", "status": "done"}],
        notes=["mind the wind"],
    )
    trip.exchange()

    brief = trip.desk.resume_conversation()
    since = brief["since_handoff"]
    assert (since["count"], since["summary"]) == (2, "it is painted")
    assert [(turn["role"], turn["text"], turn["device"]) for turn in since["turns"]] == [
        ("user", "paint it", "pocket"),
        ("assistant", "red now", "pocket"),
    ]
    assert [one["text"] for one in since["decisions"]] == ["red, as the neighbour's is green"]
    assert [(one["text"], one["status"]) for one in since["tasks"]] == [
        ("buy paint", "open"),
        ("measure it", "done"),
    ]
    assert [one["text"] for one in (*since["next_steps"], *since["notes"])] == ["the hook", "mind the wind"]
    assert brief["branches"] == since["branches"] == []
    shown = brief["brief"].split("## Since the handoff")[1]
    for words in ("user on pocket: paint it", "decided: red", "buy paint", "next: the hook", "mind the wind"):
        assert words in shown

    before = trip.path.read_bytes()
    restored = trip.desk.restore(SESSION_ID)
    assert (restored["session_id"], restored["woven_turns"]) == (SESSION_ID, 2)
    assert trip.path.read_bytes().startswith(before)
    assert trip.said() == [*TALK, "paint it", "red now"]
    assert trip.desk.restore(SESSION_ID)["woven_turns"] == 0

    trip.at_the_desk("and the hook?", "black")
    second = trip.desk.prepare_handoff()
    assert second["message_count"] == len(TALK) + 4
    trip.exchange()
    for app in (trip.desk, trip.phone):
        links = app.threads.links(restored["session_id"])
        assert len(links) == len({link.uuid for link in links}) == len(TALK) + 4
    brief = trip.phone.resume_conversation()
    assert brief["since_handoff"]["count"] == 0
    assert brief["branches"] == []
    assert "red, as the neighbour's is green" in [one["text"] for one in brief["decisions"]]
    assert "buy paint" in brief["brief"]
    assert trip.phone.list_conversations()["conversations"][0]["branches"] == []

    trip.on_the_road("one more", "yes")
    trip.exchange()
    assert trip.desk.restore(SESSION_ID)["woven_turns"] == 2
    assert trip.said() == [*TALK, "paint it", "red now", "and the hook?", "black", "one more", "yes"]


def test_handing_over_again_builds_on_the_handoff_before(world: World) -> None:
    trip = Trip(world)
    path = world.write_session(
        [f"message {number} {number * 7919 % 997} " + "words " * 200 for number in range(400)]
    )
    first = trip.desk.prepare_handoff()
    trip.phone.resume_conversation()
    trip.on_the_road("paint it", "red now")
    trip.exchange()
    assert trip.desk.restore(SESSION_ID)["woven_turns"] == 2
    second = trip.desk.prepare_handoff()
    assert second["warnings"] == []
    record = trip.desk.catalogue.newest_handoff()
    assert record is not None
    assert record.base == first["handoff_id"]
    assert second["package_bytes"] <= first["package_bytes"] / 2
    other = world.open("laptop", claude_dir=world.root / "elsewhere", device_name="lap")
    other.join("correct horse battery staple", device_name="lap")
    restored = other.restore(SESSION_ID)
    assert Path(restored["session_path"]).read_bytes() == path.read_bytes()


def test_both_went_on(trip: Trip) -> None:
    trip.on_the_road("the phone goes on", "so it does")
    trip.at_the_desk("the desk goes on", "so it does, too", "twice", "yes")
    trip.desk.local_edge.catch_up()
    trip.exchange()
    brief = trip.desk.resume_conversation()
    assert [(one["devices"], one["turns"], one["newest"]) for one in brief["branches"]] == [
        (["desk"], 4, True),
        (["pocket"], 2, False),
    ]
    assert "2 branches" in brief["brief"]
    listed = trip.desk.list_conversations()["conversations"][0]
    assert listed["branches"] == brief["branches"]
    assert trip.phone.resume_conversation()["branches"] == brief["branches"]

    before = trip.path.read_bytes()
    restored = trip.desk.restore(SESSION_ID)
    assert trip.path.read_bytes() == before
    assert restored["session_id"] != SESSION_ID
    assert trip.said(Path(restored["session_path"])) == [*TALK, "the phone goes on", "so it does"]
    ways = {one["session_id"]: one["devices"] for one in restored["sessions"]}
    assert ways == {SESSION_ID: ["desk"], restored["session_id"]: ["pocket"]}
    assert any("desk in" in warning and "pocket in" in warning for warning in restored["warnings"])
    assert trip.desk.restore(SESSION_ID)["session_id"] in ways


def branches_of(app: App) -> list[list[str]]:
    listed = app.list_conversations()["conversations"]
    (found,) = [one["branches"] for one in listed if one["conversation_id"] == SESSION_ID]
    return [branch["devices"] for branch in found]


def test_a_branch_in_a_session_of_its_own_is_open_no_more(trip: Trip) -> None:
    trip.on_the_road("the phone goes on", "so it does")
    trip.at_the_desk("the desk goes on", "so it does, too")
    trip.desk.local_edge.catch_up()
    trip.exchange()
    assert branches_of(trip.desk) == branches_of(trip.phone) == [["desk"], ["pocket"]]
    apart = trip.desk.restore(SESSION_ID)["session_id"]
    assert apart != SESSION_ID
    # Where it was written that is known at once, elsewhere when the session was handed over or indexed.
    assert branches_of(trip.desk) == []
    brief = trip.desk.resume_conversation(SESSION_ID)
    assert (brief["branches"], "branches" in brief["brief"]) == ([], False)
    assert [turn["text"] for turn in brief["since_handoff"]["turns"]][:2] == ["the phone goes on", "so it does"]
    trip.exchange()
    assert len(branches_of(trip.phone)) == 2
    trip.desk.prepare_handoff(apart)
    trip.exchange()
    assert branches_of(trip.phone) == []
    # Until somebody goes on with it.
    trip.on_the_road("once more on the phone")
    trip.exchange()
    assert branches_of(trip.desk) == branches_of(trip.phone) == [["pocket"], ["desk"]]
    assert trip.desk.restore(SESSION_ID)["session_id"] == apart
    assert branches_of(trip.desk) == []
    trip.desk.erase(SESSION_ID)
    assert not [key for key in trip.desk.blobs.keys("place/") if SESSION_ID in key]


def test_a_session_that_was_forked_leaves_the_branches_open(trip: Trip) -> None:
    """As `claude --fork-session` does: the same turns under another id."""
    trip.on_the_road("the phone goes on", "so it does")
    trip.at_the_desk("the desk goes on", "so it does, too")
    fork = trip.path.with_name("11111111-7a3e-4f0e-9a53-2c1d5f1b7a10.jsonl")
    fork.write_text(trip.path.read_text().replace(SESSION_ID, fork.stem))
    trip.desk.local_edge.catch_up()
    trip.exchange()
    assert trip.desk.catalogue.knows(fork.stem)
    for app in (trip.desk, trip.phone):
        assert branches_of(app) == [["desk"], ["pocket"]]


def test_the_desk_that_went_on_is_seen_without_an_index(trip: Trip) -> None:
    """What stands in the session file alone counts: neither resume nor restore waits for it to be indexed."""
    trip.on_the_road("the phone goes on")
    trip.at_the_desk("the desk goes on", "so it does")
    trip.exchange()
    brief = trip.desk.resume_conversation()
    assert brief["since_handoff"]["new_turns_on_this_device"] == 2
    assert brief["since_handoff"]["count"] == 3
    assert len(brief["branches"]) == 2
    before = trip.path.read_bytes()
    restored = trip.desk.restore(SESSION_ID)
    assert restored["session_id"] != SESSION_ID
    assert trip.path.read_bytes() == before


def test_a_later_handoff_does_not_hide_what_the_phone_said_before(trip: Trip) -> None:
    trip.on_the_road("said on the phone", "heard")
    trip.at_the_desk("the desk goes on", "so it does")
    trip.desk.prepare_handoff()
    trip.exchange()
    brief = trip.phone.resume_conversation()
    assert [turn["text"] for turn in brief["since_handoff"]["turns"]] == ["said on the phone", "heard"]
    assert len(brief["branches"]) == 2
    restored = trip.desk.restore(SESSION_ID)
    assert trip.said(Path(restored["session_path"])) == [*TALK, "said on the phone", "heard"]
    assert trip.said()[-1] == "so it does"


def test_a_machine_without_the_session_gets_it_with_all_turns(trip: Trip, world: World) -> None:
    trip.on_the_road("paint it", "red now")
    laptop = world.open("laptop", claude_dir=world.root / "elsewhere", device_name="lap")
    laptop.join("correct horse battery staple", device_name="lap")
    trip.exchange(trip.phone, trip.desk, laptop)
    restored = laptop.restore(SESSION_ID, cwd=str(world.project))
    path = Path(restored["session_path"])
    assert restored["session_id"] == SESSION_ID
    assert trip.said(path) == [*TALK, "paint it", "red now"]
    trip.at_the_desk("now on the laptop", "fine", path=path)
    second = laptop.prepare_handoff(SESSION_ID)
    assert second["message_count"] == len(TALK) + 4
    trip.exchange(laptop, trip.desk)
    assert trip.desk.restore(SESSION_ID)["woven_turns"] == 0
    assert trip.said() == [*TALK, "paint it", "red now", "now on the laptop", "fine"]


def test_a_conversation_that_began_on_the_phone_is_resumed_at_the_desk(trip: Trip) -> None:
    texts = ["What makes a crane stand?", "Its counterweight.", "No, use a heavier one", "Done."]
    trip.phone.save_progress(
        "from-the-road",
        messages=[{"role": ("user", "assistant")[index % 2], "text": text} for index, text in enumerate(texts)],
        tasks=["weigh it"],
        decisions=["ten tons"],
    )
    trip.exchange()
    brief = trip.desk.resume_conversation("from-the-road")
    assert (brief["handoff_id"], brief["title"]) == ("", "What makes a crane stand?")
    assert brief["resumption_point"]["last_request"]["text"] == "No, use a heavier one"
    assert brief["resumption_point"]["last_reply"]["text"] == "Done."
    for words in ("Its counterweight.", "weigh it", "ten tons"):
        assert words in brief["brief"]
    assert any("never handed over" in warning for warning in brief["warnings"])
    assert "Since the handoff" not in brief["brief"]
    assert "## Settled and noted\n- decided: ten tons" in brief["brief"]
    with pytest.raises(NotFoundError) as raised:
        trip.desk.make_offline("from-the-road")
    assert "`dualmem resume from-the-road` shows" in raised.value.hint
    listed = {one["conversation_id"]: one for one in trip.desk.list_conversations()["conversations"]}
    assert listed["from-the-road"]["handoff_id"] is None
    trip.desk.save_progress("from-the-road", messages=[{"role": "user", "text": "and now from the desk"}])
    links = trip.desk.threads.links(listed["from-the-road"]["conversation_id"])
    assert links[-1].parent_uuid == links[-2].uuid
    thread = trip.desk.load_context("from-the-road", "thread")
    assert "Its counterweight." in thread["text"]
    assert "ten" not in thread["text"]
    assert "heavier" in trip.desk.load_context("from-the-road", "requests")["text"]
    for ask in (trip.desk.resume_conversation, lambda name: trip.desk.load_context(name, "thread")):
        with pytest.raises(NotFoundError):
            ask("nobody-knows-it")


ROAD_ID = "2b5f0c66-7a3e-4f0e-9a53-2c1d5f1b7a10"
ROAD = ["What makes a crane stand?", "Its counterweight.", "How heavy?", "Ten tons."]


def said_on_the_road(trip: Trip, conversation_id: str, texts: list[str] = ROAD, **given: Any) -> None:
    """The phone's client begins a conversation of its own, or goes on with it."""
    messages = [{"role": ("user", "assistant")[index % 2], "text": text} for index, text in enumerate(texts)]
    trip.phone.save_progress(conversation_id, messages=messages, **given)
    trip.exchange()


def test_what_began_on_the_phone_goes_on_at_the_desk(trip: Trip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trip.world.project)
    said_on_the_road(trip, ROAD_ID, decisions=["ten tons"], tasks=["weigh it"])
    restored = trip.desk.restore(ROAD_ID)
    path = Path(restored["session_path"])
    assert (restored["session_id"], restored["written"], restored["records"]) == (ROAD_ID, True, 4)
    assert restored["woven_turns"] == 4
    # In the project's folder, which is the present one.
    assert path == trip.world.claude / "projects" / project_slug(str(trip.world.project)) / f"{ROAD_ID}.jsonl"
    session = read_session(path)
    assert [turn.role for turn in session.turns] == ["user", "assistant"] * 2
    assert trip.said(path) == ROAD
    assert (session.title, session.cwd) == (ROAD[0], str(trip.world.project))
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert [line["parentUuid"] for line in lines] == [None, *(line["uuid"] for line in lines[:-1])]
    assert all(line["sessionId"] == ROAD_ID and line["isSidechain"] is False for line in lines)
    assert all(line["cwd"] == str(trip.world.project) and line["userType"] == "external" for line in lines)
    assert any("never handed over" in warning for warning in restored["warnings"])

    again = trip.desk.restore(ROAD_ID)
    assert (again["session_path"], again["written"], again["woven_turns"]) == (str(path), False, 0)
    trip.at_the_desk("and the hook?", "black", path=path)
    said_on_the_road(trip, "another", ["something else"])
    assert trip.desk.restore(ROAD_ID)["written"] is False  # what the desk said stays
    assert trip.said(path) == [*ROAD, "and the hook?", "black"]

    handed = trip.desk.prepare_handoff(ROAD_ID)
    trip.exchange()
    assert (handed["conversation_id"], handed["message_count"]) == (ROAD_ID, 6)
    for app in (trip.desk, trip.phone):
        links = app.threads.links(ConversationId(ROAD_ID))
        assert len(links) == len({link.uuid for link in links}) == 6
    brief = trip.phone.resume_conversation(ROAD_ID)
    assert (brief["since_handoff"]["count"], brief["branches"]) == (0, [])
    assert [one["text"] for one in brief["decisions"]] == ["ten tons"]


def test_what_the_phone_adds_later_comes_into_that_session(trip: Trip) -> None:
    said_on_the_road(trip, ROAD_ID, ROAD[:1])
    first = trip.desk.restore(ROAD_ID, cwd=str(trip.world.project))
    assert (first["records"], first["woven_turns"]) == (1, 1)
    said_on_the_road(trip, ROAD_ID, ROAD)
    second = trip.desk.restore(ROAD_ID)
    assert second["session_path"] == first["session_path"]
    assert (second["records"], second["woven_turns"]) == (4, 3)
    assert trip.said(Path(first["session_path"])) == ROAD
    # Both go on: the phone's words get a session of their own.
    trip.at_the_desk("the desk goes on", "so it does", path=Path(first["session_path"]))
    said_on_the_road(trip, ROAD_ID, [*ROAD, "the phone goes on", "so it does, too"])
    third = trip.desk.restore(ROAD_ID)
    assert third["session_id"] != ROAD_ID
    assert trip.said(Path(third["session_path"])) == [*ROAD, "the phone goes on", "so it does, too"]
    assert trip.said(Path(first["session_path"])) == [*ROAD, "the desk goes on", "so it does"]


def test_a_conversation_whose_name_is_no_uuid_gets_a_session_that_has_one(trip: Trip) -> None:
    said_on_the_road(trip, "from-the-road")
    restored = trip.desk.restore("from-the-road", cwd=str(trip.world.project))
    assert str(uuid.UUID(restored["session_id"])) == restored["session_id"]
    assert any("names sessions by UUIDs" in warning for warning in restored["warnings"])
    assert trip.said(Path(restored["session_path"])) == ROAD
    assert trip.desk.restore("from-the-road")["session_id"] == restored["session_id"]


def test_of_notes_alone_no_session_is_made(trip: Trip) -> None:
    trip.phone.save_progress("from-the-road", decisions=["ten tons"])
    trip.exchange()
    with pytest.raises(NotFoundError, match="has not been handed over") as raised:
        trip.desk.restore("from-the-road", cwd=str(trip.world.project))
    assert "`dualmem resume from-the-road` shows" in raised.value.hint
    with pytest.raises(NotFoundError):
        trip.desk.restore("nobody-knows-it", cwd=str(trip.world.project))


@pytest.mark.parametrize("lost", ["the package", "its base"])
def test_of_a_package_that_is_gone_what_is_here_is_told(world: World, lost: str) -> None:
    """What was synced does not go with the package: turns, decisions and tasks are told all the same."""
    trip = Trip(world)
    trip.desk.sync()
    talk = [*TALK, "and the hook?", "black"]
    world.write_session(talk)
    world.clock.advance(60)  # type: ignore[attr-defined]
    second = trip.desk.prepare_handoff()
    trip.exchange()
    trip.phone.resume_conversation()
    trip.on_the_road("paint it", "red now", decisions=["red"], tasks=["buy paint"])
    trip.exchange()
    records = {one.handoff_id: one for one in trip.phone.catalogue.handoffs(ConversationId(SESSION_ID))}
    newest = records[second["handoff_id"]]
    assert newest.base == trip.first["handoff_id"]
    gone = newest if lost == "the package" else records[newest.base]
    (world.bucket / gone.package_key).unlink()
    trip.phone.packages.remove(gone.handoff_id)

    brief = trip.phone.resume_conversation(SESSION_ID)
    assert brief["handoff_id"] == newest.handoff_id
    for words in ("is gone from the bucket", "desk message 18", "and the hook?", "paint it", "red", "buy paint"):
        assert words in brief["brief"], words
    assert brief["brief"].startswith("> a package of this conversation is gone from the bucket: ")
    assert any("Hand the conversation over again" in warning for warning in brief["warnings"])
    assert brief["since_handoff"]["from_device"] == "desk"
    small = trip.phone.resume_conversation(SESSION_ID, token_budget=400)
    assert small["brief_tokens"] <= 400
    assert "and the hook?" in trip.phone.load_context(SESSION_ID, "thread")["text"]
    for name in [section["name"] for section in brief["sections"]]:
        trip.phone.load_context(SESSION_ID, name)
    for ask in (
        lambda: trip.phone.restore(SESSION_ID, claude_dir=world.root / "elsewhere"),
        lambda: trip.phone.make_offline(SESSION_ID),
    ):
        with pytest.raises(PackageGoneError) as raised:
            ask()
        assert "Hand the conversation over again" in raised.value.hint


def test_secrets_of_the_road_are_not_shown(trip: Trip) -> None:
    key = "AKIA" + "IOSFODNN7EXAMPLQ"
    trip.on_the_road(f"the key is {key}", decisions=[f"use {key}"], notes=[f"key {key}"])
    trip.exchange()
    brief = trip.desk.resume_conversation()
    assert key not in json.dumps(brief)
    trip.desk.restore(SESSION_ID)
    assert key in trip.said()[-1]


def test_a_long_talk_on_the_road_leaves_the_brief_its_room(trip: Trip) -> None:
    trip.on_the_road(*(f"{number} " + "many words on the road " * 40 for number in range(120)))
    trip.exchange()
    brief = trip.desk.resume_conversation(token_budget=1_500)
    assert brief["brief_tokens"] <= 1_500
    assert "desk message 18" in brief["brief"]
    assert "119 many words" in brief["brief"]
    since = brief["since_handoff"]
    assert since["count"] == 120
    assert len(since["turns"]) <= 100
    assert since["turns"][-1]["text"].startswith("119 ")


def test_offline_what_is_here_is_shown_and_saved(trip: Trip, world: World) -> None:
    world.bucket.rename(world.root / "away")
    report = trip.on_the_road("in the tunnel", "still dark")
    assert report["saved"]["turns"] == 2
    brief = trip.phone.resume_conversation(SESSION_ID)
    assert [turn["text"] for turn in brief["since_handoff"]["turns"]] == ["in the tunnel", "still dark"]
    (world.root / "away").rename(world.bucket)
    trip.exchange()
    assert trip.desk.resume_conversation()["since_handoff"]["count"] == 2


def test_a_conversation_that_is_only_in_the_bucket_keeps_its_title(world: World) -> None:
    world.write_session(TALK)
    world.desktop(device_name="desk").prepare_handoff()
    phone = world.phone(device_name="pocket")
    saved = phone.save_progress(SESSION_ID, messages=[{"role": "user", "text": "paint it"}])
    assert saved["title"] == "desk message 0"
    (listed,) = phone.list_conversations()["conversations"]
    assert (listed["title"], listed["cwd"]) == ("desk message 0", str(world.project))


def test_calls_at_once_make_one_chain(trip: Trip) -> None:
    def save(number: int) -> int:
        message = {"role": "user", "text": f"at once {number}"}
        return trip.phone.save_progress(SESSION_ID, messages=[message])["saved"]["turns"]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(save, range(8))) == [1] * 8
    links = trip.phone.threads.links(ConversationId(SESSION_ID))
    saved = [link for link in links if link.origin == PROGRESS]
    assert [link.parent_uuid for link in saved[1:]] == [link.uuid for link in saved[:-1]]


def test_offline_a_conversation_of_the_road_is_resumed_too(trip: Trip, world: World) -> None:
    trip.phone.save_progress("from-the-road", messages=[{"role": "user", "text": "what makes a crane stand?"}])
    trip.phone.close()
    world.bucket.rename(world.root / "away")
    again = world.open("phone")
    assert again.save_progress("from-the-road", decisions=["its weight"])["saved"]["decisions"] == 1
    brief = again.resume_conversation("from-the-road")
    assert "what makes a crane stand?" in brief["brief"]
    assert any("cannot be reached" in warning for warning in brief["warnings"])
    assert "crane" in again.load_context("from-the-road", "thread")["text"]
