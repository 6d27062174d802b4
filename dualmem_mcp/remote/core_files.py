"""No core files: what a crash would write to the disk holds the keys of all users who are at it."""

from __future__ import annotations

import sys


def forbid_core_files() -> None:
    """See to it that neither this process nor those that it starts leave a core file, where the system can.

    Programs that collect cores for the system (systemd-coredump) leave those of such processes out.
    """
    if sys.platform == "win32":
        return  # there whoever runs the machine decides, in Windows Error Reporting
    import resource  # noqa: PLC0415  (not on Windows)

    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
