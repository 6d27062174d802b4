"""The tools of the sample session: calls with the answers that its workspace gives."""

from __future__ import annotations

from dualmem_mcp.sample.recorder import Call
from dualmem_mcp.sample.workspace import Workspace


class Tools:
    """Calls of Read, Grep, Edit, Write and Bash on a workspace; an Edit changes it."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    def read(self, path: str, start: int = 1, count: int | None = None) -> Call:
        """A file, or `count` of its lines."""
        text, detail = self.workspace.read(path, start, count)
        where = {"offset": start, "limit": count} if count else {}
        return Call("Read", {"file_path": self.workspace.absolute(path), **where}, text, detail)

    def grep(self, needle: str) -> Call:
        """Lines that hold `needle`."""
        text, detail = self.workspace.grep(needle)
        return Call("Grep", {"pattern": needle, "output_mode": "content", "-n": True}, text, detail)

    def edit(self, path: str, old: str, new: str) -> Call:
        """`old` replaced by `new`."""
        text, detail = self.workspace.edit(path, old, new)
        given = {
            "file_path": self.workspace.absolute(path),
            "old_string": old,
            "new_string": new,
            "replace_all": False,
        }
        return Call("Edit", given, text, detail)

    def append(self, path: str, addition: str) -> Call:
        """`addition` after the end of the file, two lines apart."""
        end = "\n".join(self.workspace.files[path].splitlines()[-4:]) + "\n"
        return self.edit(path, end, f"{end}\n\n{addition}")

    def write(self, path: str, content: str) -> Call:
        """A new file."""
        text, detail = self.workspace.write(path, content)
        return Call("Write", {"file_path": self.workspace.absolute(path), "content": content}, text, detail)

    @staticmethod
    def bash(command: str, why: str, output: str, *, failed: bool = False) -> Call:
        """A command with what it printed."""
        given = {"command": command, "description": why}
        if failed:
            return Call("Bash", given, f"Exit code 1\n{output}", f"Error: Exit code 1\n{output}", is_error=True)
        detail = {"stdout": output, "stderr": "", "interrupted": False, "isImage": False}
        return Call("Bash", given, output, detail)
