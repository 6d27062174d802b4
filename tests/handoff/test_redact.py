"""Secrets are taken out; hashes, paths and prose stay."""

from __future__ import annotations

import base64
import random
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp.handoff.brief.sections import SECTIONS, whole_section
from dualmem_mcp.handoff.digest import build_digest
from dualmem_mcp.handoff.redact import _FURTHER, _TRIGGER, _triggers, is_suspicious, redact
from tests.handoff.dialogue import CWD, Dialogue, agent

_CHANCE = random.Random(20260301)


def _made(length: int, alphabet: str = string.ascii_letters + string.digits) -> str:
    """A value of the right form that was never valid anywhere; made here so that no scanner minds this file."""
    return "".join(_CHANCE.choice(alphabet) for _ in range(length))


_UPPER = string.ascii_uppercase + string.digits
_HEX = "0123456789abcdef"

SECRETS = {
    "AWS access key": "AKIA" + _made(16, _UPPER),
    "GitHub token": "ghp_" + _made(36),
    "GitHub fine-grained": "github_pat_" + _made(60),
    "GitLab token": "glpat-" + _made(20),
    "Slack token": "xoxb-123456789012-123456789012-" + _made(24),
    "Slack hook": "https://hooks.slack.com/services/T"
    + _made(8, _UPPER)
    + "/B"
    + _made(8, _UPPER)
    + "/"
    + _made(24),
    "Stripe key": "sk_live_" + _made(24),
    "Anthropic key": "sk-ant-api03-" + _made(40),
    "OpenAI key": "sk-proj-" + _made(48),
    "Google key": "AIza" + _made(35),
    "npm token": "npm_" + _made(36),
    "PyPI token": "pypi-AgEIcHlwaS5vcmc" + _made(80),
    "SendGrid key": "SG." + _made(22) + "." + _made(43),
    "Twilio key": "SK" + _made(32, _HEX),
    "Telegram token": "123456789:" + _made(35),
    "Discord token": "M" + _made(23) + "." + _made(6) + "." + _made(27),
    "Mailchimp key": _made(32, _HEX) + "-us12",
    "Azure key": "AccountKey=" + _made(86) + "==",
    "Artifactory token": "AKC" + _made(20),
    "Hugging Face": "hf_" + _made(34),
    "web token": ".".join(
        base64.urlsafe_b64encode(part.encode()).decode().rstrip("=")
        for part in ('{"alg":"HS256","typ":"JWT"}', '{"sub":"1234567890"}', _made(30))
    ),
}


@pytest.mark.parametrize("kind", SECRETS)
def test_known_forms_are_redacted_wherever_they_stand(kind: str) -> None:
    secret = SECRETS[kind]
    for text in (f"use {secret} here", f"key={secret}", f'{{"value": "{secret}"}}', f"a\n{secret}\nb"):
        shown = redact(text)
        assert secret not in shown
        assert secret[len(secret) // 2 :] not in shown
        assert "[redacted: " in shown


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ('password = "hunter2hunter"', "hunter2hunter"),
        ("export DB_PASSWORD=s3cr3tPass99", "s3cr3tPass99"),
        ("AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYzzzzzzKEY9", "wJalrXUtnFEMI"),
        ("api_key: 'a8f5f167f44f4964e6c998dee827110c'", "a8f5f167f44f4964e6c998dee827110c"),
        ("curl -H 'Authorization: Bearer f3a9c1d7e5b2486190ad'", "f3a9c1d7e5b2486190ad"),
        ("postgres://ada:engine1843@db.test/x", "engine1843"),
        ("mysql --password=Zx81spectrum", "Zx81spectrum"),
        ('"client_secret": "Qm9vdHMgYW5kIGNhdHMgMTIz"', "Qm9vdHMgYW5kIGNhdHMgMTIz"),
        ("//registry.test/:_authToken=npm_" + "a1B2" * 9, "a1B2a1B2"),
    ],
)
def test_values_with_a_telling_name_are_redacted(text: str, secret: str) -> None:
    shown = redact(text)
    assert secret not in shown
    assert "[redacted: " in shown


def test_a_private_key_goes_whole() -> None:
    key = (
        "-----BEGIN RSA PRIVATE KEY-----\n"
        + "\n".join(_made(64) for _ in range(5))
        + "\n-----END RSA PRIVATE KEY-----"
    )
    assert redact(f"before\n{key}\nafter") == "before\n[redacted: private key]\nafter"
    assert redact(key[:200]) == "[redacted: private key]"


