"""Front matter of agent definitions, and what changed between two sets of them."""

from __future__ import annotations

import pytest

from dualmem_mcp.model.project import AgentDefinition, DefinitionChange, ProjectFile
from dualmem_mcp.transcripts.definitions import MAX_DIFF_CHARACTERS, definition_changes, parse_definition


def definition(text, name=".claude/agents/dev.md"):
    return ProjectFile.of("agent_definition", name, text.encode(), 0)


@pytest.mark.parametrize(
    "tools", ["tools: Read, Grep , Bash", "tools: [Read, 'Grep', Bash]", "tools:\n  - Read\n  - Grep\n  - Bash"]
)
def test_front_matter_is_read_in_its_usual_spellings(tools):
    head = "---\nname: dev\ndescription: >\n  Writes code,\n  then tests.\n"
    text = f'{head}{tools}\nmodel: "sonnet"\ncolor: blue\n---\nBody: no key\n'
    assert parse_definition(definition(text)) == AgentDefinition(
        name="dev",
        scope="project",
        file_name=".claude/agents/dev.md",
        description="Writes code, then tests.",
        tools=("Read", "Grep", "Bash"),
        model="sonnet",
    )


@pytest.mark.parametrize(
    "text", ["", "no front matter", "---\nname: never closed\n", "\ufeff---\n---\n", "---\n- list\n---"]
)
def test_without_front_matter_the_file_gives_the_name(text):
    parsed = parse_definition(definition(text, "user/agents/reviewer.md"))
    assert (parsed.name, parsed.scope, parsed.description, parsed.tools) == ("reviewer", "user", "", ())


def test_added_removed_and_changed_definitions_are_named():
    same = definition("---\nname: same\n---\n", "a.md")
    before = [
        same,
        definition("---\nname: gone\n---\n", "b.md"),
        definition("---\nname: x\n---\nold line\n", "c.md"),
    ]
    after = [same, definition("---\nname: new\n---\n", "d.md"), definition("---\nname: x\n---\nnew line\n", "c.md")]
    removed, changed, added = definition_changes(before, after)
    assert removed == DefinitionChange("b.md", "gone", "removed")
    assert added == DefinitionChange("d.md", "new", "added")
    assert (changed.name, changed.change) == ("x", "changed")
    assert "-old line" in changed.diff
    assert "+new line" in changed.diff
    assert definition_changes(after, after) == ()


def test_files_of_other_kinds_are_no_definitions():
    plan = ProjectFile.of("plan", "plans/x.md", b"x", 0)
    assert definition_changes([], [plan]) == ()


def test_a_long_diff_is_bounded_and_says_so():
    before, after = (definition("\n".join(f"{word} line {n}" for n in range(400))) for word in ("old", "new"))
    (change,) = definition_changes([before], [after])
    assert len(change.diff) < MAX_DIFF_CHARACTERS + 40
    assert change.diff.endswith("more lines")


def test_files_too_long_to_compare_are_only_counted():
    before, after = (definition("\n".join(f"{word} {n}" for n in range(9000))) for word in ("old", "new"))
    (change,) = definition_changes([before], [after])
    assert change.diff == "9000 lines became 9000; too long to compare"
