"""From session files, imports and the graph to what search finds, all the way and again after any interruption."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dualmem_mcp.durable_files import file_lock
from dualmem_mcp.errors import ConflictError
from dualmem_mcp.model.graph import Entity, EntityObservations
from dualmem_mcp.model.ids import ConversationId
from dualmem_mcp.model.recalled import wrap
from dualmem_mcp.model.search import Collection, Filter
from dualmem_mcp.model.source import Finding, ImportedTurn
from dualmem_mcp.search.indexing import BATCH_TEXTS, IndexReport, embed_items
from dualmem_mcp.stores.search_index import open_search_index
from tests.conftest import SteppingClock
from tests.search.home import Memory, WordEmbedder
from tests.transcripts.conftest import SessionWriter, tool_use


@pytest.fixture
def memory(tmp_path: Path, clock: SteppingClock) -> Iterator[Memory]:
    opened = Memory(tmp_path, clock)
    yield opened
    opened.close()


@pytest.fixture
def embedder() -> WordEmbedder:
    return WordEmbedder()


@pytest.fixture
def writer(memory: Memory) -> SessionWriter:
    return SessionWriter(memory.claude / "projects" / "-home-dev-app")


def imported(number: int, conversation: str = "conv-1") -> ImportedTurn:
    return ImportedTurn(ConversationId(conversation), f"D1:{number}", "user", f"marmalade number{number}", "Ann")


def test_a_session_is_found_by_its_words(memory: Memory, writer: SessionWriter) -> None:
    writer.user("Where is the marmalade?")
    writer.assistant("The marmalade is in the shed.")
    writer.write()
    report = memory.indexer.run(files=memory.files)
    assert (report.conversations, report.turns_indexed, report.skipped) == (1, 2, 0)
    assert memory.texts("shed") == ["The marmalade is in the shed."]
    (item,) = memory.found("shed")
    assert (item.conversation_id, item.turn_id, item.author, item.device) == (
        writer.path.stem,
        "u2",
        "assistant",
        "desk",
    )


def test_only_what_is_new_is_indexed_the_next_time(memory: Memory, writer: SessionWriter) -> None:
    writer.user("one marmalade")
    writer.write()
    memory.indexer.run(files=memory.files)
    report = memory.indexer.run(files=memory.files)
    assert (report.conversations, report.turns_indexed, report.skipped) == (0, 0, 1)
    writer.user("two marmalade")
    writer.write()
    report = memory.indexer.run(files=memory.files)
    assert (report.conversations, report.turns_indexed, report.skipped) == (1, 1, 0)
    assert memory.texts("marmalade") == ["one marmalade", "two marmalade"]


def test_a_fork_has_its_turns_too_and_each_once(memory: Memory, writer: SessionWriter) -> None:
    writer.user("marmalade")
    writer.write()
    fork = SessionWriter(writer.path.parent, "22222222-2222-4222-8222-222222222222")
    fork.user("marmalade")
    fork.user("more marmalade")
    fork.write()
    memory.indexer.run(files=memory.files)
    assert [item.key.rsplit("/", 1)[-1] for item in memory.found("marmalade")] == ["u1", "u1", "u2"]


def test_tools_are_not_indexed_and_recalled_text_not_again(memory: Memory, writer: SessionWriter) -> None:
    said = "The marmalade is in the shed."
    writer.user("Where is the marmalade?")
    writer.assistant("I search.", tool_use("t1", "mcp__dualmem__search_memory", query="marmalade"))
    writer.result("t1", wrap(said, "search"))
    writer.assistant(f"I found this:\n{wrap(said, 'search')}\nSo look there.")
    writer.user("Go on with the conversation c0ffee.\nCall resume_conversation with it.")
    writer.user(f"{wrap(said, 'brief')}\nIs that so?")
    writer.write()
    memory.indexer.run(files=memory.files)
    assert memory.texts("shed") == []
    assert memory.texts("resume_conversation") == []
    assert memory.texts("marmalade") == ["Where is the marmalade?"]
    assert memory.texts("look", "so") == ["I found this:\n\nSo look there.", "Is that so?"]


def test_decisions_and_agents_are_found_apart_from_the_turns(memory: Memory, writer: SessionWriter) -> None:
    writer.user("Paint the shed")
    writer.assistant("Which colour?", tool_use("t1", "AskUserQuestion", questions=[{"question": "Which colour?"}]))
    writer.result("t1", "answered", toolUseResult={"answers": {"Which colour?": "vermilion"}})
    writer.assistant(
        tool_use("t2", "Task", description="Buy paint", subagent_type="buyer", prompt="Buy vermilion.")
    )
    writer.write()
    memory.indexer.run(files=memory.files)
    assert memory.texts("vermilion", collection=Collection.CONTEXT) == ["Which colour?\nvermilion"]
    assert memory.texts("buyer", collection=Collection.AGENTS) == ["Buy paint (buyer)\nBuy vermilion."]
    writer.result("t2", "The shop had none.")
    writer.write()
    memory.indexer.run(files=memory.files)
    (agent,) = memory.found("shop", collection=Collection.AGENTS)
    assert agent.text == "Buy paint (buyer)\nBuy vermilion.\nThe shop had none."
    assert memory.counts(Collection.AGENTS) == (1, 0)


def test_what_agents_know_is_found_until_it_is_deleted(memory: Memory, writer: SessionWriter) -> None:
    writer.user("hello")
    notes = writer.path.parent / "memory" / "MEMORY.md"
    notes.parent.mkdir(parents=True)
    notes.write_text("The shed is vermilion.")
    writer.write()
    memory.indexer.run(files=memory.files)
    assert memory.texts("vermilion", collection=Collection.AGENTS) == ["memory/MEMORY.md\nThe shed is vermilion."]
    notes.write_text("The shed is green.")
    memory.indexer.run(files=memory.files)
    assert memory.texts("vermilion", collection=Collection.AGENTS) == []
    assert len(memory.texts("green", collection=Collection.AGENTS)) == 1
    notes.unlink()
    memory.indexer.run(files=memory.files)
    assert memory.counts(Collection.AGENTS) == (0, 0)


def test_the_graph_is_followed_by_its_changes(memory: Memory) -> None:
    context = Collection.CONTEXT
    memory.graph.create_entities([Entity("Ada", "person", ("née Byron",)), Entity("Shed", "place")])
    memory.indexer.run()
    assert memory.texts("byron", collection=context) == ["Ada (person)\nnée Byron"]
    memory.graph.add_observations([EntityObservations("Ada", ("likes marmalade",))])
    memory.graph.delete_entities(["Shed"])
    memory.indexer.run()
    assert memory.texts("marmalade", collection=context) == ["Ada (person)\nnée Byron\nlikes marmalade"]
    assert memory.texts("shed", collection=context) == []
    memory.graph.delete_observations([EntityObservations("Ada", ("née Byron",))])
    memory.graph.create_entities([Entity("Shed", "place", ("red",))])
    memory.indexer.run()
    assert memory.texts("byron", collection=context) == []
    assert memory.texts("shed", collection=context) == ["Shed (place)\nred"]


def test_a_large_graph_is_indexed_whole(memory: Memory) -> None:
    memory.graph.create_entities([Entity(f"e{number}", "t", ("marmalade",)) for number in range(450)])
    assert memory.indexer.run().items_indexed == 450
    assert memory.indexer.run().items_indexed == 0


def test_what_is_deleted_while_a_graph_is_half_indexed_is_not_found(memory: Memory) -> None:
    memory.graph.create_entities([Entity(f"e{number}", "t", ("marmalade",)) for number in range(450)])
    context = memory.indexes[Collection.CONTEXT]
    memory.indexer.run(should_stop=lambda: context.counts().items > 0)
    assert 0 < context.counts().items < 450
    memory.graph.delete_entities(["e0", "e449"])
    memory.indexer.run()
    assert context.counts().items == 448
    assert "e0 (t)\nmarmalade" not in memory.texts("marmalade", collection=Collection.CONTEXT)


def test_imported_turns_are_neighbours_in_the_order_of_their_file(memory: Memory, embedder: WordEmbedder) -> None:
    memory.log.add_imported([imported(number, f"conv-{number % 2}") for number in (0, 1, 2, 3, 4)])
    memory.indexer.run()
    index = memory.indexes[Collection.CONVERSATIONS]
    index.use_model(embedder.model_id, embedder.dimensions)
    previous = {one.item.turn_id: one.previous and one.previous.turn_id for one in index.unembedded(10)}
    assert previous == {"D1:0": None, "D1:1": None, "D1:2": "D1:0", "D1:3": "D1:1", "D1:4": "D1:2"}


@pytest.mark.parametrize("way", ["deleted", "damaged"])
def test_an_index_that_is_lost_is_filled_again_from_the_memory(
    memory: Memory, writer: SessionWriter, embedder: WordEmbedder, way: str
) -> None:
    writer.user("marmalade")
    memory.log.put_findings("", [Finding("note", "n1", "vermilion marmalade")])
    memory.graph.create_entities([Entity("Shed", "place", ("marmalade",))])
    writer.write()
    memory.indexer.run(files=memory.files, embedder=embedder)
    shutil.rmtree(memory.claude)  # as Claude Code does after 30 days
    for collection, index in memory.indexes.items():
        index.close()
        if way == "deleted":
            shutil.rmtree(memory.root / collection.value)
        else:
            (memory.root / collection.value / "index.db").write_bytes(b"not a database" * 1000)
        memory.indexes[collection] = open_search_index(memory.root / collection.value, bytes(32), collection)
    report = memory.indexer.run(embedder=embedder)
    assert (report.turns_indexed, report.items_indexed, report.embedded) == (1, 3, 3)
    assert memory.texts("marmalade") == ["marmalade"]
    assert memory.texts("marmalade", collection=Collection.CONTEXT) == [
        "Shed (place)\nmarmalade",
        "vermilion marmalade",
    ]


def test_without_a_model_all_is_found_by_words_and_embedded_later(memory: Memory, embedder: WordEmbedder) -> None:
    memory.log.add_imported([imported(number) for number in range(3 * BATCH_TEXTS)])
    report = memory.indexer.run()
    assert (report.embedded, report.waiting) == (0, 3 * BATCH_TEXTS)
    assert len(memory.texts("number5")) == 1
    report = memory.indexer.run(embedder=embedder)
    assert (report.turns_indexed, report.embedded, report.waiting) == (0, 3 * BATCH_TEXTS, 0)
    assert memory.counts() == (3 * BATCH_TEXTS, 3 * BATCH_TEXTS)


def test_another_model_embeds_all_again(memory: Memory, embedder: WordEmbedder) -> None:
    memory.log.add_imported([imported(number) for number in range(5)])
    memory.indexer.run(embedder=embedder)
    assert memory.indexer.run(embedder=embedder).embedded == 0
    other = WordEmbedder("words-2", 16)
    assert memory.indexer.run(embedder=other).embedded == 5


def test_it_stops_between_two_batches_and_goes_on_later(memory: Memory, embedder: WordEmbedder) -> None:
    memory.log.add_imported([imported(number) for number in range(3 * BATCH_TEXTS)])
    report = memory.indexer.run(embedder=embedder, should_stop=lambda: len(embedder.embedded) > 0)
    assert (report.embedded, report.waiting) == (BATCH_TEXTS, 2 * BATCH_TEXTS)
    assert memory.indexer.run(embedder=embedder).embedded == 2 * BATCH_TEXTS


def test_what_a_fork_has_too_is_embedded_once(
    memory: Memory, writer: SessionWriter, embedder: WordEmbedder
) -> None:
    for number in range(40):
        writer.user(f"marmalade number{number}")
    writer.write()
    memory.indexer.run(files=memory.files, embedder=embedder)
    fork = SessionWriter(writer.path.parent, "22222222-2222-4222-8222-222222222222")
    for number in range(40):
        fork.user(f"Marmalade  number{number}")
    fork.user("and more marmalade")
    fork.write()
    before = len(embedder.embedded)
    report = memory.indexer.run(files=memory.files, embedder=embedder)
    assert (report.embedded, report.deduplicated, report.waiting) == (41, 40, 0)
    assert len(embedder.embedded) == before + 1
    assert report.fields()["deduplicated"] == 40
    index = memory.indexes[Collection.CONVERSATIONS]
    assert index.counts().shared == 40
    nearest = index.nearest(embedder.embed(["marmalade number6 marmalade number7"])[0], Filter(), 2)
    assert [item.text for item in index.items(nearest.ids.tolist())] == [
        "marmalade number7",
        "Marmalade  number7",
    ]
    assert nearest.scores[0] == nearest.scores[1]


def test_what_is_alike_in_one_batch_is_embedded_once(memory: Memory, embedder: WordEmbedder) -> None:
    memory.log.add_imported([replace(imported(0, f"conv-{number}"), text="Yes, in May") for number in range(6)])
    memory.log.add_imported([replace(imported(0, "conv-9"), text="Yes, in May?")])
    memory.log.put_findings("", [Finding("note", f"n{number}", "vermilion paint") for number in range(3)])
    report = memory.indexer.run(embedder=embedder)
    assert (report.embedded, report.deduplicated, report.waiting) == (10, 7, 0)
    assert sorted(embedder.embedded) == ["Ann: Yes, in May", "Ann: Yes, in May?", "vermilion paint"]


def test_the_same_words_after_other_words_are_not_alike(
    memory: Memory, writer: SessionWriter, embedder: WordEmbedder
) -> None:
    for question in ("Paint the shed?", "Eat the marmalade?"):
        writer.assistant(question)
        writer.user("Yes")
    writer.write()
    report = memory.indexer.run(files=memory.files, embedder=embedder)
    assert (report.embedded, report.deduplicated) == (4, 0)
    assert memory.indexes[Collection.CONVERSATIONS].counts().shared == 0


def test_a_batch_has_few_items_where_they_are_long(memory: Memory, embedder: WordEmbedder) -> None:
    memory.log.add_imported([replace(imported(number), text=f"marmalade{number} " * 2000) for number in range(20)])
    batches: list[int] = []

    def stop() -> bool:
        batches.append(len(embedder.embedded))
        return False

    memory.indexer.run(embedder=embedder, should_stop=stop)
    assert memory.counts() == (20, 20)
    first = next(count for count in batches if count)
    assert 0 < first <= BATCH_TEXTS


def test_told_to_stop_at_once_it_does_nothing(memory: Memory, writer: SessionWriter) -> None:
    writer.user("marmalade")
    writer.write()
    memory.log.add_imported([imported(1)])
    report = memory.indexer.run(files=memory.files, should_stop=lambda: True)
    assert (report.turns_indexed, memory.counts()) == (0, (0, 0))


def test_an_item_that_gets_no_vectors_does_not_keep_it_busy(memory: Memory, embedder: WordEmbedder) -> None:
    memory.log.add_imported([imported(number) for number in range(5)])
    memory.indexer.run()

    class Forgetting:
        def __init__(self) -> None:
            self.index = memory.indexes[Collection.CONVERSATIONS]
            self.asked = 0

        def __getattr__(self, name: str) -> object:
            return getattr(self.index, name)

        def put_vectors(self, model_id: str, vectors: object, likenesses: object) -> None:
            self.asked += 1

    forgetting = Forgetting()
    embed_items({Collection.CONVERSATIONS: forgetting}, embedder, IndexReport())  # type: ignore[dict-item]
    assert forgetting.asked == 1


def test_progress_goes_forward_and_ends(memory: Memory, writer: SessionWriter, embedder: WordEmbedder) -> None:
    for number in range(250):
        writer.user(f"marmalade {number}")
    writer.write()
    told: list[tuple[int, int, str]] = []
    memory.indexer.run(files=memory.files, embedder=embedder, progress=lambda *step: told.append(step))
    assert all(done <= total for done, total, _ in told)
    assert told[0] == (0, 1, "reading sessions")
    assert (250, 250, "indexing") in told
    assert told[-1][:2] == (250, 250)
    assert "marmalade" not in str(told)


def test_one_process_of_a_data_home_indexes_at_a_time(memory: Memory) -> None:
    memory.log.add_imported([imported(1)])
    with file_lock(memory.root / ".indexing.lock"):
        report = memory.indexer.run()
        assert (report.busy, report.turns_indexed) == (True, 0)
        with pytest.raises(ConflictError, match="another process") as caught:
            memory.indexer.run_alone(wait_seconds=0.0)
        assert caught.value.hint
    assert memory.indexer.run_alone(wait_seconds=0.0).turns_indexed == 1


def test_a_file_that_cannot_be_read_is_told_of_and_the_others_are_indexed(
    memory: Memory, writer: SessionWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.user("marmalade")
    writer.write()
    locked = SessionWriter(writer.path.parent, "locked")
    locked.user("vermilion")
    locked.write()
    opened = Path.open

    def refuse(path: Path, *arguments: object, **more: object) -> object:
        if path.stem == "locked":
            raise PermissionError(13, "Permission denied")
        return opened(path, *arguments, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", refuse)
    report = memory.indexer.run(files=memory.files)
    assert report.turns_indexed == 1
    assert report.warnings == ["locked.jsonl cannot be read: Permission denied"]
    monkeypatch.undo()
    assert memory.indexer.run(files=memory.files).turns_indexed == 1


def test_secrets_are_in_no_index(memory: Memory, writer: SessionWriter) -> None:
    secret = "ghp_012345678901234567890123456789abcdef"
    writer.user(f"my marmalade token is {secret}")
    memory.graph.create_entities([Entity("Shed", "place", (f"token {secret}",))])
    memory.log.put_findings("", [Finding("note", "n1", f"marmalade {secret}")])
    writer.write()
    memory.indexer.run(files=memory.files)
    for collection in Collection:
        assert memory.texts(secret, collection=collection) == []
        assert all(secret not in text for text in memory.texts("marmalade", "shed", collection=collection))
    assert memory.texts("marmalade") == ["my marmalade token is [redacted: GitHub token]"]


INDEX = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from tests.conftest import SteppingClock
from tests.search.home import Memory, WordEmbedder
memory = Memory(Path(sys.argv[1]), SteppingClock())
print("indexing", flush=True)
memory.indexer.run(files=memory.files, embedder=WordEmbedder())
print("done", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_an_indexer_that_is_killed_loses_and_doubles_nothing(memory: Memory, writer: SessionWriter) -> None:
    for number in range(700):
        writer.user(f"marmalade number{number} {'word ' * 50}")
    writer.write()
    chance = random.Random(3)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    for attempt in range(20):
        command = [sys.executable, "-c", INDEX, str(memory.root)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as indexer:
            assert indexer.stdout is not None
            assert indexer.stdout.readline() == b"indexing\n"
            if attempt < 4:
                time.sleep(chance.uniform(0, 0.4))
                os.kill(indexer.pid, signal.SIGKILL)
            if indexer.stdout.read():
                break
    assert memory.counts() == (700, 700)
    assert [item.turn_id for item in memory.found("number699")] == ["u700"]
    report = memory.indexer.run(files=memory.files, embedder=WordEmbedder())
    assert (report.items_indexed, report.embedded, report.waiting) == (0, 0, 0)


def test_real_sessions_are_indexed_cleanly(memory: Memory, shared_transcripts: Path) -> None:
    shutil.copytree(shared_transcripts / "claude", memory.claude, dirs_exist_ok=True, copy_function=shutil.copyfile)
    report = memory.indexer.run(files=memory.files)
    assert (report.conversations, report.skipped) == (9, 0)
    assert report.turns_indexed > 500
    assert memory.indexer.run(files=memory.files).items_indexed == 0
    assert memory.counts(Collection.AGENTS)[0] > 10
    folder = memory.claude / "projects" / "-edge"
    folder.mkdir()
    for number, path in enumerate(sorted((shared_transcripts / "edge_cases").rglob("*.jsonl"))):
        shutil.copyfile(path, folder / f"{number}-{path.name}")
    report = memory.indexer.run(files=memory.files)
    assert report.conversations > 20
    assert len(report.warnings) <= 1
