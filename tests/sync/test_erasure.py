"""Erasing a conversation: nothing of it is left anywhere, and nothing brings it back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dualmem_mcp.app import App
from dualmem_mcp.crypto.envelope import ObjectKind, SealedReader, Section, bytes_reader
from dualmem_mcp.crypto.header import Header, Place
from dualmem_mcp.errors import DualmemError, NotFoundError
from dualmem_mcp.handoff.channel import manifest_key
from dualmem_mcp.handoff.manifest import record_to_json
from tests.conftest import SteppingClock
from tests.handoff.conftest import SESSION_ID, World

SECRET = "the harbour crane collapses at dawn"
OTHER_ID = "11111111-7a3e-4f0e-9a53-2c1d5f1b7a10"


@pytest.fixture
def world(tmp_path: Path, clock: SteppingClock) -> Iterator[World]:
    world = World(tmp_path, clock)
    yield world
    for app in world._open:
        app.close()


def bucket_texts(app: App) -> dict[str, bytes]:
    """What the vault's keys open of each object in the bucket: all its sections."""
    channel = app.channel()
    found: dict[str, bytes] = {}
    for info in channel.objects.list():
        data = channel.objects.get(info.key)
        if not data.startswith(b"DUALMEM"):
            found[info.key] = data
            continue

        def place_of(header: Header, key: str = info.key) -> Place:
            return Place(
                channel.vault.vault_id, header.kind, key, header.device_id, header.sequence, header.previous_hash
            )

        def unwrap(header: Header) -> bytes:
            if len(header.key_id) == 32:
                return channel.vault.conversation_key(header.key_id, objects=channel.objects).key
            return channel.vault.unwrap(header)

        try:
            reader = SealedReader.open(bytes_reader(data), place_of=place_of, unwrap=unwrap)
        except NotFoundError:
            continue  # its conversation key is destroyed
        found[info.key] = b"".join(map(reader.read_section, reader.names))
    return found


def rows(app: App) -> str:
    """All of memory.db but the sealed copies of objects, as one text."""
    with app.database.read() as connection:
        tables = [
            row[0]
            for row in connection.execute(
                "SELECT name FROM sqlite_master"
                " WHERE type = 'table' AND name NOT LIKE 'sqlite%' AND name <> 'blobs'"
            )
        ]
        return json.dumps({name: list(map(str, connection.execute(f"SELECT * FROM {name}"))) for name in tables})


def keys(app: App, prefix: str) -> list[str]:
    return [info.key for info in app.channel().objects.list(prefix)]


def handed_over(world: World) -> tuple[App, App]:
    """A desktop that handed two conversations over, and a phone that noted something in the first."""
    desk, phone = world.desktop(), world.phone()
    world.write_session(["What holds the harbour?", SECRET, "Why?", "Rust."])
    desk.prepare_handoff(SESSION_ID)
    world.write_session(["What is for lunch?", "Soup."], OTHER_ID)
    desk.prepare_handoff(OTHER_ID)
    desk.sync()
    phone.sync()
    phone.save_progress(SESSION_ID, notes=[f"Tell them that {SECRET}"], decisions=["Close the harbour"])
    phone.sync()
    desk.sync()
    return desk, phone


def test_an_erased_conversation_is_nowhere_after_the_next_compaction(world: World) -> None:
    desk, phone = handed_over(world)
    assert any(SECRET.encode() in text for text in bucket_texts(desk).values())
    packages = keys(desk, "packages/")
    done = desk.erase(SESSION_ID)
    assert (done["conversation_id"], done["queued"], done["packages"], done["manifests"]) == (
        SESSION_ID,
        False,
        1,
        1,
    )
    assert done["keys"] >= 1
    assert len(keys(desk, "packages/")) == len(packages) - 1
    for app in (desk, phone):
        app.sync()
    for app in (desk, phone):
        app.compact(force=True, grace_days=0)
    desk.compact(force=True, grace_days=0)
    texts = bucket_texts(phone)
    assert [key for key, text in texts.items() if SECRET.encode() in text or b"Close the harbour" in text] == []
    for app in (desk, phone):
        assert SECRET not in rows(app)
        assert "Close the harbour" not in rows(app)
        assert [one["conversation_id"] for one in app.list_conversations()["conversations"]] == [OTHER_ID]
    assert phone.resume_conversation(OTHER_ID)["conversation_id"] == OTHER_ID


