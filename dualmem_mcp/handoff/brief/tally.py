"""What a brief holds of a digest and what it leaves out, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Set
from typing import Any

from dualmem_mcp.handoff.brief.sections import SECTIONS
from dualmem_mcp.handoff.brief.view import Line, View


class Tally:
    """The count over the lines of a brief; `elsewhere` are entries that another line shows already."""

    def __init__(
        self, view: View, kept: Sequence[Line], elsewhere: Set[tuple[str, int]], *, request_whole: bool
    ) -> None:
        self._view = view
        self._request_whole = request_whole
        self._shown: set[tuple[str, int]] = {entry for line in kept for entry in line.entries} | set(elsewhere)
        self._whole: set[tuple[str, int]] = {entry for line in kept if line.whole for entry in line.entries} | set(
            elsewhere
        )
        self._counts = Counter(name for name, _ in self._shown)

    @property
    def shown(self) -> frozenset[tuple[str, int]]:
        """The entries of the digest that the lines show, whole or not."""
        return frozenset(self._shown)

    @property
    def shown_requests(self) -> frozenset[str]:
        """The turns of the requests that are shown."""
        digest = self._view.digest
        listed = {digest.requests[index].uuid for name, index in self._shown if name == "requests"}
        return frozenset(listed | {digest.resumption.last_request.uuid})

    def cuts(self) -> dict[str, str]:
        """For each section of which not all is shown, what is missing, in words."""
        digest = self._view.digest
        missing: dict[str, list[str]] = {name: [] for name in SECTIONS}
        self._cut_talk(missing)
        edited = {index for index, one in enumerate(digest.files) if one.edited}
        shown = {index for name, index in self._shown if name == "files"}
        self._note(missing, "tasks", len(digest.tasks) - self._counts["tasks"], "left out")
        self._note(missing, "files", len(edited - shown), "edited")
        self._note(missing, "files", len(digest.files) - len(edited | shown), "only read")
        self._note(missing, "commands", len(digest.tests) - self._counts["tests"], "tests")
        others = sum(not one.is_test for one in digest.commands)
        self._note(missing, "commands", others - self._counts["commands"], "others")
        self._note(missing, "errors", len(digest.errors) - self._counts["errors"], "")
        made = len(digest.commits) + len(digest.pull_requests) + len(digest.actions)
        told = sum(self._counts[name] for name in ("commits", "pull_requests", "actions"))
        self._note(missing, "commits", made - told, "")
        self._note(missing, "agents", len(digest.agents) - self._counts["agents"], "left out")
        named = sum(name == "agents" for name, _ in self._shown - self._whole)
        self._note(missing, "agents", named, "in a few words")
        if (digest.plan.text or digest.plan.path) and ("plan", 0) not in self._whole:
            missing["plan"].append("shortened" if ("plan", 0) in self._shown else "left out")
        return {name: f"{name} {', '.join(words)}" for name, words in missing.items() if words}

    def _cut_talk(self, missing: dict[str, list[str]]) -> None:
        digest = self._view.digest
        if not self._request_whole:
            missing["resumption"].append("last request shortened")
        if digest.resumption.last_reply.text and ("last_reply", 0) not in self._whole:
            cut = "shortened" if ("last_reply", 0) in self._shown else "left out"
            missing["resumption"].append(f"last reply {cut}")
        listed = sum(not self._view.is_last(one) for one in digest.requests)
        self._note(missing, "requests", listed - self._counts["requests"], "left out")
        shortened = sum(name == "requests" for name, _ in self._shown - self._whole)
        self._note(missing, "requests", shortened, "shortened")
        notes = bool(digest.summary) + len(digest.next_steps) + len(digest.open_questions)
        notes += sum(one.origin == "model" for one in digest.decisions)
        self._note(missing, "notes", notes - sum(name == "notes" for name, _ in self._whole), "shortened")
        requests = self.shown_requests
        told = sum(
            ("decisions", index) in self._shown
            or one.origin == "model"
            or (one.origin == "user" and one.uuid in requests)
            for index, one in enumerate(digest.decisions)
        )
        self._note(missing, "decisions", len(digest.decisions) - told, "")
        if digest.compaction_summary.text:
            missing["compaction_summary"].append("in part" if self._counts["compaction_summary"] else "left out")

    @staticmethod
    def _note(missing: dict[str, list[str]], section: str, count: int, words: str) -> None:
        if count > 0:
            missing[section].append(f"{count} {words}".rstrip())

    def completeness(self) -> dict[str, Any]:
        """Counts of what there is and what is shown, under the names that a handoff reports as its fidelity."""
        digest = self._view.digest
        last = digest.resumption.last_request
        apart = sum(self._view.is_last(one) for one in digest.requests)
        whole = sum(name == "requests" for name, _ in self._whole)
        return {
            "last_request": "none" if not last.text else "verbatim" if self._request_whole else "shortened",
            "git_branch": bool(digest.resumption.git.branch) and ("git", 0) in self._shown,
            "requests": len(digest.requests),
            "requests_shown": self._counts["requests"] + apart,
            "requests_verbatim": whole + apart * self._request_whole,
            "files_edited": sum(one.edited for one in digest.files),
            "files_shown": sum(name == "files" and digest.files[index].edited for name, index in self._shown),
            "agents": len(digest.agents),
            "agents_shown": self._counts["agents"],
            "tasks": len(digest.tasks),
            "tasks_shown": self._counts["tasks"],
            "decisions": len(digest.decisions),
            "decisions_shown": self._counts["decisions"],
        }
