"""Turns of other devices in session files: below the thread, once, and never over what is there."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dualmem_mcp.errors import DiskFullError, StoreUnreachableError
from dualmem_mcp.transcripts import weaving
from dualmem_mcp.transcripts.claude_code import read_session
from dualmem_mcp.transcripts.weave import SYNTHETIC_MODEL, Strand, WovenTurn
from dualmem_mcp.transcripts.weaving import restore_with
from tests.transcripts.conftest import SessionWriter, tool_use

ID = "11111111-1111-4111-8111-111111111111"
PROJECT = "-home-dev-app"


def said(*texts: str, start: int = 0, device: str = "pocket") -> tuple[WovenTurn, ...]:
    """Turns of the user and the model by turns, as another device saved them."""
    return tuple(
        WovenTurn(
            uuid=f"{device}-{start + index}",
            role="assistant" if (start + index) % 2 else "user",
            text=text,
            timestamp=datetime(2026, 3, 2, 9, start + index, tzinfo=UTC),
            device=device,
        )
        for index, text in enumerate(texts)
    )


def strand(*turns: WovenTurn, after: str = "u4", devices: tuple[str, ...] = ("pocket",)) -> Strand:
    return Strand(tuple(f"u{number}" for number in range(1, int(after[1:]) + 1)), turns, devices)


@pytest.fixture
def desk(writer: SessionWriter) -> SessionWriter:
    """A session of four messages, as it was handed over; the file is not written yet."""
    writer.user("build the crane")
    writer.assistant("which one?")
    writer.user("the tall one")
    writer.assistant("it stands")
    return writer


def handed_over(desk: SessionWriter) -> dict[str, bytes]:
    return {desk.path.name: b"".join(desk.lines)}


def put(desk: SessionWriter, files: dict[str, bytes], *strands: Strand, **more: str) -> weaving.Restored:
    claude_dir = desk.path.parents[2]
    return restore_with(strands, files, claude_dir=claude_dir, conversation_id=ID, project=PROJECT, **more)


def texts(path: Path) -> list[str]:
    return [turn.text for turn in read_session(path).all_turns()]


TALK = ["build the crane", "which one?", "the tall one", "it stands"]


def test_turns_come_after_the_thread_of_a_session_that_is_not_here(desk) -> None:
    restored = put(desk, handed_over(desk), strand(*said("paint it", "red now")))
    session = restored.session
    assert (session.session_id, session.woven, session.written, session.rewritten) == (ID, 2, True, True)
    assert texts(session.path) == [*TALK, "paint it", "red now"]
    assert session.path.read_bytes().startswith(b"".join(desk.lines))
    assert session.records == 6


def test_woven_records_have_the_members_that_the_client_writes(desk) -> None:
    put(desk, handed_over(desk), strand(*said("paint it", "red now")))
    user, model = map(json.loads, desk.path.read_bytes().splitlines()[-2:])
    shared = {
        "isSidechain": False,
        "cwd": "/home/dev/app",
        "version": "2.1.217",
        "gitBranch": "main",
        "sessionId": ID,
    }
    assert shared.items() <= user.items()
    assert shared.items() <= model.items()
    assert (user["type"], user["parentUuid"], user["uuid"]) == ("user", "u4", "pocket-0")
    assert user["message"] == {"role": "user", "content": "paint it"}
    assert user["timestamp"] == "2026-03-02T09:00:00.000Z"
    assert (model["type"], model["parentUuid"]) == ("assistant", "pocket-0")
    assert model["message"]["model"] == SYNTHETIC_MODEL
    assert model["message"]["content"] == [{"type": "text", "text": "red now"}]


def test_each_woven_answer_is_a_message_of_its_own(desk) -> None:
    put(desk, handed_over(desk), strand(*said("paint it", "red now", "and the hook", "black")))
    records = [json.loads(line) for line in desk.path.read_bytes().splitlines()]
    ids = [record["message"]["id"] for record in records if record["type"] == "assistant"]
    assert len(ids) == len(set(ids)) == 4


def test_the_session_that_is_here_and_was_left_gets_the_turns(desk) -> None:
    before = desk.write().read_bytes()
    restored = put(desk, handed_over(desk), strand(*said("paint it")))
    assert desk.path.read_bytes().startswith(before)
    assert texts(desk.path) == [*TALK, "paint it"]
    assert "leave it" in restored.warnings[-1]
    assert [one.name for one in desk.path.parent.iterdir()] == [desk.path.name]


def test_what_is_woven_in_is_not_woven_in_again(desk) -> None:
    put(desk, handed_over(desk), strand(*said("paint it", "red now")))
    before = desk.path.read_bytes()
    again = put(desk, handed_over(desk), strand(*said("paint it", "red now")))
    assert (again.session.woven, again.session.written) == (0, False)
    assert desk.path.read_bytes() == before
    assert "nothing was written" in again.warnings[-1]
    more = put(desk, handed_over(desk), strand(*said("paint it", "red now", "and the hook")))
    assert more.session.woven == 1
    assert desk.path.read_bytes().startswith(before)
    assert texts(desk.path) == [*TALK, "paint it", "red now", "and the hook"]


def test_the_rest_of_an_answer_is_no_going_on(desk) -> None:
    """A handoff that the model made is followed by the result of its call and its last words."""
    desk.assistant(tool_use("c1", "prepare_handoff"))
    files = handed_over(desk)
    desk.result("c1", "handed over")
    desk.assistant("You can go on elsewhere.")
    desk.beside("last-prompt", lastPrompt="x", leafUuid="u7")
    link = desk.record(type="system", subtype="turn_duration", durationMs=12)
    desk.write()
    restored = put(desk, files, strand(*said("on the road"), after="u5"))
    assert restored.session.session_id == ID
    assert texts(desk.path)[-2:] == ["You can go on elsewhere.", "on the road"]
    last = json.loads(desk.path.read_bytes().splitlines()[-1])
    assert last["parentUuid"] == link


def test_where_both_went_on_the_other_side_gets_a_session_of_its_own(desk) -> None:
    files = handed_over(desk)
    desk.user("the desk goes on")
    desk.assistant("gladly")
    before = desk.write().read_bytes()
    own = Strand(("u1", "u2", "u3", "u4"), (WovenTurn("u5", "user", "the desk goes on", None, "desk"),), ("desk",))
    restored = put(desk, files, strand(*said("the phone, too", "sure")), own)
    assert desk.path.read_bytes() == before
    assert restored.session.session_id != ID
    assert texts(restored.session.path) == [*TALK, "the phone, too", "sure"]
    assert [one.devices for one in restored.sessions] == [("pocket",), ("desk",)]
    assert "2 ways" in restored.warnings[-1]
    assert f"pocket in {restored.session.session_id}" in restored.warnings[-1]
    assert f"desk in {ID}" in restored.warnings[-1]
    ids = {json.loads(line).get("sessionId") for line in restored.session.path.read_bytes().splitlines()}
    assert ids == {restored.session.session_id}


def test_a_session_apart_is_found_again_and_grows(desk) -> None:
    files = handed_over(desk)
    desk.user("the desk goes on")
    desk.write()
    first = put(desk, files, strand(*said("the phone, too", "sure")))
    again = put(desk, files, strand(*said("the phone, too", "sure")))
    assert again.session.path == first.session.path
    assert not again.session.written
    more = put(desk, files, strand(*said("the phone, too", "sure", "and further")))
    assert more.session.path == first.session.path
    assert texts(more.session.path) == [*TALK, "the phone, too", "sure", "and further"]


def test_turns_that_follow_on_what_the_desk_said_since_go_into_its_session(desk) -> None:
    files = handed_over(desk)
    desk.user("the desk goes on")
    desk.assistant("gladly")
    desk.write()
    restored = put(desk, files, strand(*said("after that"), after="u6"))
    assert restored.session.session_id == ID
    assert texts(desk.path)[-3:] == ["the desk goes on", "gladly", "after that"]


def test_a_branch_of_an_older_handoff_leaves_out_what_came_later(desk) -> None:
    desk.user("only at the desk")
    desk.assistant("yes")
    restored = put(desk, handed_over(desk), strand(*said("from before")))
    assert restored.session.session_id != ID
    assert texts(restored.session.path) == [*TALK, "from before"]
    assert texts(desk.path)[-1] == "yes"
    assert f"the handoff in {ID}; pocket in {restored.session.session_id}" in restored.warnings[-1]
    both = put(desk, handed_over(desk), strand(*said("from before")), Strand(("u1",), (), ("desk",)))
    assert [one.written for one in both.sessions] == [False, False]
    assert f"desk in {ID}" in both.warnings[-2]


def test_two_devices_that_parted_get_two_sessions(desk) -> None:
    phone, tablet = said("one way"), said("another way", device="tablet")
    restored = put(desk, handed_over(desk), strand(*phone), strand(*tablet, devices=("tablet",)))
    assert [texts(one.path)[-1] for one in restored.sessions] == ["one way", "another way"]
    assert len({one.session_id for one in restored.sessions}) == 2


def test_another_session_of_the_id_is_left_alone(desk) -> None:
    files = handed_over(desk)
    other = SessionWriter(desk.path.parent)
    other.user("something else")
    before = other.write().read_bytes()
    restored = put(desk, files, strand(*said("paint it")))
    assert desk.path.read_bytes() == before
    assert texts(restored.session.path) == [*TALK, "paint it"]
    assert "another session holds the id" in restored.warnings[0]
    assert put(desk, files, strand(*said("paint it"))).session.path == restored.session.path


def test_another_working_directory_is_that_of_woven_turns_too(desk, tmp_path) -> None:
    restored = put(desk, handed_over(desk), strand(*said("paint it")), cwd=str(tmp_path))
    cwds = {json.loads(line)["cwd"] for line in restored.session.path.read_bytes().splitlines()}
    assert cwds == {os.path.realpath(tmp_path)}
    before = restored.session.path.read_bytes()
    more = put(desk, handed_over(desk), strand(*said("paint it", "red")), cwd=str(tmp_path))
    assert more.session.path == restored.session.path
    assert more.session.path.read_bytes().startswith(before)


def test_a_line_that_somebody_is_writing_is_not_written_into(desk) -> None:
    files = handed_over(desk)
    before = b"".join(desk.lines) + b'{"type":"user","uuid":"u9","mess'
    desk.path.parent.mkdir(parents=True)
    desk.path.write_bytes(before)
    restored = put(desk, files, strand(*said("paint it")))
    assert desk.path.read_bytes() == before
    assert restored.session.session_id != ID
    assert texts(restored.session.path) == [*TALK, "paint it"]


@pytest.mark.parametrize("kept", [1, 40, -5, -1])
def test_a_write_that_was_cut_off_is_brought_to_its_end(desk, kept) -> None:
    desk.write()
    put(desk, handed_over(desk), strand(*said("paint it", "red now")))
    whole = desk.path.read_bytes()
    size = len(b"".join(desk.lines))
    desk.path.write_bytes(whole[: size + kept] if kept > 0 else whole[:kept])
    put(desk, handed_over(desk), strand(*said("paint it", "red now")))
    assert desk.path.read_bytes() == whole


def test_a_last_line_without_its_end_gets_one(desk) -> None:
    desk.lines[-1] = desk.lines[-1].rstrip(b"\n")
    desk.write()
    put(desk, handed_over(desk), strand(*said("paint it")))
    assert texts(desk.path) == [*TALK, "paint it"]


def test_a_full_disk_leaves_the_session_as_it_was(desk, monkeypatch) -> None:
    before = desk.write().read_bytes()
    write = os.write
    sizes = iter([10])

    def full(descriptor, data):
        if (size := next(sizes, None)) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[:size])

    monkeypatch.setattr(weaving.os, "write", full)
    with pytest.raises(DiskFullError):
        put(desk, handed_over(desk), strand(*said("paint it")))
    monkeypatch.undo()
    assert desk.path.read_bytes() == before


def test_a_session_that_grew_since_it_was_read_is_not_written_to(desk, monkeypatch) -> None:
    desk.write()
    woven = weaving.SessionText.woven

    def meanwhile(self, *given):
        with desk.path.open("ab") as file:
            file.write(b'{"type":"mode"}\n')
        return woven(self, *given)

    monkeypatch.setattr(weaving.SessionText, "woven", meanwhile)
    with pytest.raises(StoreUnreachableError, match="another program"):
        put(desk, handed_over(desk), strand(*said("paint it")))
    assert texts(desk.path) == TALK


def test_a_link_in_the_place_of_the_session_is_not_written_through(desk, tmp_path) -> None:
    outside = tmp_path / "outside.jsonl"
    outside.write_bytes(b"".join(desk.lines))
    desk.path.parent.mkdir(parents=True)
    desk.path.symlink_to(outside)
    put(desk, handed_over(desk), strand(*said("paint it")))
    assert outside.read_bytes() == b"".join(desk.lines)


def test_the_session_stays_in_the_folder_that_it_has_here(desk, tmp_path) -> None:
    """The laptop has the project elsewhere; what comes from there goes on where the desk has it."""
    desk.write()
    desk.user("on the laptop")
    moved = b"".join(desk.lines).replace(b"/home/dev/app", b"/Users/dev/code/app")
    claude_dir = desk.path.parents[2]
    restored = restore_with(
        [strand(*said("paint it"), after="u5")],
        {desk.path.name: moved},
        claude_dir=claude_dir,
        conversation_id=ID,
        project="-Users-dev-code-app",
    )
    assert restored.session.path == desk.path
    assert texts(desk.path) == [*TALK, "on the laptop", "paint it"]
    assert {json.loads(line)["cwd"] for line in desk.path.read_bytes().splitlines()} == {"/home/dev/app"}


@pytest.mark.parametrize("turns", [(), said("paint it")])
def test_a_session_that_is_the_beginning_of_what_was_handed_over_gets_the_rest(desk, turns) -> None:
    """As at the desk, where the session comes back from a laptop that went on with it."""
    before = desk.write().read_bytes()
    agent = desk.folder / "subagents" / "agent-a.jsonl"
    agent.parent.mkdir(parents=True)
    agent.write_bytes(b'{"type":"user"}\n')
    desk.user("on the laptop")
    desk.assistant("fine")
    files = handed_over(desk)
    beside = {
        f"{ID}/subagents/agent-a.jsonl": b'{"type":"user"}\n{"type":"assistant"}\n',
        f"{ID}/tool-results/x.txt": b"large",
    }
    restored = put(desk, {**files, **beside}, strand(*turns, after="u6"))
    assert restored.session.session_id == ID
    assert desk.path.read_bytes().startswith(before)
    assert texts(desk.path) == [*TALK, "on the laptop", "fine", *(turn.text for turn in turns)]
    assert {name: (desk.path.parent / name).read_bytes() for name in beside} == beside
    again = put(desk, {**files, **beside}, strand(*turns, after="u6"))
    assert not again.session.written


def test_nothing_to_weave_in_is_the_session_as_it_was(desk) -> None:
    restored = put(desk, handed_over(desk), Strand(("u1",), (), ("desk",)))
    assert desk.path.read_bytes() == b"".join(desk.lines)
    assert (restored.session.woven, restored.session.rewritten) == (0, False)


def test_time_does_not_run_back_along_the_thread(desk) -> None:
    early = WovenTurn("p", "user", "my clock is slow", datetime(2020, 1, 1, tzinfo=UTC), "pocket")
    put(desk, handed_over(desk), strand(early))
    times = [json.loads(line)["timestamp"] for line in desk.path.read_bytes().splitlines()]
    assert times == sorted(times)


def test_half_a_surrogate_pair_can_be_woven_in(desk) -> None:
    put(desk, handed_over(desk), strand(WovenTurn("p", "user", "a \ud83d half", None, "pocket")))
    assert json.loads(desk.path.read_bytes().splitlines()[-1])["message"]["content"] == "a \ud83d half"


def test_real_sessions_take_turns_after_their_thread(shared_transcripts, tmp_path) -> None:
    for path in sorted(shared_transcripts.glob("claude/projects/*/*.jsonl")):
        real = read_session(path)
        files = {file.name: Path(file.path).read_bytes() for file in real.files}
        before = [turn.uuid for turn in real.all_turns()]
        new = said("on the road", "noted", "and home")
        restored = restore_with(
            [Strand(tuple(before), new, ("pocket",))],
            files,
            claude_dir=tmp_path / "claude",
            conversation_id=real.conversation_id,
            project=real.project,
        )
        again = read_session(restored.session.path)
        assert [turn.uuid for turn in again.all_turns()] == [*before, *(turn.uuid for turn in new)], path.name
        assert again.turns[-1].text == "and home"
        assert restored.session.path.read_bytes().startswith(files[f"{real.conversation_id}.jsonl"])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a process that can be copied")
def test_an_end_at_any_moment_loses_and_doubles_nothing(tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.transcripts.crashes_of_weaving", str(tmp_path)],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 20
