"""Names of project folders."""

from __future__ import annotations

import pytest

from dualmem_mcp.transcripts.slug import project_slug


@pytest.mark.parametrize(
    ("cwd", "slug"),
    [
        ("/Users/dev/my_app.v2", "-Users-dev-my-app-v2"),
        (r"C:\Users\dev\app", "C--Users-dev-app"),
        ("/home/dev/Bücher", "-home-dev-B-cher"),
        ("/home/dev/Bu\u0308cher", "-home-dev-B-cher"),  # decomposed, as macOS hands paths out
        ("/home/dev/🦉", "-home-dev---"),  # two UTF-16 units
        ("/" + "a" * 199, "-" + "a" * 199),
    ],
)
def test_every_other_character_becomes_a_dash(cwd, slug):
    assert project_slug(cwd) == slug


def test_long_names_are_cut_and_hashed():
    one, two = project_slug("/" + "a" * 300), project_slug("/" + "a" * 299 + "b")
    assert one[:201] == two[:201] == "-" + "a" * 199 + "-"
    assert one != two
    # Worked out by hand from the rule: 31 * h + unit over "/" and 200 "a", signed 32 bits, base 36.
    value = 0
    for char in "/" + "a" * 200:
        value = (value * 31 + ord(char)) & 0xFFFFFFFF
    value = abs(value - 2**32 if value >= 2**31 else value)
    assert int(project_slug("/" + "a" * 200)[201:], 36) == value


def test_real_folders_are_named_after_the_working_directories_in_them(shared_transcripts):
    import json

    checked = 0
    for path in shared_transcripts.glob("claude/projects/*/*.jsonl"):
        cwds = [json.loads(line).get("cwd") for line in path.read_bytes().splitlines() if line.startswith(b"{")]
        assert path.parent.name in {project_slug(cwd) for cwd in cwds if cwd}
        checked += 1
    assert checked == 9
