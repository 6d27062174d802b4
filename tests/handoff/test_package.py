"""Handing over: what is reported, what is sent, and that nothing is lost when something fails."""

from __future__ import annotations

import itertools
import json
import random
from functools import partial
from pathlib import Path

import pytest

from dualmem_mcp.errors import ConflictError, DiskFullError, LockedError, NotFoundError, UsageError

SESSION_ID = "0b5f0c66-7a3e-4f0e-9a53-2c1d5f1b7a10"

HANDOFF_FIELDS = {
    "handoff_id",
    "conversation_id",
    "title",
    "message_count",
    "visible_tokens",
    "digest_tokens",
    "reduction",
    "transcript_bytes",
    "package_bytes",
    "compression_ratio",
    "fidelity",
    "operations",
    "queued",
    "mobile_ready",
    "estimated_reconstruction_ms",
    "duration_ms",
    "warnings",
}


def test_a_handoff_reports_what_the_contract_names(world, talk) -> None:
    session = world.write_session(talk(40))
    report = world.desktop().prepare_handoff()
    assert set(report) == HANDOFF_FIELDS
    assert report["conversation_id"] == SESSION_ID
    assert report["message_count"] == 40
    assert report["transcript_bytes"] == session.stat().st_size
    assert (report["queued"], report["mobile_ready"], report["warnings"]) == (False, True, [])
    assert [step["name"] for step in report["operations"]] == [
        "read",
        "digest",
        "thread",
        "agents",
        "seal",
        "queue",
        "upload",
        "verify",
        "measure",
    ]
    assert all(set(step) == {"name", "bytes", "duration_ms", "ok", "cost_usd"} for step in report["operations"])
    assert all(step["ok"] for step in report["operations"])
    assert all(step["bytes"] > 0 for step in report["operations"] if step["name"] != "measure")
    json.dumps(report)


def test_the_bucket_gets_keys_before_what_they_open(world, talk) -> None:
    world.write_session(talk(4))
    app = world.desktop()
    app.prepare_handoff()
    kinds = {path.relative_to(world.bucket).parts[0] for path in world.bucket.rglob("*") if path.is_file()}
    assert {"vault.json", "keys", "packages", "manifests", "roster"} <= kinds
    assert not app.outbox.pending()


def test_no_word_is_found_in_any_file_or_name(world, talk) -> None:
    world.write_session(talk(200))
    desktop = world.desktop()
    desktop.graph.create_entities([entity("wolframbadger", "graphword", "tungstenheron")])
    desktop.prepare_handoff(summary="galliumotter", decisions=["indiumstoat"], next_steps=["thalliumwren"])
    phone = world.phone()
    phone.resume_conversation()
    blob = b"\0".join(path.read_bytes() for path in world.files())
    names = "\0".join(str(path.relative_to(world.root)) for path in world.files())
    words = ["zephyrquartz", "obsidianlark", "marmalade", "wolframbadger", "tungstenheron", "galliumotter"]
    for word in [*words, "indiumstoat", "thalliumwren", SESSION_ID, str(world.project)]:
        assert word.encode() not in blob, word
        assert word not in names, word


def entity(name: str, kind: str, text: str):
    from dualmem_mcp.model.graph import Entity

    return Entity(name, kind, (text,))


def test_a_second_handoff_sends_only_what_is_new(world, talk) -> None:
    world.write_session(talk(400))
    app = world.desktop()
    first = app.prepare_handoff()
    world.clock.advance(60)
    world.write_session(talk(402))
    second = app.prepare_handoff()
    assert second["package_bytes"] < first["package_bytes"]
    records = app.catalogue.handoffs(SESSION_ID)
    assert [record.handoff_id for record in records] == [second["handoff_id"], first["handoff_id"]]
    assert records[0].base == first["handoff_id"]
    phone = world.phone()
    restored = phone.restore(SESSION_ID, claude_dir=world.root / "restored")
    original = next((world.claude / "projects").glob("*/*.jsonl"))
    assert Path(restored["session_path"]).read_bytes() == original.read_bytes()


def test_a_clock_that_is_set_back_hides_no_handoff(world, talk) -> None:
    world.write_session(talk(8))
    desktop = world.desktop()
    desktop.prepare_handoff()
    world.clock.advance(-40 * 86_400)
    world.write_session(talk(12))
    second = desktop.prepare_handoff()
    phone = world.phone()
    assert phone.resume_conversation()["handoff_id"] == second["handoff_id"]
    assert phone.restore(SESSION_ID, claude_dir=world.root / "restored")["records"] == 12


