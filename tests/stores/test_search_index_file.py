"""An index whose files are deleted, cut or overwritten while it is in use, and processes that are killed."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from dualmem_mcp.errors import DiskFullError, StoreRefusedError, StoreUnreachableError
from dualmem_mcp.model.search import Collection, Filter, SearchItem, item_key
from dualmem_mcp.stores.search_index import SqliteSearchIndex, open_search_index
from dualmem_mcp.stores.search_index.layout import FORMAT, VERSION

KEY = bytes(range(32))
MODEL = "model"
VECTOR = np.random.default_rng(5).normal(size=384).astype(np.float32)


def open_index(folder: Path, key: bytes = KEY) -> SqliteSearchIndex:
    return open_search_index(folder, key, Collection.CONVERSATIONS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "vector_cache" / "conversation_embeddings"


@pytest.fixture
def index(folder: Path) -> Iterator[SqliteSearchIndex]:
    opened = open_index(folder)
    yield opened
    opened.close()


def turns(first: int, count: int, conversation: str = "c") -> list[SearchItem]:
    return [
        SearchItem(
            item_key("turn", conversation, f"t{number}"),
            "turn",
            f"word number{number} {random.Random(number).randbytes(60).hex()}",
            conversation,
            f"t{number}",
            "user",
        )
        for number in range(first, first + count)
    ]


def fill(index: SqliteSearchIndex, count: int = 300) -> None:
    """Items with vectors: about 170 pages for 300."""
    index.use_model(MODEL, 384)
    index.put(turns(0, count))
    embed(index)


def embed(index: SqliteSearchIndex) -> None:
    index.use_model(MODEL, 384)
    while waiting := index.unembedded(100):
        chance = np.random.default_rng(waiting[0].id & 0xFFFF)
        index.put_vectors(MODEL, [(entry.id, chance.normal(size=(1, 384)).astype(np.float32)) for entry in waiting])
        index.use_model(MODEL, 384)  # in case it has been made anew


def ask_everything(index: SqliteSearchIndex) -> tuple[int, int]:
    """Use every question; how many items were found by words and by vector."""
    found = index.lexical(["word"], Filter(), 10_000)
    nearest = index.nearest(VECTOR, Filter(), 10_000)
    ids = np.union1d(found.ids, nearest.ids)
    index.features(ids, Filter())
    index.cosines(VECTOR, ids)
    index.items(ids.tolist())
    index.authors(Filter())
    index.unembedded(10)
    index.counts()
    return len(found.ids), len(nearest.ids)


def assert_usable(index: SqliteSearchIndex) -> None:
    """Whatever was lost can be put again."""
    fill(index)
    assert ask_everything(index) == (300, 300)


QUESTIONS: dict[str, Callable[[SqliteSearchIndex], object]] = {
    "generation": lambda index: index.generation,
    "put": lambda index: index.put(turns(7, 1)),
    "remove": lambda index: index.remove(["turn/c/t1"]),
    "use_model": lambda index: index.use_model("another", 384),
    "unembedded": lambda index: index.unembedded(5),
    "put_vectors": lambda index: index.put_vectors(MODEL, [((1 << 24) | 1, VECTOR[None])]),
    "lexical": lambda index: index.lexical(["word"], Filter(), 5),
    "nearest": lambda index: index.nearest(VECTOR, Filter(), 5),
    "cosines": lambda index: index.cosines(VECTOR, np.array([1 << 24])),
    "features": lambda index: index.features(np.array([1 << 24]), Filter()),
    "items": lambda index: index.items([1 << 24]),
    "authors": lambda index: index.authors(Filter()),
    "counts": lambda index: index.counts(),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_deleted_file_is_noticed_by_the_next_call_whichever_it_is(
    index: SqliteSearchIndex, folder: Path, question: str
) -> None:
    fill(index)
    ask_everything(index)
    before = index.generation
    (folder / "index.db").unlink()
    QUESTIONS[question](index)
    assert index.generation != before
    assert index.counts().items == (1 if question == "put" else 0)
    assert_usable(index)


def _all_files(folder: Path) -> list[Path]:
    return [folder / f"index.db{suffix}" for suffix in ("", "-wal", "-shm")]


def _write_over(path: Path, data: bytes) -> None:
    """In place, without cutting the file first."""
    with path.open("r+b") as file:
        file.write(data)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "folder deleted": shutil.rmtree,
    "all files deleted": lambda folder: [path.unlink() for path in _all_files(folder)],
    "log deleted": lambda folder: (folder / "index.db-wal").unlink(),
    "shared memory deleted": lambda folder: (folder / "index.db-shm").unlink(),
    "emptied": lambda folder: os.truncate(folder / "index.db", 0),
    "cut within the first page": lambda folder: os.truncate(folder / "index.db", 1_000),
    "cut in the middle": lambda folder: os.truncate(folder / "index.db", (folder / "index.db").stat().st_size // 2),
    "shared memory emptied": lambda folder: os.truncate(folder / "index.db-shm", 0),
    "garbage, shorter": lambda folder: (folder / "index.db").write_bytes(os.urandom(5_000)),
    "garbage, as long": lambda folder: _write_over(
        folder / "index.db", os.urandom((folder / "index.db").stat().st_size)
    ),
    "another program's text": lambda folder: (folder / "index.db").write_text("notes\n" * 500_000),
    "every file garbage": lambda folder: [path.write_bytes(b"garbage") for path in _all_files(folder)],
    "first page": lambda folder: _write_over(folder / "index.db", os.urandom(4096)),
    "replaced by an empty file": lambda folder: _replace(folder, b""),
    "replaced by garbage": lambda folder: _replace(folder, os.urandom(100_000)),
}


def _replace(folder: Path, data: bytes) -> None:
    (folder / "new").write_bytes(data)
    (folder / "new").replace(folder / "index.db")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("checkpointed", [True, False])
def test_damage_while_in_use_is_noticed_by_the_next_call(
    index: SqliteSearchIndex, folder: Path, damage: str, checkpointed: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    fill(index)
    if checkpointed:
        index.release()
    assert ask_everything(index) == (300, 300)
    before = index.generation
    DAMAGES[damage](folder)
    assert index.lexical(["word"], Filter(), 5).ids.tolist() == []
    assert index.generation != before
    assert_usable(index)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("asked_again", [True, False])
def test_damage_in_the_middle_of_a_search_is_noticed_by_the_next_at_the_latest(
    index: SqliteSearchIndex, folder: Path, damage: str, asked_again: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    fill(index)
    before = index.generation
    with index.reading() as reader:
        found = reader.lexical(["word"], Filter(), 10_000)
        assert len(found.ids) == 300
        DAMAGES[damage](folder)
        if asked_again:
            left = len(reader.nearest(VECTOR, Filter(), 10_000).ids)
            assert left in {0, 300}
            assert len(reader.features(found.ids, Filter()).ids) == left
            assert len(reader.cosines(VECTOR, found.ids)) == 300
            assert len(reader.items(found.ids.tolist())) == left
            assert reader.authors(Filter()) == (["user"] if left else [])
    assert index.lexical(["word"], Filter(), 5).ids.tolist() == []
    assert index.generation != before
    assert_usable(index)
    assert capfd.readouterr() == ("", "")


def test_a_page_found_damaged_in_the_middle_of_a_search_has_the_index_made_anew(
    index: SqliteSearchIndex, folder: Path
) -> None:
    fill(index)
    index.release()
    before = index.generation
    with index.reading() as reader:
        assert reader.authors(Filter()) == ["user"]
        # All but the beginning, which tells at the next transaction: texts and vectors have not been read yet.
        with (folder / "index.db").open("r+b") as file:
            file.seek(20 * 4096)
            file.write(os.urandom((folder / "index.db").stat().st_size - 20 * 4096))
        assert reader.items([1 << 24]) == []
        assert reader.authors(Filter()) == []
        assert index.generation != before
        index.put(turns(0, 1))
    assert_usable(index)


def test_an_index_that_cannot_be_made_anew_in_the_middle_of_a_search_says_so(
    index: SqliteSearchIndex, folder: Path
) -> None:
    fill(index)
    with index.reading() as reader:
        assert reader.authors(Filter()) == ["user"]
        os.truncate(folder / "index.db-shm", 0)
        shutil.rmtree(folder)
        folder.write_bytes(b"")
        with pytest.raises(StoreUnreachableError):
            reader.items([1 << 24])
        folder.unlink()
        assert reader.items([1 << 24]) == []
    assert_usable(index)


# SQLite removes log and shared memory when the last connection is closed.
@pytest.mark.parametrize(
    "damage", [name for name in DAMAGES if not name.startswith(("log", "shared memory", "all files", "every file"))]
)
def test_damage_while_not_in_use_is_noticed_at_opening(folder: Path, damage: str) -> None:
    with contextlib.closing(open_index(folder)) as index:
        fill(index, 300)
        before = index.generation
    DAMAGES[damage](folder)
    with contextlib.closing(open_index(folder)) as index:
        assert ask_everything(index) == (0, 0)
        assert index.generation != before
        assert_usable(index)


@pytest.mark.parametrize("seed", range(12))
def test_changed_bytes_anywhere_never_raise_and_never_lie(folder: Path, seed: int) -> None:
    with contextlib.closing(open_index(folder)) as index:
        fill(index, 300)
        before = index.generation
        sound = ask_everything(index)
        index.release()
        chance = random.Random(seed)
        data = bytearray((folder / "index.db").read_bytes())
        for _ in range(chance.choice([1, 1, 3, 20])):
            data[chance.randrange(16, len(data))] ^= 1 << chance.randrange(8)
        (folder / "index.db").write_bytes(data)
        for _ in range(2):
            found = ask_everything(index)
            assert found in {sound, (300, 0), (0, 0)} if index.generation == before else (0, 0)
        index.put(turns(2000, 20))
        assert_usable_after_anything(index)


def assert_usable_after_anything(index: SqliteSearchIndex) -> None:
    """A page that nobody read yet may still be damaged: filling again finds it, or is done."""
    fill(index)
    ask_everything(index)
    fill(index)
    assert min(ask_everything(index)) >= 300


@pytest.mark.parametrize("seed", range(6))
def test_changed_bytes_under_open_connections_never_raise(
    index: SqliteSearchIndex, folder: Path, seed: int
) -> None:
    fill(index, 300)
    index.release()
    ask_everything(index)
    chance = random.Random(seed)
    size = (folder / "index.db").stat().st_size
    with (folder / "index.db").open("r+b") as file:
        for _ in range(10):
            file.seek(chance.randrange(size - 4096))
            file.write(os.urandom(4096))
    for number in range(3):
        ask_everything(index)
        index.put(turns(3000 + number * 100, 100))
        embed(index)
    assert_usable_after_anything(index)


def test_another_key_begins_a_new_index_without_a_word(
    folder: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with contextlib.closing(open_index(folder)) as index:
        fill(index)
        before = index.generation
    with contextlib.closing(open_index(folder, bytes(32))) as other:
        assert ask_everything(other) == (0, 0)
        assert other.generation != before
        assert_usable(other)
    assert capfd.readouterr() == ("", "")
    assert caplog.text == ""


def test_files_of_other_programs_and_versions_are_replaced(folder: Path) -> None:
    folder.mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(folder / "index.db")) as plain:
        plain.execute("CREATE TABLE t (x)")
    with contextlib.closing(open_index(folder)) as index:
        fill(index)
        index._file.write(lambda connection: connection.execute(f"PRAGMA user_version = {FORMAT ^ 1}"))
        before = index.generation
    with contextlib.closing(open_index(folder)) as index:
        assert index.generation != before
        assert_usable(index)


def test_an_index_of_a_newer_version_is_left_to_it(folder: Path) -> None:
    with contextlib.closing(open_index(folder)) as index:
        fill(index)
        newer = (VERSION + 1) << 16
        index._file.write(lambda connection: connection.execute(f"PRAGMA user_version = {newer}"))
    before = (folder / "index.db").read_bytes()
    with pytest.raises(StoreRefusedError, match="newer version") as caught:
        open_index(folder)
    assert "restart" in caught.value.hint
    assert (folder / "index.db").read_bytes() == before


def test_where_no_file_can_be_the_index_cannot_be_reached(folder: Path) -> None:
    (folder / "index.db").mkdir(parents=True)
    with pytest.raises(StoreUnreachableError) as caught:
        open_index(folder)
    assert caught.value.hint
    shutil.rmtree(folder)
    folder.write_text("a file where the folder should be")
    with pytest.raises(StoreUnreachableError) as caught:
        open_index(folder)
    assert caught.value.hint


@contextlib.contextmanager
def small_disk(folder: Path, *options: str) -> Iterator[None]:
    """A file system of its own in that folder."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", folder]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(command, check=False).returncode:
        pytest.skip("may not mount a small file system here")
    try:
        yield
    finally:
        gc.collect()
        subprocess.run(["umount", folder], check=True)


