"""What happens in the sample session.

A team moves the stores of a rate limiter to shared backends: a plan, one piece of work after the other
with tests that fail first, three subagents of which one is cut off, corrections, commits, a pull request,
a compaction, and an end in the middle of things.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, Final

from dualmem_mcp.sample.concerns import BACKENDS, Backend, Concern, fill, words
from dualmem_mcp.sample.recorder import Call, Recorder
from dualmem_mcp.sample.subagents import Subagents
from dualmem_mcp.sample.tools import Tools
from dualmem_mcp.sample.workspace import Workspace, method_span

COMPACTION_TOKENS: Final = 150_000
"""Size of the context at which the client compacts on its own."""


def load_script() -> Mapping[str, Any]:
    """Everything that is said outside the pieces of work."""
    return tomllib.loads(resources.files(__package__).joinpath("script.toml").read_text(encoding="utf-8"))


class Story:
    """The session as it is told, into one recorder and those of its agents."""

    def __init__(self, recorder: Recorder, workspace: Workspace, concerns: Sequence[Concern]) -> None:
        self.recorder = recorder
        self.workspace = workspace
        self.tools = Tools(workspace)
        self.concerns = concerns
        self.script = load_script()
        self.subagents = Subagents(recorder, self.tools, self.script)
        self.title: str = self.script["title"]
        self.plan: str = self.script["plan"]
        self.done: list[str] = []
        self.compactions = 0

    @property
    def numbers(self) -> random.Random:
        """The story's only source of chance."""
        return self.recorder.numbers

    def tell(self, turns: int) -> None:
        """The whole session, of about `turns` turns."""
        self._opening()
        order = [(backend, concern) for concern in self.concerns for backend in BACKENDS]
        piece = 0
        while self.recorder.turns < turns - 40 or piece < 7:
            # 37 has no divisor in common with the number of pairs: all come, never one backend twice in a row.
            backend, concern = order[(piece * 37) % len(order)]
            self._piece(backend, concern, corrected=bool(concern.correction) and piece % 2 == 0)
            if piece == 2:
                self.subagents.review_in_background(self.done)
            if piece == 4:
                self.subagents.load_test_cut_off()
            due = not self.compactions and self.recorder.turns >= turns * 0.6
            if due or self.recorder.context_tokens > COMPACTION_TOKENS:
                self._compact()
            piece += 1
        self._open_pull_request()
        self._leave_in_the_middle()

    def _opening(self) -> None:
        record, files, tools = self.recorder, self.workspace, self.tools
        opening = self.script["opening"].strip()
        caveat = (
            "<local-command-caveat>Caveat: the messages below come from a local command.</local-command-caveat>"
        )
        record.prompt(caveat, isMeta=True)
        for local in (
            "<command-name>/model</command-name>\n<command-message>model</command-message>\n<command-args>opus</command-args>",
            "<local-command-stdout>Set model to opus</local-command-stdout>",
        ):
            record.chained("user", message={"role": "user", "content": local})
        record.prompt(opening)
        listing = "\n".join(files.absolute(path) for path in sorted(files.files))
        found = {"filenames": listing.split("\n"), "numFiles": len(files.files), "truncated": False}
        record.call(
            tools.read("docs/design.md"),
            tools.read("tollgate/store.py"),
            Call("Glob", {"pattern": "**/*.py"}, listing, found),
            text="I'll read the design and the store interface first.",
            thought="The user wants design.md read before anything else. Then the interface, then one backend.",
        )
        record.call(
            tools.read("tollgate/redis.py"), tools.read("tests/conftest.py"), tools.read("config/limits.yaml")
        )
        record.call(tools.read("tollgate/arithmetic.py"), tools.read("tollgate/decision.py"))
        self.subagents.explore()
        self._ask()
        self._approve_plan()
        for number, (subject, active) in enumerate(self.script["tasks"], 1):
            task = {"subject": subject, "description": f"{subject}, with tests", "activeForm": active}
            detail = {"task": {"id": str(number), "subject": subject}}
            record.call(Call("TaskCreate", task, f"Task #{number} created successfully: {subject}", detail))
        record.say("Six tasks stand in the list. I'll start with the clock, since everything else counts on it.")
        record.end_of_turn(self.title, opening)

    def _ask(self) -> None:
        question = self.script["question"]["text"]
        options = [{"label": label, "description": said} for label, said in self.script["question"]["options"]]
        asked = {
            "questions": [{"question": question, "header": "Failure", "options": options, "multiSelect": False}]
        }
        answer = options[1]["label"]
        result = f'User has answered your questions: "{question}"="{answer}". You can now continue.'
        self.recorder.call(
            Call("AskUserQuestion", asked, result, {**asked, "answers": {question: answer}}),
            thought="Failing open or closed is a business decision, not mine.",
        )

    def _approve_plan(self) -> None:
        path = f"~/.claude/plans/{self.recorder.slug}.md"
        approved = "User has approved your plan. You can now start coding."
        result = f"{approved}\n\nYour plan has been saved to: {path}\n\n{self.plan}"
        detail = {"plan": self.plan, "isAgent": False, "filePath": path}
        self.recorder.call(
            Call("ExitPlanMode", {"plan": self.plan}, result, detail), text="This is the order I propose."
        )
        self.recorder.permission_mode = "acceptEdits"

    def _piece(self, backend: Backend, concern: Concern, *, corrected: bool) -> None:
        """One request worked off: read, change, a test that fails, the repair, a commit."""
        record, tools = self.recorder, self.tools
        values = words(backend, self.numbers)
        path, test_path = f"tollgate/{backend.module}.py", f"tests/test_{backend.module}.py"
        request = fill(self.numbers.choice(concern.requests), values)
        record.prompt(request)
        name = concern.before.split("def ", 1)[1].split("(", 1)[0]
        _, old = method_span(self.workspace.files[path], name)
        record.call(
            tools.grep(name),
            tools.read(path),
            text=fill(concern.plan, values),
            thought=fill(concern.thought, values),
        )
        other = self.numbers.choice([other for other in BACKENDS if other != backend])
        line, _ = method_span(self.workspace.files[f"tollgate/{other.module}.py"], name)
        record.call(tools.read(test_path), tools.read(f"tollgate/{other.module}.py", max(1, line - 20), 70))
        if corrected:
            record.call(tools.bash("git status --short", "See what is changed", f" M {path}"))
            record.say("I would solve this on the caller's side, with a retry until it settles. Shall I?")
            record.prompt(fill(concern.correction, values))
        new = fill(concern.after, values)
        if old != new:
            record.call(tools.edit(path, old, new))
        self._prove(path, test_path, concern, values)
        if self.numbers.random() < 0.35:
            self._delivered_while_working(backend)
        self._commit(fill(concern.commit, values))
        record.say(f"{fill(concern.summary, values)} Committed as {self.done[-1].split()[0]}.")
        record.end_of_turn(self.title, request)
        if self.numbers.random() < 0.5:
            self._remark(backend)

    def _prove(self, path: str, test_path: str, concern: Concern, values: Mapping[str, object]) -> None:
        record, tools, files = self.recorder, self.tools, self.workspace
        test = fill(concern.test, values)
        failing = test.split("def ", 1)[1].split("(", 1)[0]
        if failing not in files.files[test_path]:
            record.call(tools.append(test_path, test))
        command = f"python -m pytest -q {test_path}"
        old, new = fill(concern.repair_old, values), fill(concern.repair_new, values)
        if old in files.files[path] and new not in files.files[path]:
            output = files.run_tests(test_path, failing=failing, failure=fill(concern.failure, values))
            record.call(tools.bash(command, f"Run the tests of {values['module']}", output, failed=True))
            record.call(tools.edit(path, old, new), text=fill(concern.finding, values))
        record.call(tools.bash(command, "Run them again", files.run_tests(test_path)))
        output = files.run_contract(self.script["contract"], str(values["Store"]))
        record.call(
            tools.bash(
                f"python -m pytest -v tests/store_contract.py -k {values['Store']}", "Run the contract", output
            )
        )

    def _commit(self, message: str) -> None:
        record, tools = self.recorder, self.tools
        record.call(tools.bash("git diff", "Look over the change", self.workspace.diff()))
        output, short = self.workspace.commit(record.branch, message)
        record.call(tools.bash(f'git commit -qam "{message}" && git log -1 --stat', "Commit the change", output))
        self.done.append(f"{short} {message}")
        if len(self.done) <= 4:
            task = str(len(self.done))
            detail = {"success": True, "taskId": task, "updatedFields": ["status"]}
            record.call(
                Call("TaskUpdate", {"taskId": task, "status": "completed"}, f"Updated task #{task} status", detail)
            )

    def _remark(self, backend: Backend) -> None:
        remark, reply = self.numbers.choice(self.script["remarks"])
        values = {
            "count": len(self.done),
            "branch": self.recorder.branch,
            "store": backend.store,
            "module": backend.module,
            "resource": backend.resource,
        }
        self.recorder.prompt(remark)
        self.recorder.say(fill(reply, values))
        self.recorder.end_of_turn(self.title, remark)

    def _delivered_while_working(self, backend: Backend) -> None:
        """A prompt that the user typed meanwhile, given to the model between two tool calls."""
        record = self.recorder
        text = f"also mention {backend.resource} in the changelog, support asks about it all the time"
        record.queue(text)
        record.beside("queue-operation", operation="remove", timestamp=record.time)
        queued = {"type": "queued_command", "prompt": text, "commandMode": "prompt", "origin": {"kind": "human"}}
        record.turns += 1
        record.chained("attachment", attachment=queued)

    def _compact(self) -> None:
        self.compactions += 1
        recent = "\n".join(f"   - {line}" for line in self.done[-12:])
        values = {"branch": self.recorder.branch, "count": len(self.done)}
        self.recorder.compact(
            self.script["summary"]["head"] + recent + fill(self.script["summary"]["tail"], values)
        )

    def _open_pull_request(self) -> None:
        record, tools, link = self.recorder, self.tools, self.script["pull_request"]
        record.prompt("Push and open a pull request against main, draft. Keep the description short.")
        pushed = f"To github.com:tollgate-dev/tollgate.git\n * [new branch]      {record.branch} -> {record.branch}"
        record.call(tools.bash(f"git push -u origin {record.branch}", "Push the branch", pushed))
        body = f"Stores count by their own clock, keys are bounded, {len(self.done)} small commits."
        command = f'gh pr create --draft --base main --title "{self.title}" --body "{body}"'
        record.call(tools.bash(command, "Open the pull request", link))
        record.beside(
            "pr-link", prNumber=118, prUrl=link, prRepository="tollgate-dev/tollgate", timestamp=record.time
        )
        record.say(f"The draft is open: {link}. CI runs the contract suite over all ten backends.")
        record.end_of_turn(self.title, "Push and open a pull request")

    def _leave_in_the_middle(self) -> None:
        """The last request, begun and not finished."""
        record, tools, end = self.recorder, self.tools, self.script["end"]
        record.prompt(end["request"].strip())
        record.call(tools.append("tests/test_redis.py", end["test"]))
        output = self.workspace.run_tests(
            "tests/test_redis.py", failing="test_redis_survives_a_failover", failure="assert 10 == 9"
        )
        command = "python -m pytest -q tests/test_redis.py -k failover --count 2"
        record.call(
            tools.bash(command, "Reproduce the red test", output, failed=True),
            thought=end["thought"],
        )
        started = {"success": True, "taskId": "5", "updatedFields": ["status"]}
        record.call(Call("TaskUpdate", {"taskId": "5", "status": "in_progress"}, "Updated task #5 status", started))
        record.call(tools.write("docs/sharding-migration.md", end["note"]))
        closed = "        self._closed = False\n"
        record.call(
            tools.edit("tollgate/redis.py", closed, f"{closed}        self._unconfirmed: dict[str, int] = {{}}\n"),
            text=end["finding"],
        )
        record.queue(end["queued"])
        # The answer to this call is missing: the session is handed over while the tests run.
        record.assistant(
            {"type": "text", "text": "Now the failover test again, twice in a row."},
            {
                "type": "tool_use",
                "id": "toolu_01FailoverStillRunning9xQ2v",
                "name": "Bash",
                "input": {"command": command, "description": "Run the failover test again"},
            },
        )