def test_a_base_that_is_gone_from_the_bucket_is_not_built_upon(world, talk) -> None:
    world.write_session(talk(40))
    app = world.desktop()
    first = app.prepare_handoff()
    (world.bucket / "packages" / first["handoff_id"]).unlink()
    world.clock.advance(60)
    second = app.prepare_handoff()
    assert any("sent anew" in warning for warning in second["warnings"])
    phone = world.phone()
    assert Path(phone.restore(SESSION_ID, claude_dir=world.root / "r")["session_path"]).exists()


def test_whatever_of_a_handoff_is_small_or_large_all_of_it_comes_back(world) -> None:
    """Sections move behind the manifest and out of it again from one handoff to the next."""
    numbers = random.Random(5)
    small, large = 40, 60_000
    texts: list[str] = []
    bundled = set()
    phone = None
    for sizes in itertools.product((small, large), repeat=3):
        new, state_size, file_size = sizes
        texts += [numbers.randbytes(new // 2).hex(), "done"]
        session = world.write_session(texts)
        (world.project / "CLAUDE.md").write_text(numbers.randbytes(file_size // 2).hex(), encoding="utf-8")
        state = {"noise": numbers.randbytes(state_size // 2).hex()}
        world.clock.advance(60)
        desktop = world.open("desktop", state=state) if phone else world.desktop(state=state)
        assert desktop.prepare_handoff()["warnings"] == []
        desktop.close()
        phone = phone or world.phone()
        assert texts[-2][:30] in phone.resume_conversation()["brief"]
        package = phone._newest_package(SESSION_ID)
        bundled.add(tuple(name for name, _ in package.manifest.bundled))
        assert package.state == state
        assert [data for _, data in package.carried_files()] == [(world.project / "CLAUDE.md").read_bytes()]
        assert package.thread_files() == {session.name: session.read_bytes()}
    assert len(bundled) >= 6


@pytest.mark.parametrize("handoffs", [1, 2])
def test_a_base_that_was_damaged_is_not_built_upon(world, talk, handoffs: int) -> None:
    """With two, the second is whole, but says its digest as a patch of the first."""
    world.write_session(talk(40))
    desktop = world.desktop()
    first = desktop.prepare_handoff()
    for number in range(1, handoffs):
        world.clock.advance(60)
        world.write_session(talk(40 + 2 * number))
        desktop.prepare_handoff()
    package = world.bucket / "packages" / first["handoff_id"]
    data = package.read_bytes()
    digest = 1_296 + 4_112  # behind header, index and manifest
    package.write_bytes(data[: digest + 9] + bytes([data[digest + 9] ^ 1]) + data[digest + 10 :])
    world.clock.advance(60)
    session = world.write_session(talk(60))
    phone = world.phone()
    phone.list_conversations()
    report = phone.prepare_handoff(SESSION_ID)
    assert any("sent anew" in warning for warning in report["warnings"])
    assert phone.catalogue.handoffs(SESSION_ID)[0].base is None
    assert "zephyrquartz58" in desktop.resume_conversation()["brief"]
    restored = desktop.restore(SESSION_ID, claude_dir=world.root / "r")
    assert Path(restored["session_path"]).read_bytes() == session.read_bytes()


def test_a_bucket_that_is_away_queues_and_a_later_handoff_delivers(world, talk) -> None:
    world.write_session(talk(10))
    app = world.desktop()
    away = world.bucket.rename(world.root / "unplugged")
    report = app.prepare_handoff()
    assert (report["queued"], report["mobile_ready"]) == (True, False)
    assert any("queued" in warning for warning in report["warnings"])
    assert len(app.outbox.pending()) >= 3
    app.close()

    # In another process, later, still away: nothing is lost, and the brief can be read on this device.
    again = world.open("desktop")
    assert again.resume_conversation()["conversation_id"] == SESSION_ID
    world.clock.advance(60)
    assert again.prepare_handoff()["queued"]
    away.rename(world.bucket)
    world.clock.advance(60)
    assert not again.prepare_handoff()["queued"]
    assert not again.outbox.pending()
    phone = world.phone()
    assert len(phone.list_conversations()["conversations"]) == 1
    assert phone.resume_conversation()["handoff_id"] == again.catalogue.newest_handoff().handoff_id


def _queue_while_away(world, talk):
    """A desktop with one handoff in its queue, and the bucket back in its place."""
    app = world.desktop()
    world.bucket.rename(world.root / "away")
    world.write_session(talk(40))
    queued = app.prepare_handoff()
    (world.root / "away").rename(world.bucket)
    return app, queued


def test_an_object_damaged_in_the_queue_is_delivered_from_this_devices_other_copy(world, talk) -> None:
    app, queued = _queue_while_away(world, talk)
    for file in app.home.sync_queue.glob("*.sealed"):
        if file.stat().st_size > 10_000:
            file.unlink()  # the package, which is kept among those made here, too
    world.write_session(talk(42))
    assert not app.prepare_handoff()["queued"]
    assert app.outbox.pending() == []
    assert (world.bucket / "packages" / queued["handoff_id"]).is_file()
    assert len(list((world.bucket / "manifests").glob("*/*"))) == 2


def test_a_handoff_lost_in_the_queue_is_told_and_holds_up_no_other(world, talk) -> None:
    app, queued = _queue_while_away(world, talk)
    for file in [*app.home.sync_queue.glob("*.sealed"), *app.home.desktop_sessions.iterdir()]:
        if file.stat().st_size > 10_000:
            file.write_bytes(b"x")
    other = "7d2a0f4e-0000-4000-8000-000000000001"
    world.write_session(talk(4), other)
    report = app.prepare_handoff(other)
    assert not report["queued"]
    assert any("hand it over again" in warning for warning in report["warnings"])
    assert app.outbox.pending() == []
    # Nobody is led to the package that is not there.
    assert len(list((world.bucket / "manifests").glob("*/*"))) == 1
    assert app.prepare_handoff(queued["conversation_id"])["mobile_ready"]
    assert world.phone().resume_conversation(queued["conversation_id"])["requests"]


def test_without_a_vault_a_handoff_says_how_to_get_one(world, talk) -> None:
    world.write_session(talk(2))
    with pytest.raises(NotFoundError) as caught:
        world.open("desktop").prepare_handoff()
    assert "dualmem init" in caught.value.hint


@pytest.mark.parametrize("hostile", ["../../x", "a/b", "", "\0", "x" * 500, "..", "/etc/passwd", "C:\\x"])
def test_hostile_ids_are_refused_everywhere(world, hostile: str) -> None:
    app = world.desktop()
    for call in (
        app.prepare_handoff,
        app.resume_conversation,
        app.restore,
        partial(app.load_context, section="thread"),
    ):
        with pytest.raises(UsageError, match="is not a conversation id"):
            call(hostile)


def test_an_unknown_conversation_is_not_found(world, talk) -> None:
    world.write_session(talk(2))
    app = world.desktop()
    for call in (app.prepare_handoff, app.resume_conversation, app.restore):
        with pytest.raises(NotFoundError):
            call("11111111-2222-4333-8444-555555555555")


def test_an_id_and_a_file_that_do_not_belong_together_are_refused(world, talk) -> None:
    path = world.write_session(talk(2))
    with pytest.raises(NotFoundError, match="holds session"):
        world.desktop().prepare_handoff("11111111-2222-4333-8444-555555555555", transcript=path)


def test_a_wrong_passphrase_is_locked_not_tampered(world) -> None:
    world.desktop()
    with pytest.raises(LockedError):
        world.open("phone").join("wrong horse battery staple")


def test_a_second_vault_in_the_same_bucket_is_a_conflict(world) -> None:
    world.desktop()
    with pytest.raises(ConflictError) as caught:
        world.open("phone").init("another passphrase entirely")
    assert "join" in caught.value.hint


def test_a_key_file_that_is_gone_is_locked_and_nothing_is_made_anew(world, talk) -> None:
    world.write_session(talk(2))
    app = world.desktop()
    app.prepare_handoff()
    app.close()
    (world.root / "desktop" / "device.key").unlink()
    before = (world.root / "desktop" / "memory.db").read_bytes()
    with pytest.raises(LockedError) as caught:
        world.open("desktop")
    assert caught.value.hint
    assert (world.root / "desktop" / "memory.db").read_bytes() == before
    assert not (world.root / "desktop" / "device.key").exists()


def test_a_full_disk_is_said_and_leaves_the_bucket_as_it_was(world, talk, monkeypatch) -> None:
    import resource

    world.write_session(talk(2_000))
    app = world.desktop()
    app.prepare_handoff()
    records = app.catalogue.handoffs(SESSION_ID)
    before = sorted(path.name for path in world.bucket.rglob("*"))
    world.write_session([f"{text} {index * 7919}" for index, text in enumerate(talk(2_000))])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A real limit of the operating system: no file may grow past 20 kB, as if the disk were full.
    import signal

    monkeypatch.setattr(signal, "SIGXFSZ", signal.SIGXFSZ)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(DiskFullError) as caught:
            app.prepare_handoff()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)
    assert caught.value.hint
    assert sorted(path.name for path in world.bucket.rglob("*")) == before
    assert app.catalogue.handoffs(SESSION_ID) == records
    world.clock.advance(60)
    assert not app.prepare_handoff()["queued"]


def test_what_could_not_be_queued_whole_leaves_nothing(world, talk, monkeypatch) -> None:
    world.write_session(talk(8))
    desktop = world.desktop()

    def full(_: object) -> None:
        raise DiskFullError("there is no space left", hint="Free some.")

    monkeypatch.setattr(desktop.catalogue, "save_handoff", full)
    with pytest.raises(DiskFullError):
        desktop.prepare_handoff()
    assert [key for key in desktop.outbox.pending() if not key.startswith("keys/")] == []
    assert list(desktop.home.desktop_sessions.iterdir()) == []
    assert len(list(desktop.home.sync_queue.iterdir())) == len(desktop.outbox.pending())
    monkeypatch.undo()
    assert desktop.prepare_handoff()["queued"] is False


def test_the_callers_words_travel_and_are_marked_as_the_models(world, talk) -> None:
    world.write_session(talk(6))
    world.desktop().prepare_handoff(
        summary="The importer is half done.",
        decisions=["Keep the order of rows."],
        next_steps=["Finish the parser."],
        open_questions=["Is CSV enough?"],
    )
    brief = world.phone().resume_conversation()
    assert {"text": "Keep the order of rows.", "uuid": "", "origin": "model"} in brief["decisions"]
    for words in ("The importer is half done.", "Finish the parser.", "Is CSV enough?"):
        assert words in brief["brief"]


def test_state_and_protected_files_travel_without_loss(world, talk) -> None:
    world.write_session(talk(4))
    sacred = world.project / "sacred"
    sacred.mkdir()
    (sacred / "b.md").write_bytes(b"\xff\x00second\r\n")
    (sacred / "a.md").write_bytes("первый\n".encode())
    state = {"joy": 0.1, "depth": [1e-300, 2**70, None, {"x": "y"}], "ключ": "\ud83d\ude00"}
    app = world.desktop(state=state, protected_files=("sacred/*.md",))
    app.prepare_handoff()
    phone = world.phone(protected_files=("sacred/*.md",))
    brief = phone.resume_conversation()
    assert not [warning for warning in brief["warnings"] if "protected" in warning]
    assert "state" in [section["name"] for section in brief["sections"]]
    assert json.loads(phone.load_context(SESSION_ID, "state")["text"]) == state
    package = phone._newest_package(SESSION_ID)
    carried = [(file.name, data) for file, data in package.carried_files(["protected"])]
    assert carried == [("sacred/a.md", "первый\n".encode()), ("sacred/b.md", b"\xff\x00second\r\n")]

    (sacred / "a.md").write_text("changed", encoding="utf-8")
    (sacred / "b.md").unlink()
    warnings = "\n".join(phone.resume_conversation()["warnings"])
    assert "sacred/a.md differs" in warnings
    assert "sacred/b.md is not on this device" in warnings


def test_changed_agent_definitions_are_told(world, talk) -> None:
    world.write_session(talk(4))
    agents = world.project / ".claude" / "agents"
    agents.mkdir(parents=True)
    (agents / "reviewer.md").write_text("---\nname: reviewer\n---\nRead.\n", encoding="utf-8")
    app = world.desktop()
    app.prepare_handoff()
    (agents / "reviewer.md").write_text(
        "---\nname: reviewer\ndescription: reads\n---\nRead twice.\n", encoding="utf-8"
    )
    (agents / "tester.md").write_text("---\nname: tester\n---\nTest.\n", encoding="utf-8")
    world.clock.advance(60)
    app.prepare_handoff()
    changes = world.phone()._newest_package(SESSION_ID).agents["definition_changes"]
    assert [(change["name"], change["change"]) for change in changes] == [
        ("reviewer", "changed"),
        ("tester", "added"),
    ]
    assert "+Read twice." in changes[0]["diff"]
    shown = world.open("phone").load_context(SESSION_ID, "agent_definitions")["text"]
    assert "- changed since the handoff before: .claude/agents/reviewer.md" in shown
    assert "+Read twice." in shown
    assert ".claude/agents/tester.md" in shown
