"""The mirror of the graph in a file that others read and edit."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dualmem_mcp.errors import MalformedError, NotFoundError, TamperedError
from dualmem_mcp.model.graph import Entity, EntityObservations, Graph, Relation
from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.ports import Clock, SystemClock
from dualmem_mcp.reference_jsonl import entity_line, serialise_graph
from dualmem_mcp.stores import memory_file as module
from dualmem_mcp.stores.database import Database
from dualmem_mcp.stores.graph_store import GraphStore
from dualmem_mcp.stores.memory_file import ImportReport, MemoryFile, import_file

KEY = bytes(range(32))
DEVICE = DeviceId("ab" * 16)
ADA = Entity("Ada", "person", ("née Byron",))
ADA_LINE = '{"type":"entity","name":"Ada","entityType":"person","observations":["née Byron"]}'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "files" / "memory.jsonl"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database.open(tmp_path / "memory.db", KEY) as opened:
        yield opened


@pytest.fixture
def graph(database: Database, clock: Clock) -> GraphStore:
    return GraphStore(database, clock, DEVICE)


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def mirror(path: Path, graph: GraphStore, clock: Clock, told: list[str]) -> Iterator[MemoryFile]:
    mirror = MemoryFile(path, graph, clock, owner=DEVICE, report=told.append)
    yield mirror
    mirror.close()


def copies(path: Path) -> list[str]:
    return sorted(file.name for file in path.parent.iterdir() if file.name.endswith(".bak"))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_without_a_file_and_a_graph_none_is_made(mirror: MemoryFile, path: Path) -> None:
    assert mirror.start() == []
    assert not path.exists()


def test_a_change_is_in_the_file_when_the_call_returns(mirror: MemoryFile, path: Path, graph: GraphStore) -> None:
    mirror.start()
    graph.create_entities([ADA, Entity("Engine", "machine")])
    graph.create_relations([Relation("Ada", "Engine", "studies")])
    engine = '{"type":"entity","name":"Engine","entityType":"machine","observations":[]}'
    studies = '{"type":"relation","from":"Ada","to":"Engine","relationType":"studies"}'
    assert path.read_text(encoding="utf-8") == f"{ADA_LINE}\n{engine}\n{studies}"
    assert path.stat().st_mode & 0o777 == 0o600
    graph.add_observations([EntityObservations("Ada", ("x",))])
    assert path.read_text(encoding="utf-8").startswith(ADA_LINE[:-2] + ',"x"]}')
    graph.delete_entities(["Ada"])
    assert path.read_text(encoding="utf-8") == engine
    graph.delete_entities(["Engine"])
    assert path.read_bytes() == b""


def test_a_graph_that_exists_is_written_at_the_start(mirror: MemoryFile, path: Path, graph: GraphStore) -> None:
    graph.create_entities([ADA])
    assert mirror.start() == []
    assert path.read_text(encoding="utf-8") == ADA_LINE


def test_the_file_is_imported_at_the_start(mirror: MemoryFile, path: Path, graph: GraphStore) -> None:
    write(path, ADA_LINE)
    (notice,) = mirror.start()
    assert "1 entities, 1 observations" in notice
    assert graph.read_graph() == Graph((ADA,))
    assert copies(path) == []
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "document",
    [
        {"entities": [{"name": "Ada", "entityType": "person", "observations": ["née Byron"]}], "relations": []},
        {"entities": {"Ada": {"entityType": "person", "observations": ["née Byron"], "created_at": "2025"}}},
    ],
)
def test_another_form_is_imported_and_kept(
    mirror: MemoryFile, path: Path, graph: GraphStore, document: dict[str, object]
) -> None:
    write(path, json.dumps(document))
    notices = mirror.start()
    assert copies(path) == ["memory.jsonl.2026-03-01.bak"]
    copy = path.with_name("memory.jsonl.2026-03-01.bak")
    assert json.loads(copy.read_text()) == document
    assert copy.stat().st_mode & 0o777 == 0o600
    assert str(copy) in notices[-1]
    assert path.read_text(encoding="utf-8").startswith(ADA_LINE[:-1])
    assert graph.read_graph().entities[0].observations == ("née Byron",)


def test_a_malformed_line_is_reported_skipped_and_kept(mirror: MemoryFile, path: Path, graph: GraphStore) -> None:
    write(path, f'{ADA_LINE}\n{{"type":"entity","name":"secret\n')
    notices = mirror.start()
    assert any("line 2" in notice for notice in notices)
    assert "secret" not in "".join(notices)
    assert graph.read_graph() == Graph((ADA,))
    (copy,) = copies(path)
    assert "secret" in path.with_name(copy).read_text()
    assert path.read_text(encoding="utf-8") == ADA_LINE


def test_a_file_of_another_kind_is_kept_before_it_is_replaced(
    mirror: MemoryFile, path: Path, graph: GraphStore
) -> None:
    write(path, "my diary")
    assert "my diary" not in "".join(mirror.start())
    graph.create_entities([ADA])
    assert path.read_text(encoding="utf-8") == ADA_LINE
    (copy,) = copies(path)
    assert path.with_name(copy).read_text() == "my diary"


def test_copies_of_one_day_do_not_replace_each_other(mirror: MemoryFile, path: Path, graph: GraphStore) -> None:
    mirror.start()
    for text in ("first", "second", "first"):
        write(path, text)
        graph.create_entities([Entity(f"{text} {time.monotonic_ns()}", "t")])
    assert copies(path) == ["memory.jsonl.2026-03-01-2.bak", "memory.jsonl.2026-03-01.bak"]
    assert path.with_name("memory.jsonl.2026-03-01-2.bak").read_text() == "second"


def test_edits_by_others_are_taken_in_before_the_file_is_written(
    mirror: MemoryFile, path: Path, graph: GraphStore, told: list[str]
) -> None:
    mirror.start()
    graph.create_entities([ADA])
    by_hand = Entity("by hand", "t", ("x",), {"mood": 1})
    write(path, f"{ADA_LINE}\n{entity_line(by_hand)}\n")
    graph.create_entities([Entity("later", "t")])
    assert graph.read_graph().entities == (ADA, Entity("later", "t"), by_hand)
    assert path.read_bytes() == b"".join(serialise_graph(graph.read_graph()))
    assert len(told) == 1
    assert copies(path) == []


def test_what_is_deleted_here_is_not_brought_back_by_an_edit(
    mirror: MemoryFile, path: Path, graph: GraphStore
) -> None:
    mirror.start()
    graph.create_entities([ADA, Entity("b", "t")])
    text = path.read_text(encoding="utf-8")
    write(path, f"{text}\n{entity_line(Entity('new', 't'))}")
    graph.delete_entities(["Ada"])
    assert graph.read_graph().entities == (Entity("b", "t"), Entity("new", "t"))
    assert len(copies(path)) == 1  # the edit still had it


def test_a_change_of_type_by_hand_is_taken(mirror: MemoryFile, path: Path, graph: GraphStore) -> None:
    mirror.start()
    graph.create_entities([ADA])
    write(path, ADA_LINE.replace("person", "countess"))
    graph.create_entities([Entity("b", "t")])
    assert graph.read_graph().entities[0].entity_type == "countess"
    assert '"countess"' in path.read_text(encoding="utf-8")


def test_a_file_that_somebody_deletes_is_written_again(mirror: MemoryFile, path: Path, graph: GraphStore) -> None:
    mirror.start()
    graph.create_entities([ADA])
    path.unlink()
    graph.create_entities([Entity("b", "t")])
    assert len(path.read_text(encoding="utf-8").split("\n")) == 2


def test_a_second_start_reads_nothing_that_is_known(
    mirror: MemoryFile,
    path: Path,
    graph: GraphStore,
    database: Database,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mirror.start()
    graph.create_entities([ADA])
    monkeypatch.setattr(module, "parse_memory_file", lambda data: pytest.fail("the file was read again"))
    before = path.stat().st_mtime_ns
    other = GraphStore(database, clock, DEVICE)
    assert MemoryFile(path, other, clock, owner=DEVICE, report=pytest.fail).start() == []
    assert path.stat().st_mtime_ns == before


def test_a_graph_changed_without_the_mirror_is_written_at_the_next_start(
    mirror: MemoryFile, path: Path, graph: GraphStore, database: Database, clock: Clock
) -> None:
    mirror.start()
    graph.create_entities([ADA, Entity("b", "t")])
    other = GraphStore(database, clock, DEVICE)
    other.delete_entities(["b"])
    other.create_entities([Entity("c", "t")])
    assert MemoryFile(path, other, clock, owner=DEVICE, report=pytest.fail).start() == []
    assert [json.loads(line)["name"] for line in path.read_text(encoding="utf-8").split("\n")] == ["Ada", "c"]


def test_a_symbolic_link_stays_one(path: Path, graph: GraphStore, clock: Clock) -> None:
    target = path.with_name("target.jsonl")
    write(target, ADA_LINE)
    path.symlink_to(target)
    mirror = MemoryFile(path, graph, clock, owner=DEVICE, report=pytest.fail)
    mirror.start()
    graph.create_entities([Entity("b", "t")])
    mirror.close()
    assert path.is_symlink()
    assert target.read_text(encoding="utf-8").count("\n") == 1


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_large_file_is_written_soon_and_many_changes_at_once(
    mirror: MemoryFile, path: Path, graph: GraphStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph.create_entities([Entity("large", "t", ("x" * 1_100_000,))])
    mirror.start()
    written: list[int] = []
    write_durably = module.write_durably
    monkeypatch.setattr(module, "write_durably", lambda *args: (written.append(1), write_durably(*args))[1])
    started = time.monotonic()
    for number in range(20):
        graph.create_entities([Entity(f"e{number}", "t")])
    assert len(written) == 0
    wait_until(lambda: b'"e19"' in path.read_bytes())
    assert time.monotonic() - started < 5  # a second, on a machine that is not busy
    assert len(written) == 1


def test_a_large_file_is_written_when_the_mirror_is_closed(
    mirror: MemoryFile, path: Path, graph: GraphStore
) -> None:
    graph.create_entities([Entity("large", "t", ("x" * 1_100_000,))])
    mirror.start()
    graph.create_entities([Entity("last", "t")])
    mirror.close()
    assert b'"last"' in path.read_bytes()
    assert not any(isinstance(thread, threading.Timer) for thread in threading.enumerate())


def test_a_disk_that_refuses_does_not_undo_the_change(
    mirror: MemoryFile, path: Path, graph: GraphStore, told: list[str]
) -> None:
    mirror.start()
    graph.create_entities([ADA])
    # With a folder in the file's place the rename fails, as it does on a disk that has been set read-only.
    path.unlink()
    path.mkdir()
    graph.create_entities([Entity("b", "t")])
    assert len(graph.read_graph().entities) == 2
    assert len(told) == 1
    assert "not up to date" in told[0]
    path.rmdir()
    mirror.close()
    assert len(path.read_text(encoding="utf-8").split("\n")) == 2
    assert len(told) == 1


def test_a_large_file_is_written_after_a_failure(
    mirror: MemoryFile, path: Path, graph: GraphStore, told: list[str]
) -> None:
    graph.create_entities([Entity("large", "t", ("x" * 1_100_000,))])
    mirror.start()
    path.unlink()
    path.mkdir()
    graph.create_entities([Entity("b", "t")])
    wait_until(lambda: bool(told))
    path.rmdir()
    graph.create_entities([Entity("c", "t")])
    wait_until(path.exists)
    assert b'"c"' in path.read_bytes()


def test_a_change_that_was_stored_never_fails_for_the_mirror(
    mirror: MemoryFile, graph: GraphStore, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.start()

    def damaged() -> tuple[int, Graph]:
        raise TamperedError("a page of it does not authenticate")

    with monkeypatch.context() as patch:
        patch.setattr(graph, "snapshot", damaged)
        assert graph.create_entities([ADA]) == [ADA]
    assert "does not authenticate" in told[0]
    graph.create_entities([Entity("b", "t")])
    assert len(mirror.path.read_bytes().splitlines()) == 2


def test_a_start_on_a_file_that_cannot_be_read(path: Path, graph: GraphStore, clock: Clock) -> None:
    path.mkdir(parents=True)
    with pytest.raises(MalformedError, match="is a folder"):
        MemoryFile(path, graph, clock, owner=DEVICE, report=pytest.fail).start()


def test_a_pipe_or_a_device_is_refused_and_left_as_it_is(path: Path, graph: GraphStore, clock: Clock) -> None:
    """A pipe without a writer would hang, and /dev/null would be replaced by a file where root is at work."""
    path.parent.mkdir()
    os.mkfifo(path, 0o644)
    path.with_name("null").symlink_to("/dev/null")
    for special in (path, path.with_name("null")):
        before = special.stat().st_mode
        with pytest.raises(MalformedError, match="is a pipe or a device"):
            MemoryFile(special, graph, clock, owner=DEVICE, report=pytest.fail).start()
        with pytest.raises(MalformedError, match="is a pipe or a device"):
            import_file(graph, special)
        assert special.stat().st_mode == before
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name, "null"]


def test_a_file_that_becomes_a_pipe_is_reported(
    mirror: MemoryFile, path: Path, graph: GraphStore, told: list[str]
) -> None:
    write(path, ADA_LINE)
    mirror.start()
    path.unlink()
    os.mkfifo(path)
    graph.create_entities([Entity("Engine", "machine")])
    assert len(told) == 1
    assert "is a pipe or a device" in told[0]
    path.unlink()
    graph.create_entities([Entity("Loom", "machine")])
    assert b"Engine" in path.read_bytes()


def test_import_file_counts(path: Path, graph: GraphStore) -> None:
    write(path, f'{ADA_LINE}\n{ADA_LINE}\nbroken\n{{"type":"relation","from":"a","to":"b","relationType":"r"}}')
    report = import_file(graph, path)
    assert report == ImportReport(1, 1, 1, 1, ("line 3: not a JSON object; skipped",))
    assert import_file(graph, path) == ImportReport(0, 0, 0, 1, report.warnings)
    assert copies(path) == []


def test_import_file_says_when_types_differ(path: Path, graph: GraphStore) -> None:
    graph.create_entities([Entity("Ada", "countess")])
    write(path, ADA_LINE)
    assert import_file(graph, path).warnings == ("1 entities have another type here, which they keep",)


def test_import_file_of_nothing(path: Path, graph: GraphStore) -> None:
    with pytest.raises(NotFoundError):
        import_file(graph, path)
    write(path, "diary")
    with pytest.raises(MalformedError):
        import_file(graph, path)


MIRRORING_WRITER = """
import sys
from pathlib import Path
from dualmem_mcp.model.graph import Entity
from dualmem_mcp.ports import SystemClock
from dualmem_mcp.stores.database import Database
from dualmem_mcp.stores.graph_store import GraphStore
from dualmem_mcp.stores.memory_file import MemoryFile
home, file, name = sys.argv[1:]
with Database.open(Path(home), bytes(range(32))) as database:
    graph = GraphStore(database, SystemClock(), "ab" * 16)
    mirror = MemoryFile(Path(file), graph, SystemClock(), owner="ab" * 16, report=lambda text: sys.exit(text))
    mirror.start()
    for number in range(25):
        graph.create_entities([Entity(f"{name}-{number}", "t")])
        assert f'"{name}-{number}"' in Path(file).read_text()
        if number % 2:
            graph.delete_entities([f"{name}-{number}"])
    mirror.close()
