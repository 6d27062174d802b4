"""tiers and what is below it, as a person and a script use them: with Qdrant's local mode in a folder, and with a
service that nobody runs."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from dualmem_mcp.app import open_app
from dualmem_mcp.cli import cli
from dualmem_mcp.errors import DualmemError
from dualmem_mcp.settings import load_settings
from dualmem_mcp.tiers.state import TierState
from tests.handoff.conftest import PASSPHRASE, World, bare_environment

__all__ = ["bare_environment"]

NOBODY = "http://127.0.0.1:1"

TALK = [
    "How is the toll for a truck computed?",
    "By axles, and by the hour: between six and nine it is double.",
    "The camera on lane three reads plates wrong when it rains.",
    "I raised the shutter speed; the last hundred plates were read right.",
    "Please let staging alone until Thursday, the billing people use it.",
    "Understood: no load tests there before Friday.",
    "Which queue do the receipts go through?",
    "Through the one called ledger, with two consumers.",
]


class Shell:
    """The command line on one data home, with a service in a folder."""

    def __init__(self, root: Path, models: Path) -> None:
        self.root = root
        self.home = root / "desk"
        self.environment = {
            "DUALMEM_HOME": str(self.home),
            "DUALMEM_BUCKET": str(root / "bucket"),
            "DUALMEM_PASSPHRASE": PASSPHRASE,
            "DUALMEM_KEYSTORE": "file",
            "DUALMEM_MODEL_DIR": str(models),
            "DUALMEM_QDRANT_URL": str(root / "service"),
            "CLAUDE_CONFIG_DIR": str(root / "claude"),
            "CLAUDE_PROJECT_DIR": str(root / "project"),
        }

    def run(self, *arguments: str, answers: str = "", **environment: str) -> Result:
        done = CliRunner().invoke(cli, arguments, input=answers, env={**self.environment, **environment})
        if done.exception is not None and not isinstance(done.exception, DualmemError | SystemExit):
            raise done.exception
        return done

    def done(self, *arguments: str, **options: str) -> str:
        done = self.run(*arguments, **options)
        assert done.exit_code == 0, (done.output, done.exception)
        return done.stdout

    def json(self, *arguments: str, **options: str) -> dict[str, Any]:
        return dict(json.loads(self.done(*arguments, "--json", **options)))

    def fails(self, *arguments: str, **options: str) -> tuple[int, str]:
        """The exit code, and what goes to stderr as `error:` and `hint:`."""
        error = self.run(*arguments, **options).exception
        assert isinstance(error, DualmemError), error
        assert error.hint
        return error.exit_code, f"{error.message}\n{error.hint}"

    def configure(self, **fields: object) -> None:
        path = self.home / "cloud_sync_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> Path:
    """A data home of a vault whose session is indexed with vectors; to be copied, not used."""
    root = tmp_path_factory.mktemp("indexed")
    World(root, None).write_session(TALK)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DUALMEM_DEVICE", "DUALMEM_MODEL", "DUALMEM_QDRANT_API_KEY"):
            patch.delenv(name, raising=False)
        shell = Shell(root, model_dir)
        shell.done("init", "--device-name", "desk")
        shell.done("index", "--project", "all")
    return root


@pytest.fixture
def shell(indexed: Path, tmp_path: Path, model_dir: Path) -> Shell:
    root = Path(shutil.copytree(indexed, tmp_path / "root"))
    config = root / "desk" / "cloud_sync_config.json"
    config.write_text(config.read_text().replace(str(indexed), str(root)))
    return Shell(root, model_dir)


@pytest.fixture
def placed(shell: Shell) -> Shell:
    """With everything placed."""
    shell.done("tiers", "init")
    shell.done("tiers", "enable", "--yes")
    shell.done("tiers", "apply")
    return shell


def agree_to(shell: Shell, url: str) -> None:
    """As if the service that was agreed to had this address: one that is away cannot be agreed to."""
    with open_app(load_settings(shell.home)) as app:
        TierState(app.blobs).switch(url, enabled=True, words=False, now=app.clock.now())


def total(status: dict[str, Any]) -> int:
    return sum(tier["points"] for tier in status["tiers"])


def test_the_whole_way(shell: Shell) -> None:
    made = shell.json("tiers", "init")
    assert [one["tier"] for one in made["collections"]] == ["critical", "context", "historical"]
    assert all(one["made"] for one in made["collections"])
    assert "left as they are: dualmem-critical" in shell.done("tiers", "init")
    assert shell.json("tiers", "enable", "--yes") == {"enabled": True, "words": False}
    planned = shell.json("tiers", "plan")
    (move,) = {(one["action"], one["from"]) for one in planned["moves"]}
    assert move == ("place", "edge")
    items = sum(one["items"] for one in planned["moves"])
    assert planned["items"] - planned["duplicates"] >= items >= len(TALK)
    assert planned["usd_month_after"] > planned["usd_month_before"] == 0
    applied = shell.json("tiers", "apply")
    assert applied["done"] == {"place": items}
    assert applied["points_written"] == sum(one["points"] for one in planned["moves"])
    assert (applied["left"], applied["problem"], applied["warnings"]) == (0, "", [])
    status = shell.json("tiers")
    assert total(status) == applied["points_written"]
    assert {name: status[name] for name in ("configured", "enabled", "words", "moving", "problem")} == {
        "configured": True,
        "enabled": True,
        "words": False,
        "moving": 0,
        "problem": "",
    }
    assert "All are as they should be." in shell.done("tiers", "check")
    assert shell.json("tiers", "plan")["moves"] == []
    assert "all lie where they belong" in shell.done("tiers", "apply")
    assert "Everything lies where it belongs." in shell.done("tiers", "plan")
    off = shell.json("tiers", "disable", "--remove")
    assert off == {"enabled": False, "removed": applied["points_written"]}
    assert total(shell.json("tiers")) == 0


def test_people_see_tables_and_sentences(shell: Shell) -> None:
    assert "no (`dualmem tiers enable`)" in shell.done("tiers")
    assert "Made: dualmem-critical, dualmem-context, dualmem-historical" in shell.done("tiers", "init")
    assert "On: vectors go to" in shell.done("tiers", "enable", "--yes")
    told = shell.done("tiers", "plan")
    assert re.search(r"^place +edge +\w+ +\d+ +\d+ +\w+", told, re.MULTILINE)
    assert re.search(r"^cost a month +\$0 +\S+", told, re.MULTILINE)
    assert "mean latency" in told
    assert re.search(r"Vectors: \d+ placed \(\d+ points written, 0 removed; ", shell.done("tiers", "apply"))
    told = shell.done("tiers")
    assert "In use on this device: vectors, no words" in told
    assert re.search(r"^(critical|context|historical) +[1-9]\d* +", told, re.MULTILINE)
    assert "never (`dualmem tiers check`)" in told
    assert "points looked at" in shell.done("tiers", "check")
    assert "never (" not in shell.done("tiers")
    assert re.search(r"tiers +enabled: yes, points: \d+, problem: none", shell.done("status"))
    assert re.search(r"ok +search service: .*answers.*checked at 20", shell.done("doctor"))
    assert "What lies there stays" in shell.done("tiers", "disable")


def test_without_a_service_each_command_says_how_to_set_one(shell: Shell) -> None:
    for command in ("init", "enable", "disable", "check", "plan", "apply"):
        code, told = shell.fails("tiers", command, DUALMEM_QDRANT_URL="")
        assert (code, told.partition("\n")[0]) == (2, "no search service is set")
        assert "DUALMEM_QDRANT_URL" in told
    status = shell.json("tiers", DUALMEM_QDRANT_URL="")
    assert (status["configured"], status["enabled"]) == (False, False)
    assert "none is set (DUALMEM_QDRANT_URL)" in shell.done("tiers", DUALMEM_QDRANT_URL="")
    assert shell.json("status", DUALMEM_QDRANT_URL="")["tiers"] is None
    assert "search service: none is set" in shell.done("doctor", DUALMEM_QDRANT_URL="")


def test_without_a_vault_a_model_or_collections_it_is_said_which_comes_first(shell: Shell, tmp_path: Path) -> None:
    code, told = shell.fails("tiers", "enable", "--yes")
    assert code == 6
    assert "dualmem tiers init" in told
    code, told = shell.fails("tiers", "init", DUALMEM_MODEL_DIR=str(tmp_path / "no model"))
    assert code == 3
    assert "dualmem model pull" in told
    code, told = shell.fails("tiers", "init", DUALMEM_HOME=str(tmp_path / "new"))
    assert code == 3
    assert "dualmem init" in told


def test_before_it_is_switched_on_nothing_goes_there(shell: Shell) -> None:
    shell.done("tiers", "init")
    for command in ("check", "apply"):
        code, told = shell.fails("tiers", command)
        assert code == 2
        assert "dualmem tiers enable" in told
    assert shell.json("sync")["tiers"] is None
    assert total(shell.json("tiers")) == 0


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Standard input counts as a terminal."""

    def see_one() -> None:
        monkeypatch.setattr("dualmem_mcp.cli.tier_commands._is_asked_in_a_terminal", lambda: True)

    return see_one