def test_an_unwritable_folder_is_said_with_what_to_do(folder: Path) -> None:
    with small_disk(folder, "size=8m"):
        with contextlib.closing(open_index(folder)) as index:
            fill(index)
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        with pytest.raises(StoreUnreachableError) as caught:
            open_index(folder)
        assert "rights" in caught.value.hint or "write there" in caught.value.hint
        subprocess.run(["mount", "-o", "remount,rw", folder], check=True)
        with contextlib.closing(open_index(folder)) as index:
            assert ask_everything(index) == (300, 300)


def put_until_it_fails(index: SqliteSearchIndex) -> None:
    for first in itertools.count(300, 100):
        index.put(turns(first, 100))


def test_a_full_disk_leaves_what_was_there(folder: Path) -> None:
    with small_disk(folder, "size=3m"):
        with contextlib.closing(open_index(folder)) as index:
            fill(index)
            before = index.generation
            with pytest.raises(DiskFullError) as caught:
                put_until_it_fails(index)
            assert "Free some space" in caught.value.hint
            count = index.counts().items
            assert count % 100 == 0
            assert ask_everything(index) == (count, 300)
        with contextlib.closing(open_index(folder)) as index:
            assert ask_everything(index) == (count, 300)
            assert index.generation == before
            assert index._file.read(lambda c: c.execute("PRAGMA cipher_integrity_check").fetchall()) == []


