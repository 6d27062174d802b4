"""The contract of ObjectStore, over every implementation of it."""

from __future__ import annotations

import multiprocessing
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dualmem_mcp.errors import ConflictError, NotFoundError, StoreUnreachableError, UsageError
from dualmem_mcp.ports import ObjectStore
from dualmem_mcp.stores.objects import open_object_store


def keys(store: ObjectStore, prefix: str = "", start_after: str = "") -> list[str]:
    return [info.key for info in store.list(prefix, start_after=start_after)]


# Reading and writing


def test_what_is_put_is_got(store: ObjectStore) -> None:
    data = os.urandom(100_000)
    tag = store.put("packages/3f", data)
    assert store.get("packages/3f") == data
    info = store.stat("packages/3f")
    assert (info.key, info.size_bytes, info.etag) == ("packages/3f", len(data), tag)


def test_empty_object(store: ObjectStore) -> None:
    store.put("empty", b"")
    assert store.get("empty") == b""
    assert store.get("empty", start=0, length=10) == b""
    assert store.stat("empty").size_bytes == 0


@pytest.mark.parametrize(
    ("start", "length", "expected"),
    [
        (0, None, b"0123456789"),
        (3, None, b"3456789"),
        (3, 4, b"3456"),
        (0, 1, b"0"),
        (9, 1, b"9"),
        (8, 100, b"89"),
        (10, None, b""),
        (10, 5, b""),
        (1000, 5, b""),
        (4, 0, b""),
    ],
)
def test_ranges(store: ObjectStore, start: int, length: int | None, expected: bytes) -> None:
    store.put("digits", b"0123456789")
    assert store.get("digits", start=start, length=length) == expected


def test_negative_ranges_are_the_callers_fault(store: ObjectStore) -> None:
    with pytest.raises(ValueError):
        store.get("x", start=-1)
    with pytest.raises(ValueError):
        store.get("x", length=-1)


@pytest.mark.parametrize("length", [None, 0, 5])
def test_missing_object(store: ObjectStore, length: int | None) -> None:
    with pytest.raises(NotFoundError, match="packages/none"):
        store.get("packages/none", length=length)
    with pytest.raises(NotFoundError, match="packages/none"):
        store.stat("packages/none")


def test_part_of_a_key_is_no_object(store: ObjectStore) -> None:
    store.put("a/b/c", b"x")
    with pytest.raises(NotFoundError):
        store.get("a/b")
    with pytest.raises(NotFoundError):
        store.stat("a")
    with pytest.raises(NotFoundError):
        store.get("a/b/c/d")


def test_put_replaces(store: ObjectStore) -> None:
    first = store.put("k", b"a longer first version")
    second = store.put("k", b"second")
    assert store.get("k") == b"second"
    assert first != second
    assert store.stat("k").etag == second


def test_delete_can_be_repeated(store: ObjectStore) -> None:
    store.put("a/b", b"x")
    store.delete("a/b")
    store.delete("a/b")
    store.delete("never/was")
    with pytest.raises(NotFoundError):
        store.get("a/b")
    assert keys(store) == []


def test_another_opening_sees_the_same(store: ObjectStore, reopen) -> None:
    tag = store.put("k", b"x")
    assert reopen().stat("k").etag == tag
    assert reopen().location == store.location


# Conditional writes


def test_if_absent_never_overwrites(store: ObjectStore) -> None:
    tag = store.put("k", b"first", if_absent=True)
    with pytest.raises(ConflictError, match="k"):
        store.put("k", b"second", if_absent=True)
    with pytest.raises(ConflictError):
        store.put("k", b"first", if_absent=True)
    assert (store.get("k"), store.stat("k").etag) == (b"first", tag)
    store.delete("k")
    store.put("k", b"third", if_absent=True)
    assert store.get("k") == b"third"


def test_if_match_replaces_only_that_version(store: ObjectStore) -> None:
    first = store.put("k", b"first")
    second = store.put("k", b"second", if_match=first)
    with pytest.raises(ConflictError, match="k"):
        store.put("k", b"lost", if_match=first)
    assert store.get("k") == b"second"
    store.put("k", b"third", if_match=second)
    assert store.get("k") == b"third"


