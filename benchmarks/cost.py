"""What a conversation and a month of use cost, from counts of a simulated month.

    python benchmarks/cost.py                     a month, two devices; some minutes
    python benchmarks/cost.py --days 7 --turns 600

Two devices of one vault, the real application over data homes of their own, live through a month on clocks that the
benchmark moves. Each working day (five of seven) the desk begins a conversation and hands it over twice, the second
time grown by half; the phone takes it up and saves what was said there. Then both sync by the server's own rhythm:
eight hours with a tool call a minute, and sixteen at rest. Once a week the desk compacts.

The bucket is a folder. Every request that the applications make of it is counted by the product's own meter (GET,
HEAD; PUT and one LIST for each 1,000 objects; bytes out), and stored bytes by listing it at the end; both are
priced as S3 by the list that comes with the product. Not counted: retries, what HTTP and TLS add, taxes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from dualmem_mcp.app import App, open_app
from dualmem_mcp.cost.meter import BYTES_IN, BYTES_OUT, READS, WRITES
from dualmem_mcp.cost.prices import DAYS_A_MONTH, GB, list_prices
from dualmem_mcp.cost.wording import cost_text, usd_text
from dualmem_mcp.sample import write_sample_session
from dualmem_mcp.server.sync_loop import SyncLoop
from dualmem_mcp.settings import load_settings

PASSPHRASE = "a passphrase of the benchmark"
HOURS_IN_USE = 8
CALLS_EVERY = 60.0
"""Seconds between two tool calls of a device in use."""
CONVERSATION_USD = 0.10
USER_USD = 5.00


class MovedClock:
    """A clock that moves when told; each device has its own, and both have gone as far after each day."""

    def __init__(self) -> None:
        self.time = datetime(2026, 3, 2, 8, tzinfo=UTC)  # a Monday

    def now(self) -> datetime:
        return self.time


class Device:
    """One application with the rhythm of its server, in seconds that the benchmark counts."""

    def __init__(self, place: Path, name: str) -> None:
        settings = dataclasses.replace(
            load_settings(place / name),
            bucket=str(place / "bucket"),
            keystore="file",
            claude_dir=place / "claude",
        )
        self.clock, self.seconds = MovedClock(), 0.0
        self.app: App = open_app(settings, clock=self.clock)
        self.loop = SyncLoop(self.app, clock=lambda: self.seconds, chance=lambda: 0.5)

    def live(self, hours: float, *, in_use: bool) -> None:
        """Let the server's rhythm run for so long."""
        end, called = self.seconds + hours * 3600, self.seconds - CALLS_EVERY
        while self.seconds < end:
            if in_use and self.seconds >= called + CALLS_EVERY:
                called = self.seconds
                self.loop.used()
            by = min(self.loop.turn() + 0.001, CALLS_EVERY, end - self.seconds + 0.001)
            self.seconds += by
            self.clock.time += timedelta(seconds=by)


def main() -> None:
    """Live through the month and print what it cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--turns", type=int, default=300, help="of a day's conversation, 300 at least")
    parser.add_argument("--region", default="us-east-1")
    arguments = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="dualmem-benchmark-") as folder:
        conversations, found, spent = month(Path(folder), arguments)
    print(cost_text(found))
    report(arguments, conversations, found, spent)
    print(f"\n{time.perf_counter() - began:.0f} s for {arguments.days} days.")


def month(place: Path, arguments: argparse.Namespace) -> tuple[int, dict[str, Any], dict[str, int]]:
    """Conversations that there were, the product's own estimate, and all that both devices asked of the bucket."""
    desk, phone = Device(place, "desk"), Device(place, "phone")
    desk.app.init(PASSPHRASE, device_name="desk")
    phone.app.join(PASSPHRASE, device_name="phone")
    conversations = 0
    for day in range(arguments.days):
        working = day % 7 < 5
        if working:
            conversations += 1
            work(place, desk, phone, day, arguments.turns)
        for device in (desk, phone):
            device.live(HOURS_IN_USE, in_use=working)
            device.live(24 - HOURS_IN_USE, in_use=False)
            device.app.spending.meter.flush()
        if day % 7 == 6:
            desk.app.compact()
            desk.app.spending.meter.flush()
    spent: dict[str, int] = {}
    for device in (desk, phone):
        for counts in device.app.spending.counts.use(datetime(2026, 1, 1, tzinfo=UTC).date()).values():
            for component, number in counts.items():
                spent[component] = spent.get(component, 0) + number
    found = desk.app.spending.estimate(looking=True, region=arguments.region)
    desk.app.close()
    phone.app.close()
    return conversations, found, spent