"""


def test_processes_that_mirror_one_file_lose_nothing(tmp_path: Path, path: Path, graph: GraphStore) -> None:
    write(path, ADA_LINE)
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", MIRRORING_WRITER, str(tmp_path / "memory.db"), str(path), f"p{number}"],
            stderr=subprocess.PIPE,
        )
        for number in range(3)
    ]
    for writer in writers:
        assert writer.communicate()[1] == b""
        assert writer.returncode == 0
    expected = {"Ada"} | {f"p{process}-{number}" for process in range(3) for number in range(0, 25, 2)}
    assert {entity.name for entity in graph.read_graph().entities} == expected
    assert path.read_bytes() == b"".join(serialise_graph(graph.read_graph()))
    assert sorted(file.name for file in path.parent.iterdir()) == [".memory.jsonl.lock", "memory.jsonl"]


def test_two_data_homes_on_one_file_share_what_they_add(tmp_path: Path, path: Path, clock: Clock) -> None:
    graphs = []
    with Database.open(tmp_path / "one.db", KEY) as one, Database.open(tmp_path / "two.db", KEY) as two:
        for database, owner in ((one, "11" * 16), (two, "22" * 16)):
            graph = GraphStore(database, SystemClock(), DeviceId(owner))
            MemoryFile(path, graph, clock, owner=owner, report=lambda text: None).start()
            graphs.append(graph)
        graphs[0].create_entities([ADA])
        graphs[1].create_entities([Entity("b", "t")])
        graphs[0].create_entities([Entity("c", "t")])
        assert {entity.name for entity in graphs[0].read_graph().entities} == {"Ada", "b", "c"}
        assert path.read_bytes().count(b"\n") == 2


def test_what_a_killed_writer_left_in_clear_is_removed(mirror: MemoryFile, path: Path, graph: GraphStore) -> None:
    write(path, ADA_LINE)
    left = path.with_name(f".{path.name}.0123456789abcdef.tmp")
    fresh = path.with_name(f".{path.name}.fedcba9876543210.tmp")
    for file in (left, fresh):
        file.write_text(ADA_LINE, encoding="utf-8")
    os.utime(left, (time.time() - 200_000,) * 2)
    mirror.start()
    assert not left.exists()
    assert fresh.exists(), "it may be another process's, being written now"
    assert [entity.name for entity in graph.read_graph().entities] == ["Ada"]
