"""Packages that a device does not need make room, and never one that is nowhere else."""

from __future__ import annotations

import os

import pytest

from dualmem_mcp.errors import StoreUnreachableError
from dualmem_mcp.handoff.eviction import make_room
from dualmem_mcp.handoff.reconstruct import open_package
from dualmem_mcp.model.ids import HandoffId

OTHER = "11111111-2222-4333-8444-555555555555"


def kept_by(app) -> set[str]:
    return {one.handoff_id for one in app.packages.kept()}


def size_of(app, *handoffs: str) -> int:
    return sum(one.size_bytes for one in app.packages.kept() if one.handoff_id in handoffs)


def tenth_more(size_bytes: int) -> int:
    """The limit that leaves so much after a tenth of it was made free."""
    return -(-size_bytes * 10 // 9)


def handed_over(world, app, talk, turns: int, session_id: str = OTHER) -> str:
    world.write_session(talk(turns), session_id)
    return app.prepare_handoff(session_id)["handoff_id"]


def used(world, *handoffs: str) -> None:
    """Set the times of last use, oldest first."""
    for number, handoff in enumerate(handoffs):
        (path,) = world.root.glob(f"desktop/handoff_cache/*/{handoff}.pkg")
        os.utime(path, (1_000_000_000 + number, 1_000_000_000 + number))


def without_base(world, app, talk, turns: int) -> str:
    """A handoff of OTHER whose session has nothing in common with that of the one before."""
    world.write_session([f"{turns} {text}" for text in talk(turns)], OTHER)
    return app.prepare_handoff(OTHER)["handoff_id"]


def test_below_the_limit_everything_stays(world, talk) -> None:
    app = world.desktop()
    handoffs = {handed_over(world, app, talk, turns) for turns in (4, 6, 8)}
    assert kept_by(app) == handoffs
    assert make_room(app.channel(), app.packages, limit_bytes=size_of(app, *handoffs)) == []
    assert kept_by(app) == handoffs


def test_the_newest_package_of_each_conversation_stays_and_the_others_can_be_read_from_the_bucket(
    world, talk
) -> None:
    app = world.desktop(package_cache_mb=0)
    first = without_base(world, app, talk, 4)
    elsewhere = handed_over(world, app, talk, 6, session_id=OTHER[::-1])
    assert kept_by(app) == {first, elsewhere}
    second = without_base(world, app, talk, 80)
    assert kept_by(app) == {second, elsewhere}
    world.write_session([f"80 {text}" for text in talk(80)], OTHER)
    assert app.prepare_handoff(OTHER)["warnings"] == []
    assert elsewhere in kept_by(app)
    restored = app.restore(OTHER, claude_dir=world.root / "restored")
    assert restored["warnings"] == []
    assert restored["records"] == 80


def test_the_least_recently_used_goes_first_and_no_more_than_has_to(world, talk) -> None:
    app = world.desktop()
    first, second, third = (without_base(world, app, talk, turns) for turns in (4, 6, 8))
    newest = without_base(world, app, talk, 10)
    used(world, second, third, first, newest)
    make_room(app.channel(), app.packages, limit_bytes=tenth_more(size_of(app, first, third, newest)))
    assert kept_by(app) == {first, third, newest}
    app.packages.read(HandoffId(third))  # that is a use
    make_room(app.channel(), app.packages, limit_bytes=tenth_more(size_of(app, third, newest)))
    assert kept_by(app) == {third, newest}


def test_what_the_newest_builds_on_goes_last_and_what_its_brief_needs_not_at_all(world, talk) -> None:
    app = world.desktop()
    whole = handed_over(world, app, talk, 400)
    base = handed_over(world, app, talk, 410)
    newest = handed_over(world, app, talk, 420)
    record = app.catalogue.handoff(HandoffId(newest))
    assert record.base == base
    assert {section.base for section in open_package(app.channel(), record).manifest.patched} == {whole}
    elsewhere = handed_over(world, app, talk, 4, session_id=OTHER[::-1])
    world.write_session([f"new {text}" for text in talk(6)], OTHER[::-1])
    last = app.prepare_handoff(OTHER[::-1])["handoff_id"]
    assert app.catalogue.handoff(HandoffId(last)).base != elsewhere
    used(world, whole, base, newest, elsewhere, last)
    stay = {whole, base, newest, last}
    make_room(app.channel(), app.packages, limit_bytes=tenth_more(size_of(app, *stay)))
    assert kept_by(app) == stay
    make_room(app.channel(), app.packages, limit_bytes=0)
    assert kept_by(app) == stay - {base}
    world.bucket.rename(world.root / "away")
    assert "step 418" in app.resume_conversation(OTHER)["brief"]
    (world.root / "away").rename(world.bucket)
    assert app.restore(OTHER, claude_dir=world.root / "restored")["records"] == 420


def test_what_was_not_uploaded_stays(world, talk) -> None:
    app = world.desktop()
    uploaded = without_base(world, app, talk, 4)
    world.bucket.rename(world.root / "away")
    queued, newest = without_base(world, app, talk, 6), without_base(world, app, talk, 8)
    assert make_room(app.channel(), app.packages, limit_bytes=0) == []
    assert kept_by(app) == {uploaded, queued, newest}  # without the bucket nobody knows what it holds
    (world.root / "away").rename(world.bucket)
    assert make_room(app.channel(), app.packages, limit_bytes=0) == []
    assert kept_by(app) == {queued, newest}
    app.prepare_handoff(OTHER)
    assert not app.outbox.pending()
    make_room(app.channel(), app.packages, limit_bytes=0)
    assert queued not in kept_by(app)


@pytest.mark.parametrize("damage", ["gone", "cut short"])
def test_what_the_bucket_does_not_hold_any_more_stays(world, talk, damage: str) -> None:
    app = world.desktop()
    lost, there = handed_over(world, app, talk, 4), handed_over(world, app, talk, 6)
    newest = handed_over(world, app, talk, 8)
    path = world.bucket / "packages" / lost
    data = path.read_bytes()
    path.unlink()
    if damage == "cut short":
        path.write_bytes(data[:-1])
    make_room(app.channel(), app.packages, limit_bytes=0)
    assert kept_by(app) == {lost, newest}
    assert there not in kept_by(app)


def test_a_folder_that_cannot_be_listed_is_a_warning(world, talk, monkeypatch: pytest.MonkeyPatch) -> None:
    app = world.desktop()
    handed_over(world, app, talk, 4)

    def kept() -> None:
        raise StoreUnreachableError("the disk is gone")

    monkeypatch.setattr(app.packages, "kept", kept)
    world.write_session(talk(6), OTHER)
    assert app.prepare_handoff(OTHER)["warnings"] == [
        "packages kept on this device could not be evicted: the disk is gone"
    ]


def test_a_resume_makes_room_too(world, talk) -> None:
    desktop = world.desktop()
    handed_over(world, desktop, talk, 4)
    phone = world.phone(package_cache_mb=0)
    phone.resume_conversation(OTHER)
    (first,) = kept_by(phone)
    newest = without_base(world, desktop, talk, 8)
    phone.resume_conversation(OTHER)
    assert kept_by(phone) == {newest} != {first}
