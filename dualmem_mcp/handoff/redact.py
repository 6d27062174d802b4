"""Secrets taken out of what leaves a session in digests, briefs and indexes; found by detect-secrets' detectors.

The detectors are those of detect-secrets that look for a known form, its keyword detector, and its base64
entropy detector made stricter. Left out are its hexadecimal entropy detector and its public IP detector: in
sessions about code they fire on commit hashes, checksums and addresses. A few forms it lacks are added.
Nothing is ever sent anywhere: the detectors' verification is not used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Any, NamedTuple

# Words and beginnings without which no detector below can match; a text is scanned only around them. The plain
# ones are looked for first: that is ten times as fast, and most texts hold none.
_PLAIN_TRIGGERS = (
    "key", "pass", "pwd", "secret", "token", "credential", "contrase", "bearer", "authorization", "softlayer",
    "cloudant", "@", "a3t", "abia", "acca", "akia", "asia", "akc", "ghp_", "gho_", "ghu_", "ghs_", "ghr_",
    "github_pat_", "glpat-", "gldt-", "glft-", "glsoat-", "glrt-", "xox", "hooks.slack", "sk-", "sk_",
    "rk_live", "eyj", "npm_", "pypi-", "sg.", "sq0csp", "-us", "aiza", "hf_",
)  # fmt: skip
# Each with a part of it that is found fast: it begins with one certain character.
_RARE = tuple(
    (re.compile(part), re.compile(whole))
    for part, whole in (
        (r"AP", r"\bAP[\dA-F][A-Za-z0-9]{8}"),
        (r":[\w-]{35}", r"\b\d{8,10}:[\w-]{35}"),
        (r"\.[\w-]{6}\.", r"\b[MNO][\w-]{23,25}\.[\w-]{6}\."),
        (r"AC[a-z0-9]{30}", r"AC[a-z0-9]{30}"),
        (r"SK[a-z0-9]{30}", r"SK[a-z0-9]{30}"),
        (r"\"[A-Za-z0-9+/=_-]{24,}[\"']", r"[\"'][A-Za-z0-9+/=_-]{24,}[\"']"),
        (r"'[A-Za-z0-9+/=_-]{24,}[\"']", r"[\"'][A-Za-z0-9+/=_-]{24,}[\"']"),
    )
)
_SHORTEST_RARE = 11
_RARE_TRIGGER = "|".join(dict.fromkeys(whole.pattern for _, whole in _RARE))
_TRIGGER = re.compile(
    r"(?i:key|pass|pwd|secret|token|credential|contrase|bearer|authorization|softlayer|cloudant)"
    r"|://[^\s/@]{1,200}@|A3T|ABIA|ACCA|AKIA|ASIA|AKC|gh[pousr]_|github_pat_|gl(?:pat|dt|ft|soat|rt)-|xox[abeposr]-"
    rf"|hooks\.slack|sk[-_]|rk_live|eyJ|npm_|pypi-|SG\.|sq0csp|-us\d|AIza|hf_|{_RARE_TRIGGER}"
)
_PASSWORD_IN_URL = re.compile(r"://[^\s/@]{1,200}@")
_WINDOW = 400
"""Characters looked at on each side of a trigger, within its line; what reaches beyond is taken whole."""

# What detectors need to match at all: a long run of characters, the keyword detector a telling name and a quote.
_KEY_RUN = re.compile(r"[A-Za-z0-9_+/=-]{20}")
_LONG_RUN = re.compile(r"[A-Za-z0-9_-]{24}")
_NEEDED_RUN = {
    "Artifactory token": 0, "bearer token": 0, "JSON web token": 0, "npm token": 0, "password in a URL": 0,
    "password or key": 0, "Slack token": 0, "IBM Cloud key": 24, "SoftLayer key": 24, "Cloudant key": 24,
}  # fmt: skip
_USUAL_RUN = 20
_NAMES = ("key", "pass", "pwd", "secret", "contrase")
_QUOTES = ('"', "'", "`")
_RUN = re.compile(r"[A-Za-z0-9_+/=~-]*(?:\.[A-Za-z0-9_+/=~-]{8,})*")

_PRIVATE_KEY_BLOCK = re.compile(
    r"-----BEGIN (?P<kind>[A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?)-----.*?(?:-----END (?P=kind)-----|\Z)", re.DOTALL
)

# Forms that detect-secrets 1.5 lacks, each with small letters that stand in all it matches. Source: the issuers'
# documentation of their key formats.
_FURTHER: tuple[tuple[str, tuple[str, ...], re.Pattern[str]], ...] = (
    ("Anthropic key", ("sk-ant-",), re.compile(r"\bsk-ant-[A-Za-z0-9_-]{20,}")),
    ("OpenAI key", ("sk-",), re.compile(r"\bsk-(?:proj-|svcacct-|admin-)?[A-Za-z0-9_-]{32,}")),
    ("GitHub token", ("github_pat_",), re.compile(r"\bgithub_pat_[A-Za-z0-9_]{22,}")),
    ("Google API key", ("aiza",), re.compile(r"\bAIza[A-Za-z0-9_-]{35}")),
    ("Hugging Face token", ("hf_",), re.compile(r"\bhf_[A-Za-z0-9]{30,}")),
    ("npm token", ("npm_",), re.compile(r"\bnpm_[A-Za-z0-9]{36}")),
    ("Slack token", ("xox",), re.compile(r"\bxox[abeposr]-[A-Za-z0-9-]{10,}")),
    (
        "bearer token",
        ("bearer", "authorization"),
        re.compile(r"(?i:\bbearer\s+|authorization:\s*(?:basic|token)\s+)(?P<secret>[A-Za-z0-9._~+/=-]{16,})"),
    ),
    (
        "password or key",
        ("secret", "token", "passw", "key", "credential"),
        re.compile(
            # What stands before the telling word is left out: it says nothing, and going back over it costs
            # the square of a long name.
            r"(?i:(?:secret|token|password|passwd|api_?key|access_?key|private_?key|auth_?key|"
            r"credential)[\w-]*)[\"']?\s*(?:=|:)\s*"
            r"(?P<secret>[^\s\"'`,;<>()\[\]{}$|&]{8,})"
        ),
    ),
    (
        "password or key",
        ("-password", "-token", "-secret", "-api"),
        re.compile(
            r"(?i:--?(?:password|token|secret|api-?key)[= ])[\"']?(?P<secret>[^\s\"'`$<>{}()-][^\s\"'`$<>{}()]{7,})"
        ),
    ),
)

# Values that stand for a secret: a word of this kind, with nothing but words after it.
_PLACEHOLDER = re.compile(
    r"(?:(?:your|example|sample|dummy|fake|change|replace|insert|placeholder|redacted|hidden|undefined|required|optional|"
    r"process\.env|os\.environ|env|config|settings|self|this)(?:[-_.\s]?[A-Za-z]+)*|"
    r"none|null|true|false|string|number|object|boolean|password|passwd|secret|token|value|test|my[-_]\w+|x{3,}|\*{3,}|\.{3,})",
    re.IGNORECASE,
)
_PATH_LIKE = re.compile(r"(?:\.{0,2}/)?[\w.@-]+(?:/[\w.@-]+)+|[\w-]+\.[a-z]{1,5}(?::\d+)?")
_HEX = re.compile(r"[0-9a-fA-F-]+")
_WORDLIKE = re.compile(r"[a-z]{6,}|[A-Z][a-z]{3,}[A-Z][a-z]{3,}|_[a-z]{3,}_")


class _Hit(NamedTuple):
    start: int
    end: int
    label: str


class _Detectors(NamedTuple):
    forms: tuple[tuple[str, re.Pattern[str]], ...]
    keyword: Any
    entropy: Any
    is_noise: Any


@cache
def _detectors() -> _Detectors:
    """The detectors, imported when the first suspicious line is met (0.1 to 0.2 s)."""
    from detect_secrets.filters import heuristic  # noqa: PLC0415
    from detect_secrets.plugins import (  # noqa: PLC0415
        artifactory,
        aws,
        azure_storage_key,
        basic_auth,
        cloudant,
        discord,
        github_token,
        gitlab_token,
        ibm_cloud_iam,
        ibm_cos_hmac,
        jwt,
        mailchimp,
        npm,
        openai,
        pypi_token,
        sendgrid,
        slack,
        softlayer,
        square_oauth,
        stripe,
        telegram_token,
        twilio,
    )  # fmt: skip
    from detect_secrets.plugins.high_entropy_strings import Base64HighEntropyString  # noqa: PLC0415
    from detect_secrets.plugins.keyword import KeywordDetector  # noqa: PLC0415

    named = (
        ("Artifactory token", artifactory.ArtifactoryDetector),
        ("AWS access key", aws.AWSKeyDetector),
        ("Azure storage key", azure_storage_key.AzureStorageKeyDetector),
        ("password in a URL", basic_auth.BasicAuthDetector),
        ("Cloudant key", cloudant.CloudantDetector),
        ("Discord token", discord.DiscordBotTokenDetector),
        ("GitHub token", github_token.GitHubTokenDetector),
        ("GitLab token", gitlab_token.GitLabTokenDetector),
        ("IBM Cloud key", ibm_cloud_iam.IbmCloudIamDetector),
        ("IBM Cloud key", ibm_cos_hmac.IbmCosHmacDetector),
        ("JSON web token", jwt.JwtTokenDetector),
        ("Mailchimp key", mailchimp.MailchimpDetector),
        ("npm token", npm.NpmDetector),
        ("OpenAI key", openai.OpenAIDetector),
        ("PyPI token", pypi_token.PypiTokenDetector),
        ("SendGrid key", sendgrid.SendGridDetector),
        ("Slack token", slack.SlackDetector),
        ("SoftLayer key", softlayer.SoftlayerDetector),
        ("Square token", square_oauth.SquareOAuthDetector),
        ("Stripe key", stripe.StripeDetector),
        ("Telegram token", telegram_token.TelegramBotTokenDetector),
        ("Twilio key", twilio.TwilioKeyDetector),
    )

    def is_noise(secret: str) -> bool:
        return bool(
            heuristic.is_sequential_string(secret)
            or heuristic.is_potential_uuid(secret)
            or heuristic.is_templated_secret(secret)
            or heuristic.is_prefixed_with_dollar_sign(secret)
            or heuristic.is_not_alphanumeric_string(secret)
        )

    return _Detectors(
        forms=tuple((label, form) for label, plugin in named for form in plugin.denylist),
        keyword=KeywordDetector(),
        entropy=Base64HighEntropyString(limit=4.5),
        is_noise=is_noise,
    )


def redact(text: str) -> str:
    """The text with every secret found in it replaced by its kind, as in `[redacted: AWS access key]`."""
    if "PRIVATE KEY" in text:
        text = _PRIVATE_KEY_BLOCK.sub("[redacted: private key]", text)
    if not is_suspicious(text):
        return text
    return redact_again(text) if len(text) <= _REMEMBERED_CHARACTERS else _redact_suspicious(text)


def _redact_suspicious(text: str) -> str:
    hits = sorted(_hits(text))
    if not hits:
        return text
    parts: list[str] = []
    at = 0
    for hit in hits:
        if hit.start >= at:
            parts += [text[at : hit.start], f"[redacted: {hit.label}]"]
            at = _end_of_run(text, hit.end)
        else:
            at = max(at, hit.end)
    return "".join(parts) + text[at:]


# In a running server a conversation is handed over again and again, each time a little longer; what was scanned
# before need not be scanned anew. Bounded to some tens of megabytes.
_REMEMBERED_CHARACTERS = 8_000
redact_again = lru_cache(maxsize=4_096)(_redact_suspicious)


def _end_of_run(text: str, end: int) -> int:
    """Where a secret's characters really end: detectors and the window may stop in the middle of a long one."""
    if text[end - 1 : end].isalnum() or text[end - 1 : end] in "_+/=~-.":
        run = _RUN.match(text, end)
        return run.end() if run else end
    return end


