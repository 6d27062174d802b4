"""Applications are opened by their user's own request, once, and leave nothing behind that opens them."""

from __future__ import annotations

import contextlib
import errno
import gc
import random
import subprocess
import sys
import time
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from dualmem_mcp.app import App, open_app
from dualmem_mcp.errors import LockedError, OverBudgetError, StoreUnreachableError
from dualmem_mcp.handoff.digest.suites import is_test_command, runs_tests
from dualmem_mcp.handoff.redact import redact, redact_again
from dualmem_mcp.model.grant import OWNER, UserId
from dualmem_mcp.model.graph import Entity
from dualmem_mcp.remote.tenant import McpTenant
from dualmem_mcp.remote.tenants import OwnTenant, UserTenants
from dualmem_mcp.settings import load_hosted_settings, load_settings
from tests.remote.user_host import OPTIONS, UserHost


class Clock:
    """The real one, and what a test adds to it."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


@pytest.fixture
def host(tmp_path: Path) -> UserHost:
    host = UserHost(tmp_path)
    host.add("ana")
    host.add("ben")
    return host


@asynccontextmanager
async def serving(host: UserHost, **how: object) -> AsyncIterator[UserTenants]:
    tenants = host.tenants(**how)
    async with tenants.running():
        yield tenants


async def until_closed(tenants: UserTenants, *users: str) -> None:
    with anyio.fail_after(20):
        while set(users) & set(tenants.open_users):  # noqa: ASYNC110 - they close by themselves
            await anyio.sleep(0.01)


async def test_a_request_opens_its_own_users_memory(host: UserHost) -> None:
    with host.opened("ana") as app:
        app.graph.create_entities([Entity("Zebra", "animal", ("of ana",))])
    async with serving(host) as tenants:
        assert tenants.open_users == []
        ana = await tenants.tenant(host.caller("ana"))
        assert (ana.user, tenants.open_users) == ("ana", ["ana"])
        assert (await ana.app.get()).graph.counts()[0] == 1
        ben = await tenants.tenant(host.caller("ben"))
        assert (await ben.app.get()).graph.counts()[0] == 0
        assert await tenants.tenant(host.caller("ana")) is ana
    assert tenants.open_users == []


async def test_requests_that_come_while_it_opens_wait_for_the_one_opening(host: UserHost) -> None:
    found: list[object] = []
    async with serving(host) as tenants, anyio.create_task_group() as tasks:

        async def ask() -> None:
            found.append(await tenants.tenant(host.caller("ana")))

        for _ in range(8):
            tasks.start_soon(ask)
    assert len(found) == 8
    assert len(set(map(id, found))) == 1


async def test_a_request_that_is_given_up_leaves_the_others_the_application(host: UserHost) -> None:
    async with serving(host) as tenants:
        with anyio.move_on_after(0.001) as gone:
            await tenants.tenant(host.caller("ana"))
        assert gone.cancelled_caught
        assert (await tenants.tenant(host.caller("ana"))).app.opened is not None


@pytest.mark.parametrize("secret", [b"", bytes(32), bytes(31), b"ben's"])
async def test_a_wrong_secret_opens_nothing_and_closes_nothing(host: UserHost, secret: bytes) -> None:
    secret = host.secrets[UserId("ben")] if secret == b"ben's" else secret
    wrong = host.caller("ana", secret=secret)
    async with serving(host, most_open=1) as tenants:
        with pytest.raises(LockedError):
            await tenants.tenant(wrong)
        assert tenants.open_users == []
        ana = await tenants.tenant(host.caller("ana"))
        with pytest.raises(LockedError):
            await tenants.tenant(wrong)
        assert await tenants.tenant(host.caller("ana")) is ana
        assert ana.app.opened is not None


async def test_wrong_secrets_at_the_same_time_do_not_harm_the_right_one(host: UserHost) -> None:
    answers: list[object] = []
    async with serving(host) as tenants, anyio.create_task_group() as tasks:

        async def ask(secret: bytes | None) -> None:
            try:
                answers.append(await tenants.tenant(host.caller("ana", secret=secret)))
            except LockedError:
                answers.append(None)

        for secret in (bytes(32), None, bytes(32), None, b"", None):
            tasks.start_soon(ask, secret)
    assert answers.count(None) == 3
    assert len({id(one) for one in answers if one is not None}) == 1


async def test_a_user_that_there_is_not_is_refused(host: UserHost) -> None:
    for name in ("cy", "..", "../users/ana", "ana/", ""):
        async with serving(host) as tenants:
            with pytest.raises(LockedError):
                await tenants.tenant(host.caller(name, secret=host.secrets[UserId("ana")]))


async def test_an_idle_application_is_closed_and_its_secret_forgotten(host: UserHost) -> None:
    clock = Clock()
    async with serving(host, clock=clock) as tenants:
        ana = await tenants.tenant(host.caller("ana"))
        app = await ana.app.get()
        # A process that searches runs for her, and must not outlive the application.
        app.edge.search("anything")
        worker = app.edge._worker.process  # type: ignore[attr-defined]
        assert worker.poll() is None
        traces = [weakref.ref(one) for one in (ana, app, app.database, app.graph, app.sharing)]
        clock.ahead = 800
        tenants.close_idle()
        assert await tenants.tenant(host.caller("ana")) is ana
        clock.ahead = 800 + 899
        tenants.close_idle()
        assert tenants.open_users == ["ana"]
        clock.ahead = 800 + 902
        tenants.close_idle()
        await until_closed(tenants, "ana")
        assert worker.poll() is not None
        del ana, app
        gc.collect()
        assert [trace() for trace in traces] == [None] * len(traces)
        # Her next request opens it again.
        assert (await tenants.tenant(host.caller("ana"))).app.opened is not None


async def test_texts_that_were_redacted_are_not_remembered_beyond_their_user(host: UserHost) -> None:
    async with serving(host) as tenants:
        await tenants.tenant(host.caller("ana"))
        redact("the password of ana = hunter2zebra")
        is_test_command("pytest tests/of/ana")
        assert redact_again.cache_info().currsize
        await tenants.close(UserId("ana"))
        assert redact_again.cache_info().currsize == 0
        assert runs_tests.cache_info().currsize == 0


async def test_a_request_that_comes_while_it_closes_opens_it_again(host: UserHost) -> None:
    clock = Clock()
    async with serving(host, clock=clock) as tenants:
        first = await tenants.tenant(host.caller("ana"))
        clock.ahead = 10_000
        tenants.close_idle()
        second = await tenants.tenant(host.caller("ana"))
        assert second is not first
        assert second.app.opened is not None
        assert first.app.opened is None


async def test_who_was_asked_longest_ago_makes_room_and_nobody_who_was_asked_just_now(host: UserHost) -> None:
    host.add("cy")
    clock = Clock()
    async with serving(host, most_open=2, clock=clock) as tenants:
        await tenants.tenant(host.caller("ana"))
        clock.ahead = 20
        ben = await tenants.tenant(host.caller("ben"))
        await tenants.tenant(host.caller("cy"))
        assert tenants.open_users == ["ben", "cy"]
        with pytest.raises(OverBudgetError, match="room"):
            await tenants.tenant(host.caller("ana"))
        assert await tenants.tenant(host.caller("ben")) is ben


async def test_a_wrong_secret_makes_no_room_for_itself(host: UserHost) -> None:
    clock = Clock()
    async with serving(host, most_open=1, clock=clock) as tenants:
        ben = await tenants.tenant(host.caller("ben"))
        clock.ahead = 500
        with pytest.raises(LockedError):
            await tenants.tenant(host.caller("ana", secret=bytes(32)))
        assert await tenants.tenant(host.caller("ben")) is ben


async def test_a_user_who_is_removed_is_closed_and_refused(host: UserHost) -> None:
    async with serving(host) as tenants:
        ana = await tenants.tenant(host.caller("ana"))
        ben = await tenants.tenant(host.caller("ben"))
        host.folder.remove(UserId("ana"))
        with pytest.raises(LockedError):
            await tenants.tenant(host.caller("ana"))
        tenants.close_idle()
        await until_closed(tenants, "ana")
        assert ana.app.opened is None
        assert await tenants.tenant(host.caller("ben")) is ben


async def test_a_disk_that_is_away_for_a_moment_removes_nobody(
    host: UserHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(host) as tenants:
        ana = await tenants.tenant(host.caller("ana"))
        with monkeypatch.context() as patch:

            def away(_: Path) -> bool:
                raise OSError(errno.EIO, "Input/output error")

            patch.setattr(Path, "is_file", away)
            tenants.close_idle()
            with pytest.raises(StoreUnreachableError):
                await tenants.tenant(host.caller("ana"))
        assert await tenants.tenant(host.caller("ana")) is ana
        assert ana.app.opened is not None


async def test_one_whose_opening_fails_leaves_the_others_alone(host: UserHost) -> None:
    async with serving(host) as tenants:
        ben = await tenants.tenant(host.caller("ben"))
        database = host.folder.home(UserId("ana")) / "memory.db"
        kept = database.read_bytes()
        database.write_bytes(b"\0" * len(kept))
        with pytest.raises(LockedError):
            await tenants.tenant(host.caller("ana"))
        assert tenants.open_users == ["ben"]
        database.write_bytes(kept)
        assert (await tenants.tenant(host.caller("ana"))).app.opened is not None
        assert await tenants.tenant(host.caller("ben")) is ben


async def test_what_is_saved_is_in_the_bucket_before_the_application_is_closed(host: UserHost) -> None:
    """A closed application syncs nothing, so what a phone saved must not wait for its user's next request."""
    async with serving(host) as tenants:
        app = await (await tenants.tenant(host.caller("ana"))).app.get()
        app.graph.create_entities([Entity("Zebra", "animal", ("saved last",))])
        assert app.sync_waiting() > 0
        await tenants.close(UserId("ana"))
    with host.opened("ana") as app:
        assert app.sync_waiting() == 0
    log = [path for path in host.bucket("ana").rglob("*") if path.is_file() and "log" in path.parts]
    assert log