def test_if_match_wants_an_object(store: ObjectStore) -> None:
    tag = store.put("other", b"x")
    with pytest.raises(ConflictError):
        store.put("missing", b"x", if_match=tag)
    with pytest.raises(NotFoundError):
        store.get("missing")


@pytest.mark.parametrize("tag", ["", "*", '"', "never a tag", "x\r\nIf-None-Match: *", "ü"])
def test_if_match_with_what_is_no_tag(store: ObjectStore, tag: str) -> None:
    store.put("k", b"first")
    with pytest.raises(ConflictError):
        store.put("k", b"second", if_match=tag)
    assert store.get("k") == b"first"


def test_both_conditions_at_once_are_the_callers_fault(store: ObjectStore) -> None:
    with pytest.raises(ValueError):
        store.put("k", b"x", if_absent=True, if_match="0")


def test_one_of_sixteen_threads_wins(store: ObjectStore) -> None:
    start = threading.Barrier(16)

    def write(number: int) -> int | None:
        start.wait()
        try:
            store.put("contested", bytes([number]) * 2000, if_absent=True)
        except ConflictError:
            return None
        return number

    with ThreadPoolExecutor(16) as pool:
        winners = [number for number in pool.map(write, range(16)) if number is not None]
    assert len(winners) == 1
    assert store.get("contested") == bytes(winners) * 2000


def test_threads_that_count_with_if_match_lose_no_step(store: ObjectStore) -> None:
    store.put("counter", b"0")

    def count(thread: int) -> None:
        for step in range(5):
            while True:
                tag = store.stat("counter").etag
                value = int(store.get("counter").split()[0])
                # No two write the same bytes: after a try without an answer those are what tells one's own write.
                # What is sealed never is the same either.
                written = f"{value + 1} by {thread} in step {step}".encode()
                try:
                    store.put("counter", written, if_match=tag)
                except ConflictError:
                    continue
                break

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count, range(4)))
    assert store.get("counter").split()[0] == b"20"


def _claim(location: str, number: int, start, results) -> None:
    store = open_object_store(location)
    start.wait()
    won = []
    for sequence in range(10):
        try:
            store.put(f"log/{sequence:020}", b"%d" % number, if_absent=True)
        except ConflictError:
            continue
        won.append(sequence)
    results.put((number, won))


def test_processes_share_out_a_log(location: str, store: ObjectStore) -> None:
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(4), context.Queue()
    processes = [context.Process(target=_claim, args=(location, number, start, results)) for number in range(4)]
    for process in processes:
        process.start()
    won = dict(results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    assert sorted(sequence for claimed in won.values() for sequence in claimed) == list(range(10))
    for number, claimed in won.items():
        for sequence in claimed:
            assert store.get(f"log/{sequence:020}") == b"%d" % number


def test_readers_see_all_of_a_write_or_none(store: ObjectStore) -> None:
    versions = [bytes([number]) * (200_000 + number) for number in range(6)]
    store.put("k", versions[0])
    done = threading.Event()

    def read() -> list[bytes]:
        seen = []
        while not done.is_set():
            seen.append(store.get("k"))
        return seen

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        for version in versions:
            store.put("k", version)
        done.set()
        assert all(data in versions for reader in readers for data in reader.result())


# Listing


def test_list_is_in_order_of_bytes(store: ObjectStore) -> None:
    names = ["a-b", "a/b", "a.b", "a0", "aB", "a_b", "B", "a/a/z", "a/a-z", "a/a.z", "Z/9", "0"]
    for name in names:
        store.put(name, name.encode())
    infos = list(store.list())
    assert [info.key for info in infos] == sorted(names, key=str.encode)
    assert [info.size_bytes for info in infos] == [len(info.key) for info in infos]
    assert all(info.etag in {"", store.stat(info.key).etag} for info in infos)


def test_list_by_prefix_and_start(store: ObjectStore) -> None:
    for name in ["log/a/1", "log/a/2", "log/a/3", "log/ab/1", "log/b/1", "packages/x"]:
        store.put(name, b"x")
    assert keys(store, "log/a/") == ["log/a/1", "log/a/2", "log/a/3"]
    assert keys(store, "log/a") == ["log/a/1", "log/a/2", "log/a/3", "log/ab/1"]
    assert keys(store, "log/a/", "log/a/1") == ["log/a/2", "log/a/3"]
    assert keys(store, "log/", "log/a/3") == ["log/ab/1", "log/b/1"]
    assert keys(store, "log/", "log/a/30") == ["log/ab/1", "log/b/1"]
    assert keys(store, "", "log/zzz") == ["packages/x"]
    assert keys(store, "log/a/1") == ["log/a/1"]
    assert keys(store, "log/a/1/") == []
    assert keys(store, "nothing/") == []
    assert keys(store, "log/a/", "log/a/3") == []
    assert keys(store, "log/", "a") == keys(store, "log/")


def test_list_of_an_empty_store(store: ObjectStore) -> None:
    assert list(store.list()) == []


def test_list_goes_past_one_page(store: ObjectStore) -> None:
    names = [f"n/{number:04}" for number in range(1005)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: store.put(name, b""), names))
    assert keys(store, "n/") == names
    assert keys(store, "n/", "n/0001") == names[2:]


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(st.text("aB-._/0", min_size=1, max_size=6), max_size=8),
    prefix=st.text("aB-._/0", max_size=3),
    start_after=st.text("aB-._/0", max_size=3),
)
def test_list_agrees_with_sorting(store: ObjectStore, names: list[str], prefix: str, start_after: str) -> None:
    for key in keys(store):
        store.delete(key)
    held: list[str] = []
    for name in names:
        if any(name.startswith(key + "/") or key.startswith(name + "/") for key in held):
            continue  # a folder cannot hold an object and a folder of one name
        try:
            store.put(name, b"x")
        except UsageError:
            continue
        held.append(name)
    assert keys(store, prefix, start_after) == sorted(
        {key for key in held if key.startswith(prefix) and key > start_after}
    )