def test_what_the_service_learns_is_told_and_asked_each_on_its_own(shell: Shell, terminal: Any) -> None:
    shell.done("tiers", "init")
    code, told = shell.fails("tiers", "enable")
    assert code == 2
    assert "--yes" in told
    terminal()
    refused = shell.run("tiers", "enable", answers="n\n")
    assert refused.exit_code == 1
    assert "Obfuscated is not encrypted" in refused.stderr
    assert "50 to 100 of your texts" in refused.stderr
    assert "frequent" not in refused.stderr  # which is of words
    assert not shell.json("tiers")["enabled"]
    half = shell.run("tiers", "enable", "--words", answers="y\nn\n")
    assert half.exit_code == 1
    assert "much more than vectors alone tell" in half.stderr
    assert not shell.json("tiers")["enabled"]
    assert "On: vectors go to" in shell.done("tiers", "enable", answers="y\n")
    again = shell.run("tiers", "enable", "--words", answers="y\n")  # only what is new is asked
    assert again.exit_code == 0
    assert "Obfuscated" not in again.stderr
    assert "On: vectors and words go to" in again.stdout
    assert shell.json("tiers")["words"]
    assert "now without words" in shell.done("tiers", "enable")
    assert not shell.json("tiers")["words"]


def test_whoever_agreed_to_one_service_is_asked_for_another(placed: Shell) -> None:
    moved = {"DUALMEM_QDRANT_URL": str(placed.root / "another")}
    status = placed.json("tiers", **moved)
    assert (status["configured"], status["enabled"]) == (True, False)
    assert placed.json("sync", **moved)["tiers"] is None
    code, told = placed.fails("tiers", "apply", **moved)
    assert code == 2
    assert "dualmem tiers enable" in told
    placed.done("tiers", "init", **moved)
    assert "Obfuscated is not encrypted" in placed.run("tiers", "enable", "--yes", **moved).stderr
    # What is known to lie in the first one is made again in the second.
    points = total(placed.json("tiers"))
    assert placed.json("tiers", "check", **moved)["mended"] == points
    assert placed.json("tiers", "check", **moved)["points"] == points


