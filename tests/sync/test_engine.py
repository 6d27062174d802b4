"""One sync: what one device has made the others have, and nothing is lost where the bucket is away."""

from __future__ import annotations

from tests.sync.conftest import Bench


def test_what_one_device_makes_the_other_has(folder_bench: Bench) -> None:
    desk, phone = folder_bench.device("desk"), folder_bench.device("phone")
    desk.add("Ada", "Engine")
    desk.observe("Ada", "née Byron")
    sent = desk.sync()
    assert (sent.pushed.segments, sent.pushed.ops, sent.queued) == (1, 3, 0)
    got = phone.sync()
    assert (got.pulled.segments, got.pulled.ops, got.warnings) == (1, 3, [])
    assert (
        phone.content()
        == desk.content()
        == {
            "Ada": ("thing", frozenset({"Ada is here", "née Byron"})),
            "Engine": ("thing", frozenset({"Engine is here"})),
        }
    )
