"""Where each log goes in the bucket, from the last segment that is known here on: one request for each."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from dualmem_mcp.handoff.quoting import one_line
from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.ports import ObjectStore
from dualmem_mcp.sync.segments import LOG, parse_segment_key, segment_key

_LAST: Final = "z"
"""Sorts behind all numbers of segments."""

_MOST_FOLDERS: Final = 4096
_MOST_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class ListedLog:
    """Whether the last known segment of a log is there still, and the number of its last one; 0 for none."""

    known_is_there: bool
    last: int


@dataclass(frozen=True, slots=True)
class Listing:
    """What a listing showed of the logs, and names of folders below `log/` that are no device's of the vault."""

    logs: Mapping[DeviceId, ListedLog]
    strangers: tuple[str, ...]

    def log(self, device_id: DeviceId) -> ListedLog:
        """What there is of that device's log."""
        return self.logs.get(device_id, ListedLog(known_is_there=False, last=0))

    def problems(self) -> list[str]:
        """A sentence for the user where there is something to tell."""
        if not self.strangers:
            return []
        named = ", ".join(one_line(name)[:32] for name in self.strangers[:_MOST_NAMED])
        return [f"the bucket holds logs of devices that are not in the vault, which count for nobody: {named}"]


def list_logs(
    objects: ObjectStore,
    devices: Collection[DeviceId],
    known: Mapping[DeviceId, int],
    *,
    passed_over: Collection[DeviceId] = (),
) -> Listing:
    """The logs as the bucket lists them; `known` are the numbers of their last segments that are known here. Of
    devices that are passed over nothing is listed, however much lies there.

    A listing goes on from the last known segment of a log and ends with the first object of the next, so that it
    is one request for each log that has nothing new, and one more.
    """
    logs: dict[DeviceId, ListedLog] = {}
    strangers: list[str] = []
    folder = _next_folder(objects, LOG)
    for _ in range(_MOST_FOLDERS):
        if folder is None:
            break
        device_id = DeviceId(folder)
        if device_id in passed_over:
            folder = _next_folder(objects, f"{LOG}{folder}/{_LAST}")
        elif device_id in devices:
            logs[device_id], folder = _list_log(objects, device_id, known.get(device_id, 0))
        else:
            strangers.append(folder)
            folder = _next_folder(objects, f"{LOG}{folder}/{_LAST}")
    return Listing(logs, tuple(strangers))


def _next_folder(objects: ObjectStore, start_after: str) -> str | None:
    for info in objects.list(LOG, start_after=start_after):
        return info.key.removeprefix(LOG).partition("/")[0]
    return None


def _list_log(objects: ObjectStore, device_id: DeviceId, known: int) -> tuple[ListedLog, str | None]:
    """What there is of one log from the last known segment on, and the folder that follows it."""
    start_after = segment_key(device_id, known - 1) if known else f"{LOG}{device_id}/"
    there, last = False, 0
    for info in objects.list(LOG, start_after=start_after):
        folder = info.key.removeprefix(LOG).partition("/")[0]
        if folder != device_id:
            return ListedLog(there, last), folder
        parsed = parse_segment_key(info.key)
        if parsed is not None:
            there = there or parsed[1] == known
            last = max(last, parsed[1])
    return ListedLog(there, last), None
