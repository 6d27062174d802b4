"""Whole sealed packages on this device: those made here and those fetched, in a folder each."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from dualmem_mcp.durable_files import TEMPORARY, file_faults, remove_abandoned, write_durably
from dualmem_mcp.errors import StoreUnreachableError, UsageError
from dualmem_mcp.model.handoff import KeptPackage
from dualmem_mcp.model.ids import HandoffId

_HANDOFF_ID: Final = re.compile(r"[0-9a-f]{32}")
_SUFFIX: Final = ".pkg"


class FilePackageCache:
    """A PackageCache in two folders, one file `<handoff id>.pkg` for each package.

    The time of a file is that of its last use: when it was written, or read from its beginning. A read of a single
    byte, which only asks whether the package is there, is none.
    """

    def __init__(self, made_here: Path, fetched: Path) -> None:
        self._made_here = made_here
        self._fetched = fetched

    def read(self, handoff_id: HandoffId, *, start: int = 0, length: int | None = None) -> bytes | None:
        name = _file_name(handoff_id)
        for folder in (self._made_here, self._fetched):
            try:
                with (folder / name).open("rb") as file:
                    file.seek(start)
                    data = file.read() if length is None else file.read(length)
            except FileNotFoundError:
                continue
            except OSError as fault:
                raise StoreUnreachableError(
                    f"a package kept here cannot be read: {fault.strerror}",
                    operation="read package",
                    subject=str(folder / name),
                    hint=f"Check your rights on {folder}.",
                ) from fault
            if start == 0 and length != 1:
                with contextlib.suppress(OSError):  # a disk that cannot be written to can be read all the same
                    os.utime(folder / name)
            return data
        return None

    def write(self, handoff_id: HandoffId, data: bytes, *, made_here: bool) -> None:
        write_durably((self._made_here if made_here else self._fetched) / _file_name(handoff_id), [data])

    def remove(self, handoff_id: HandoffId) -> None:
        """Forget a package; one that is not there is no error."""
        for folder in (self._made_here, self._fetched):
            path = folder / _file_name(handoff_id)
            with file_faults("remove", path), contextlib.suppress(FileNotFoundError):
                path.unlink()

    def kept(self) -> Sequence[KeptPackage]:
        """All packages. Raises StoreUnreachableError."""
        found: list[KeptPackage] = []
        for folder in (self._made_here, self._fetched):
            with (
                file_faults("list", folder),
                contextlib.suppress(FileNotFoundError),
                os.scandir(folder) as entries,
            ):
                for entry in entries:
                    handoff_id, suffix = os.path.splitext(entry.name)  # noqa: PTH122 - a name, no path
                    if suffix != _SUFFIX or not _HANDOFF_ID.fullmatch(handoff_id):
                        continue
                    with contextlib.suppress(FileNotFoundError):  # another process was faster
                        facts = entry.stat(follow_symlinks=False)
                        found.append(KeptPackage(HandoffId(handoff_id), facts.st_size, facts.st_mtime_ns))
        return found

    def remove_abandoned(self) -> int:
        """Remove packages that a crash left half-written, a day old at least; returns how many."""
        return sum(
            remove_abandoned(folder, lambda name: name.endswith(TEMPORARY))
            for folder in (self._made_here, self._fetched)
        )


def _file_name(handoff_id: HandoffId) -> str:
    if not _HANDOFF_ID.fullmatch(handoff_id):
        raise UsageError("this is no id of a handoff", operation="find package", subject=handoff_id[:40])
    return f"{handoff_id}{_SUFFIX}"
