"""Token buckets."""

from __future__ import annotations

import pytest

from dualmem_mcp.remote.oauth.attempts import Attempts, Rate, network_of
from tests.remote.oauth.hosts import Turned


def test_a_burst_and_then_one_at_a_time():
    clock = Turned()
    attempts = Attempts(Rate(3, 10.0), monotonic=clock.monotonic)
    assert [attempts.take("a") for _ in range(3)] == [0, 0, 0]
    assert attempts.take("a") == pytest.approx(10.0)
    assert attempts.take("b") == 0
    clock.turn(4)
    assert attempts.take("a") == pytest.approx(6.0)
    clock.turn(6)
    assert attempts.take("a") == 0
    assert attempts.take("a") > 0


def test_trying_while_there_is_none_costs_nothing():
    clock = Turned()
    attempts = Attempts(Rate(1, 10.0), monotonic=clock.monotonic)
    attempts.take("a")
    for _ in range(100):
        attempts.take("a")
    clock.turn(10)
    assert attempts.take("a") == 0


def test_after_a_long_time_there_is_a_burst_again_and_no_more():
    clock = Turned()
    attempts = Attempts(Rate(2, 10.0), monotonic=clock.monotonic)
    attempts.take("a")
    clock.turn(1_000_000)
    assert [attempts.take("a") > 0 for _ in range(3)] == [False, False, True]


def test_a_good_attempt_is_given_back():
    attempts = Attempts(Rate(1, 10.0), monotonic=Turned().monotonic)
    for _ in range(5):
        assert attempts.take("a") == 0
        attempts.give_back("a")


def test_names_are_bounded():
    attempts = Attempts(Rate(1, 10.0), monotonic=Turned().monotonic)
    for number in range(10_050):
        attempts.take(str(number))
    assert len(attempts._full_at) == 10_000
    assert attempts.take("10049") > 0


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("no address", "no address"),
    ],
)
def test_addresses_of_one_customer_are_one(address, network):
    assert network_of(address) == network