def work(place: Path, desk: Device, phone: Device, day: int, turns: int) -> None:
    """A working day's conversation: handed over, grown and handed over again, gone on with on the phone."""
    path = write_sample_session(place / "claude", cwd="/home/you/harbour", turns=turns + day)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[: len(lines) * 2 // 3]))
    report = desk.app.prepare_handoff(transcript=path)
    desk.app.sync()
    path.write_bytes(b"".join(lines))
    desk.app.prepare_handoff(transcript=path)
    desk.app.sync()
    phone.app.sync()
    conversation = report["conversation_id"]
    phone.app.resume_conversation(conversation)
    for number in range(5):
        phone.app.save_progress(
            conversation,
            messages=[
                {"role": "user", "text": f"Day {day}, thought {number}: what holds the crane in a storm?"},
                {
                    "role": "assistant",
                    "text": f"The brake holds it; note {number} says where it was last looked at.",
                },
            ],
        )
        phone.app.sync()
    desk.app.sync()
    desk.app.resume_conversation(conversation)


def report(arguments: argparse.Namespace, conversations: int, found: dict[str, Any], spent: dict[str, int]) -> None:
    """The counts, their prices, and the two targets beside what they come to."""
    prices = list_prices()
    region = prices.region(arguments.region)
    scale = DAYS_A_MONTH / arguments.days
    rows = [
        ("GET and HEAD", spent.get(READS, 0), spent.get(READS, 0) / 1000 * region.read_usd_1k),
        ("PUT and LIST", spent.get(WRITES, 0), spent.get(WRITES, 0) / 1000 * region.write_usd_1k),
        ("bytes out", spent.get(BYTES_OUT, 0), spent.get(BYTES_OUT, 0) / GB * region.transfer_out_usd_gb),
        ("bytes in", spent.get(BYTES_IN, 0), 0.0),
    ]
    stored_usd = found["stored_bytes"] / GB * region.standard.usd_gb_month
    print(f"\nCounted in {arguments.days} days, both devices, {conversations} conversations:")
    for name, number, usd in rows:
        print(f"  {name:<14}{number:>16,}  {usd_text(usd):>14}")
    print(f"  {'bytes stored':<14}{found['stored_bytes']:>16,}  {usd_text(stored_usd):>14}")
    month_usd = sum(usd for _, _, usd in rows) * scale + stored_usd
    conversation_usd = month_usd / (conversations * scale)
    year = stored_usd * 12 + month_usd
    print(
        f"\n  a conversation                    {usd_text(conversation_usd):>10}   target < ${CONVERSATION_USD:.2f}"
    )
    print(f"  a user and month                  {usd_text(month_usd):>10}   target < ${USER_USD:.2f}")
    print(f"  the same with a year's storage    {usd_text(year):>10}")
    machine = prices.endpoint_usd_month
    for users in (1, 2, 10, 100):
        print(f"  with a machine shared by {users:<4}     {usd_text(month_usd + machine / users):>10}")
    print(json.dumps({"conversation_usd": round(conversation_usd, 6), "user_month_usd": round(month_usd, 6)}))


if __name__ == "__main__":
    main()
