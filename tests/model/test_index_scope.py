"""Which working directories a scope allows."""

from __future__ import annotations

import pytest

from dualmem_mcp.model.index_scope import IndexScope, covers


@pytest.mark.parametrize(
    ("pattern", "cwd", "expected"),
    [
        ("/home/ada/work", "/home/ada/work", True),
        ("/home/ada/code/", "/home/ada/code/engine", True),
        ("/home/ada/work", "/home/ada/workshop", False),
        ("/home/ada/*/engine", "/home/ada/a/b/engine", True),
        ("/home/ada/*/engine", "/home/ada/a/b/engine/src", True),
        ("*/private", "/home/ada/private", True),
        ("*/private", "/home/ada/private/diary", True),
        ("*/private", "/home/ada/privateer", False),
        ("/home/[ab]da", "/home/bda", True),
        ("/home/ada/[secret] notes", "/home/ada/[secret] notes", True),
        ("/home/ada/[secret] notes", "/home/ada/[secret] notes/2026", True),
        ("C:\\code", "C:/code/x", True),
        ("/Work", "/work", False),
    ],
)
def test_what_a_pattern_covers(pattern: str, cwd: str, expected: bool) -> None:
    assert covers(pattern, cwd) is expected


@pytest.mark.parametrize(
    ("pattern", "cwd", "expected"),
    [
        ("/Users/Ada/Code", "/users/ada/code/engine", True),
        ("C:\\Code", "c:\\code\\x", True),
        ("*/Private", "/Users/ada/PRIVATE/diary", True),
        ("/Users/[A]da/*", "/users/ada/x", True),
        ("/Users/Zo\u00eb", "/Users/ZOE\u0308/code", True),
        ("/Users/Ada", "/Users/Adam", False),
    ],
)
def test_where_a_file_system_ignores_case_patterns_do_too(pattern: str, cwd: str, expected: bool) -> None:
    assert covers(pattern, cwd, ignores_case=True) is expected
    assert not covers(pattern, cwd)
    assert IndexScope("all", (pattern,), ignores_case=True).allows(cwd) is not expected
    assert IndexScope("all", (pattern,)).allows(cwd)
    assert IndexScope((pattern,), ignores_case=True).allows(cwd) is expected


def test_what_is_excluded_is_never_allowed() -> None:
    for projects in ("current", "all", ("/home/ada",)):
        scope = IndexScope(projects, ("*/private",))  # type: ignore[arg-type]
        assert scope.allows("/home/ada/x")
        assert not scope.allows("/home/ada/private/y")
    assert not IndexScope(("/srv",)).allows("/home/ada")
    assert not IndexScope(()).allows("/home/ada")
