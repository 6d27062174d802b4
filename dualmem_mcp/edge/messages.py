"""What the server and its edge process say to each other: one JSON object a line, over the process's own pipes.

The server writes `{"id", "method", "params"}`, the edge process answers `{"id", "result"}` or `{"id", "error"}`.
Ahead of them goes the secret of a data home that keeps none, as a line of hexadecimal digits, if the edge process
was started with the argument `SEALED`.
"""

from __future__ import annotations

import json
from typing import IO, Any, Final

from dualmem_mcp import errors
from dualmem_mcp.errors import DualmemError

_KINDS = {
    kind.__name__: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, DualmemError)
}


SEALED: Final = "sealed"


def write_secret(stream: IO[bytes], secret: bytes) -> None:
    """Hand on the secret of a data home. Raises OSError if the other side has gone."""
    stream.write(secret.hex().encode("ascii") + b"\n")
    stream.flush()


def read_secret(stream: IO[bytes]) -> bytes:
    """The secret that was handed on; empty if none came."""
    try:
        return bytes.fromhex(stream.readline(256).decode("ascii", "replace"))
    except ValueError:
        return b""


def write_message(stream: IO[bytes], message: dict[str, Any]) -> None:
    """Write one message and flush it. Raises OSError if the other side has gone."""
    # ASCII, so that half surrogate pairs of other people's texts pass.
    stream.write(json.dumps(message).encode("ascii") + b"\n")
    stream.flush()


def read_message(stream: IO[bytes]) -> dict[str, Any] | None:
    """The next message, or None at the end of the stream; a line cut short by the end counts as the end."""
    line = stream.readline()
    return parse_message(line) if line.endswith(b"\n") else None


def parse_message(line: bytes) -> dict[str, Any]:
    """The message of a line. Raises ValueError if it is none."""
    message = json.loads(line)
    if not isinstance(message, dict) or "id" not in message:
        raise ValueError("no message")
    return message


def error_fields(error: DualmemError) -> dict[str, str]:
    """An error as it crosses the pipe."""
    return {
        "kind": type(error).__name__,
        "message": error.message,
        "operation": error.operation,
        "subject": error.subject,
        "hint": error.hint,
    }


def error_of(fields: dict[str, str]) -> DualmemError:
    """The error that `error_fields` wrote."""
    kind = _KINDS.get(fields["kind"], DualmemError)
    return kind(fields["message"], operation=fields["operation"], subject=fields["subject"], hint=fields["hint"])