def test_with_yes_it_is_told_all_the_same_but_not_to_scripts(shell: Shell) -> None:
    shell.done("tiers", "init")
    told = shell.run("tiers", "enable", "--words", "--yes")
    assert "Obfuscated is not encrypted" in told.stderr
    assert "much more than vectors alone tell" in told.stderr
    shell.done("tiers", "disable")
    quiet = shell.run("tiers", "enable", "--words", "--yes", "--json")
    assert quiet.stderr == ""
    assert json.loads(quiet.stdout) == {"enabled": True, "words": True}


def test_a_service_that_is_away_ends_with_6_and_costs_nothing_else(placed: Shell) -> None:
    away = {"DUALMEM_QDRANT_URL": NOBODY}
    agree_to(placed, NOBODY)
    for command in (("init",), ("check",), ("disable", "--remove")):
        code, told = placed.fails("tiers", *command, **away)
        assert code == 6, command
        assert "cannot be reached" in told
    assert "switched off all the same" in told
    placed.done("tiers", "disable", **away)
    code, told = placed.fails("tiers", "enable", "--yes", **away)
    assert code == 6
    agree_to(placed, NOBODY)
    source = placed.root / "memory.jsonl"
    source.write_text('{"type":"entity","name":"crane","entityType":"thing","observations":["lifts 40 t"]}')
    placed.done("import", str(source))
    placed.done("index", "--project", "all")
    applied = placed.run("tiers", "apply", "--json", **away)
    assert applied.exit_code == 6
    fields = json.loads(applied.stdout)
    assert (fields["away"], fields["refused"], fields["left"] >= 1) == (True, False, True)
    assert "cannot be reached" in applied.stderr
    synced = placed.run("sync", "--json", **away)
    assert synced.exit_code == 0  # the sync went through
    assert json.loads(synced.stdout)["tiers"]["away"]
    assert "cannot be reached" in synced.stderr
    assert "cannot be reached" in placed.json("status", **away)["tiers"]["problem"]
    doctor = placed.run("doctor", **away)
    assert doctor.exit_code == 1
    assert re.search(r"FAIL +search service: .*cannot be reached", doctor.stdout)
    assert placed.json("search", "crane", **away)["results"]
    # Back again, the next sync places what waited.
    agree_to(placed, placed.environment["DUALMEM_QDRANT_URL"])
    assert placed.json("sync")["tiers"]["done"] == {"place": 1}
    assert placed.json("status")["tiers"]["problem"] is None


