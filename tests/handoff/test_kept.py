"""Conversations of other devices, read from the packages that are kept here."""

from __future__ import annotations

import shutil

import pytest

from dualmem_mcp.errors import NotFoundError
from dualmem_mcp.handoff.kept import KeptConversations
from dualmem_mcp.transcripts.carried import parse_session

SESSION_ID = "0b5f0c66-7a3e-4f0e-9a53-2c1d5f1b7a10"


def kept(app) -> KeptConversations:
    return KeptConversations(app.channel(), app.device_id, parse_session)


def test_what_a_device_resumed_it_has_whole(world, talk) -> None:
    world.write_session(talk(20))
    desktop = world.desktop()
    report = desktop.prepare_handoff(decisions=["green it is"])
    phone = world.phone()
    assert kept(phone).sources() == []
    phone.resume_conversation()
    (source, device) = kept(phone).sources()[0]
    assert (source, device) == (f"package/{report['handoff_id']}", "desk")
    shutil.rmtree(world.bucket)
    found = kept(phone).read(source)
    assert found.conversation_id == SESSION_ID
    assert found.session is not None
    assert [turn.text for turn in found.session.turns] == talk(20)
    assert [one.text for one in found.decisions if one.origin == "model"] == ["green it is"]
    assert all(one.origin in {"model", "extracted"} for one in found.decisions)


def test_of_its_own_conversations_a_device_reads_only_the_decisions(world, talk) -> None:
    world.write_session(talk(20))
    desktop = world.desktop()
    desktop.prepare_handoff(decisions=["green it is"])
    ((source, device),) = kept(desktop).sources()
    found = kept(desktop).read(source)
    assert device == "desk"
    assert found.session is None
    assert "green it is" in [one.text for one in found.decisions]


def test_a_name_of_nothing(world) -> None:
    with pytest.raises(NotFoundError, match="there is no handoff"):
        kept(world.desktop()).read("package/" + "0" * 32)
