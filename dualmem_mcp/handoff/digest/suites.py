"""Test runs recognised by their command, and their counts where the output states them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache

# What may stand before the runner: variables, wrappers, environments.
_BEFORE = (
    r"(?:\w+=\S*\s+|time\s+|sudo\s+|env\s+|exec\s+|nice\s+|timeout\s+\S+\s+|xvfb-run\s+(?:-\S+\s+)*|bundle\s+exec\s+|"
    r"(?:npx|pnpx|bunx|pnpm\s+(?:exec|dlx)|yarn(?:\s+(?:exec|dlx))?|bun\s+x)\s+(?:-\S+\s+)*|"
    r"(?:uv|poetry|pdm|hatch|rye|pipenv|pixi)\s+run\s+(?:-\S+\s+)*|python[\d.]*\s+-m\s+|coverage\s+run\s+-m\s+|"
    r"docker(?:[ -]compose)?\s+(?:run|exec)\s+(?:-\S+\s+)*\S+\s+)*"
)
_RUNNERS = (
    r"go\s+test|gotestsum|pytest|py\.test|unittest|nose2|nosetests|tox|nox|"
    r"(?:npm|pnpm|yarn|bun)\s+(?:run\s+|exec\s+)?(?:test|t|vitest|jest|e2e)[\w:-]*|"
    r"jest|vitest|mocha|ava|tap|playwright\s+test|cypress\s+run|node\s+--test|deno\s+test|"
    r"cargo\s+(?:nextest\s+run|nextest|test)|"
    r"(?:make|just|task|mise(?:\s+run)?|rake|ninja|bazel|buck2?|meson|dagger)\s+[\w:./ -]*"
    r"\b(?:tests?|check|spec)[\w:-]*|"
    r"(?:mvn|\./mvnw|gradle|\./gradlew)\s+[\w: -]*(?:test|verify|check)\w*|"
    r"dotnet\s+test|swift\s+test|xcodebuild\s+[^|;&]*\btest|rspec|minitest|(?:bin/)?rails\s+test|mix\s+test|"
    r"(?:\./)?(?:vendor/bin/)?(?:phpunit|pest)|php\s+artisan\s+test|ctest|sbt\s+\"?test|lein\s+test|stack\s+test|"
    r"cabal\s+test|zig\s+(?:build\s+)?test|dart\s+test|flutter\s+test|bats|busted|elm-test|"
    r"(?:\./)?(?:scripts?|bin)/(?:run[-_])?tests?"
)
_TEST_COMMAND = re.compile(rf"[\s(]*(?:\$\()?{_BEFORE}(?:{_RUNNERS})(?=[\s;&|)\"']|$)")
_QUOTED = re.compile(
    r"<<-?\s*['\"]?(\w+)['\"]?.*?^\s*\1\s*$|(?:-m|--message|--body|--title|-b)\s+(?:\"(?:[^\"\\]|\\.)*\"|'[^']*')",
    re.DOTALL | re.MULTILINE,
)
_GO_PACKAGE = re.compile(r"^(ok|FAIL)\s+(\S+/\S+|\S+\s+\d[\d.]*s)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class SuiteCounts:
    """Counts of a test run, None where the output does not state them, and the lines that state them."""

    passed: int | None = None
    failed: int | None = None
    skipped: int | None = None
    summary: str = ""


def is_test_command(command: str) -> bool:
    """Whether a shell command runs tests, in any of the common ecosystems; reading test files is none."""
    return runs_tests(command[:4_000])


@lru_cache(maxsize=1_024)  # every part of a digest asks again
def runs_tests(command: str) -> bool:
    bare = _QUOTED.sub(" ", command)
    return any(_TEST_COMMAND.match(part) for part in re.split(r"&&|[|;\n]", bare))


# Lines by which runners state results. Source: the output of pytest, unittest, jest, vitest, mocha, node --test,
# cargo, go, rspec, minitest, ExUnit, phpunit, Maven, Gradle, dotnet, ctest, swift.
_SUMMARY = re.compile(
    r"^[^\n]{0,40}(?:==[^\n]*\b(?:passed|failed|errors?|skipped|no tests ran)\b|"
    r"\bTests?:?[ \t][^\n]*\b(?:passed|failed)\b|"
    r"Test Files\s|Test Suites:|test result: |\b\d+ (?:passing|failing|pending)\b|Ran \d+ tests? in|"
    r"\b\d+ (?:examples?|tests?), \d+ failures?|"
    r"\d+ runs?, \d+ assertions|Tests run: |OK \(\d+ tests?|(?:Passed|Failed)!\s+-|\d+% tests passed|"
    r"# (?:pass|fail) \d+|ℹ (?:pass|fail) \d+|DONE \d+ tests|"
    r"BUILD (?:SUCCESS|FAIL)|Executed \d+ tests?|\b\d+ (?:passed|failed)\b|(?:FAILED|OK) \(|(?:FAILED|ERROR) \S+::|"
    r"--- FAIL:|FAIL\s|^test \S+ \.\.\. FAILED|\s[✕✗×●] |"
    r"ok\s{2,}\S|panic: )[^\n]*$",
    re.MULTILINE,
)


# Parts of these of which a line, or the one after it, must hold one: they are found far faster.
_SUMMARY_PARTS = (
    "==", "Test", "test", "pass", "fail", "pending", "Ran ", "example", " runs", " run,", "OK (", "Passed!",
    "Failed!", "DONE ", "BUILD ", "Executed ", "FAIL", "ERROR ", "ok", "panic: ", "✕", "✗", "×", "●",
)  # fmt: skip


def _summary_lines(output: str) -> list[str]:
    """The lines of an output that state results, in order: all matches of the pattern."""
    parts = [part for part in _SUMMARY_PARTS if part in output]
    found: list[str] = []
    start = 0
    while parts and start < len(output):
        end = _line_end(output, start)
        # With the first characters of what follows: some marks stand after white space, as a line's end is.
        seen = output[start : end + 3]
        if any(part in seen for part in parts) and (stated := _SUMMARY.match(output, start)):
            found.append(stated[0].strip())
            # A match can go over the end of its line, up to the beginning of an empty one.
            end = stated.end() - 1 if stated[0].endswith("\n") else _line_end(output, stated.end())
        start = end + 1
    return found


def _line_end(text: str, start: int) -> int:
    end = text.find("\n", start)
    return end if end >= 0 else len(text)


def _total(pattern: str, text: str) -> int | None:
    """The sum of a number wherever the pattern finds it; None where it does not."""
    found = re.findall(pattern, text, re.MULTILINE)
    return sum(int(one) for one in found) if found else None


def _last(pattern: str, text: str) -> tuple[int, ...] | None:
    """The numbers of the last place where the pattern matches."""
    found = re.findall(pattern, text, re.MULTILINE)
    if not found:
        return None
    groups = found[-1] if isinstance(found[-1], tuple) else (found[-1],)
    return tuple(int(one or 0) for one in groups)


def _read_maven(text: str) -> SuiteCounts | None:
    totals = _last(r"Tests run: (\d+), Failures: (\d+)(?:, Errors: (\d+))?(?:, Skipped: (\d+))?", text)
    if totals is None:
        return None
    run, failures, errors, skipped = totals
    return SuiteCounts(run - failures - errors - skipped, failures + errors, skipped)


def _read_dotnet(text: str) -> SuiteCounts | None:
    failed, passed, skipped = (_total(rf"{word}:\s+(\d+)", text) for word in ("Failed", "Passed", "Skipped"))
    return None if passed is None else SuiteCounts(passed, failed or 0, skipped)


def _read_examples(text: str) -> SuiteCounts | None:
    totals = _last(r"(\d+) (?:examples?|tests?), (\d+) failures?", text) or _last(
        r"(\d+) runs?, \d+ assertions, (\d+) failures", text
    )
    return None if totals is None else SuiteCounts(totals[0] - totals[1], totals[1])


def _read_unittest(text: str) -> SuiteCounts | None:
    run = _last(r"Ran (\d+) tests? in", text)
    if run is None:
        return None
    failed = _total(r"(?:failures|errors)=(\d+)", text) or 0
    skipped = _total(r"skipped=(\d+)", text)
    return SuiteCounts(run[0] - failed - (skipped or 0), failed, skipped)


def _read_node(text: str) -> SuiteCounts | None:
    passed = _last(r"^\s*(?:#|ℹ) pass (\d+)", text)
    failed = _last(r"^\s*(?:#|ℹ) fail (\d+)", text)
    return None if passed is None else SuiteCounts(passed[0], failed[0] if failed else 0)


def _read_words(text: str) -> SuiteCounts | None:
    """`N passed, M failed` as pytest, jest, vitest, mocha and cargo put it; suites and files are not tests."""
    lines = [line for line in text.split("\n") if not re.match(r"\s*Test (?:Files|Suites)", line)]
    framed = [line for line in lines if "==" in line]
    if framed:  # pytest: the last framed line holds the totals of the run
        lines = framed[-1:]
    text = "\n".join(lines)
    passed, failed = _total(r"(\d+) (?:passed|passing)\b", text), _total(r"(\d+) (?:failed|failing)\b", text)
    errors = _total(r"(\d+) errors?\b", text)
    if passed is None and failed is None and errors is None:
        return None
    return SuiteCounts(
        passed or 0, (failed or 0) + (errors or 0), _total(r"(\d+) (?:skipped|pending|ignored)\b", text)
    )


def _read_go(text: str) -> SuiteCounts | None:
    """`go test -v`; without -v Go names packages only, which are no count of tests."""
    passed, failed, skipped = (_total_lines(rf"^[ \t]*--- {word}:", text) for word in ("PASS", "FAIL", "SKIP"))
    return SuiteCounts(passed, failed, skipped or None) if passed or failed else None


def _total_lines(pattern: str, text: str) -> int:
    return len(re.findall(pattern, text, re.MULTILINE))


def read_counts(output: str) -> SuiteCounts:
    """What the output of a test run states; judged by its last 20,000 characters."""
    output = output[-20_000:]
    lines = _summary_lines(output)
    text = "\n".join(lines)
    counts = None
    for reader in (_read_maven, _read_dotnet, _read_examples, _read_unittest, _read_node, _read_words):
        counts = reader(text)
        if counts is not None:
            break
    counts = counts or _read_go(output) or SuiteCounts()
    return replace(counts, summary="\n".join(_telling(lines, output)))


def _telling(lines: list[str], output: str) -> list[str]:
    """Up to five lines: the first failures, then the totals; Go's packages as one line."""
    packages = _GO_PACKAGE.findall(output)
    bad = [
        line
        for line in lines
        if re.search(r"FAIL|failed|\d failing|panic:|error", line) and not re.search(r"\b0 fail", line)
    ]
    if not packages:
        return list(dict.fromkeys([*bad[:3], *lines[-2:]]))
    failing = dict.fromkeys(name.split()[0] for state, name in packages if state == "FAIL")
    good = sum(state == "ok" for state, _ in packages)
    total = f"{good} package{'' if good == 1 else 's'} ok" + (
        f", {len(failing)} failed: {', '.join(failing)}" if failing else ""
    )
    failures = dict.fromkeys(line for line in bad if line.startswith(("---", "panic:")))
    return [*list(failures)[:4], total]