def is_suspicious(text: str) -> bool:
    """Whether a text holds any word or beginning without which no detector can match."""
    lowered = text.lower()
    for word in _PLAIN_TRIGGERS:  # `any` takes twice as long, and this is asked of every text of a conversation
        if word in lowered:
            return True
    if len(text) < _SHORTEST_RARE:
        return False
    return any(part.search(text) and whole.search(text) for part, whole in _RARE)


def _hits(text: str) -> Iterator[_Hit]:
    end = -1
    for trigger_start, trigger_end in sorted(_triggers(text)):
        if trigger_end <= end:
            continue
        line_start, line_end = text.rfind("\n", 0, trigger_start) + 1, text.find("\n", trigger_end)
        start = max(line_start, trigger_start - _WINDOW)
        end = min(len(text) if line_end < 0 else line_end, trigger_end + _WINDOW)
        yield from _hits_in_line(text, start, end)


def _triggers(text: str) -> Iterator[tuple[int, int]]:
    """Where each trigger begins and ends, in any order: all that the pattern finds, in a tenth of its time."""
    lowered = text.lower()
    if len(lowered) != len(text):  # a few capitals become two letters: what is found would be elsewhere
        yield from (match.span() for match in _TRIGGER.finditer(text))
        return
    for word in _PLAIN_TRIGGERS:
        at = lowered.find(word)
        while at >= 0:
            if found := _TRIGGER.match(text, at):
                yield found.span()
            at = lowered.find(word, at + 1)
    yield from (match.span() for match in _PASSWORD_IN_URL.finditer(text))
    for part, whole in _RARE:
        if part.search(text):
            yield from (match.span() for match in whole.finditer(text))


