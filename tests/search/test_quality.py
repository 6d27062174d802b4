"""Search as a whole, asked the questions of a held-out dialogue: it must not find less than it once did.

The bounds are far below what it finds (`docs/ranking.md`), so that only a change for the worse fails here.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dualmem_mcp.app import App, open_app
from dualmem_mcp.settings import load_settings

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "benchmarks"))


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> Iterator[tuple[App, list[dict]]]:
    """A data home with one dialogue, and the questions about it that have evidence."""
    from retrieval_data import load_locomo, write_turns_file

    place = tmp_path_factory.mktemp("quality")
    dialogue = ROOT / "benchmarks" / "data" / "held_out" / "atelier.json"
    dataset = load_locomo(dialogue)
    write_turns_file(dataset, place / "turns.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("KEYSTORE", "file"), ("MODEL_DIR", str(model_dir)), ("BUCKET", str(place / "bucket"))):
            patch.setenv(f"DUALMEM_{name}", value)
        patch.setenv("CLAUDE_CONFIG_DIR", str(place / "claude"))
        with open_app(load_settings(place / "home")) as app:
            imported = app.import_file(place / "turns.jsonl")
            assert (imported["turns"], imported["skipped"]) == (398, 0)
            yield (
                app,
                json.loads((ROOT / "benchmarks/data/held_out/atelier.json").read_text(encoding="utf-8"))[0]["qa"],
            )


def recall(app: App, questions: list[dict]) -> float:
    """Share of the evidence among ten results, averaged over the questions."""
    shares = []
    for question in questions:
        found = app.local_edge.search(question["question"], conversation_id="atelier", limit=10)
        turns = {result["turn_id"] for result in found["results"]}
        assert not found["partial"], found["warnings"]
        assert len(found["results"]) == 10
        shares.append(len(turns & set(question["evidence"])) / len(set(question["evidence"])))
    return sum(shares) / len(shares)


def test_what_was_said_is_found(asked: tuple[App, list[dict]]) -> None:
    app, questions = asked
    assert recall(app, [question for question in questions if question["category"] != 5]) >= 0.70


def test_what_was_said_by_the_other_person_is_found_too(asked: tuple[App, list[dict]]) -> None:
    app, questions = asked
    assert recall(app, [question for question in questions if question["category"] == 5]) >= 0.80
