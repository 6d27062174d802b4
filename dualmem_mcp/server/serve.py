"""The command `dualmem-mcp`: the MCP server over standard input and output."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from dualmem_mcp.errors import DualmemError
from dualmem_mcp.server.faults import log_to_stderr
from dualmem_mcp.server.stdio import Wire, claim_standard_streams, wire_streams

if TYPE_CHECKING:
    from dualmem_mcp.app import App

_log = logging.getLogger(__name__)

_STOPPING_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)
)
_STOPPING_SECONDS = 5.0

# A graph of 50,000 entities is answered with some 300,000 lists and dicts, which are no garbage until it is sent:
# with the default of 700 the search for some takes four fifths of the time of building them.
_GARBAGE_THRESHOLDS = (100_000, 20, 20)


def main(home: Path | None = None) -> None:
    """Serve until the client closes the input or a signal comes; what was answered is stored by then.

    The data home is `home`, or what the settings say. The process ends with status 0 after the end of the
    input, and by the signal after a signal.
    """
    # First of all: nothing that is printed from here on, by whatever library, may reach the client.
    wire = claim_standard_streams()
    log_to_stderr()
    try:
        stopped_by = _serve(wire, home)
    except DualmemError as error:
        _log.error("%s", error)
        sys.exit(error.exit_code)
    if stopped_by is not None:
        signal.raise_signal(stopped_by)


def _serve(wire: Wire, home: Path | None) -> signal.Signals | None:
    """Serve to the end; returns the signal that ended it, if one did."""
    # Nearly all of the time until `initialize` is answered goes by in these imports. What they make stays, so
    # looking for garbage among it is in vain: without, a start takes an eighth less (benchmarks/startup.py).
    gc.disable()
    import anyio  # noqa: PLC0415

    from dualmem_mcp.server.hook_watch import HookWatch  # noqa: PLC0415
    from dualmem_mcp.server.lazy_app import LazyApp  # noqa: PLC0415
    from dualmem_mcp.server.protocol import build_server  # noqa: PLC0415
    from dualmem_mcp.server.sync_worker import SyncWorker  # noqa: PLC0415

    gc.freeze()
    gc.set_threshold(*_GARBAGE_THRESHOLDS)
    gc.enable()
    app = LazyApp(partial(_open_app, home))
    worker = SyncWorker()
    watch = HookWatch()
    app.on_open(watch.start)
    stopped_by: list[signal.Signals] = []

    async def serve() -> None:
        built = build_server(app, worker)
        loop = asyncio.get_running_loop()
        with anyio.CancelScope() as scope:

            def stop(number: int, _frame: FrameType | None) -> None:
                stopped_by.append(signal.Signals(number))
                for each in _STOPPING_SIGNALS:
                    signal.signal(each, signal.SIG_DFL)  # a second one ends the process at once
                _end_in_time(number)
                loop.call_soon_threadsafe(scope.cancel)

            for number in _STOPPING_SIGNALS:
                signal.signal(number, stop)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(built.subscriptions.watch)
                async with wire_streams(wire) as (incoming, outgoing):
                    await built.server.run(incoming, outgoing, built.options)
                tasks.cancel_scope.cancel()

    try:
        anyio.run(serve)
    finally:
        watch.stop()
        worker.stop()
        app.close()
    return stopped_by[0] if stopped_by else None


def _end_in_time(number: int) -> None:
    """End the process by the signal after a while, whatever still runs then.

    A thread that waits for the bucket cannot be interrupted, and whoever sent the signal will not wait for
    it: a handoff that is cut off so is queued, and uploaded with the next one.
    """
    timer = threading.Timer(_STOPPING_SECONDS, os.kill, (os.getpid(), number))
    timer.daemon = True
    timer.start()


def _open_app(home: Path | None) -> App:
    from dualmem_mcp.app import open_app  # noqa: PLC0415
    from dualmem_mcp.settings import load_settings  # noqa: PLC0415

    return open_app(load_settings(home), edge_process=True)


if __name__ == "__main__":
    main()
