"""What stands between whoever guesses passphrases and the accounts."""

from __future__ import annotations

import contextlib
import threading
import time

import anyio
import pytest

from dualmem_mcp.errors import LockedError, StoreUnreachableError
from dualmem_mcp.model.grant import UserId
from dualmem_mcp.remote.oauth.attempts import Rate
from dualmem_mcp.remote.oauth.passphrases import Pace, PassphraseGate, TooManyAttemptsError
from tests.remote.oauth.hosts import FREE, PASSPHRASE, Turned, Users, host

KEY = b"k" * 32


def pace(**rates: Rate) -> Pace:
    return Pace(**{"address": FREE, "client": FREE, "account": FREE, "device": FREE, "wrong_seconds": 0.0, **rates})


async def wrong(gate: PassphraseGate, times: int, name: str = "", **who: str) -> None:
    for _ in range(times):
        with pytest.raises(LockedError):
            await gate.unlock(name, "wrong", **{"address": "a", **who})


@pytest.mark.parametrize(
    ("what", "same", "other"),
    [
        ("address", {"address": "203.0.113.1"}, {"address": "203.0.113.2"}),
        ("client", {"client_id": "one"}, {"client_id": "two"}),
    ],
)
async def test_attempts_are_counted_by(what, same, other):
    clock = Turned()
    gate = PassphraseGate(Users(), KEY, pace(**{what: Rate(3, 10.0)}), clock.monotonic)
    await wrong(gate, 3, **same)
    with pytest.raises(TooManyAttemptsError) as refused:
        await gate.unlock("", PASSPHRASE, **{"address": "b", **same})
    assert 10 <= refused.value.seconds <= 11
    await gate.unlock("", PASSPHRASE, **{"address": "b", **other})
    clock.turn(10)
    await gate.unlock("", PASSPHRASE, **{"address": "b", **same})


async def test_attempts_are_counted_by_account_and_a_name_that_there_is_not_counts_alike():
    users = Users({"anna": ("a", b"a" * 32), "ben": ("b", b"b" * 32)})
    gate = PassphraseGate(users, KEY, pace(account=Rate(3, 10.0)), Turned().monotonic)
    for name in ("anna", "nobody"):
        await wrong(gate, 3, name)
        with pytest.raises(TooManyAttemptsError):
            await gate.unlock(f" {name.upper()} ", "a", address="elsewhere")
    await gate.unlock("ben", "b", address="a")


async def test_good_passphrases_use_nothing_up():
    gate = PassphraseGate(Users(), KEY, pace(address=Rate(2, 10.0), account=Rate(2, 10.0)), Turned().monotonic)
    shown = [(await gate.unlock("", PASSPHRASE, address="a")).user for _ in range(10)]
    await wrong(gate, 1)
    shown.append((await gate.unlock("", PASSPHRASE, address="a")).user)
    assert len(shown) == 11
    assert len(set(shown)) == 1


async def test_what_could_not_be_tried_uses_nothing_up():
    class Away(Users):
        def unlock(self, name, passphrase):
            if self.asked < 5:
                self.asked += 1
                raise StoreUnreachableError("the bucket is away")
            return super().unlock(name, passphrase)

    gate = PassphraseGate(Away(), KEY, pace(address=Rate(2, 10.0)), Turned().monotonic)
    for _ in range(5):
        with pytest.raises(StoreUnreachableError):
            await gate.unlock("", PASSPHRASE, address="a")
    await gate.unlock("", PASSPHRASE, address="a")


async def test_the_owner_gets_in_while_somebody_hammers_at_the_account():
    clock = Turned()
    gate = PassphraseGate(Users(), KEY, pace(account=Rate(5, 10.0), device=Rate(3, 10.0)), clock.monotonic)
    device = gate.device_cookie(UserId("owner"))
    for number in range(5):
        await wrong(gate, 1, address=f"198.51.100.{number}")
    with pytest.raises(TooManyAttemptsError):
        await gate.unlock("", PASSPHRASE, address="home")
    await gate.unlock("", PASSPHRASE, address="home", device=device)
    await wrong(gate, 3, address="home", device=device)
    with pytest.raises(TooManyAttemptsError):
        await gate.unlock("", PASSPHRASE, address="home", device=device)
    # Not for ever: without a device's cookie, too, there is a next attempt.
    clock.turn(10)
    await gate.unlock("", PASSPHRASE, address="home")


