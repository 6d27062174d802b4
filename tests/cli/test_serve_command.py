"""The options of `dualmem serve`, and what goes first: the call, then the settings, then what is usual."""

from __future__ import annotations

from pathlib import Path

import pytest

from dualmem_mcp.cli import main
from dualmem_mcp.cli.serve_command import remote_options
from dualmem_mcp.config_file import RemoteSettings
from dualmem_mcp.errors import UsageError
from dualmem_mcp.remote.options import CLAUDE_REDIRECTS, RemoteOptions

NOTHING = RemoteSettings()


def test_what_is_usual() -> None:
    assert remote_options(NOTHING, NOTHING) == RemoteOptions("http://localhost:8787", "127.0.0.1", 8787)


def test_another_port_is_in_the_local_url() -> None:
    assert remote_options(RemoteSettings(port=9000), NOTHING).public_url == "http://localhost:9000"
    assert remote_options(RemoteSettings(port=9001), RemoteSettings(port=9000)).port == 9001
    any_free = RemoteSettings(port=0, public_url="https://memory.example")  # a proxy will be told which it is
    assert remote_options(any_free, RemoteSettings(port=9000)).port == 0


def test_the_call_goes_before_the_settings() -> None:
    settings = RemoteSettings(
        public_url="https://set.example",
        host="::1",
        port=1,
        certificate=Path("set.pem"),
        key=Path("set.key"),
        hosts=("other.example",),
        origins=("https://page.example",),
        redirects=(*CLAUDE_REDIRECTS, "https://client.example/back"),
    )
    options = remote_options(NOTHING, settings)
    assert (options.public_url, options.host, options.port) == ("https://set.example", "::1", 1)
    assert (options.certificate, options.key) == (Path("set.pem"), Path("set.key"))
    assert options.extra_hosts == ("other.example",)
    call = RemoteSettings(public_url="called.example", host="localhost", port=2, certificate=Path("called.pem"))
    options = remote_options(call, settings)
    assert (options.public_url, options.host, options.port) == ("https://called.example", "localhost", 2)
    # A certificate of the call is not completed by the key of another one.
    assert (options.certificate, options.key) == (Path("called.pem"), None)
    assert options.extra_origins == ("https://page.example",)


def test_a_public_url_that_is_none() -> None:
    with pytest.raises(UsageError, match="public URL"):
        remote_options(RemoteSettings(public_url="http://memory.example"), NOTHING)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--port", "1"], "--port is of no use with --transport stdio"),
        (["--public-url", "https://a.example"], "--public-url is of no use"),
        (["--users", "folder"], "--users is of no use"),
        (["--transport", "tcp"], "tcp"),
        (["--transport", "http", "--port", "70000"], "70000"),
        (["--transport", "http", "--port", "0"], "which port is meant"),
        (["--transport", "http", "--public-url", "http://memory.example"], "cannot be the public URL"),
        (["--transport", "http", "--certificate", "a.pem"], "belong together"),
        (["--transport", "http", "--certificate", "a.pem", "--key", "b.pem"], "not what clients call"),
    ],
)
def test_what_does_not_fit_is_told(
    arguments: list[str],
    told: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DUALMEM_HOME", str(tmp_path / "home"))
    with pytest.raises(SystemExit) as ended:
        main(["serve", *arguments])
    _, err = capsys.readouterr()
    assert ended.value.code == 2
    assert told in err
    assert "hint: " in err
    assert not (tmp_path / "home").exists()