WORK = """
import itertools, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_search_index_file import embed, open_index, turns, MODEL
index = open_index(Path(sys.argv[1]))
index.use_model(MODEL, 384)
print("ready", flush=True)
for number in itertools.count(int(sys.argv[3])):
    index.put(turns(number * 20, 20, f"c{number}"))
    if number % 3 == 0:
        index.remove([item.key for item in turns(number * 20, 3, f"c{number}")])
    embed(index)
    print(number, flush=True)
    if number == int(sys.argv[4]):
        break
index.close()
"""


def _worker(folder: Path, first: int, last: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WORK, str(folder), str(Path(__file__).parent), str(first), str(last)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_kill_at_any_moment_loses_nothing_that_was_finished(folder: Path) -> None:
    with contextlib.closing(open_index(folder)) as index:
        generation = index.generation
    done = 0
    for number in range(5):
        process = _worker(folder, done, -1)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.05 + 0.07 * number)
        process.send_signal(signal.SIGKILL)
        output, _ = process.communicate()
        done = max([done, *(int(line) + 1 for line in output.split())])
        with contextlib.closing(open_index(folder)) as index:
            assert index.generation == generation
            expected = sum(17 if batch % 3 == 0 else 20 for batch in range(done))
            assert index.counts().items >= expected
            assert ask_everything(index)[0] == index.counts().items
            embed(index)
            assert ask_everything(index)[1] == index.counts().items == index.counts().embedded
            assert index._file.read(lambda c: c.execute("PRAGMA cipher_integrity_check").fetchall()) == []
            assert index._file.read(lambda c: c.execute("PRAGMA integrity_check").fetchall()) == [("ok",)]
    assert done > 0