def test_the_keys_are_overwritten_in_the_bucket_and_on_every_device(world: World) -> None:
    desk, phone = handed_over(world)
    handoff_id = phone.resume_conversation(SESSION_ID)["handoff_id"]
    assert [path for app in (desk, phone) for path in kept_packages(app) if path.stem == handoff_id]
    copies = [(app, key) for app in (desk, phone) for key in app.blobs.keys("keys/c/")]
    before = {key: app.blobs.get(key) for app, key in copies}
    desk.erase(SESSION_ID)
    phone.sync()
    tombs = [
        key
        for key in keys(desk, "keys/c/")
        if Header.decode(desk.channel().objects.get(key), subject=key).kind is ObjectKind.TOMBSTONE
    ]
    assert tombs
    for app, key in copies:
        if key in tombs:
            assert app.blobs.get(key) != before[key]
            with pytest.raises(NotFoundError, match="erased"):
                app.channel().vault.conversation_key(key.rpartition("/")[2])
    assert not [path for app in (desk, phone) for path in kept_packages(app) if path.stem == handoff_id]
    with pytest.raises(DualmemError):
        phone.resume_conversation(SESSION_ID)


def kept_packages(app: App) -> list[Path]:
    return sorted([*app.home.desktop_sessions.glob("*.pkg"), *app.home.mobile_reconstruction.glob("*.pkg")])


def test_what_a_device_did_offline_does_not_bring_it_back(world: World) -> None:
    desk, phone = handed_over(world)
    phone.save_progress(SESSION_ID, notes=["late and offline"], messages=[{"role": "user", "text": "late turn"}])
    desk.erase(SESSION_ID)
    desk.sync()
    phone.sync()
    desk.sync()
    for app in (desk, phone):
        assert "late and offline" not in rows(app)
        assert "late turn" not in rows(app)
    assert not any(b"late turn" in text for text in bucket_texts(desk).values())


def test_the_session_file_that_still_lies_here_does_not_bring_it_back(world: World) -> None:
    desk, _ = handed_over(world)
    desk.erase(SESSION_ID)
    world.write_session(["What holds the harbour?", SECRET, "Why?", "Rust.", "And now?", "Nothing."])
    desk.local_edge.index(project="all", claude_dir=world.claude)
    assert SECRET not in rows(desk)
    with pytest.raises(NotFoundError, match="was erased"):
        desk.prepare_handoff(SESSION_ID)
    found = desk.local_edge.search("harbour crane collapses")["results"]
    assert not [result for result in found if result["conversation_id"] == SESSION_ID]


def test_search_lets_go_of_it_at_once(world: World) -> None:
    desk, phone = handed_over(world)
    for app in (desk, phone):
        app.local_edge.index(project="all", claude_dir=world.claude)
        assert app.local_edge.search("harbour crane collapses")["results"]
    desk.erase(SESSION_ID)
    desk.sync()
    phone.sync()
    for app in (desk, phone):
        assert not [
            result
            for result in app.local_edge.search("harbour crane")["results"]
            if result["conversation_id"] == SESSION_ID
        ]


def test_without_the_bucket_the_rest_follows_with_the_next_sync(world: World) -> None:
    desk, _ = handed_over(world)
    world.bucket.rename(world.bucket.with_name("away"))
    done = desk.erase(SESSION_ID)
    assert done["queued"]
    assert SECRET not in rows(desk)
    world.bucket.with_name("away").rename(world.bucket)
    assert len(keys(desk, "packages/")) == 2
    desk.sync()
    assert len(keys(desk, "packages/")) == 1
    assert len(keys(desk, "manifests/")) == 1


def test_a_conversation_that_nobody_knows_is_not_found(world: World) -> None:
    desk, _ = handed_over(world)
    with pytest.raises(NotFoundError, match="there is no conversation"):
        desk.erase("2b5f0c66-0000-4f0e-9a53-2c1d5f1b7a10")


def test_erasing_again_changes_nothing(world: World) -> None:
    desk, _ = handed_over(world)
    desk.erase(SESSION_ID)
    before = rows(desk)
    again = desk.erase(SESSION_ID)
    assert (again["keys"], again["manifests"]) == (0, 0)
    assert rows(desk) == before


