"""Files of turns, one JSON object a line: `{"conversation_id", "id", "role", "author"?, "text", "timestamp"?}`.

The format, and what is done with lines that are not of it, is written down in docs/indexing.md.
"""

from __future__ import annotations

import json
import math
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

from dualmem_mcp.errors import DualmemError, MalformedError, NotFoundError, StoreUnreachableError
from dualmem_mcp.model.ids import conversation_id_for
from dualmem_mcp.model.source import ImportedTurn
from dualmem_mcp.ports import Progress, no_progress
from dualmem_mcp.search.sources import SourceLog

_AT_ONCE: Final = 200
_CHARACTERS_AT_ONCE: Final = 8_000_000
_MAX_LINE_BYTES: Final = 32 << 20
_MAX_NAME: Final = 1_000
_SHOWN_WARNINGS: Final = 20
_LOOKED_AT_LINES: Final = 20
_LOOKED_AT_BYTES: Final = 1 << 20
_NUMBER: Final = re.compile(r"-?\d{1,20}(?:\.\d{1,9})?")
# A number of this size and more counts milliseconds, microseconds, nanoseconds rather than seconds since 1970.
_UNITS: Final = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))


@dataclass(slots=True)
class TurnsReport:
    """What an import of turns did: `turns` that were new, lines that were `skipped`, and what was wrong, by line.

    `conversations` counts those that the file's turns belong to.
    """

    turns: int = 0
    skipped: int = 0
    conversations: int = 0
    problems: int = 0
    told: list[str] = field(default_factory=list)

    def tell(self, line: int, what: str, *, skip: bool = False) -> None:
        """Note what is wrong with a line; the first 20 are kept in words."""
        self.problems += 1
        self.skipped += skip
        if len(self.told) < _SHOWN_WARNINGS:
            self.told.append(f"line {line:,}: {what}")

    @property
    def warnings(self) -> list[str]:
        """The problems as sentences."""
        more = self.problems - len(self.told)
        return [*self.told, f"and {more:,} more like these"] if more else list(self.told)