def test_several_processes_fill_one_index(folder: Path) -> None:
    processes = [_worker(folder, first, first + 4) for first in (0, 100, 200)]
    with contextlib.closing(open_index(folder)) as index:
        while any(process.poll() is None for process in processes):
            ask_everything(index)
        for process in processes:
            _, errors = process.communicate()
            assert process.returncode == 0, errors
        index.use_model(MODEL, 384)
        assert {
            item.conversation_id for item in index.items(index.lexical(["word"], Filter(), 999).ids.tolist())
        } == {f"c{number}" for first in (0, 100, 200) for number in range(first, first + 5)}
        assert index.counts().items == 15 * 20 - 3 * sum(n % 3 == 0 for f in (0, 100, 200) for n in range(f, f + 5))


def test_a_process_goes_on_while_another_deletes_the_file(folder: Path) -> None:
    process = _worker(folder, 0, 30)
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip().isdigit() and int(line) % 3 == 0:
            (folder / "index.db").unlink(missing_ok=True)
            with contextlib.closing(open_index(folder)) as index:
                ask_everything(index)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    with contextlib.closing(open_index(folder)) as index:
        assert ask_everything(index)[0] == index.counts().items


def test_two_that_find_one_file_damaged_go_on_with_one_new_file(folder: Path) -> None:
    with contextlib.closing(open_index(folder)) as one, contextlib.closing(open_index(folder)) as two:
        for damage in ("garbage, shorter", "all files deleted", "cut in the middle", "folder deleted"):
            fill(one, 300)
            assert ask_everything(two) == ask_everything(one) == (300, 300)
            DAMAGES[damage](folder)
            assert two.generation == one.generation
            one.put(turns(0, 1))
            assert ask_everything(two) == (1, 0)


