"""The three subagents of the sample session: one that reports, one in the background, one that is cut off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from dualmem_mcp.sample.concerns import BACKENDS, fill
from dualmem_mcp.sample.recorder import Call, Recorder
from dualmem_mcp.sample.tools import Tools

_INTERRUPTED = "[Request interrupted by user for tool use]"


class Subagents:
    """Agents of the session in `main`; `files` holds their records and `.meta.json` by agent id."""

    def __init__(self, main: Recorder, tools: Tools, script: Mapping[str, Any]) -> None:
        self.main = main
        self.tools = tools
        self.script = script
        self.files: dict[str, tuple[Recorder, dict[str, Any]]] = {}

    def _start(self, agent_id: str, agent_type: str, scene: Mapping[str, str], model: str) -> Recorder:
        main = self.main
        agent = Recorder(
            session_id=main.session_id,
            cwd=main.cwd,
            branch=main.branch,
            slug=main.slug,
            numbers=main.numbers,
            now=main.now,
            model=model,
            agent_id=agent_id,
            context_tokens=9_000,
        )
        self.files[agent_id] = (
            agent,
            {"agentType": agent_type, "description": scene["description"], "spawnDepth": 1},
        )
        agent.prompt(scene["prompt"].strip())
        return agent

    def _launch(self, agent: Recorder, call: Call) -> str:
        call_id = self.main.call(call)[0]
        self.files[agent.agent_id][1]["toolUseId"] = call_id
        return call_id

    def explore(self) -> None:
        """An agent that reports back before the session goes on."""
        scene = self.script["explore"]
        agent = self._start("a5e81c3", "Explore", scene, "claude-haiku-4-5")
        agent.call(
            self.tools.grep("_server_time"), self.tools.grep("self.prefix"), text="I'll search for both at once."
        )
        for backend in BACKENDS[:6]:
            agent.call(self.tools.read(f"tollgate/{backend.module}.py", 1, 80))
        lines = (fill(scene["line"], {"module": backend.module, "store": backend.store}) for backend in BACKENDS)
        report = "## Clock and keys in the stores\n\n" + "\n".join(lines) + f"\n\n{scene['end']}"
        agent.say(report)
        content = [{"type": "text", "text": report}]
        prompt = scene["prompt"].strip()
        detail = {
            "status": "completed",
            "prompt": prompt,
            "agentId": agent.agent_id,
            "content": content,
            "totalDurationMs": 48_200,
            "totalTokens": agent.context_tokens,
            "totalToolUseCount": 8,
        }
        given = {"description": scene["description"], "prompt": prompt, "subagent_type": "Explore"}
        self.main.now = agent.now
        self._launch(agent, Call("Agent", given, content, detail))

    def review_in_background(self, commits: Sequence[str]) -> None:
        """An agent whose report comes as a notification, later."""
        scene = self.script["review"]
        agent = self._start("ab93f07d2c", "limits-reviewer", scene, "claude-sonnet-4-5")
        agent.call(self.tools.bash("git log --oneline -8", "See the commits", "\n".join(commits[-8:])))
        for backend in BACKENDS[1:4]:
            agent.call(self.tools.read(f"tollgate/{backend.module}.py", 20, 90))
        report = scene["report"].strip()
        agent.say(report)
        prompt = scene["prompt"].strip()
        output = f"~/.claude/tasks/{agent.agent_id}.output"
        detail = {
            "isAsync": True,
            "status": "async_launched",
            "agentId": agent.agent_id,
            "description": scene["description"],
            "prompt": prompt,
            "outputFile": output,
        }
        given = {
            "description": scene["description"],
            "prompt": prompt,
            "subagent_type": "limits-reviewer",
            "run_in_background": True,
        }
        launched = f"Async agent launched successfully.\nagentId: {agent.agent_id}\noutput_file: {output}"
        self.main.prompt(scene["request"])
        call_id = self._launch(agent, Call("Agent", given, [{"type": "text", "text": launched}], detail))
        self.main.say(scene["started"])
        self.main.now = max(self.main.now, agent.now) + timedelta(seconds=40)
        notice = (
            f"<task-notification>\n<task-id>{agent.agent_id}</task-id>\n<tool-use-id>{call_id}</tool-use-id>\n"
            f'<status>completed</status>\n<summary>Agent "{scene["description"]}" completed</summary>\n'
            f"<result>{report}</result>\n</task-notification>"
        )
        self.main.prompt(notice, origin={"kind": "task-notification"}, promptSource="system")
        self.main.say(scene["told"])
        self.main.end_of_turn(self.script["title"], scene["request"])

    def load_test_cut_off(self) -> None:
        """An agent that the user stopped in the middle of its work."""
        scene = self.script["load"]
        agent = self._start("a1d0c44", "general-purpose", scene, "claude-opus-4-6")
        listing = self.tools.bash("ls bench", "See the benchmarks", "load.py\nREADME.md")
        agent.call(listing, text="First I look at the script.")
        agent.call(self.tools.read("config/limits.yaml"), text="It reads the limits from config/limits.yaml.")
        agent.say(scene["begun"])
        agent.prompt(_INTERRUPTED)
        self.main.prompt(scene["request"])
        given = {
            "description": scene["description"],
            "prompt": scene["prompt"],
            "subagent_type": "general-purpose",
        }
        self._launch(agent, Call("Agent", given, scene["refused"], "User rejected tool use", is_error=True))
        self.main.chained("user", message={"role": "user", "content": [{"type": "text", "text": _INTERRUPTED}]})
        self.main.prompt(scene["stop"])
        self.main.say(scene["understood"])
        self.main.end_of_turn(self.script["title"], scene["stop"])