async def test_a_cookie_that_was_made_up_or_is_another_users_gives_no_attempts():
    users = Users({"anna": ("a", b"a" * 32), "ben": ("b", b"b" * 32)})
    gate = PassphraseGate(users, KEY, pace(account=Rate(1, 10.0)), Turned().monotonic)
    bens = gate.device_cookie(UserId("ben"))
    other_host = PassphraseGate(users, b"x" * 32, pace(), Turned().monotonic).device_cookie(UserId("anna"))
    await wrong(gate, 1, "anna")
    for device in (bens, other_host, bens.replace("ben", "anna"), "anna.x.y", "", "é"):
        with pytest.raises(TooManyAttemptsError):
            await gate.unlock("anna", "a", address="a", device=device)
    await gate.unlock("anna", "a", address="a", device=gate.device_cookie(UserId("anna")))


async def test_a_wrong_passphrase_costs_time_and_a_good_one_does_not():
    gate = PassphraseGate(Users(), KEY, _slow(), Turned().monotonic)
    began = time.monotonic()
    await gate.unlock("", PASSPHRASE, address="a")
    good = time.monotonic() - began
    began = time.monotonic()
    with pytest.raises(LockedError):
        await gate.unlock("", "wrong", address="a")
    assert time.monotonic() - began >= 0.2 > good


def _slow() -> Pace:
    return Pace(address=FREE, client=FREE, account=FREE, device=FREE, wrong_seconds=0.2)


async def test_guessers_do_not_take_all_cores_nor_queue_without_end():
    class Slow(Users):
        running = most = 0

        def unlock(self, name, passphrase):
            self.running += 1
            self.most = max(self.most, self.running)
            time.sleep(0.03)
            self.running -= 1
            return super().unlock(name, passphrase)

    users = Slow()
    gate = PassphraseGate(users, KEY, pace(), Turned().monotonic)
    refused = []

    async def guess() -> None:
        try:
            await gate.unlock("", "wrong", address="a")
        except TooManyAttemptsError:
            refused.append(1)
        except LockedError:
            pass

    async with anyio.create_task_group() as group:
        for _ in range(40):
            group.start_soon(guess)
    assert users.most <= 2
    assert users.asked + len(refused) == 40
    assert len(refused) >= 25


async def test_guessers_do_not_take_the_places_of_browsers_that_have_logged_in():
    class Held(Users):
        gate = threading.Event()

        def unlock(self, name, passphrase):
            self.gate.wait()
            return super().unlock(name, passphrase)

    users = Held()
    gate = PassphraseGate(users, KEY, pace(), Turned().monotonic)
    device, unlocked = gate.device_cookie(UserId("owner")), []

    async def guess(address: str) -> None:
        with contextlib.suppress(LockedError, TooManyAttemptsError):
            await gate.unlock("", "wrong", address=address)

    async def log_in() -> None:
        unlocked.append(await gate.unlock("", PASSPHRASE, address="home", device=device))

    async with anyio.create_task_group() as group:
        for number in range(40):
            group.start_soon(guess, f"198.51.100.{number}")
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(TooManyAttemptsError):
            await gate.unlock("", PASSPHRASE, address="elsewhere")
        group.start_soon(log_in)
        await anyio.wait_all_tasks_blocked()
        users.gate.set()
    assert [one.user for one in unlocked] == ["owner"]


async def test_the_page_tells_when_to_try_again(tmp_path):
    with host(tmp_path, pace=pace(address=Rate(2, 30.0))) as made:
        browser = made.browser()
        page = await browser.page((await browser.register())["client_id"])
        answers = [await browser.submit(page, passphrase="wrong") for _ in range(3)]
        assert [answer.status_code for answer in answers] == [403, 403, 429]
        assert 29 <= int(answers[-1].headers["retry-after"]) <= 31
        assert "Wait " in answers[-1].text
        assert (await browser.submit(page)).status_code == 429
        assert made.users.asked == 2
        elsewhere = made.browser("198.51.100.20")
        assert (
            await elsewhere.submit(await elsewhere.page((await browser.register())["client_id"]))
        ).status_code == 303


async def test_a_browser_that_logged_in_has_attempts_of_its_own(tmp_path):
    with host(tmp_path, pace=pace(account=Rate(2, 30.0), device=Rate(5, 30.0))) as made:
        owner, thief = made.browser(), made.browser("198.51.100.66")
        await owner.log_in()
        client_id = str((await owner.register())["client_id"])
        page = await thief.page(client_id)
        assert [(await thief.submit(page, passphrase="x")).status_code for _ in range(3)] == [403, 403, 429]
        assert (await owner.submit(await owner.page(client_id))).status_code == 303