def test_threads_go_on_while_the_file_is_damaged_again_and_again(index: SqliteSearchIndex, folder: Path) -> None:
    fill(index)
    errors: list[BaseException] = []
    stop = threading.Event()

    def work(number: int) -> None:
        try:
            while not stop.is_set():
                if number == 0:
                    index.use_model(MODEL, 384)
                    index.put(turns(0, 20))
                    index.put_vectors(MODEL, [(entry.id, VECTOR[None]) for entry in index.unembedded(20)])
                else:
                    ask_everything(index)
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(10):
        time.sleep(0.05)
        with contextlib.suppress(FileNotFoundError):
            (folder / "index.db").unlink()
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert_usable(index)


def test_only_the_owner_can_read_and_nothing_is_in_clear(index: SqliteSearchIndex, folder: Path) -> None:
    index.put([SearchItem("turn/k/v", "turn", "plaintext-marker in clear", author="author-marker")])
    ask_everything(index)
    assert folder.stat().st_mode & 0o777 == 0o700
    for path in _all_files(folder):
        assert path.stat().st_mode & 0o777 == 0o600, path.name
        data = path.read_bytes()
        for word in (b"marker", b"SQLite format", b"CREATE", b"porter"):
            assert word not in data, path.name


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="looks into /proc")
def test_release_lets_go_of_memory_and_files(index: SqliteSearchIndex, folder: Path) -> None:
    fill(index)
    assert ask_everything(index) == (300, 300)
    assert _open_files(folder)
    index.release()
    assert _open_files(folder) == []
    assert index._snapshot is None
    assert index._scopes._last is None
    assert ask_everything(index) == (300, 300)


def _open_files(folder: Path) -> list[str]:
    names = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            names.append(os.readlink(entry))  # noqa: PTH115 - as it stands, whether or not it is there
    return [name for name in names if name.startswith(str(folder))]