@pytest.mark.parametrize(
    "text",
    [
        "commit 9fceb02d0ae598e95dc970b74767f19372d61af8",
        'the object "e53647ba1f1e5203bedff558b482f178db045555" is missing',
        "session 5f0c1d2e-7a3e-4f0e-9a53-2c1d5f1b7a10",
        "sha256:53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        'import "github.com/ada/engine/internal/storage/manual_commit_hooks"',
        "func TestShadowStrategy_ListAllSessionStates_CleansUpStaleSessions(t *testing.T)",
        '"/Users/ada/workspace/engine/.worktrees/alex/test-explain-checkpoint-boundaries"',
        "token_count = estimate_tokens(text)",
        "password = os.environ['DB_PASSWORD']",
        'api_key = "<your key>"',
        "secret: ${{ secrets.DEPLOY_KEY }}",
        "the password must have at least 12 characters",
        "set the token in settings.json, key: value",
        "see https://tracker.test/ENG-42/replace-the-token-store-with-a-real-one",
        "TOKEN_LIMIT=25000",
        "primary_key=True, foreign_key=None",
        "keyboard: passes 3 of 5, tokens 1,234",
        "toolu_01VSr5mXCszZAD7CsFZSvzPM called Bash",
        "git@github.com:ada/engine.git",
    ],
)
def test_hashes_paths_names_and_prose_stay(text: str) -> None:
    assert redact(text) == text


def test_a_secret_longer_than_the_window_goes_whole() -> None:
    header = base64.urlsafe_b64encode(b'{"alg":"RS256"}').decode().rstrip("=")
    parts = [header, "eyJ" + _made(900), _made(700)]
    assert (
        redact(f"cookie: session={'.'.join(parts)}; path=/") == "cookie: session=[redacted: JSON web token]; path=/"
    )
    assert redact(f"x {'.'.join(parts)}.") in ("x [redacted: JSON web token].", "x [redacted: JSON web token]")


def test_a_digest_holds_no_secret_of_its_session_in_any_section() -> None:
    secrets = {name: "ghp_" + _made(36) for name in "abcdefghijklm"}
    dialogue = Dialogue()
    dialogue.user(f"use {secrets['a']} for the first call")
    dialogue.model(f"The root cause is the token {secrets['b']} in `a.py`, because it expired.")
    dialogue.bash(f"curl -d x https://api.test?token={secrets['c']}", f"ok\n{secrets['d']}")
    dialogue.bash("make", f"Exit code 2\nfatal: denied for {secrets['e']} error", error=True)
    dialogue.tool("mcp__mail__send_note", {"title": f"key {secrets['f']}"}, f"sent {secrets['g']}")
    dialogue.tool("Write", {"file_path": f"{CWD}/a.env", "content": f"X={secrets['h']}"})
    dialogue.compact(f"Summary:\n1. Pending Tasks: rotate {secrets['i']}")
    asked = {"questions": [{"question": "Which key?"}]}
    dialogue.tool("AskUserQuestion", asked, "answered", detail={"answers": {"Which key?": secrets["l"]}})
    dialogue.user("go on")
    dialogue.call("Bash", {"command": f"deploy {secrets['j']}"})
    session = dialogue.session(
        agents=(
            agent(
                0, "deploy", result=f"used {secrets['k']}", edited_files=((f"{CWD}/{secrets['m']}.env", "Write"),)
            ),
        ),
        title=f"token {secrets['a']}",
    )
    digest = build_digest(session, summary=secrets["a"], next_steps=[secrets["b"]], decisions=[secrets["c"]])
    written = repr(digest) + "\n".join("\n".join(whole_section(digest, name)) for name in SECTIONS)
    assert not [name for name, secret in secrets.items() if secret in written or secret[:12] in written]


def test_keys_are_redacted_before_anything_is_cut() -> None:
    secret = "ghp_" + _made(36)
    dialogue = Dialogue()
    dialogue.user("run it")
    # The command is shown to 140 characters, which ends in the middle of the key.
    dialogue.bash("make " + "x" * 115 + " " + secret, "done")
    digest = build_digest(dialogue.session())
    assert "ghp_" not in repr(digest)


def test_long_names_without_a_value_take_little_time() -> None:
    text = "sk-" * 40_000 + " password=h7Gx09qLmZ2 " + "eyJa." * 10_000
    assert "h7Gx09qLmZ2" not in redact(text)


@given(st.from_regex(_TRIGGER))
def test_a_text_that_a_detector_could_fire_on_is_suspicious(text: str) -> None:
    assert is_suspicious(text)


_FRAGMENTS = st.sampled_from([
    *SECRETS.values(), "password=", "token: ", "'", '"', "\n", " ", "key", "https://a:", "@host/", "İ", "sk_", "= ",
    "src/def.py", "x" * 390, "y" * 420, "Bearer ", '{"apiKey": "', "AP", "C", "1234567890:",
])  # fmt: skip


@given(st.lists(_FRAGMENTS, max_size=8).map("".join))
def test_every_trigger_is_found_where_it_stands(text: str) -> None:
    assert {match.span() for match in _TRIGGER.finditer(text)} <= set(_triggers(text))
    assert all(_TRIGGER.match(text, start) for start, _ in _triggers(text))


@given(st.sampled_from(_FURTHER).flatmap(lambda one: st.tuples(st.just(one[1]), st.from_regex(one[2]))))
def test_what_a_form_matches_holds_its_parts(given: tuple[tuple[str, ...], str]) -> None:
    parts, text = given
    assert any(part in text.lower() for part in parts)
