"""The project that the sample session works on, kept in memory: what its tools would have answered."""

from __future__ import annotations

import difflib
import random
import tomllib
from collections.abc import Sequence
from importlib import resources
from typing import Any

from dualmem_mcp.sample.concerns import BACKENDS, Backend, Concern, fill, words

_MODULE_HEAD = '''"""Counts of requests in $resource."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from tollgate.decision import Decision
from tollgate.store import Store


class $Store(Store):
    """A store whose counts are ${noun_plural} of $resource, changed by $command."""

    def __init__(self, client, *, prefix="tollgate", limit=$limit, window_seconds=$window, clock=None) -> None:
        self._client = client
        self.prefix = prefix
        self.limit = limit
        self.window_seconds = window_seconds
        self._server_time = clock or time.time
        self._closed = False

    def _apply(self, name: str, cost: int) -> int:
        """The count of the $noun `name` after adding `cost`."""
        return int(self._call("apply", name, cost))

'''
_TEST_HEAD = '''"""Tests of the store in $resource, beside those that every store has to pass."""

from __future__ import annotations

import time

import pytest

from tests.store_contract import StoreContract
from tollgate.$module import $Store


class Test$Store(StoreContract):
    """The common promises, kept by $Store."""

'''


class Workspace:
    """Files of the project at `root`, changed by the tools as a real one would be."""

    def __init__(self, root: str, concerns: Sequence[Concern], numbers: random.Random) -> None:
        self.root = root
        self._numbers = numbers
        data = tomllib.loads(resources.files(__package__).joinpath("project.toml").read_text(encoding="utf-8"))
        self.files: dict[str, str] = {entry["path"]: entry["text"] for entry in data["file"]}
        for backend in BACKENDS:
            self._add_backend(backend, concerns)
        self._committed = dict(self.files)

    def _add_backend(self, backend: Backend, concerns: Sequence[Concern]) -> None:
        values = words(backend, self._numbers)
        shuffled = self._numbers.sample(list(concerns), len(concerns))
        body = "\n".join(fill(concern.before, values) for concern in shuffled)
        self.files[f"tollgate/{backend.module}.py"] = fill(_MODULE_HEAD, values) + body
        self.files[f"tests/test_{backend.module}.py"] = fill(_TEST_HEAD, values)

    def absolute(self, path: str) -> str:
        """The path as Claude Code's tools name it."""
        return f"{self.root}/{path}"

    def read(self, path: str, start: int = 1, count: int | None = None) -> tuple[str, dict[str, Any]]:
        """Numbered lines, and the structured result of Read."""
        lines = self.files[path].splitlines()
        shown = lines[start - 1 : start - 1 + count if count else None]
        text = "\n".join(f"{number:>6}→{line}" for number, line in enumerate(shown, start))
        file = {
            "filePath": self.absolute(path),
            "content": "\n".join(shown),
            "numLines": len(shown),
            "startLine": start,
            "totalLines": len(lines),
        }
        return text, {"type": "text", "file": file}

    def edit(self, path: str, old: str, new: str) -> tuple[str, dict[str, Any]]:
        """The answer of Edit, and its structured result with patch and original."""
        original = self.files[path]
        self.files[path] = original.replace(old, new, 1)
        detail = {
            "filePath": self.absolute(path),
            "oldString": old,
            "newString": new,
            "originalFile": original,
            "structuredPatch": _patch(original, self.files[path]),
            "userModified": False,
            "replaceAll": False,
        }
        return f"The file {self.absolute(path)} has been updated successfully.", detail

    def write(self, path: str, content: str) -> tuple[str, dict[str, Any]]:
        """The answer of Write for a new file, and its structured result."""
        self.files[path] = content
        detail: dict[str, Any] = {
            "type": "create",
            "filePath": self.absolute(path),
            "content": content,
            "structuredPatch": [],
            "originalFile": None,
        }
        return f"File created successfully at: {self.absolute(path)}", detail

    def grep(self, needle: str, limit: int = 40) -> tuple[str, dict[str, Any]]:
        """Matching lines of all files, as Grep shows them."""
        hits = [
            f"{self.absolute(path)}:{number}:{line}"
            for path, text in sorted(self.files.items())
            for number, line in enumerate(text.splitlines(), 1)
            if needle in line
        ][:limit]
        content = "\n".join(hits) or "No matches found"
        return content, {
            "mode": "content",
            "numFiles": 0,
            "filenames": [],
            "content": content,
            "numLines": len(hits),
        }

    def run_tests(self, path: str, *, failing: str = "", failure: str = "") -> str:
        """What pytest prints for one test file; `failing` names the test that fails with `failure`."""
        names = [
            line.split("(")[0].split("def ")[1] for line in self.files[path].splitlines() if "def test_" in line
        ]
        contract = 14
        seconds = self._numbers.randint(31, 480) / 100
        total = len(names) + contract
        head = f"{' test session starts ':=^80}\ncollected {total} items\n"
        if not failing:
            passed = f" {total} passed in {seconds}s "
            return f"{head}\n{path} {'.' * total} [100%]\n\n{passed:=^80}"
        body = self.files[path].split(f"def {failing}(")[-1].split("\n\n\n")[0]
        indented = "\n".join(f"    {line}" for line in f"def {failing}({body}".splitlines())
        line = self._numbers.randint(30, 190)
        kind = failure.partition(":")[0].partition(" ")[0]
        counts = f" 1 failed, {total - 1} passed in {seconds}s "
        return (
            f"{head}\n{path} {'.' * (total - 1)}F [100%]\n\n{' FAILURES ':=^80}\n"
            f"{f' {failing} ':_^80}\n\n{indented}\n"
            f">       {failure}\nE       {failure}\n\n{path}:{line}: {kind}\n"
            f"{' short test summary info ':=^80}\nFAILED {path}::{failing} - {failure}\n{counts:=^80}"
        )

    def run_contract(self, names: Sequence[str], store: str) -> str:
        """What pytest prints for the tests that every store has to pass, one line for each."""
        lines = [
            f"tests/store_contract.py::Test{store}::{name} PASSED [{100 * number // len(names):>3}%]"
            for number, name in enumerate(names, 1)
        ]
        counts = f" {len(names)} passed in {self._numbers.randint(40, 900) / 100}s "
        return "\n".join([f"{' test session starts ':=^80}", *lines, "", f"{counts:=^80}"])

    def diff(self) -> str:
        """What `git diff` shows of the files changed since the last commit."""
        pieces = []
        for path, text in sorted(self.files.items()):
            old = self._committed.get(path, "")
            if old != text:
                lines = difflib.unified_diff(
                    old.splitlines(), text.splitlines(), f"a/{path}", f"b/{path}", lineterm=""
                )
                pieces.append(f"diff --git a/{path} b/{path}\n" + "\n".join(lines))
        return "\n".join(pieces)

    def commit(self, branch: str, message: str) -> tuple[str, str]:
        """What `git commit` prints, and the short hash."""
        changed = [path for path, text in self.files.items() if self._committed.get(path) != text]
        diff = self.diff().splitlines()
        added = sum(line.startswith("+") and not line.startswith("+++") for line in diff)
        removed = sum(line.startswith("-") and not line.startswith("---") for line in diff)
        self._committed = dict(self.files)
        short = f"{self._numbers.getrandbits(28):07x}"
        stat = f" {len(changed)} files changed, {added} insertions(+), {removed} deletions(-)"
        return f"[{branch} {short}] {message}\n{stat}", short


def _patch(old: str, new: str) -> list[dict[str, Any]]:
    """Hunks as Claude Code's tools state them."""
    before, after = old.splitlines(), new.splitlines()
    hunks = []
    for group in difflib.SequenceMatcher(a=before, b=after, autojunk=False).get_grouped_opcodes(3):
        lines: list[str] = []
        for tag, a1, a2, b1, b2 in group:
            if tag == "equal":
                lines += [f" {line}" for line in before[a1:a2]]
                continue
            lines += [f"-{line}" for line in before[a1:a2]] + [f"+{line}" for line in after[b1:b2]]
        first, last = group[0], group[-1]
        hunks.append(
            {
                "oldStart": first[1] + 1,
                "oldLines": last[2] - first[1],
                "newStart": first[3] + 1,
                "newLines": last[4] - first[3],
                "lines": lines,
            }
        )
    return hunks


def method_span(source: str, name: str) -> tuple[int, str]:
    """Line number and text of a method in a module of the project."""
    start = source.index(f"    def {name}(")
    ends = [source.find(head, start + 8) for head in ("\n    def ", "\n    async def ")]
    end = min([position for position in ends if position >= 0], default=len(source))
    return source.count("\n", 0, start) + 1, source[start:end].rstrip("\n") + "\n"
