"""The layout of a data home, and the taking over of an older memory.json."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dualmem_mcp.errors import StoreUnreachableError
from dualmem_mcp.model.graph import Entity
from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.ports import Clock
from dualmem_mcp.stores.data_home import DataHome, migrate_memory_json, open_data_home
from dualmem_mcp.stores.database import Database
from dualmem_mcp.stores.graph_store import GraphStore
from dualmem_mcp.stores.memory_file import MemoryFile

KEY = bytes(32)
DEVICE = DeviceId("ab" * 16)
FORMS = [
    '{"type":"entity","name":"Ada","entityType":"person","observations":["x"]}',
    '{"entities":[{"name":"Ada","entityType":"person","observations":["x"]}],"relations":[]}',
    '{"entities":{"Ada":{"entityType":"person","observations":["x"],"created_at":"2025"}}}',
]


@pytest.fixture
def home(tmp_path: Path) -> DataHome:
    return open_data_home(tmp_path / "home")


@pytest.fixture
def graph(home: DataHome, clock: Clock) -> Iterator[GraphStore]:
    with Database.open(home.database_file, KEY) as database:
        yield GraphStore(database, clock, DEVICE)


def test_folders_are_made_private(home: DataHome) -> None:
    folders = {home.root, home.desktop_sessions, home.mobile_reconstruction, home.sync_queue, home.vector_cache}
    folders |= {
        home.vector_cache / name for name in ("conversation_embeddings", "agent_memory_vectors", "context_vectors")
    }
    for folder in folders:
        assert folder.is_dir()
        assert folder.stat().st_mode & 0o777 == 0o700
    assert home.notices == ()


def test_an_existing_folder_is_made_private(tmp_path: Path) -> None:
    (tmp_path / "handoff_cache").mkdir(mode=0o777)
    tmp_path.chmod(0o755)
    for name in ("memory.json", "cloud_sync_config.json"):
        (tmp_path / name).write_text("{}")
        (tmp_path / name).chmod(0o664)
    other = tmp_path / "other.txt"
    other.write_text("x")
    other.chmod(0o644)
    open_data_home(tmp_path)
    assert tmp_path.stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "handoff_cache").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "memory.json").stat().st_mode & 0o777 == 0o600
    assert other.stat().st_mode & 0o777 == 0o644


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "handoff_cache").write_text("")
    with pytest.raises(StoreUnreachableError):
        open_data_home(tmp_path)


@pytest.mark.parametrize("text", FORMS)
def test_a_memory_json_is_migrated_once(home: DataHome, graph: GraphStore, clock: Clock, text: str) -> None:
    home.memory_file.write_text(text)
    notices = migrate_memory_json(home, graph, clock, mirrored=False)
    copy = home.root / "memory.json.2026-03-01.bak"
    assert "1 entities, 1 observations" in notices[0]
    assert str(copy) in notices[1]
    assert copy.read_text() == text
    assert copy.stat().st_mode & 0o777 == 0o600
    assert not home.memory_file.exists()
    assert graph.read_graph().entities[0].observations == ("x",)
    assert migrate_memory_json(home, graph, clock, mirrored=False) == []


@pytest.mark.parametrize("text", FORMS)
def test_a_mirrored_memory_json_stays(home: DataHome, graph: GraphStore, clock: Clock, text: str) -> None:
    home.memory_file.write_text(text)
    assert migrate_memory_json(home, graph, clock, mirrored=True)
    mirror = MemoryFile(home.memory_file, graph, clock, owner=DEVICE, report=pytest.fail)
    mirror.start()
    graph.create_entities([Entity("b", "t")])
    mirror.close()
    assert home.memory_file.read_text().count("\n") == 1
    assert (home.root / "memory.json.2026-03-01.bak").read_text() == text
    assert len(list(home.root.glob("*.bak"))) == 1
    assert migrate_memory_json(home, graph, clock, mirrored=True) == []


def test_a_mirror_that_another_process_keeps_is_left_to_it(home: DataHome, graph: GraphStore, clock: Clock) -> None:
    mirror = MemoryFile(home.memory_file, graph, clock, owner=DEVICE, report=pytest.fail)
    mirror.start()
    graph.create_entities([Entity("b", "t")])
    text = home.memory_file.read_bytes()
    (notice,) = migrate_memory_json(home, graph, clock, mirrored=False)
    assert "`mirror`" in notice
    assert home.memory_file.read_bytes() == text
    assert list(home.root.glob("*.bak")) == []
    mirror.close()


def test_another_file_of_that_name_is_left_alone(home: DataHome, graph: GraphStore, clock: Clock) -> None:
    home.memory_file.write_text("diary")
    (notice,) = migrate_memory_json(home, graph, clock, mirrored=False)
    assert "left alone" in notice
    assert home.memory_file.read_text() == "diary"
    assert list(home.root.glob("*.bak")) == []


def test_bad_lines_are_reported(home: DataHome, graph: GraphStore, clock: Clock) -> None:
    home.memory_file.write_text(f"{FORMS[0]}\nbroken")
    notices = migrate_memory_json(home, graph, clock, mirrored=False)
    assert "line 2" in notices[-1]


def test_an_empty_or_missing_file_says_nothing(home: DataHome, graph: GraphStore, clock: Clock) -> None:
    assert migrate_memory_json(home, graph, clock, mirrored=False) == []
    home.memory_file.write_text("\n")
    assert migrate_memory_json(home, graph, clock, mirrored=False) == []


SET_UP = """
import os, sys
from pathlib import Path
from dualmem_mcp.stores.data_home import open_data_home
home = open_data_home(Path(sys.argv[1]))
with home.setting_up():
    made = home.root / "made"
    if not made.exists():
        made.write_text(str(os.getpid()))
        print("made")
