"""Settings: what wins over what, and how a setting that does not fit is named."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from dualmem_mcp.config_file import CONFIG_FILE, TierSettings, save_config
from dualmem_mcp.errors import DiskFullError, LockedError, UsageError
from dualmem_mcp.model.index_scope import IndexScope
from dualmem_mcp.model.sync_timing import SyncTiming
from dualmem_mcp.settings import load_hosted_settings, load_settings

VARIABLES = (
    "DUALMEM_HOME",
    "DUALMEM_BUCKET",
    "DUALMEM_PASSPHRASE",
    "DUALMEM_PASSPHRASE_FILE",
    "DUALMEM_DEVICE",
    "DUALMEM_KEYSTORE",
    "DUALMEM_QDRANT_URL",
    "DUALMEM_QDRANT_API_KEY",
    "MEMORY_FILE_PATH",
    "CLAUDE_CONFIG_DIR",
    "CLAUDE_CODE_SESSION_ID",
    "CLAUDE_PROJECT_DIR",
)


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def write_config(home: Path, document: object) -> None:
    home.mkdir(parents=True, exist_ok=True)
    (home / CONFIG_FILE).write_text(json.dumps(document), encoding="utf-8")


def test_defaults(tmp_path: Path) -> None:
    settings = load_settings(tmp_path / "home")
    assert settings.home == tmp_path / "home"
    assert settings.bucket == str(tmp_path / "home-bucket")
    assert settings.profile.name == "desktop"
    assert settings.memory_file is None
    assert settings.claude_dir == Path.home() / ".claude"
    assert settings.read_passphrase() is None


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_config(tmp_path, {"bucket": "s3://from-file/x", "device": "ios", "device_name": "mine", "unknown": 1})
    assert load_settings(tmp_path).bucket == "s3://from-file/x"
    assert load_settings(tmp_path).profile.name == "ios"
    monkeypatch.setenv("DUALMEM_BUCKET", "s3://from-env/y")
    monkeypatch.setenv("DUALMEM_DEVICE", "android")
    settings = load_settings(tmp_path)
    assert (settings.bucket, settings.profile.name, settings.device_name) == ("s3://from-env/y", "android", "mine")
    assert load_settings(tmp_path, bucket="s3://given/z").bucket == "s3://given/z"


def test_empty_variables_count_as_unset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("DUALMEM_HOME", str(tmp_path))
    assert load_settings().profile.name == "desktop"


def test_folders_are_taken_from_where_they_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_config(tmp_path / "home", {"bucket": "../shared-bucket"})
    assert load_settings(tmp_path / "home").bucket == str(tmp_path / "shared-bucket")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load_settings(tmp_path / "home", bucket="b").bucket == str(tmp_path / "elsewhere" / "b")


def test_profiles_can_be_set_and_added(tmp_path: Path) -> None:
    write_config(tmp_path, {"profiles": {"desktop": {"context_tokens": 30_000}, "watch": {"context_tokens": 500}}})
    settings = load_settings(tmp_path)
    assert settings.profile.context_tokens == 30_000
    assert settings.profile_for("watch").context_tokens == 500
    assert settings.profile_for("ios").context_tokens == 4_000
    with pytest.raises(UsageError, match="no device profile 'toaster'"):
        settings.profile_for("toaster")


def test_the_mirror_is_off_unless_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_config(tmp_path, {"mirror": True})
    assert load_settings(tmp_path).memory_file == tmp_path / "memory.json"
    monkeypatch.setenv("MEMORY_FILE_PATH", "graph.jsonl")
    assert load_settings(tmp_path).memory_file == tmp_path / "graph.jsonl"
    monkeypatch.setenv("MEMORY_FILE_PATH", str(tmp_path / "a" / "b.jsonl"))
    assert load_settings(tmp_path).memory_file == tmp_path / "a" / "b.jsonl"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[1]", "must hold a JSON object"),
        ('{"bucket": 3}', "bucket"),
        ('{"profiles": {"ios": {"context_tokens": 5}}}', "profiles.ios.context_tokens"),
        ('{"keystore": "shelf"}', "keystore"),
        (r'{"bucket": "a\u0000b"}', "no folder can be called"),
        (r'{"protected_root": "a\u0000b"}', "no folder can be called"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_a_config_that_does_not_fit_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / CONFIG_FILE).write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=message) as caught:
        load_settings(tmp_path)
    assert caught.value.hint


def test_a_config_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / CONFIG_FILE).write_bytes(b"\xff\xfe{\x00}\x00")
    with pytest.raises(UsageError, match="not UTF-8"):
        load_settings(tmp_path)


def test_a_config_that_is_no_file_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / CONFIG_FILE)
    with pytest.raises(UsageError, match="cannot be read: not a file"):
        load_settings(tmp_path)


def test_saving_keeps_other_fields(tmp_path: Path) -> None:
    write_config(tmp_path, {"state": {"mood": 0.25}, "somebody_elses": [1, 2]})
    save_config(tmp_path, {"bucket": "s3://b/p"})
    document = json.loads((tmp_path / CONFIG_FILE).read_text(encoding="utf-8"))
    assert document == {"state": {"mood": 0.25}, "somebody_elses": [1, 2], "bucket": "s3://b/p"}
    assert (tmp_path / CONFIG_FILE).stat().st_mode & 0o777 == 0o600


def test_a_folder_whose_name_is_no_text_is_saved_and_found_again(tmp_path: Path) -> None:
    """As every name outside ASCII is in the C locale."""
    folder = os.fsdecode(b"/srv/b\xfccket")
    save_config(tmp_path, {"bucket": folder})
    assert load_settings(tmp_path).bucket == folder


def test_what_cannot_be_saved_leaves_the_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_config(tmp_path, {"device": "ios"})
    before = (tmp_path / CONFIG_FILE).read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError):
        save_config(tmp_path, {"bucket": "s3://b/p"})
    assert [path.name for path in tmp_path.iterdir()] == [CONFIG_FILE]
    assert (tmp_path / CONFIG_FILE).read_bytes() == before


def test_the_passphrase_comes_from_its_variable_or_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text("four random words \n", encoding="utf-8")
    monkeypatch.setenv("DUALMEM_PASSPHRASE_FILE", str(tmp_path / "secret"))
    assert load_settings(tmp_path).read_passphrase() == "four random words "
    monkeypatch.setenv("DUALMEM_PASSPHRASE", "from the variable")
    settings = load_settings(tmp_path)
    assert settings.read_passphrase() == "from the variable"
    assert "from the variable" not in repr(settings)


@pytest.mark.parametrize("name", ["DUALMEM_HOME", "DUALMEM_BUCKET", "CLAUDE_CONFIG_DIR", "MEMORY_FILE_PATH"])
def test_a_home_folder_that_is_not_known_is_an_error_of_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "~nobody-of-this-name/x")
    with pytest.raises(UsageError, match="nobody-of-this-name") as caught:
        load_settings(None if name == "DUALMEM_HOME" else tmp_path)
    assert "absolute" in caught.value.hint


def test_the_passphrase_file_may_be_named_from_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pass").write_text("a b c\n", encoding="utf-8")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DUALMEM_PASSPHRASE_FILE", "~/pass")
    assert load_settings(tmp_path / "home").read_passphrase() == "a b c"


def test_a_missing_passphrase_file_is_locked_not_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUALMEM_PASSPHRASE_FILE", str(tmp_path / "nothing"))
    with pytest.raises(LockedError, match="cannot be read"):
        load_settings(tmp_path).read_passphrase()


def test_whose_sessions_may_be_indexed(tmp_path: Path) -> None:
    assert load_settings(tmp_path, platform="linux").index == IndexScope("current", ())
    write_config(tmp_path, {"index": {"projects": "all", "exclude": ["~/private", "*/scratch", "notes/old"]}})
    home = Path.home()
    excluded = (str(home / "private"), "*/scratch", "*/notes/old")
    assert load_settings(tmp_path, platform="linux").index == IndexScope("all", excluded)
    write_config(tmp_path, {"index": {"projects": ["~/work", "/srv/*"]}})
    assert load_settings(tmp_path).index.projects == (str(home / "work"), "/srv/*")


@pytest.mark.parametrize(
    ("platform", "allowed"), [("linux", True), ("darwin", False), ("win32", False), ("freebsd14", True)]
)
def test_folders_are_compared_as_the_platform_compares_them(tmp_path: Path, platform: str, allowed: bool) -> None:
    write_config(tmp_path, {"index": {"projects": "all", "exclude": ["*/Private"]}})
    assert load_settings(tmp_path, platform=platform).index.allows("/home/ada/private/diary") is allowed
    assert not load_settings(tmp_path, platform=platform).index.allows("/home/ada/Private")


@pytest.mark.parametrize("rules", [{"projects": "some"}, {"projects": 3}, {"excludes": []}, [], "all"])
def test_rules_of_indexing_that_do_not_fit_are_named(tmp_path: Path, rules: object) -> None:
    write_config(tmp_path, {"index": rules})
    with pytest.raises(UsageError, match="index"):
        load_settings(tmp_path)


def test_when_a_device_syncs_by_itself(tmp_path: Path) -> None:
    settings = load_settings(tmp_path)
    assert settings.sync == SyncTiming(True, 10, 300, 3, 500, 60, False, 300)
    mobile = [settings.profile_for(name).sync.wifi_only for name in ("ios", "android", "pwa")]
    assert mobile == [True, True, True]


def test_timing_is_set_for_all_profiles_or_for_one(tmp_path: Path) -> None:
    write_config(
        tmp_path,
        {
            "sync": {"poll_seconds": 30, "batch_ms": 0},
            "profiles": {
                "iOS": {"sync": {"poll_seconds": 60, "wifi_only": False}},
                "watch": {"sync": {"automatic": False}},
            },
        },
    )
    settings = load_settings(tmp_path)
    assert settings.profile.sync == SyncTiming(poll_seconds=30, batch_ms=0)
    assert settings.profile_for("ios").sync == SyncTiming(poll_seconds=60, batch_ms=0)
    assert settings.profile_for("android").sync == SyncTiming(poll_seconds=30, batch_ms=0, wifi_only=True)
    assert settings.profile_for("watch").sync == SyncTiming(automatic=False, poll_seconds=30, batch_ms=0)


def test_a_device_is_never_busier_when_idle(tmp_path: Path) -> None:
    write_config(tmp_path, {"sync": {"poll_seconds": 3_600}})
    assert load_settings(tmp_path).profile.sync.idle_seconds == 3_600


@pytest.mark.parametrize(
    ("timing", "field"),
    [
        ({"poll_seconds": 0}, "sync.poll_seconds"),
        ({"idle_seconds": -1}, "sync.idle_seconds"),
        ({"batch_changes": 0}, "sync.batch_changes"),
        ({"batch_ms": "soon"}, "sync.batch_ms"),
        ({"background_seconds": float("inf")}, "sync.background_seconds"),
        ({"wifi_only": "sometimes"}, "sync.wifi_only"),
        ({"checkpoint_seconds": 0.5}, "sync.checkpoint_seconds"),
        ({"pol_seconds": 10}, "sync.pol_seconds"),
    ],
)
def test_timing_that_does_not_fit_is_named(tmp_path: Path, timing: dict[str, object], field: str) -> None:
    write_config(tmp_path, {"sync": timing})
    with pytest.raises(UsageError, match=field) as caught:
        load_settings(tmp_path)
    assert caught.value.hint
    write_config(tmp_path, {"profiles": {"ios": {"sync": timing}}})
    with pytest.raises(UsageError, match=f"profiles.ios.{field}"):
        load_settings(tmp_path)


def test_how_much_room_packages_may_take(tmp_path: Path) -> None:
    assert load_settings(tmp_path).package_cache_mb == 2_048
    write_config(tmp_path, {"package_cache_mb": 0})
    assert load_settings(tmp_path).package_cache_mb == 0
    write_config(tmp_path, {"package_cache_mb": -1})
    with pytest.raises(UsageError, match="package_cache_mb"):
        load_settings(tmp_path)


def test_a_hosts_own_environment_says_nothing_of_its_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "file" if name == "DUALMEM_KEYSTORE" else str(tmp_path / "of the host"))
    monkeypatch.setenv("DUALMEM_QDRANT_URL", "https://qdrant.example.org")
    monkeypatch.setenv("DUALMEM_DEVICE", "ios")
    monkeypatch.setenv("DUALMEM_MODEL_DIR", str(tmp_path / "models"))
    document = {"bucket": "s3://vaults/ana", "mirror": True, "protected_files": ["*.md"], "protected_root": "/etc"}
    document["tiers"] = {"url": "https://theirs.example.org"}
    write_config(tmp_path / "ana", document)
    settings = load_hosted_settings(tmp_path / "ana")
    assert (settings.home, settings.bucket) == (tmp_path / "ana", "s3://vaults/ana")
    assert settings.profile.name == "desktop"
    assert settings.model_dir == tmp_path / "models"
    assert settings.read_passphrase() is None
    # Nothing of theirs in clear, and nothing of the host's for them.
    assert (settings.memory_file, settings.protected_files, settings.protected_root) == (None, (), None)
    assert settings.claude_dir.is_relative_to(settings.home)
    assert (settings.claude_session_id, settings.claude_project_dir) == ("", "")
    assert (settings.tiers.url, settings.qdrant_api_key) == (None, None)
    assert settings.hosted
    assert not load_settings(tmp_path / "ana").hosted
    assert "of the host" not in repr(settings)


@pytest.mark.parametrize("key", ["wómbat-7", "wombat\n7", "wombat-7…"])
def test_an_api_key_that_no_header_can_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("DUALMEM_QDRANT_API_KEY", key)
    with pytest.raises(UsageError, match=r"DUALMEM_QDRANT_API_KEY is no API key") as caught:
        load_settings(tmp_path)
    assert "mbat" not in f"{caught.value} {caught.value.hint} {caught.value.subject}"


def test_where_the_search_service_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings(tmp_path).tiers == TierSettings()
    write_config(tmp_path, {"tiers": {"url": "./vectors", "shards": 3, "replicas": 2}})
    assert load_settings(tmp_path).tiers == TierSettings(str(tmp_path / "vectors"), 3, 2)
    monkeypatch.setenv("DUALMEM_QDRANT_URL", "https://qdrant.example.org:6333")
    monkeypatch.setenv("DUALMEM_QDRANT_API_KEY", "wombat-7")
    settings = load_settings(tmp_path)
    assert settings.tiers == TierSettings("https://qdrant.example.org:6333", 3, 2)
    assert settings.qdrant_api_key is not None
    assert settings.qdrant_api_key.get_secret_value() == "wombat-7"
    assert "wombat" not in repr(settings)
    monkeypatch.setenv("DUALMEM_QDRANT_API_KEY", "wombat-7\n")
    settings = load_settings(tmp_path)
    assert settings.qdrant_api_key is not None
    assert settings.qdrant_api_key.get_secret_value() == "wombat-7"
    monkeypatch.setenv("DUALMEM_QDRANT_API_KEY", " ")
    assert load_settings(tmp_path).qdrant_api_key is None
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("DUALMEM_QDRANT_URL", "./vectors")
    assert load_settings(tmp_path).tiers.url == str(tmp_path / "here" / "vectors")
    monkeypatch.setenv("DUALMEM_QDRANT_URL", ":memory:")
    assert load_settings(tmp_path).tiers.url == ":memory:"


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("https://me:wombat-7@qdrant.example.org", "DUALMEM_QDRANT_API_KEY"),
        ("https://wombat-7@qdrant.example.org", "DUALMEM_QDRANT_API_KEY"),
        ("https://qdrant.example.org?api-key=wombat-7", "DUALMEM_QDRANT_API_KEY"),
        ("https://qdrant.example.org:wombat-7", "https://host:port"),
        ("https://[wombat-7", "https://host:port"),
        ("grpc://wombat-7", "DUALMEM_QDRANT_API_KEY"),
        ("https://", "DUALMEM_QDRANT_API_KEY"),
        ("wombat-7.example.org:6333", "https://"),
    ],
)
def test_a_location_that_is_none_is_refused_and_not_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, hint: str
) -> None:
    monkeypatch.setenv("DUALMEM_QDRANT_URL", url)
    with pytest.raises(UsageError, match=r"DUALMEM_QDRANT_URL") as caught:
        load_settings(tmp_path)
    assert hint in caught.value.hint
    assert "wombat" not in f"{caught.value.message} {caught.value.hint} {caught.value.subject}"
    monkeypatch.delenv("DUALMEM_QDRANT_URL")
    write_config(tmp_path, {"tiers": {"url": url}})
    with pytest.raises(UsageError, match=r"tiers\.url in cloud_sync_config\.json"):
        load_settings(tmp_path)


@pytest.mark.parametrize(
    ("tiers", "message"),
    [
        ({"api_key": "wombat-7"}, "tiers: .*plain text; set DUALMEM_QDRANT_API_KEY"),
        ({"shards": 0}, "tiers.shards"),
        ({"replicas": "many"}, "tiers.replicas"),
        ({"urls": "x"}, "tiers.urls"),
    ],
)
def test_settings_of_the_service_that_do_not_fit_are_named(tmp_path: Path, tiers: object, message: str) -> None:
    write_config(tmp_path, {"tiers": tiers})
    with pytest.raises(UsageError, match=message) as caught:
        load_settings(tmp_path)
    assert "wombat" not in caught.value.message
