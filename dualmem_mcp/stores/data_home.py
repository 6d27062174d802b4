"""The folder with a device's data: its layout, its modes, and the taking over of an older memory.json.

memory.json              the graph in clear for other programs, only where the user wants that
cloud_sync_config.json   settings
device.key               the key of memory.db, or where the keyring has it
memory.db                the truth, encrypted
handoff_cache/           sealed packages: made here, fetched, waiting to be uploaded
vector_cache/            search indexes; can be deleted
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dualmem_mcp.durable_files import file_faults, file_lock, sync_folder
from dualmem_mcp.errors import MalformedError, NotFoundError
from dualmem_mcp.ports import Clock
from dualmem_mcp.reference_jsonl import parse_memory_file
from dualmem_mcp.stores.graph_store import GraphStore
from dualmem_mcp.stores.keystore import KEY_FILE
from dualmem_mcp.stores.memory_file import add_content, has_mirrored, keep_copy, read_memory_file, summary

MEMORY_FILE: Final = "memory.json"
DATABASE_FILE: Final = "memory.db"
INDEX_FOLDER: Final = "vector_cache"
FOLDERS: Final = (
    "handoff_cache",
    "handoff_cache/desktop_sessions",
    "handoff_cache/mobile_reconstruction",
    "handoff_cache/sync_queue",
    INDEX_FOLDER,
    f"{INDEX_FOLDER}/conversation_embeddings",
    f"{INDEX_FOLDER}/agent_memory_vectors",
    f"{INDEX_FOLDER}/context_vectors",
)
_PRIVATE_FILES: Final = (
    MEMORY_FILE,
    DATABASE_FILE,
    f"{DATABASE_FILE}-wal",
    f"{DATABASE_FILE}-shm",
    "cloud_sync_config.json",
)

_MIRROR_HINT: Final = (
    "set `mirror` in cloud_sync_config.json to keep it everywhere, or delete it if nobody needs it"
)


@dataclass(frozen=True, slots=True)
class DataHome:
    """Where things lie. `notices` are sentences for the user about what could not be made as it should be."""

    root: Path
    notices: tuple[str, ...] = ()

    @property
    def database_file(self) -> Path:
        """The encrypted database."""
        return self.root / DATABASE_FILE

    @property
    def memory_file(self) -> Path:
        """Where a mirror of the graph lies in clear, if there is one."""
        return self.root / MEMORY_FILE

    @property
    def desktop_sessions(self) -> Path:
        """Sealed packages made on this device."""
        return self.root / "handoff_cache" / "desktop_sessions"

    @property
    def mobile_reconstruction(self) -> Path:
        """Sealed packages fetched to this device."""
        return self.root / "handoff_cache" / "mobile_reconstruction"

    @property
    def sync_queue(self) -> Path:
        """Sealed objects waiting to be uploaded."""
        return self.root / "handoff_cache" / "sync_queue"

    @property
    def vector_cache(self) -> Path:
        """Search indexes, which can be deleted and rebuilt."""
        return self.root / INDEX_FOLDER

    def open_to_others(self) -> list[str]:
        """Names of what group or others could read, in the folder itself and of it; sorted."""
        if sys.platform == "win32":
            return []  # as in _keep_private
        with file_faults("look through", self.root), os.scandir(self.root) as entries:
            modes = {entry.name: entry.stat(follow_symlinks=False).st_mode for entry in entries}
            modes[self.root.name] = self.root.stat().st_mode
        return sorted(name for name, mode in modes.items() if mode & 0o077 and not stat.S_ISLNK(mode))

    @contextlib.contextmanager
    def setting_up(self) -> Iterator[list[str]]:
        """Held while what exists once for each data home is made: of several new processes one makes it.

        Gives notices for the user about what will be made anew although it once was there.
        """
        # Longer than a keyring may ask the user for its password.
        with file_lock(self.root / ".setup.lock", timeout_seconds=150):
            yield self._missing()

    def _missing(self) -> list[str]:
        with file_faults("look at", self.database_file):
            try:
                there = self.database_file.lstat().st_size > 0
            except FileNotFoundError:
                there = False
        if there or not (self.root / KEY_FILE).exists():
            return []
        missing = (
            f"{self.database_file} is gone or empty, although its key is here: a new one is made, with no memory"
        )
        return [
            f"{missing} and no vault in it; if that is a surprise, put a backup in its place, or `dualmem join`"
        ]


def open_data_home(root: Path) -> DataHome:
    """The data home in that folder, with all its folders made and nobody else let in (0700, files 0600).

    Raises StoreUnreachableError or DiskFullError if the folders cannot be made; for those of the search indexes
    there is a notice instead.
    """
    notices: list[str] = []
    there = [""]
    with file_faults("make", root):
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in FOLDERS:
            try:
                (root / name).mkdir(mode=0o700, exist_ok=True)
            except OSError as fault:
                if not name.startswith(INDEX_FOLDER):
                    raise
                # Memory and handoffs need no index.
                if name == INDEX_FOLDER or INDEX_FOLDER in there:
                    notices.append(f"nothing can be indexed or searched in {root / name}: {fault.strerror}")
            else:
                there.append(name)
    for name in (*there, *_PRIVATE_FILES):
        notices += _keep_private(root / name)
    return DataHome(root, tuple(notices))


def migrate_memory_json(home: DataHome, graph: GraphStore, clock: Clock, *, mirrored: bool) -> list[str]:
    """Take a memory.json found in the data home into the graph; returns notices for the user.

    A dated copy is kept beside it. With `mirrored` the file stays, for MemoryFile to keep current; otherwise it
    is removed, so that no outdated graph lies there in clear. A file that is no memory file is left alone, and
    so is one that a MemoryFile of another process keeps or once kept: others rely on it.
    """
    # Nothing here needs a lock: two processes that do it at once keep the same copy and import the same graph.
    path = home.memory_file
    if not path.is_file():
        return []
    if has_mirrored(path):
        return (
            []
            if mirrored
            else [f"{path} shows the graph in clear and is not kept current from here; {_MIRROR_HINT}"]
        )
    try:
        data = read_memory_file(path)
    except NotFoundError:
        return []  # another process was faster
    if not data.strip():
        return []
    try:
        content = parse_memory_file(data)
    except MalformedError as error:
        return [f"{path} was left alone: {error}"]
    copy = keep_copy(path, data, clock)
    report = add_content(graph, content)
    if not mirrored:
        with file_faults("remove", path):
            path.unlink(missing_ok=True)
            sync_folder(home.root)
    notices = [
        f"migrated {path}: {summary(report)}",
        f"the file as it was is kept, in clear, as {copy}; delete it when you no longer need it",
    ]
    return [*notices, *(f"{path}: {warning}" for warning in report.warnings)]


def _keep_private(path: Path) -> list[str]:
    """Take the rights of group and others away; returns a notice if that is impossible."""
    if sys.platform == "win32":
        return []  # the rights of the user's profile folder apply there
    try:
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode) or not mode & 0o077:
            return []
        os.chmod(path, stat.S_IMODE(mode) & 0o700)  # noqa: PTH101 - as lstat above
    except FileNotFoundError:
        return []
    except OSError as fault:
        return [f"other users of this machine may be able to read {path}: {fault.strerror}"]
    return []