"""


def test_of_several_new_processes_one_sets_up(tmp_path: Path) -> None:
    started = [
        subprocess.Popen([sys.executable, "-c", SET_UP, str(tmp_path / "home")], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert sorted(process.communicate()[0] for process in started) == ["", "", "", "made\n"]


def test_without_a_mirror_no_file_is_in_clear(home: DataHome, graph: GraphStore, clock: Clock) -> None:
    home.memory_file.write_text(FORMS[0].replace("Ada", "Lovelace"))
    migrate_memory_json(home, graph, clock, mirrored=False)
    graph.create_entities([Entity("Babbage", "t")])
    for folder, _, names in os.walk(home.root):
        for name in names:
            if not name.endswith(".bak"):  # the copy that the user was told of
                data = (Path(folder) / name).read_bytes()
                assert b"Lovelace" not in data, name
                assert b"Babbage" not in data, name


def test_a_database_that_is_gone_although_its_key_is_here_is_told(tmp_path: Path) -> None:
    home = open_data_home(tmp_path)
    with home.setting_up() as notices:
        assert notices == []
    (tmp_path / "device.key").write_text("key")
    with home.setting_up() as notices:
        assert len(notices) == 1
        assert "is gone or empty" in notices[0]
    home.database_file.write_bytes(b"x")
    with home.setting_up() as notices:
        assert notices == []


def test_where_no_index_can_be_the_rest_of_the_home_still_opens(tmp_path: Path) -> None:
    home = open_data_home(tmp_path / "home")
    (home.vector_cache / "context_vectors").rmdir()
    (home.vector_cache / "context_vectors").write_text("a file")
    (notice,) = open_data_home(tmp_path / "home").notices
    assert str(home.vector_cache / "context_vectors") in notice
    for folder in home.vector_cache.iterdir():
        folder.rmdir() if folder.is_dir() else folder.unlink()
    home.vector_cache.rmdir()
    home.vector_cache.write_text("a file")
    (notice,) = open_data_home(tmp_path / "home").notices
    assert str(home.vector_cache) in notice
