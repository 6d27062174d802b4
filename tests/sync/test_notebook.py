"""Notes, tasks and bookmarks that a person makes on a device."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dualmem_mcp.errors import NotFoundError, UsageError
from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.stores.database import Database
from dualmem_mcp.stores.record_store import RecordStore
from dualmem_mcp.sync.notebook import MAX_TEXT_CHARACTERS, Notebook

CONVERSATION = "0b5f0c66-7a3e-4f0e-9a53-2c1d5f1b7a10"


@pytest.fixture
def notebook(tmp_path: Path, clock) -> Iterator[Notebook]:
    with Database.open(tmp_path / "memory.db", bytes(32)) as database:
        yield Notebook(RecordStore(database, clock, DeviceId("a" * 32)))


def test_what_was_noted_is_listed_in_the_order_it_was_noted(notebook: Notebook) -> None:
    note = notebook.add_note("The crane lifts 40 t.", title="Crane")
    task = notebook.add_task("Check the hook.", conversation_id=CONVERSATION)
    bookmark = notebook.add_bookmark(CONVERSATION, "turn-1", label="the decision")
    assert notebook.entries() == [note, task, bookmark]
    assert notebook.entries(conversation_id=CONVERSATION) == [task, bookmark]
    assert (note["type"], note["title"], note["text"]) == ("note", "Crane", "The crane lifts 40 t.")
    assert (note["conversation_id"], note["device_id"]) == (None, "a" * 32)
    assert note["created_at"] == "2026-03-01T12:00:00+00:00"
    assert (task["status"], task["conversation_id"]) == ("open", CONVERSATION)
    assert (bookmark["turn_uuid"], bookmark["label"]) == ("turn-1", "the decision")


def test_a_task_ends_by_the_beginning_of_its_id(notebook: Notebook) -> None:
    task = notebook.add_task("Check the hook.")
    assert notebook.set_task(task["id"][:6], "done")["status"] == "done"
    assert [entry["status"] for entry in notebook.entries()] == ["done"]


def test_only_tasks_have_a_status(notebook: Notebook) -> None:
    note = notebook.add_note("No task.")
    with pytest.raises(NotFoundError):
        notebook.set_task(note["id"], "done")


def test_what_was_removed_is_gone(notebook: Notebook) -> None:
    note = notebook.add_note("Once.")
    assert notebook.remove(note["id"][:8]) == note
    assert notebook.entries() == []
    with pytest.raises(NotFoundError):
        notebook.remove(note["id"])


def test_an_id_that_several_have_is_refused(notebook: Notebook) -> None:
    ids = [notebook.add_note(f"note {number}")["id"] for number in range(17)]
    first = next(one[0] for one in ids if sum(other[0] == one[0] for other in ids) > 1)
    with pytest.raises(UsageError, match="begins with"):
        notebook.remove(first)
    assert len(notebook.entries()) == 17


@pytest.mark.parametrize("text", ["", "  \n", "x" * (MAX_TEXT_CHARACTERS + 1)])
def test_a_text_that_is_none_or_too_long_is_refused(notebook: Notebook, text: str) -> None:
    for add in (notebook.add_note, notebook.add_task):
        with pytest.raises(UsageError):
            add(text)
    assert notebook.entries() == []


@pytest.mark.parametrize("name", ["", "zz"])
def test_an_id_that_nothing_has_is_told(notebook: Notebook, name: str) -> None:
    notebook.add_note("here")
    with pytest.raises(NotFoundError, match="no note, task or bookmark"):
        notebook.remove(name)


def test_a_conversation_that_can_be_none_is_refused(notebook: Notebook) -> None:
    with pytest.raises(UsageError):
        notebook.add_note("x", conversation_id="../x")
