"""Taking up: offline, on another device, with objects that were changed, cut, moved or exchanged."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

import pytest

from dualmem_mcp.errors import DualmemError, NotFoundError, StoreUnreachableError, TamperedError, UsageError
from dualmem_mcp.handoff.patches import MAX_PATCH_EXPANSION
from dualmem_mcp.handoff.reconstruct import find_handoff, open_package, refresh_catalogue

SESSION_ID = "0b5f0c66-7a3e-4f0e-9a53-2c1d5f1b7a10"
OTHER_ID = "9c2f9d0a-1111-4222-8333-444455556666"

BRIEF_FIELDS = {
    "conversation_id",
    "handoff_id",
    "title",
    "brief",
    "brief_tokens",
    "sections",
    "resumption_point",
    "requests",
    "decisions",
    "active_files",
    "commands",
    "tasks",
    "agents",
    "since_handoff",
    "branches",
    "related",
    "timings_ms",
    "completeness",
    "warnings",
}


@pytest.fixture
def handed_over(world, talk):
    """A desktop that handed one conversation over, and a phone that has not looked yet."""
    world.write_session(talk(60))
    report = world.desktop().prepare_handoff()
    return world, report, world.phone()


def test_a_brief_has_what_the_contract_names(handed_over) -> None:
    _, report, phone = handed_over
    brief = phone.resume_conversation(device="ios")
    assert set(brief) == BRIEF_FIELDS
    assert brief["handoff_id"] == report["handoff_id"]
    assert set(brief["timings_ms"]) == {"fetch", "open", "reconstruct"}
    assert set(brief["resumption_point"]) == {"last_request", "last_reply", "pending_tools", "git"}
    assert brief["resumption_point"]["last_request"]["text"].startswith("zephyrquartz58")
    assert brief["resumption_point"]["git"]["branch"] == "main"
    assert brief["since_handoff"]["from_device"] == "desk"
    assert brief["warnings"] == []


@pytest.mark.parametrize(("device", "most"), [("ios", 4000), ("android", 6000), ("pwa", 2000)])
def test_a_brief_keeps_to_the_devices_budget(handed_over, device: str, most: int) -> None:
    _, _, phone = handed_over
    assert 0 < phone.resume_conversation(device=device)["brief_tokens"] <= most


def test_a_brief_of_a_long_conversation_is_a_twentieth_of_it(world, talk) -> None:
    world.write_session([f"{text} {'and so on ' * 60}{index}" for index, text in enumerate(talk(300))])
    report = world.desktop().prepare_handoff()
    assert report["visible_tokens"] > 20_000
    assert report["reduction"] >= 0.95
    phone = world.phone()
    brief = phone.resume_conversation(device="desktop")
    assert brief["brief_tokens"] <= 0.05 * report["visible_tokens"]
    assert phone.resume_conversation(token_budget=8_000)["brief_tokens"] > brief["brief_tokens"]


def test_a_budget_given_wins(handed_over) -> None:
    _, _, phone = handed_over
    assert phone.resume_conversation(token_budget=300)["brief_tokens"] <= 300


def test_the_newest_handoff_of_all_is_the_default(handed_over, talk) -> None:
    world, _, phone = handed_over
    world.write_session(talk(8), OTHER_ID)
    world.clock.advance(60)
    world.open("desktop").prepare_handoff(OTHER_ID)
    assert phone.resume_conversation()["conversation_id"] == OTHER_ID
    assert phone.resume_conversation(SESSION_ID)["conversation_id"] == SESSION_ID


def test_what_was_resumed_once_is_there_without_the_bucket(handed_over) -> None:
    world, _, phone = handed_over
    online = phone.resume_conversation()
    world.bucket.rename(world.root / "unplugged")
    phone.close()
    again = world.open("phone")
    offline = again.resume_conversation()
    assert offline["brief"] == online["brief"]
    assert any("cannot be reached" in warning for warning in offline["warnings"])
    assert again.load_context(SESSION_ID, "thread")["text"]
    assert again.restore(SESSION_ID, claude_dir=world.root / "restored")["records"] == 60
    listed = again.list_conversations()
    assert [row["conversation_id"] for row in listed["conversations"]] == [SESSION_ID]


def test_what_was_never_fetched_needs_the_bucket(handed_over) -> None:
    world, _, phone = handed_over
    phone.list_conversations()
    world.bucket.rename(world.root / "unplugged")
    with pytest.raises(StoreUnreachableError) as caught:
        phone.resume_conversation(SESSION_ID)
    assert caught.value.hint


@pytest.mark.parametrize("wanted", [None, SESSION_ID])
def test_a_device_that_knows_nothing_yet_says_that_the_bucket_is_away(handed_over, wanted) -> None:
    world, _, phone = handed_over
    world.bucket.rename(world.root / "unplugged")
    with pytest.raises(StoreUnreachableError, match="can be opened: the bucket folder"):
        phone.resume_conversation(wanted)
    with pytest.raises(StoreUnreachableError):
        phone.load_context(SESSION_ID, "thread")


@pytest.mark.parametrize("wanted", [None, SESSION_ID])
def test_a_conversation_whose_only_record_was_changed_is_not_said_to_be_unknown(handed_over, wanted) -> None:
    world, _, phone = handed_over
    record = next(path for path in (world.bucket / "manifests").rglob("*") if path.is_file())
    record.write_bytes(record.read_bytes()[:-1])
    with pytest.raises(TamperedError) as caught:
        phone.resume_conversation(wanted)
    assert caught.value.hint


def test_a_bucket_that_refuses_is_not_said_to_be_away(handed_over) -> None:
    world, _, phone = handed_over
    vault = world.bucket / "vault.json"
    vault.rename(world.root / "vault.json")
    vault.symlink_to(world.root / "vault.json")  # the store follows no link
    [warning] = phone.list_conversations()["warnings"]
    assert warning.startswith("the bucket refuses this device (")
    assert "Remove the link" in warning
    vault.unlink()
    world.bucket.rename(world.root / "away")
    [warning] = phone.list_conversations()["warnings"]
    assert warning.startswith("the bucket cannot be reached (")


def test_a_package_that_is_gone_is_said_with_what_to_do(handed_over) -> None:
    world, _, phone = handed_over
    shutil.rmtree(world.bucket / "packages")
    with pytest.raises(NotFoundError, match="gone from the bucket") as caught:
        phone.resume_conversation(SESSION_ID)
    assert "Hand the conversation over again" in caught.value.hint


def test_without_the_package_it_is_built_upon_a_handoff_says_what_to_do(handed_over, talk) -> None:
    world, first, phone = handed_over
    world.clock.advance(60)
    world.write_session(talk(64))
    world.open("desktop").prepare_handoff()
    (world.bucket / "packages" / first["handoff_id"]).unlink()
    with pytest.raises(NotFoundError, match="gone from the bucket") as caught:
        phone.resume_conversation()
    assert "Hand the conversation over again" in caught.value.hint
    with pytest.raises(NotFoundError, match="gone from the bucket"):
        phone.restore(SESSION_ID, claude_dir=world.root / "restored")
    # On the device that has it, everything is carried anew then.
    world.clock.advance(60)
    world.open("desktop").prepare_handoff()
    assert "zephyrquartz62" in phone.resume_conversation()["brief"]


def test_a_second_handoff_says_in_patches_what_the_first_said(handed_over, talk) -> None:
    world, first, phone = handed_over
    world.clock.advance(60)
    world.write_session(talk(64))
    second = world.open("desktop").prepare_handoff()
    package = phone._newest_package(SESSION_ID, refresh_catalogue(phone.channel()))
    assert package.manifest.format == 3
    assert {section.name for section in package.manifest.patched} == {"digest", "agents"}
    assert {section.base for section in package.manifest.patched} == {first["handoff_id"]}
    assert second["package_bytes"] < first["package_bytes"]
    assert "zephyrquartz62" in phone.resume_conversation()["brief"]
    # Kept whole for use offline, the one that the patches are against with it.
    kept = {path.name for path in phone.home.mobile_reconstruction.iterdir()}
    assert all(any(handoff["handoff_id"] in name for name in kept) for handoff in (first, second))


def test_a_second_handoff_is_one_section(handed_over, talk) -> None:
    """Header and index have 1,296 bytes; a section at least 4,112, and all of it is one."""
    world, _, phone = handed_over
    world.clock.advance(60)
    world.write_session(talk(64))
    second = world.open("desktop").prepare_handoff()
    assert second["package_bytes"] == 1_296 + 4_112
    package = phone._newest_package(SESSION_ID, refresh_catalogue(phone.channel()))
    assert package.section_names == ("manifest", "patches", "thread/00000")
    assert package.thread_files() == {f"{SESSION_ID}.jsonl": world.write_session(talk(64)).read_bytes()}
    # A third is built upon parts and sections that lie behind manifests.
    world.clock.advance(60)
    third = world.write_session([*talk(64), *talk(200)[100:]])
    world.open("desktop").prepare_handoff()
    package = phone._newest_package(SESSION_ID, refresh_catalogue(phone.channel()))
    assert package.thread_files() == {f"{SESSION_ID}.jsonl": third.read_bytes()}
    assert "zephyrquartz198" in phone.resume_conversation()["brief"]


def test_a_brief_of_a_second_handoff_takes_one_request_a_package(handed_over, talk) -> None:
    world, _, phone = handed_over
    world.clock.advance(60)
    world.write_session(talk(64))
    world.open("desktop").prepare_handoff()
    record = find_handoff(phone.channel(), None, refresh_catalogue(phone.channel()))
    asked = []
    plain = type(phone.channel().objects).get

    def counting(self, key, **span):
        asked.append(key.partition("/")[0])
        return plain(self, key, **span)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(phone.channel().objects), "get", counting)
        assert open_package(phone.channel(), record).digest.requests
    assert asked.count("packages") == 2


def test_carried_files_and_state_that_did_not_change_are_not_sent_again(world, talk) -> None:
    world.write_session(talk(60))
    (world.project / "CLAUDE.md").write_bytes(os.urandom(20_000).hex().encode())
    state = {f"{number}": os.urandom(8).hex() for number in range(600)}
    desktop = world.desktop(state=state)
    first = desktop.prepare_handoff()
    assert first["package_bytes"] > 30_000
    world.clock.advance(60)
    session = world.write_session(talk(64))
    second = desktop.prepare_handoff()
    assert second["package_bytes"] == 1_296 + 4_112
    phone = world.phone()
    assert "zephyrquartz62" in phone.resume_conversation()["brief"]
    package = phone._newest_package(SESSION_ID)
    assert {section.name for section in package.manifest.patched} == {"digest", "agents", "state", "files"}
    assert package.state == state
    assert [data for _, data in package.carried_files()] == [(world.project / "CLAUDE.md").read_bytes()]
    # What is gone from the state is gone from the next handoff, too.
    world.clock.advance(60)
    desktop.close()
    world.open("desktop").prepare_handoff()
    assert phone._newest_package(SESSION_ID, refresh_catalogue(phone.channel())).state == {}
    assert package.thread_files() == {f"{SESSION_ID}.jsonl": session.read_bytes()}


def test_a_patch_that_gives_another_section_is_tampering(handed_over, talk) -> None:
    world, _, phone = handed_over
    world.clock.advance(60)
    world.write_session(talk(64))
    world.open("desktop").prepare_handoff()
    package = phone._newest_package(SESSION_ID, refresh_catalogue(phone.channel()))
    digest, agents = package.manifest.patched
    over = digest.stored * MAX_PATCH_EXPANSION + 1
    for hostile in (
        replace(digest, size=over),
        replace(digest, sha256="0" * 64),
        replace(digest, size=2**40),
        replace(digest, stored=3),
    ):
        package.__dict__["manifest"] = replace(package.manifest, patched=(hostile, agents))
        with pytest.raises(TamperedError):
            package.read_section("digest")


def test_carried_files_that_repeat_one_range_are_tampering(world, talk) -> None:
    (world.project / "CLAUDE.md").write_bytes(bytes(1 << 20))
    world.write_session(talk(6))
    desktop = world.desktop()
    desktop.prepare_handoff()
    package = desktop._newest_package(SESSION_ID)
    ((file, data),) = package.carried_files()
    assert data == bytes(1 << 20)
    package.__dict__["manifest"] = replace(package.manifest, files=(file,) * 257)
    with pytest.raises(TamperedError, match="the files section"):
        package.carried_files()


def test_restoring_takes_the_newest_handoff_and_not_the_newest_known(handed_over, talk) -> None:
    world, _, phone = handed_over
    phone.resume_conversation()
    world.clock.advance(60)
    world.write_session(talk(64))
    world.open("desktop").prepare_handoff()
    assert phone.restore(SESSION_ID, claude_dir=world.root / "restored")["records"] == 64


def test_new_turns_on_this_device_are_told(handed_over, talk) -> None:
    world, _, _ = handed_over
    desktop = world.open("desktop")
    assert desktop.resume_conversation()["since_handoff"]["new_turns_on_this_device"] == 0
    world.write_session(talk(64))
    brief = desktop.resume_conversation()
    assert brief["since_handoff"]["new_turns_on_this_device"] == 4
    assert "zephyrquartz62" in brief["brief"]


def test_a_vault_without_handoffs_says_so(world) -> None:
    world.desktop()
    with pytest.raises(NotFoundError) as caught:
        world.phone().resume_conversation()
    assert "dualmem handoff" in caught.value.hint


def test_any_changed_byte_of_a_package_is_tampering(handed_over) -> None:
    world, report, phone = handed_over
    package = world.bucket / "packages" / report["handoff_id"]
    whole = package.read_bytes()
    for position in range(0, len(whole), max(1, len(whole) // 97)):
        package.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(TamperedError):
            everything(phone)


def everything(phone) -> None:
    """Read all of the package as it lies in the bucket now."""
    for kept in phone.home.mobile_reconstruction.iterdir():
        kept.unlink()
    phone.resume_conversation(SESSION_ID)
    package = phone._newest_package(SESSION_ID)
    for section in package.section_names:
        package.read_section(section)


def test_the_first_resume_tells_of_a_change_anywhere_in_the_package(handed_over) -> None:
    world, report, phone = handed_over
    package = world.bucket / "packages" / report["handoff_id"]
    whole = package.read_bytes()
    for position in (len(whole) // 2, len(whole) - 1):
        package.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(TamperedError):
            phone.resume_conversation(SESSION_ID)
        assert not list(phone.home.mobile_reconstruction.iterdir())


def test_a_kept_copy_that_was_damaged_gives_way_to_the_buckets(handed_over) -> None:
    _, _, phone = handed_over
    brief = phone.resume_conversation()["brief"]
    (kept,) = phone.home.mobile_reconstruction.iterdir()
    whole = kept.read_bytes()
    for position in (5, 300, 2_000, len(whole) - 1):
        kept.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        assert phone.resume_conversation()["brief"] == brief
        assert phone.load_context(SESSION_ID, "thread")["text"]
    phone.resume_conversation()
    assert kept.read_bytes() == whole


def test_a_package_cut_short_is_tampering(handed_over) -> None:
    world, report, phone = handed_over
    package = world.bucket / "packages" / report["handoff_id"]
    whole = package.read_bytes()
    for length in (0, 1, 100, 255, 256, 1_000, len(whole) // 2, len(whole) - 1):
        package.write_bytes(whole[:length])
        with pytest.raises(TamperedError):
            everything(phone)


def test_a_package_in_anothers_place_is_tampering(handed_over, talk) -> None:
    world, first, phone = handed_over
    world.write_session(talk(8), OTHER_ID)
    world.clock.advance(60)
    second = world.open("desktop").prepare_handoff(OTHER_ID)
    packages = world.bucket / "packages"
    (packages / first["handoff_id"]).write_bytes((packages / second["handoff_id"]).read_bytes())
    with pytest.raises(TamperedError):
        phone.resume_conversation(SESSION_ID)
    assert phone.resume_conversation(OTHER_ID)["conversation_id"] == OTHER_ID


def test_a_package_of_another_vault_is_tampering(handed_over, tmp_path, clock, talk) -> None:
    world, report, phone = handed_over
    (tmp_path / "elsewhere").mkdir()
    elsewhere = type(world)(tmp_path / "elsewhere", clock)
    elsewhere.write_session(talk(8))
    foreign = elsewhere.desktop().prepare_handoff()
    elsewhere.close()
    data = (elsewhere.bucket / "packages" / foreign["handoff_id"]).read_bytes()
    (world.bucket / "packages" / report["handoff_id"]).write_bytes(data)
    with pytest.raises(DualmemError) as caught:
        phone.resume_conversation(SESSION_ID)
    assert caught.value.exit_code == 5


def test_a_bucket_that_was_set_back_is_told_and_gets_nothing(handed_over, talk) -> None:
    world, _, _ = handed_over
    desktop = world.open("desktop")
    desktop.list_conversations()  # has seen that the phone joined
    (world.bucket / "roster" / f"{2:020d}").unlink()
    before = sorted(world.bucket.rglob("*"))
    with pytest.raises(TamperedError):
        desktop.resume_conversation()
    world.clock.advance(60)
    with pytest.raises(TamperedError) as caught:
        desktop.prepare_handoff()
    assert caught.value.hint
    assert sorted(world.bucket.rglob("*")) == before
    assert desktop.outbox.pending()


def test_a_bucket_that_was_emptied_is_told(handed_over) -> None:
    world, _, phone = handed_over
    phone.resume_conversation()
    for path in world.bucket.iterdir():
        if not path.name.startswith("."):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(NotFoundError) as caught:
        phone.resume_conversation()
    assert caught.value.hint


def test_a_record_that_does_not_open_is_passed_over_and_told(handed_over, talk) -> None:
    world, _, phone = handed_over
    world.write_session(talk(8), OTHER_ID)
    world.clock.advance(60)
    world.open("desktop").prepare_handoff(OTHER_ID)
    damaged = next(path for path in (world.bucket / "manifests").rglob("*") if path.is_file())
    damaged.write_bytes(damaged.read_bytes()[:-1])
    listed = phone.list_conversations()
    assert len(listed["conversations"]) == 1
    assert any("passed over" in warning for warning in listed["warnings"])


def test_a_key_object_that_is_gone_is_said(handed_over) -> None:
    world, _, phone = handed_over
    shutil.rmtree(world.bucket / "keys" / "c")
    with pytest.raises(DualmemError) as caught:
        phone.resume_conversation(SESSION_ID)
    assert caught.value.hint
    assert "zephyrquartz" not in str(caught.value)


def test_two_devices_hand_over_the_same_conversation(handed_over, talk) -> None:
    world, _, phone = handed_over
    world.clock.advance(60)
    world.write_session(talk(62))
    mine = phone.prepare_handoff(SESSION_ID)
    desktop = world.open("desktop")
    assert desktop.resume_conversation(SESSION_ID)["handoff_id"] == mine["handoff_id"]
    world.clock.advance(60)
    world.write_session(talk(64))
    theirs = desktop.prepare_handoff(SESSION_ID)
    assert phone.resume_conversation(SESSION_ID)["handoff_id"] == theirs["handoff_id"]
    restored = phone.restore(SESSION_ID, claude_dir=world.root / "restored")
    assert restored["records"] == 64


def test_sections_page_through_everything(handed_over) -> None:
    _, _, phone = handed_over
    text, cursor = "", ""
    for _ in range(100):
        page = phone.load_context(SESSION_ID, "thread", cursor)
        text, cursor = text + "\n" + page["text"], page["next_cursor"]
        if not cursor:
            break
    for index in range(60):
        assert f"{'zephyrquartz' if index % 2 == 0 else 'obsidianlark'}{index} " in text


def test_the_thread_opens_at_a_turn(handed_over) -> None:
    _, _, phone = handed_over
    page = phone.load_context(SESSION_ID, "thread", "0000002a")
    assert "zephyrquartz42 " in page["text"]
    assert "zephyrquartz40 " not in page["text"]


@pytest.mark.parametrize("name", ["thread", "state", "carried_files", "requests", "resumption"])
def test_a_cursor_that_was_never_given_is_refused(handed_over, name: str) -> None:
    _, _, phone = handed_over
    for cursor in ("-1", "x", "99999999999999999999", "1:", "٣", "zzzz"):
        with pytest.raises(UsageError) as caught:
            phone.load_context(SESSION_ID, name, cursor)
        assert caught.value.hint


def test_an_unknown_section_names_those_there_are(handed_over) -> None:
    _, _, phone = handed_over
    with pytest.raises(NotFoundError) as caught:
        phone.load_context(SESSION_ID, "../secrets")
    assert "thread" in caught.value.hint
    assert "requests" in caught.value.hint


def test_every_section_that_a_brief_names_can_be_loaded(handed_over) -> None:
    _, _, phone = handed_over
    for section in phone.resume_conversation(device="pwa")["sections"]:
        assert set(phone.load_context(SESSION_ID, section["name"], section["cursor"])) == {
            "section",
            "text",
            "next_cursor",
        }


def test_a_record_of_any_length_is_read_to_a_bound(handed_over) -> None:
    world, _, phone = handed_over
    record = next(path for path in (world.bucket / "manifests").rglob("*") if path.is_file())
    with record.open("r+b") as file:
        file.truncate(1 << 26)
    read = 0
    plain = type(phone.channel().objects).get

    def counting(self, key, **span):
        nonlocal read
        data = plain(self, key, **span)
        read += len(data)
        return data

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(phone.channel().objects), "get", counting)
        with pytest.raises(DualmemError):
            phone.resume_conversation(SESSION_ID)
    assert read < 1 << 20