@pytest.mark.parametrize("aim", ["vault.json", "roster/00000000000000000001", "packages/../vault.json"])
def test_a_record_that_names_another_object_as_its_package_has_it_removed_by_nobody(world: World, aim: str) -> None:
    desk, _ = handed_over(world)
    channel = desk.channel()
    [record] = channel.catalogue.handoffs(SESSION_ID)
    statement = record_to_json(replace(record, package_key=aim))
    key = manifest_key(channel.vault, SESSION_ID, hashlib.sha256(statement).hexdigest())
    conversation_key, _ = channel.conversation_key(SESSION_ID)
    channel.objects.put(
        key, channel.seal(ObjectKind.MANIFEST, key, [Section("record", statement)], conversation_key)
    )
    desk.erase(SESSION_ID)
    assert {"vault.json", "roster/00000000000000000001"} <= set(keys(desk, ""))
    assert keys(desk, "manifests/") == [one.manifest_key for one in channel.catalogue.handoffs(OTHER_ID)]
    assert desk.sync()["warnings"] == []


def test_a_note_on_an_erased_conversation_is_refused_by_its_name(world: World) -> None:
    desk, _ = handed_over(world)
    desk.erase(SESSION_ID)
    for add in (desk.notebook.add_note, desk.notebook.add_task):
        with pytest.raises(NotFoundError, match="was erased, which is for good"):
            add("zeppelin", conversation_id=SESSION_ID)
    assert "zeppelin" not in rows(desk)


def test_whoever_asks_for_it_is_told_that_it_was_erased(world: World) -> None:
    desk, phone = handed_over(world)
    phone.resume_conversation(SESSION_ID)
    asks: dict[str, Callable[[App], object]] = {
        "hand over": lambda app: app.prepare_handoff(SESSION_ID),
        "resume": lambda app: app.resume_conversation(SESSION_ID),
        "load context": lambda app: app.load_context(SESSION_ID, "thread"),
        "restore": lambda app: app.restore(SESSION_ID),
        "make ready for offline": lambda app: app.make_offline(SESSION_ID),
        "save progress": lambda app: app.save_progress(SESSION_ID, bookmarks=[{"turn_id": "1234"}]),
        "list checkpoints": lambda app: app.list_checkpoints(SESSION_ID),
        "restore checkpoint": lambda app: app.restore_checkpoint(SESSION_ID),
    }
    desk.erase(SESSION_ID)
    phone.sync()
    for app in (desk, phone):
        for operation, ask in asks.items():
            with pytest.raises(NotFoundError, match=f"conversation {SESSION_ID} was erased") as raised:
                ask(app)
            assert raised.value.operation == operation
            assert raised.value.hint
        assert app.resume_conversation()["conversation_id"] == OTHER_ID


def test_where_clients_stood_in_it_goes_too(world: World) -> None:
    desk, phone = handed_over(world)
    for app in (desk, phone):
        app.resume_conversation(SESSION_ID)
        app.resume_conversation(OTHER_ID)
        assert sorted(app.blobs.keys("place/")) == sorted(f"place/{one}" for one in (SESSION_ID, OTHER_ID))
    desk.erase(SESSION_ID)
    phone.sync()
    for app in (desk, phone):
        assert app.blobs.keys("place/") == [f"place/{OTHER_ID}"]


def test_what_only_deleted_notes_tell_of_is_erased_too(world: World) -> None:
    desk, phone = world.desktop(), world.phone()
    note = desk.notebook.add_note(SECRET, conversation_id="a-talk")
    desk.notebook.remove(note["id"])
    desk.sync()
    phone.sync()
    assert SECRET in rows(phone)  # the log keeps what was written, though there has never been a note to see here
    desk.erase("a-talk")
    desk.sync()
    phone.sync()
    for app in (desk, phone):
        assert SECRET not in rows(app)


def test_what_only_the_log_knows_can_be_erased_by_its_id(world: World) -> None:
    desk, phone = world.desktop(), world.phone()
    note = desk.notebook.add_note(SECRET, conversation_id="a-talk")
    desk.notebook.remove(note["id"])
    desk.sync()
    phone.sync()
    phone.erase("a-talk")
    assert SECRET not in rows(phone)