# Keys


@pytest.mark.parametrize(
    "key",
    [
        *("", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b", ".hidden", "a/.hidden"),
        *("a b", "a\\b", "ä", "a\nb", "a\x00b", "a\n", "C:/a", "a:b", "~", "\udcff"),
        *("x" * 129, "/".join(["abcdefgh"] * 60)),
    ],
)
def test_odd_keys_are_refused(store: ObjectStore, key: str) -> None:
    for operation in (store.get, store.stat, store.delete, lambda key: store.put(key, b"x")):
        with pytest.raises(UsageError, match="not an object key"):
            operation(key)
    assert keys(store) == []


def test_the_longest_key(store: ObjectStore) -> None:
    key = "/".join(["x" * 127] * 4)
    store.put(key, b"x")
    assert keys(store) == [key]
    assert store.get(key) == b"x"


def test_odd_prefixes_are_refused(store: ObjectStore) -> None:
    for prefix in ("ä", "a b", "a\x00", "*"):
        with pytest.raises(UsageError):
            keys(store, prefix)
        with pytest.raises(UsageError):
            keys(store, "", prefix)
    assert keys(store, "../") == []


# Locations


@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("", "no location"),
        ("  ", "no location"),
        ("gs://bucket/x", "gs://"),
        ("https://example.org/bucket", "https://"),
        ("s3://", "s3://bucket/prefix"),
        ("s3://b", "s3://bucket/prefix"),
        ("s3:///prefix", "s3://bucket/prefix"),
        ("s3://bucket/../other", "s3://bucket/prefix"),
        ("s3://user:secret@bucket/x", "s3://bucket/prefix"),
        ("s3://bucket//x", "s3://bucket/prefix"),
    ],
)
def test_locations_of_no_known_kind(location: str, told: str) -> None:
    with pytest.raises(UsageError, match=told) as raised:
        open_object_store(location)
    assert raised.value.hint
    assert "secret" not in raised.value.message + raised.value.hint + raised.value.subject


def test_location_of_a_bucket() -> None:
    assert open_object_store("s3://bucket").location == "s3://bucket"
    assert open_object_store("s3://bucket/a/b/").location == "s3://bucket/a/b"


def test_nothing_is_contacted_at_opening(tmp_path) -> None:
    store = open_object_store(str(tmp_path / "not-there"))
    assert not (tmp_path / "not-there").exists()
    with pytest.raises(StoreUnreachableError):
        store.stat("k")
