"""The command line: `dualmem COMMAND`.

Every command validates, calls the application, and shows the answer: for people by default, with `--json`
as one JSON document with the fields of the tool of that name. Exit codes are those of `errors.py`.
"""

from __future__ import annotations

import functools
import io
import sys
from collections.abc import Sequence

from dualmem_mcp.cli import (
    client_commands,
    compaction_commands,
    conversation_commands,
    cost_commands,
    device_commands,
    memory_commands,
    note_commands,
    offline_commands,
    search_commands,
    serve_command,
    sync_commands,
    tier_commands,
    user_commands,
    vault_commands,
)
from dualmem_mcp.cli.frame import cli
from dualmem_mcp.exit_status import exit_after

__all__ = [
    "cli",
    "client_commands",
    "compaction_commands",
    "conversation_commands",
    "cost_commands",
    "device_commands",
    "main",
    "memory_commands",
    "note_commands",
    "offline_commands",
    "search_commands",
    "serve_command",
    "sync_commands",
    "tier_commands",
    "user_commands",
    "vault_commands",
]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with the documented code; never shows a traceback unless asked."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")  # better a question mark in a brief than no brief
    run = functools.partial(cli.main, args=arguments, prog_name="dualmem", standalone_mode=False)
    exit_after(run, debug="--debug" in (sys.argv[1:] if arguments is None else arguments))