async def test_nothing_runs_for_a_user_whose_application_is_closed(host: UserHost) -> None:
    async with serving(host) as tenants:
        await tenants.tenant(host.caller("ana"))
        await tenants.close(UserId("ana"))
        before = {path: path.stat().st_mtime_ns for path in host.bucket("ana").rglob("*")}
        await anyio.sleep(0.3)
        assert {path: path.stat().st_mtime_ns for path in host.bucket("ana").rglob("*")} == before
        assert tenants.open_users == []


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_comes_in_whatever_order_everybody_gets_their_own(tmp_path: Path, seed: int) -> None:
    """Requests with right and wrong secrets, given up or not, while applications idle out and make room."""
    host, chance, clock = UserHost(tmp_path), random.Random(seed), Clock()
    names = ("ana", "ben", "cy", "dee")
    for name in names:
        host.add(name)
        with host.opened(name) as app:
            app.graph.create_entities([Entity(name, "person", ())])
    served, refused = 0, 0

    async def ask(tenants: UserTenants) -> None:
        nonlocal served, refused
        name, wrong = chance.choice(names), chance.random() < 0.3
        patience = chance.choice((0.0, 0.003, 0.02, 30, 30, 30))
        await anyio.sleep(chance.random() * 0.5)
        if chance.random() < 0.2:
            clock.ahead += chance.choice((20, 400, 1_000))
            tenants.close_idle()
        secret = host.secrets[UserId(chance.choice(names))] if wrong else None
        with anyio.move_on_after(patience):
            try:
                tenant = await tenants.tenant(host.caller(name, secret=secret))
            except OverBudgetError:
                return
            except LockedError:
                assert secret not in (None, host.secrets[UserId(name)])
                refused += 1
                return
            assert secret in (None, host.secrets[UserId(name)])
            assert tenant.user == name
            assert len(tenants.open_users) <= 2
            app = tenant.app.opened
            if app is not None:  # it may be closed again by the time that this is looked at
                with contextlib.suppress(StoreUnreachableError):
                    assert [entity.name for entity in app.graph.read_graph().entities] == [name]
            served += 1

    async with serving(host, most_open=2, clock=clock) as tenants, anyio.create_task_group() as tasks:
        for _ in range(60):
            tasks.start_soon(ask, tenants)
    assert served > 5
    assert refused > 2
    assert tenants.open_users == []