def test_a_collection_of_another_model_is_refused_by_its_name(shell: Shell) -> None:
    from dualmem_mcp.stores.qdrant import QdrantService

    service = QdrantService.open(str(shell.root / "service"))
    for tier in ("critical", "context", "historical"):
        service.create(tier, dimensions=16, model_id="another/1")
    service.close()
    for command in (("init",), ("enable", "--yes")):
        code, told = shell.fails("tiers", *command)
        assert code == 6
        assert "dualmem-critical" in told
        assert "16 dimensions" in told


def test_over_budget_nothing_is_placed_and_everything_waits(shell: Shell) -> None:
    shell.done("tiers", "init")
    shell.done("tiers", "enable", "--yes")
    shell.configure(budget={"hard_usd": 0.0})
    applied = shell.run("tiers", "apply", "--json")
    assert applied.exit_code == 8
    assert json.loads(applied.stdout)["over_budget"]
    assert "hard budget" in applied.stderr
    assert total(shell.json("tiers")) == 0
    shell.configure(budget={})
    assert shell.json("tiers", "apply")["done"]["place"] >= len(TALK)
    cost = shell.json("cost")
    points = {one["name"]: one["quantity"] for one in cost["components"] if one["name"].startswith("vectors: ")}
    status = shell.json("tiers")
    held = {f"vectors: {tier['name']}": tier["points"] for tier in status["tiers"] if tier["points"]}
    assert held
    assert {name: points[name] for name in held} == held
    assert cost["usd_month"] > 0


def test_what_is_new_is_indexed_before_it_is_planned_or_placed(placed: Shell) -> None:
    source = placed.root / "graph.json"
    for name, command in (("mast", ("tiers", "plan")), ("boom", ("tiers", "apply"))):
        text = f'{{"type":"entity","name":"{name}","entityType":"spar","observations":["spruce, {name}"]}}\n'
        source.write_text(text)
        placed.done("import", str(source))
        told = placed.json(*command)
        assert sum(move["items"] for move in told.get("moves", ())) + told.get("done", {}).get("place", 0) >= 1
    assert placed.json("tiers", "plan")["moves"] == []


def test_what_was_deleted_is_proposed_as_a_saving(placed: Shell) -> None:
    placed.configure(cost={"vectors_usd_1k_month": {"historical": 100.0}})
    assert placed.json("cost", "optimize")["proposals"] == []
    source = placed.root / "memory.jsonl"
    source.write_text('{"type":"entity","name":"crane","entityType":"thing","observations":["lifts 40 t"]}')
    placed.done("import", str(source))
    placed.done("index", "--project", "all")
    assert placed.json("tiers", "apply")["done"] == {"place": 1}
    with open_app(load_settings(placed.home)) as app:
        app.graph.delete_entities(["crane"])
    placed.done("index", "--project", "all")
    (one,) = placed.json("cost", "optimize", "--region", "us-east-1")["proposals"]
    assert one["kind"] == "deleted items"
    moved = placed.json("sync")["tiers"]
    assert moved["done"] == {"remove": 1}, list(moved.items())