def _hits_in_line(text: str, start: int, end: int) -> Iterator[_Hit]:
    detectors = _detectors()
    line = text[start:end]
    lowered = line.lower()
    named = any(quote in line for quote in _QUOTES) and any(name in lowered for name in _NAMES)
    run = _longest_run(line)
    yield from _hits_of_known_forms(line, start, run)
    for label, parts, form in _FURTHER:
        if _NEEDED_RUN.get(label, _USUAL_RUN) > run or not any(part in lowered for part in parts):
            continue
        for match in form.finditer(line):
            name = "secret" if "secret" in form.groupindex else 0
            if name == 0 or _is_likely(match["secret"], detectors):
                yield _Hit(start + match.start(name), start + match.end(name), label)
    for secret in detectors.keyword.analyze_string(line) if named else ():
        at = line.find(secret)
        if at >= 0 and _is_likely_quoted(secret, detectors):
            yield _Hit(start + at, start + at + len(secret), "password or key")
    for match in detectors.entropy.regex.finditer(line):
        secret = match[2]
        if (
            _is_random(secret)
            and detectors.entropy.calculate_shannon_entropy(secret) > detectors.entropy.entropy_limit
        ):
            yield _Hit(start + match.start(2), start + match.end(2), "random string")


def _hits_of_known_forms(line: str, start: int, run: int) -> Iterator[_Hit]:
    for label, form in _detectors().forms:
        if _NEEDED_RUN.get(label, _USUAL_RUN) > run:
            continue
        for match in form.finditer(line):
            begin, finish = _span(match)
            secret = line[begin:finish]
            if not _is_known_noise(label, secret):
                yield _Hit(start + begin, start + finish, label)