def test_no_core_file_is_written_of_a_host_of_users() -> None:
    command = "from dualmem_mcp.remote.core_files import forbid_core_files; import resource; forbid_core_files();"
    command += "print(resource.getrlimit(resource.RLIMIT_CORE)[0])"
    told = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert told.stdout == "0\n"


# One user


@pytest.fixture
def own_app(tmp_path: Path) -> Iterator[App]:
    settings = replace(load_settings(tmp_path / "home"), keystore="file", bucket=str(tmp_path / "bucket"))
    with open_app(settings) as app:
        yield app


async def test_the_one_user_of_a_host_is_open_as_long_as_it_serves(own_app: App, host: UserHost) -> None:
    owner = OwnTenant(McpTenant(OWNER, lambda: own_app, OPTIONS))
    async with owner.running():
        host.secrets[OWNER] = b""
        assert (await owner.tenant(host.caller("owner"))).app.opened is own_app
        with pytest.raises(LockedError):
            await owner.tenant(host.caller("ana"))


async def test_a_data_home_that_cannot_be_opened_keeps_the_host_from_serving(host: UserHost) -> None:
    home = host.folder.home(UserId("ana"))
    owner = OwnTenant(McpTenant(OWNER, lambda: open_app(load_hosted_settings(home)), OPTIONS))
    with pytest.raises(LockedError, match="login alone"):
        async with owner.running():
            raise AssertionError("it serves")