def test_a_small_device_places_what_it_knows(shell: Shell) -> None:
    phone = {"DUALMEM_DEVICE": "ios"}
    shell.done("tiers", "init", **phone)
    shell.done("tiers", "enable", "--yes", **phone)
    assert shell.json("tiers", "apply", **phone)["points_written"] >= len(TALK)
    found = shell.json("search", "how is the toll computed?", **phone)
    assert found["results"]


def test_after_a_revocation_points_are_made_anew_under_keys_that_the_device_does_not_know(placed: Shell) -> None:
    before = total(placed.json("tiers"))
    lost = {"DUALMEM_HOME": str(placed.root / "lost")}
    placed.done("join", str(placed.root / "bucket"), "--device-name", "lost", **lost)
    assert placed.json("tiers", "plan")["moves"] == []
    placed.done("revoke", "lost")
    planned = placed.json("tiers", "plan")
    assert {one["action"] for one in planned["moves"]} == {"renew"}
    assert sum(one["points"] for one in planned["moves"]) == before
    assert planned["points_after"] == planned["points_before"]
    synced = placed.json("sync")["tiers"]
    assert synced["points_written"] == synced["points_removed"] == before
    assert placed.json("tiers", "plan")["moves"] == []
    checked = placed.json("tiers", "check")
    assert (checked["points"], checked["mended"], checked["foreign"]) == (before, 0, 0)
    # Nothing is left under the key that the lost device knows.
    status = placed.json("tiers")
    assert (status["epochs"], total(status)) == (1, before)


def test_what_is_erased_goes_from_the_service(placed: Shell) -> None:
    handed = placed.json("handoff")
    placed.done("tiers", "apply")
    before = total(placed.json("tiers"))
    erased = placed.json("erase", handed["conversation_id"], "--yes")
    assert erased["warnings"] == []
    left = total(placed.json("tiers"))
    assert left < before / 10
    checked = placed.json("tiers", "check", "--dry-run")
    assert (checked["points"], checked["unwanted"], checked["foreign"]) == (left, 0, 0)


def test_what_is_erased_while_the_service_is_away_goes_with_the_next_sync(placed: Shell) -> None:
    handed = placed.json("handoff")
    placed.done("tiers", "apply")
    before = total(placed.json("tiers"))
    agree_to(placed, NOBODY)
    erased = placed.json("erase", handed["conversation_id"], "--yes", DUALMEM_QDRANT_URL=NOBODY)
    assert any("stay in the search service until the next run" in warning for warning in erased["warnings"])
    agree_to(placed, placed.environment["DUALMEM_QDRANT_URL"])
    placed.done("sync")
    left = total(placed.json("tiers"))
    assert left < before / 10
    assert placed.json("tiers", "check", "--dry-run")["points"] == left


def test_nothing_of_the_key_is_shown(placed: Shell) -> None:
    secret = {"DUALMEM_QDRANT_API_KEY": "wombat-7", "DUALMEM_QDRANT_URL": NOBODY}
    for command in (
        ("tiers",),
        ("tiers", "init"),
        ("tiers", "apply"),
        ("tiers", "check"),
        ("doctor",),
        ("status",),
    ):
        done = placed.run(*command, **secret)
        assert "wombat" not in f"{done.output}{done.exception!r}{getattr(done.exception, 'hint', '')}"
    code, told = placed.fails("tiers", "init", **{**secret, "DUALMEM_QDRANT_URL": "http://qdrant.example.org"})
    assert code == 2
    assert "https://" in told
    assert "wombat" not in told


def test_shards_and_replicas_are_those_given_else_those_set(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    from dualmem_mcp.tiers.tiers import Tiers

    asked: list[tuple[int, int]] = []

    def note(_: Tiers, cluster: Any) -> dict[str, Any]:
        asked.append((cluster.shards, cluster.replicas))
        return {"collections": [], "model": "m", "dimensions": 1}

    monkeypatch.setattr(Tiers, "init", note)  # the local mode has neither
    shell.done("tiers", "init")
    shell.configure(tiers={"shards": 3, "replicas": 2})
    shell.done("tiers", "init")
    shell.done("tiers", "init", "--shards", "6")
    assert asked == [(1, 1), (3, 2), (6, 2)]
    assert shell.run("tiers", "init", "--shards", "0").exit_code == 2