def _longest_run(line: str) -> int:
    """How long a run of a key's characters the line holds, as far as it matters: 24, 20 or 0."""
    if not _KEY_RUN.search(line):
        return 0
    return 24 if _LONG_RUN.search(line) else _USUAL_RUN


def _span(match: re.Match[str]) -> tuple[int, int]:
    """Where the secret itself lies in a match: its last group where that reaches the end, else the whole."""
    for group in range(match.re.groups, 0, -1):
        if match[group] and match.end(group) >= match.end() - 1:
            return match.span(group)
    return match.span()


def _is_known_noise(label: str, secret: str) -> bool:
    if label == "password in a URL":
        return bool(_PLACEHOLDER.fullmatch(secret)) or secret.startswith(("$", "<", "["))
    # Ordinary words that begin like the token: APCACHE…, a hash that begins with AC.
    return label in ("Artifactory token", "Twilio key") and not any(char.isdigit() for char in secret)


def _is_likely(secret: str, detectors: _Detectors) -> bool:
    """Whether an unquoted value after a telling name is a secret rather than code, a path or a placeholder."""
    secret = secret.rstrip(".:!?)")
    kinds = sum((any(map(str.islower, secret)), any(map(str.isupper, secret)), any(map(str.isdigit, secret))))
    if len(secret) < 8 or kinds < 2 or not any(map(str.isdigit, secret)):
        return False
    if _PLACEHOLDER.fullmatch(secret) or _is_path(secret) or ("." in secret[1:-1] and _WORDLIKE.search(secret)):
        return False
    return not detectors.is_noise(secret)


def _is_likely_quoted(secret: str, detectors: _Detectors) -> bool:
    """Whether a quoted value after a telling name is a secret rather than a placeholder, a sentence or code."""
    if len(secret) < 6 or secret.count(" ") > 1 or any(char in secret for char in "(){}<>\\\n"):
        return False
    if _PLACEHOLDER.fullmatch(secret) or _is_path(secret):
        return False
    return not detectors.is_noise(secret)


def _is_path(secret: str) -> bool:
    """Whether a value reads as a path or file name; a key may hold slashes, but mixes letters and digits too."""
    if not _PATH_LIKE.fullmatch(secret):
        return False
    mixed = all(any(map(kind, secret)) for kind in (str.islower, str.isupper, str.isdigit))
    return secret.startswith(("/", ".", "~")) or "." in secret or not mixed


def _is_random(secret: str) -> bool:
    """Whether a quoted string of base64 characters looks made by chance: no path, name, hash or words."""
    if (
        len(secret) < 24
        or _HEX.fullmatch(secret)
        or _WORDLIKE.search(secret)
        or secret.count("/") > len(secret) / 12
    ):
        return False
    digits = sum(map(str.isdigit, secret))
    return digits >= 2 and any(map(str.isupper, secret)) and any(map(str.islower, secret))
