"""Test runs told by their command, and their counts by the runners' own output."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp.handoff.digest import suites
from dualmem_mcp.handoff.digest.suites import is_test_command, read_counts


@pytest.mark.parametrize(
    "command",
    [
        "go test ./...",
        "cd api && go test -race ./... 2>&1 | tail -5",
        "pytest -q",
        "python -m pytest tests/",
        "python3 -m unittest discover",
        "npm test",
        "npm run test:unit",
        "pnpm test",
        "yarn test --watch=false",
        "npx vitest run",
        "npx jest src",
        "cargo test --workspace",
        "make test",
        "just test",
        "mise run test:ci",
        "./gradlew test",
        "mvn -q verify",
        "dotnet test",
        "bundle exec rspec",
        "mix test",
        "node --test",
        "deno test",
        "CI=1 bun test",
        "vendor/bin/phpunit tests",
        "./scripts/test",
    ],
)
def test_test_commands_are_recognised(command: str) -> None:
    assert is_test_command(command)


@pytest.mark.parametrize(
    "command",
    [
        "ls tests",
        "cat pytest.ini",
        "grep -rn 'go test' docs",
        "git commit -m 'make test faster'",
        "git commit -m \"$(cat <<'EOF'\nrun pytest in CI\nEOF\n)\"",
        "npm install jest",
        "echo pytest",
        "go build ./...",
        "make install",
    ],
)
def test_reading_about_tests_is_no_test_run(command: str) -> None:
    assert not is_test_command(command)


@pytest.mark.parametrize(
    ("output", "passed", "failed", "skipped"),
    [
        ("=== 3 failed, 12 passed, 1 skipped in 0.5s ===", 12, 3, 1),
        ("===== 12 passed in 0.11s =====", 12, 0, None),
        (
            "== short test summary info ==\nFAILED tests/a.py::b\n== 1 failed, 2 passed, 1 error in 1s ==",
            2,
            2,
            None,
        ),
        ("Ran 7 tests in 0.003s\n\nFAILED (failures=2, errors=1)", 4, 3, None),
        ("Ran 7 tests in 0.003s\n\nOK (skipped=2)", 5, 0, 2),
        ("Test Suites: 1 failed, 4 passed, 5 total\nTests:       2 failed, 30 passed, 32 total", 30, 2, None),
        (" Test Files  1 failed | 3 passed (4)\n      Tests  1 failed | 20 passed (21)", 20, 1, None),
        (
            "test result: ok. 10 passed; 0 failed; 2 ignored\n\ntest result: FAILED. 3 passed; 1 failed; 0 ignored",
            13,
            1,
            2,
        ),
        ("  18 passing (20ms)\n  2 failing", 18, 2, None),
        ("# tests 5\n# pass 4\n# fail 1", 4, 1, None),
        ("ℹ tests 5\nℹ pass 5\nℹ fail 0", 5, 0, None),
        ("12 examples, 2 failures", 10, 2, None),
        ("9 runs, 20 assertions, 1 failures, 0 errors, 0 skips", 8, 1, None),
        ("5 tests, 1 failure", 4, 1, None),
        ("Tests run: 8, Failures: 1, Errors: 1, Skipped: 2\n[INFO] BUILD FAILURE", 4, 2, 2),
        ("Passed!  - Failed:     0, Passed:    14, Skipped:     1, Total:    15", 14, 0, 1),
        ("--- PASS: TestA (0.00s)\n--- FAIL: TestB (0.01s)\nFAIL\nFAIL\tx/y\t0.1s", 1, 1, None),
        ("ok  \tx/a\t0.1s\nok  \tx/b\t0.2s", None, None, None),
        ("nothing of the kind", None, None, None),
    ],
)
def test_counts_are_those_that_the_output_states(
    output: str, passed: int | None, failed: int | None, skipped: int | None
) -> None:
    counts = read_counts(output)
    assert (counts.passed, counts.failed, counts.skipped) == (passed, failed, skipped)


def test_go_packages_are_summed_up_and_failures_named() -> None:
    output = "--- FAIL: TestB (0.01s)\nFAIL\nFAIL\tx/y\t0.1s\nok  \tx/a\t0.1s\nok  \tx/b\t0.2s"
    assert read_counts(output).summary == "--- FAIL: TestB (0.01s)\n2 packages ok, 1 failed: x/y"


def test_what_failed_stands_in_the_summary() -> None:
    output = "FAILED tests/test_a.py::test_b - assert 1 == 2\n=== 1 failed, 2 passed in 0.1s ==="
    assert "test_a.py::test_b" in read_counts(output).summary


@pytest.mark.parametrize("line", ["=" * 19_000, "Tests" + " " * 19_000, "\n" * 19_000])
def test_hostile_lines_take_little_time(line: str) -> None:
    assert read_counts(f"{line}\n== 3 passed, 1 failed in 0.1s ==").failed == 1


_LINES = st.sampled_from([
    "", "  ", "\t", "foo", "✕ bar", " ● x", "FAIL", "FAIL\tx/y", "ok", "ok  \tpkg/a 0.1s", "panic: x",
    "exit status 1", "=== 3 passed in 0.1s ===", "no tests ran ==", "Tests: 3 passed", "Tests run: 3, Failures: 1",
    "Ran 3 tests in", "1 runs, 2 assertions, 0 failures", "12 examples, 0 failures", "--- FAIL: TestB",
    "test x ... FAILED", "100% tests passed", "FAILED (failures=1)", "ℹ pass 3", "# fail 2", "BUILD SUCCESS",
    "Executed 3 tests", "Passed!  - a", "OK (3 tests)", "DONE 4 tests", "x" * 50 + " 3 passed",
])  # fmt: skip


@given(st.lists(_LINES, max_size=8).map("\n".join))
def test_lines_that_are_passed_over_state_no_results(output: str) -> None:
    assert suites._summary_lines(output) == [match[0].strip() for match in suites._SUMMARY.finditer(output)]
