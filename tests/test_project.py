"""The repository itself: what its files promise each other."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
from packaging.requirements import Requirement

import dualmem_mcp

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "dualmem_mcp"
MODULES = sorted(PACKAGE.rglob("*.py"))
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def tracked_files() -> list[Path]:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout")
    listed = subprocess.run([git, "-C", str(ROOT), "ls-files", "-z"], check=True, capture_output=True, text=True)
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


# Files


def test_no_file_names_a_machine_or_a_registry() -> None:
    # Written apart, so that this file does not name them either.
    unwanted = [
        "/wo" + "rk/",
        "/tmp/" + "dm",
        "pypi" + ".org",
        "npm" + "js.",
        "deb.deb" + "ian",
        "python" + "hosted",
    ]
    found = [
        f"{path.relative_to(ROOT)}: {word}"
        for path in tracked_files()
        for word in unwanted
        if word.encode() in path.read_bytes()
    ]
    assert found == []


def test_no_file_that_a_run_leaves_is_tracked() -> None:
    left = re.compile(r"(^|/)(__pycache__|\.venv|\.cache|node_modules)/|\.(pyc|db|db-wal|key|bak|sealed)$")
    assert [str(path) for path in tracked_files() if left.search(path.relative_to(ROOT).as_posix())] == []


@pytest.mark.parametrize("name", ["scripts/run", "scripts/test", "scripts/lock", "scripts/environment", ".ci/run"])
def test_scripts_are_whole(name: str) -> None:
    path = ROOT / name
    subprocess.run(["bash", "-n", path], check=True)
    if name != "scripts/environment":  # that one is sourced
        assert os.access(path, os.X_OK)


def test_the_build_server_runs_the_tests() -> None:
    assert "./scripts/test" in (ROOT / ".ci" / "run").read_text()


def test_links_in_documents_lead_somewhere() -> None:
    broken = [
        f"{document.relative_to(ROOT)}: {target}"
        for document in [*DOCUMENTS, *sorted((ROOT / "sydney").rglob("*.md"))]
        for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text())
        if not re.match(r"[a-z]+:|#", target) and not (document.parent / target.partition("#")[0]).exists()
    ]
    assert broken == []


# Packaging


def test_the_version_is_the_changelogs(pyproject: dict[str, Any]) -> None:
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == dualmem_mcp.__version__


def test_every_dependency_is_locked(pyproject: dict[str, Any]) -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    locked = {line.split("==")[0].lower().replace("_", "-"): line.split("==")[1] for line in lines if "==" in line}
    for text in [*pyproject["project"]["dependencies"], *pyproject["dependency-groups"]["dev"]]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(locked[requirement.name.lower()]), text


def test_what_mcp_json_starts_is_what_is_installed(pyproject: dict[str, Any]) -> None:
    for server in json.loads((ROOT / "mcp.json").read_text())["mcpServers"].values():
        assert server["command"] in pyproject["project"]["scripts"]


# Code


def test_only_settings_reads_the_environment() -> None:
    readers = set()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            name = getattr(node, "attr", None) or getattr(node, "name", None)
            if name in {"environ", "environb", "getenv", "getenvb"}:
                readers.add(path.relative_to(PACKAGE).as_posix())
            if isinstance(node, ast.ClassDef) and any(
                getattr(base, "id", "") == "BaseSettings" for base in node.bases
            ):
                readers.add(path.relative_to(PACKAGE).as_posix())
    assert readers == {"settings.py"}


def test_modules_hold_one_idea_each() -> None:
    assert [path.name for path in MODULES if len(path.read_text().splitlines()) > 400] == []
    vague = re.compile(
        r"^(utils?|helpers?|common|misc|base|manager|.*_(runner|runtime|manager|part\d+|utils?|helpers?))$"
    )
    assert [path.name for path in MODULES if vague.match(path.stem)] == []


def test_every_module_says_what_it_is() -> None:
    assert [path.name for path in MODULES if not ast.get_docstring(ast.parse(path.read_text()))] == []


# Documents


def test_every_command_is_documented() -> None:
    from dualmem_mcp import cli

    readme = (ROOT / "README.md").read_text()
    group = next(value for value in vars(cli).values() if isinstance(value, click.Group))
    assert [name for name in group.commands if f"dualmem {name}" not in readme and f"`{name}" not in readme] == []


def test_every_variable_is_documented() -> None:
    from dualmem_mcp.settings import _Environment

    documents = "".join(path.read_text() for path in DOCUMENTS)
    names = {str(field.validation_alias) for field in _Environment.model_fields.values()}
    assert sorted(name for name in names if name not in documents) == []
