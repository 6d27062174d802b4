"""Browsers that are logged in to the pages."""

from __future__ import annotations

import pytest

from dualmem_mcp.model.grant import ALL_SCOPES, UserId
from dualmem_mcp.remote.interfaces import Unlocked
from dualmem_mcp.remote.oauth.browser import IDLE_SECONDS, LONGEST_SECONDS, BrowserSessions
from tests.remote.oauth.hosts import Turned

ANNA, BEN = Unlocked(UserId("anna"), b"a" * 32), Unlocked(UserId("ben"), b"b" * 32)


@pytest.fixture
def clock():
    return Turned()


@pytest.fixture
def sessions(clock):
    return BrowserSessions(clock, clock.monotonic)


def test_each_session_is_its_own_users(sessions):
    anna, ben = sessions.open(ANNA), sessions.open(BEN)
    caller = sessions.caller(anna)
    assert (caller.grant.user, caller.secret, caller.grant.scopes) == ("anna", b"a" * 32, ALL_SCOPES)
    assert sessions.caller(ben).grant.user == "ben"
    assert sessions.caller(ben).grant.grant_id != caller.grant.grant_id
    assert sessions.caller("") is None
    assert sessions.caller("x" * 43) is None
    assert sessions.caller("é\ud800") is None


def test_a_closed_session_is_over(sessions):
    anna, ben = sessions.open(ANNA), sessions.open(BEN)
    sessions.close(anna)
    sessions.close(anna)
    assert sessions.caller(anna) is None
    assert sessions.caller(ben) is not None


def test_a_session_ends_when_it_is_idle(sessions, clock):
    cookie = sessions.open(ANNA)
    for _ in range(3):
        clock.turn(IDLE_SECONDS - 1)
        assert sessions.caller(cookie) is not None
    clock.turn(IDLE_SECONDS)
    assert sessions.caller(cookie) is None
    clock.turn(-IDLE_SECONDS)
    assert sessions.caller(cookie) is None  # gone, with the secret


def test_a_session_ends_after_half_a_day_however_much_it_is_used(sessions, clock):
    cookie = sessions.open(ANNA)
    ends = sessions.caller(cookie).grant.expires_at
    assert ends == int(clock.now().timestamp()) + LONGEST_SECONDS
    for _ in range(LONGEST_SECONDS // 900 - 1):
        clock.turn(900)
        assert sessions.caller(cookie) is not None
    clock.turn(900)
    assert sessions.caller(cookie) is None


def test_sessions_are_bounded_and_the_longest_unused_goes(sessions, clock):
    first, second = sessions.open(ANNA), sessions.open(ANNA)
    clock.turn(1)
    assert sessions.caller(first)
    for number in range(4_095):
        clock.turn(0.01)
        last = sessions.open(Unlocked(UserId(f"user-{number}"), b"u" * 32))
    assert sessions.caller(second) is None
    assert sessions.caller(first) is not None
    assert sessions.caller(last) is not None


def test_nobody_logs_others_out_by_logging_in_often(sessions, clock):
    others = sessions.open(ANNA)
    mine = []
    for _ in range(1_000):
        clock.turn(1)
        mine.append(sessions.open(BEN))
    assert sessions.caller(others) is not None
    assert [sessions.caller(cookie) is not None for cookie in mine] == [False] * 936 + [True] * 64


def test_ended_sessions_are_let_go_of(sessions, clock):
    ended = sessions.open(ANNA)
    clock.turn(IDLE_SECONDS)
    good = sessions.open(BEN)
    sessions.forget_ended()
    assert len(sessions._sessions) == 1
    assert sessions.caller(good) is not None
    assert sessions.caller(ended) is None


def test_forms_of_a_session_carry_a_token_of_its_own(sessions):
    anna, ben = sessions.open(ANNA), sessions.open(BEN)
    assert sessions.csrf(anna) == sessions.csrf(anna)
    assert sessions.csrf(anna) != sessions.csrf(ben)
    assert anna not in sessions.csrf(anna)
