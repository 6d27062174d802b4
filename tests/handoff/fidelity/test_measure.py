"""The fidelity of a handoff as it is reported."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualmem_mcp.errors import MalformedError
from dualmem_mcp.handoff.brief import build_brief, natural_budget
from dualmem_mcp.handoff.digest import build_digest
from dualmem_mcp.handoff.fidelity import measure_fidelity
from dualmem_mcp.handoff.fidelity.chance import Seen
from dualmem_mcp.handoff.fidelity.facts import FactReader
from dualmem_mcp.handoff.fidelity.measure import draws_of
from dualmem_mcp.handoff.fidelity.said import Passage, Said
from dualmem_mcp.model.conversation import Session
from dualmem_mcp.sample import write_sample_session
from dualmem_mcp.transcripts.claude_code import ClaudeCode, read_session
from tests.handoff.dialogue import Dialogue
from tests.handoff.fidelity.whole import whole_brief

KINDS = ("all", "requests", "files", "tests", "tasks", "agents", "last_request", "branch")


def sample(folder: Path) -> Session:
    write_sample_session(folder, cwd="/home/you/projects/tollgate")
    return read_session(next(iter(ClaudeCode(folder).sessions())).path)


def brief_of(session: Session, tokens: int | None = None) -> str:
    digest = build_digest(session)
    return build_brief(digest, token_budget=natural_budget(digest) if tokens is None else tokens).text


def measured(session: Session, brief: str) -> dict:
    return measure_fidelity(session, brief, device_brief=brief)


def test_what_is_reported_is_flat_or_one_level_deep(tmp_path: Path) -> None:
    session = sample(tmp_path)
    found = measure_fidelity(session, brief_of(session), device_brief=brief_of(session, 1_000))
    assert set(found) == {
        "probes_asked", "probes_held", "probes_held_on_device", "probes_missing", "probes_missing_on_device",
        "facts", "pointers",
    }  # fmt: skip
    for name in ("probes_asked", "probes_held", "probes_held_on_device"):
        assert tuple(found[name]) == KINDS
    assert set(found["facts"]) == {"known", "held", "random", "ratio"}
    assert set(found["pointers"]) == {"asked", "held", "random", "ratio", "near", "random_near"}
    assert found == json.loads(json.dumps(found))
    figures = [value for part in found.values() if isinstance(part, dict) for value in part.values()]
    assert all(value is None or round(value, 3) == value for value in figures)


def test_the_sample_session_is_kept_and_chance_keeps_less(tmp_path: Path) -> None:
    session = sample(tmp_path)
    found = measured(session, brief_of(session))
    assert found["probes_asked"]["all"] > 50
    assert found["probes_held"] == dict.fromkeys(KINDS, 1.0)
    assert found["facts"]["ratio"] > 1.5
    assert found["pointers"]["ratio"] > 1.5
    assert found["pointers"]["near"] > 3 * found["pointers"]["random_near"]


def test_a_smaller_brief_keeps_less_and_says_where_the_rest_stands(tmp_path: Path) -> None:
    session = sample(tmp_path)
    found = measure_fidelity(session, brief_of(session), device_brief=brief_of(session, 300))
    assert found["probes_held_on_device"]["all"] < 0.6 < found["probes_held"]["all"]
    assert found["probes_missing"] == []
    assert len(found["probes_missing_on_device"]) == 5
    uuids = {turn.uuid for turn in session.all_turns()}
    for example in found["probes_missing_on_device"]:
        kind, uuid = example.split(" ")
        assert kind in KINDS
        assert uuid in uuids


def test_an_empty_digest_scores_nothing(tmp_path: Path) -> None:
    found = measured(sample(tmp_path), "")
    assert found["probes_held"] == dict.fromkeys(KINDS, 0.0)
    assert (found["facts"]["held"], found["pointers"]["held"], found["pointers"]["near"]) == (0.0, 0.0, 0.0)


def test_the_whole_conversation_as_digest_scores_everything(tmp_path: Path) -> None:
    session = sample(tmp_path)
    found = measured(session, whole_brief(session))
    assert found["probes_held"] == dict.fromkeys(KINDS, 1.0)
    assert found["facts"] == {"known": found["facts"]["known"], "held": 1.0, "random": None, "ratio": None}
    assert found["pointers"]["random"] is None


def test_leaving_a_request_out_lowers_the_score(tmp_path: Path) -> None:
    session = sample(tmp_path)
    requests = Said(session).requests
    lost = [one for one in requests if sum(one.text == other.text for other in requests) == 1][1:4]
    found = measured(session, whole_brief(session, without=frozenset(one.uuid for one in lost)))
    assert found["probes_held"]["requests"] < 1.0
    assert {f"requests {one.uuid}" for one in lost} >= set(found["probes_missing"]) != set()


def test_what_judges_uses_no_code_of_what_is_judged() -> None:
    judged = ("dualmem_mcp.handoff.digest", "dualmem_mcp.handoff.brief", "dualmem_mcp.model.digest")
    script = (
        "import sys, dualmem_mcp.handoff.fidelity\n"
        f"print([name for name in sys.modules if name.startswith({judged!r})])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_shorter_a_digest_the_more_random_ones_it_is_compared_with() -> None:
    assert [draws_of(size) for size in (0, 4_000, 20_000, 30_000, 44_000, 10**7)] == [5, 5, 4, 3, 2, 2]


def test_the_same_input_gives_the_same_figures(tmp_path: Path) -> None:
    session = sample(tmp_path)
    brief = brief_of(session)
    assert measured(session, brief) == measured(session, brief)


def test_where_nothing_can_be_asked_stands_nothing() -> None:
    for session in (Dialogue().session(), Dialogue(branch="").session()):
        found = measured(session, brief_of(session))
        assert found["probes_asked"]["all"] == 0
        assert found["probes_held"] == dict.fromkeys(KINDS)
        assert found["facts"] == {"known": 0, "held": None, "random": None, "ratio": None}
        assert found["pointers"]["held"] is found["pointers"]["random"] is None


def test_a_conversation_of_one_short_request() -> None:
    dialogue = Dialogue()
    dialogue.user("hi")
    session = dialogue.session()
    found = measured(session, brief_of(session))
    assert found["probes_asked"]["all"] == 3
    assert found["probes_held"]["all"] == 1.0
    assert found["facts"]["held"] is found["pointers"]["held"] is None


TALK = {
    "german": (
        "Bitte stelle den Zähler in zähler.py auf {n} um, und zwar sofort",
        "Zähler {n} steht in Datei{n}.py, Zeile 1{n}.",
    ),
    "russian": (
        "Исправь ошибку номер {n} в разборе файла настроек",
        "Ошибка {n} была в config_{n}.py, строка 1{n}.",
    ),
    "chinese": (
        "请修复第{n}号错误，它出现在配置文件解析器里",
        "第{n}号错误在parser_{n}.py第1{n}行，已经修复完成。",
    ),
    "japanese": (
        "設定ファイルの解析にある{n}番の不具合を直してください",
        "{n}番の原因はparser_{n}.pyの1{n}行目にありました。",
    ),
    "arabic": (
        "أصلح الخطأ رقم {n} في محلل ملفات الإعدادات",
        "كان الخطأ {n} في config_{n}.py السطر 1{n} وقد أصلح.",
    ),
    "hindi": (
        "कृपया सेटिंग फ़ाइल के पार्सर में त्रुटि {n} ठीक करें",
        "त्रुटि {n} config_{n}.py की पंक्ति 1{n} में थी।",
    ),
}


@pytest.mark.parametrize("language", TALK)
def test_languages_other_than_english_are_measured_alike(language: str) -> None:
    asked, answered = TALK[language]
    dialogue = Dialogue()
    for number in range(10, 26):
        dialogue.user(asked.format(n=number))
        dialogue.bash("cat x", f"output {number} " * 30)
        dialogue.edit(f"src/config_{number}.py")
        dialogue.model(answered.format(n=number))
    session = dialogue.session()
    found = measured(session, brief_of(session))
    assert found["probes_asked"]["requests"] == 16
    assert found["probes_held"]["all"] == 1.0
    assert found["facts"]["known"] >= 16
    assert found["facts"]["held"] > 0.9
    assert found["pointers"]["asked"] >= 16
    assert found["pointers"]["held"] > 0.9


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["user", "model", "bash", "edit", "compact"]),
            st.text(max_size=60)
            | st.sampled_from(["<command-name>/x</command-name>", "[00000001] yes", "```", "- [x"]),
        ),
        max_size=12,
    ),
    st.text(max_size=200),
)
def test_no_conversation_and_no_digest_is_too_odd(acts: list[tuple[str, str]], other: str) -> None:
    dialogue = Dialogue()
    for act, text in acts:
        getattr(dialogue, act)(text)
    session = dialogue.session()
    for brief in (brief_of(session), other, f"## Where it stands\n{other}"):
        found = measure_fidelity(session, brief, device_brief=other)
        shares = [value for part in ("probes_held", "probes_held_on_device") for value in found[part].values()]
        shares += [found["facts"]["held"], found["pointers"]["held"], found["pointers"]["near"]]
        assert all(share is None or 0 <= share <= 1 for share in shares)


def test_real_sessions_are_kept_and_chance_keeps_less(shared_transcripts: Path) -> None:
    for entry in ClaudeCode(shared_transcripts / "claude").sessions():
        session = read_session(entry.path)
        found = measured(session, brief_of(session))
        assert found["probes_held"]["all"] >= 0.98, found["probes_missing"]
        if session.visible_tokens >= 20_000:
            assert found["facts"]["held"] > found["facts"]["random"]
            assert found["pointers"]["held"] > found["pointers"]["random"]
            assert found["pointers"]["near"] > found["pointers"]["random_near"] + 0.4


def test_the_whole_of_a_real_session_answers_all_but_what_is_in_no_turn(shared_transcripts: Path) -> None:
    for entry in ClaudeCode(shared_transcripts / "claude").sessions():
        session = read_session(entry.path)
        found = measured(session, whole_brief(session))
        assert found["probes_held"]["all"] == 1.0, found["probes_missing"]
        assert found["facts"]["held"] == 1.0


def test_edge_cases_are_measured(shared_transcripts: Path) -> None:
    measured_files = 0
    for path in sorted((shared_transcripts / "edge_cases").rglob("*.jsonl")):
        try:
            session = read_session(path)
        except MalformedError:
            continue
        json.dumps(measured(session, brief_of(session)))
        measured_files += 1
    assert measured_files > 20


def test_a_digest_holds_more_of_what_others_noted_than_chance_does(shared_transcripts: Path) -> None:
    sessions = {path.stem: path for path in (shared_transcripts / "claude").rglob("*.jsonl")}
    compared = 0
    for path in sorted((shared_transcripts / "gold").glob("*.json")):
        session = read_session(sessions[path.stem])
        brief = brief_of(session)
        reader = FactReader()
        notes = re.findall(r'"((?:[^"\\]|\\.)*)"', path.read_text("utf-8"))
        noted = reader.weigh([Passage(text, at, "model") for at, text in enumerate(notes)])
        lines = [Seen(Said(session).turns).draw(len(brief), str(draw)) for draw in range(5)]
        by_chance = [reader.coverage(noted, "\n".join(line.text for line in drawn)) for drawn in lines]
        assert reader.coverage(noted, brief) > fmean(by_chance)
        compared += 1
    assert compared