def is_turns_file(path: Path) -> bool:
    """Whether the first JSON object of the file is a turn; False for one that cannot be read."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return False
        with path.open("rb") as file:
            for _ in range(_LOOKED_AT_LINES):
                data = _parsed(file.readline(_LOOKED_AT_BYTES))
                if isinstance(data, dict):
                    return "conversation_id" in data and "text" in data and data.get("type") != "entity"
    except OSError:
        pass  # whoever imports it will say so
    return False


def import_turns(path: Path, log: SourceLog, *, progress: Progress = no_progress) -> TurnsReport:
    """Keep the turns of a file; done again, it changes nothing.

    Lines that are no turns are skipped and told of; the others are kept, in their order, up to 200 at once.
    Raises NotFoundError, MalformedError if no line is a turn, StoreUnreachableError if the file cannot be read
    to its end (what was read stays), and the errors of the log.
    """
    report = TurnsReport()
    conversations: set[str] = set()
    batch: list[tuple[int, ImportedTurn]] = []
    held = 0
    with _opened(path) as file:
        size = path.stat().st_size
        for number, turn in _turns(path, file, report, conversations):
            batch.append((number, turn))
            held += len(turn.text)
            if len(batch) == _AT_ONCE or held > _CHARACTERS_AT_ONCE:
                _keep(batch, log, report)
                batch, held = [], 0
                progress(file.tell(), max(size, file.tell()), f"importing, {report.turns:,} turns")
        _keep(batch, log, report)
    report.conversations = len(conversations)
    if not conversations:
        raise MalformedError(
            f"no line of {path.name} is a turn" + (f" ({report.told[0]})" if report.told else ""),
            operation="import turns",
            subject=str(path),
            hint='Each line should be {"conversation_id": …, "id": …, "role": "user" or "assistant", "text": …}.',
        )
    return report


def _opened(path: Path) -> BinaryIO:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise MalformedError(
                f"{path.name} is a folder, a pipe or a device, not a file of turns",
                operation="import turns",
                subject=str(path),
                hint="Give a file with one JSON object a line.",
            )
        return path.open("rb")
    except FileNotFoundError:
        raise NotFoundError(
            f"there is no file {path}", operation="import turns", subject=str(path), hint="Check the path."
        ) from None
    except OSError as error:
        raise _unreadable(path, error, 0) from error


def _unreadable(path: Path, error: OSError, turns: int) -> DualmemError:
    kept = f" after {turns:,} turns, which were kept" if turns else ""
    return StoreUnreachableError(
        f"{path.name} cannot be read{kept}: {error.strerror or type(error).__name__}",
        operation="import turns",
        subject=str(path),
        hint="Check the file's rights and its disk, then import it again: nothing is added twice.",
    )


def _keep(batch: list[tuple[int, ImportedTurn]], log: SourceLog, report: TurnsReport) -> None:
    if not batch:
        return
    added, differing = log.add_imported([turn for _, turn in batch])
    report.turns += added
    lines = {id(turn): number for number, turn in batch}
    for turn in differing:
        report.tell(lines[id(turn)], "a turn of this id is known with another text; that one stays", skip=True)


def _turns(
    path: Path, file: BinaryIO, report: TurnsReport, conversations: set[str]
) -> Iterator[tuple[int, ImportedTurn]]:
    number = 0
    while line := _next_line(path, file, report):
        number += 1
        if len(line) > _MAX_LINE_BYTES:
            report.tell(number, "longer than 32 MiB; skipped", skip=True)
        elif line.strip(b"\xef\xbb\xbf \t\r\n"):
            turn = _turn(number, line, report)
            if turn is not None:
                conversations.add(turn.conversation_id)
                yield number, turn


def _next_line(path: Path, file: BinaryIO, report: TurnsReport) -> bytes:
    """The next line; of one that is too long no more than its beginning, which is longer than a line may be."""
    try:
        line = file.readline(_MAX_LINE_BYTES + 1)
        rest = line
        while len(rest) > _MAX_LINE_BYTES and not rest.endswith(b"\n"):
            rest = file.readline(_MAX_LINE_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error, report.turns) from error
    return line


def _turn(number: int, line: bytes, report: TurnsReport) -> ImportedTurn | None:
    data = _parsed(line)
    if data is None:
        data = _parsed(line.decode("utf-8", "replace").encode())
        if data is not None:
            report.tell(number, "bytes that are not UTF-8; replaced")
    if not isinstance(data, dict):
        report.tell(number, "not a JSON object; skipped", skip=True)
        return None
    names = {key: _name(data.get(key)) for key in ("conversation_id", "id", "role")}
    text = data.get("text")
    if missing := [key for key, name in names.items() if not name]:
        report.tell(number, f"no {' and no '.join(missing)}; skipped", skip=True)
        return None
    if not isinstance(text, str) or not text.strip():
        report.tell(number, "no text; skipped", skip=True)
        return None
    conversation_id = conversation_id_for(names["conversation_id"])
    if conversation_id != names["conversation_id"]:
        report.tell(number, f"its conversation_id cannot be an id; kept as {conversation_id}")
    role = names["role"].lower() if names["role"].lower() in {"user", "assistant"} else names["role"]
    return ImportedTurn(
        conversation_id=conversation_id,
        id=names["id"],
        role=role,
        text=text,
        author=_author(number, data, report),
        timestamp=_timestamp(number, data, report),
    )


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError):
        return None


def _name(value: Any) -> str:
    """A text or whole number as a name of at most 1,000 characters; empty if it is none."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value) if abs(value) < 1 << 64 else ""
    return value if isinstance(value, str) and value.strip() and len(value) <= _MAX_NAME else ""


def _author(number: int, data: Mapping[str, Any], report: TurnsReport) -> str:
    author = data.get("author")
    if author is None or author == "" or ((name := _name(author)) and name.strip()):
        return _name(author).strip()
    report.tell(number, "an author that is no name; not taken")
    return ""


def _timestamp(number: int, data: Mapping[str, Any], report: TurnsReport) -> datetime | None:
    value = data.get("timestamp")
    if value is None or value == "":
        return None
    moment = read_timestamp(value)
    if moment is None:
        report.tell(number, "a timestamp that is neither ISO 8601 nor a number of seconds; not taken")
    return moment


def read_timestamp(value: Any) -> datetime | None:
    """An instant of ISO 8601 (without a zone: UTC), or of a number of seconds since 1970; None if it is neither.

    Numbers from 10^11 on are taken for milliseconds, from 10^14 for microseconds, from 10^17 for nanoseconds.
    """
    if isinstance(value, str):
        text = value.strip()
        # Eight digits are a day: as seconds they would be one of 1970.
        if len(text) <= 8 or not _NUMBER.fullmatch(text):
            return _iso_time(text)
        value = float(text)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        seconds = float(value)
        if not math.isfinite(seconds):
            return None
        scale = next((scale for least, scale in _UNITS if abs(seconds) >= least), 1.0)
        return datetime.fromtimestamp(seconds / scale, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _iso_time(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
