"""Settings: the environment first, then `cloud_sync_config.json` in the data home, then defaults.

The only module that reads the environment.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import platformdirs
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from dualmem_mcp.config_file import (
    CONFIG_FILE,
    ConfigFile,
    IndexRules,
    KeystoreChoice,
    RemoteSettings,
    SyncTimingFields,
    TierSettings,
    read_config,
    unfit,
)
from dualmem_mcp.embedding.minilm import NAME as DEFAULT_MODEL
from dualmem_mcp.errors import LockedError, UsageError
from dualmem_mcp.model.budget import Budget, CostSettings
from dualmem_mcp.model.device import PROFILES, DeviceProfile, profile_named
from dualmem_mcp.model.index_scope import IndexScope
from dualmem_mcp.model.service_location import MEMORY, service_location
from dualmem_mcp.model.sync_timing import SyncTiming


class _Environment(BaseSettings):
    """The environment variables that the product listens to, empty ones counted as unset."""

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", case_sensitive=True)

    home: Path | None = Field(default=None, validation_alias="DUALMEM_HOME")
    bucket: str | None = Field(default=None, validation_alias="DUALMEM_BUCKET")
    passphrase: SecretStr | None = Field(default=None, validation_alias="DUALMEM_PASSPHRASE")
    passphrase_file: Path | None = Field(default=None, validation_alias="DUALMEM_PASSPHRASE_FILE")
    device: str | None = Field(default=None, validation_alias="DUALMEM_DEVICE")
    keystore: KeystoreChoice | None = Field(default=None, validation_alias="DUALMEM_KEYSTORE")
    model: str | None = Field(default=None, validation_alias="DUALMEM_MODEL")
    model_dir: Path | None = Field(default=None, validation_alias="DUALMEM_MODEL_DIR")
    qdrant_url: str | None = Field(default=None, validation_alias="DUALMEM_QDRANT_URL")
    qdrant_api_key: SecretStr | None = Field(default=None, validation_alias="DUALMEM_QDRANT_API_KEY")
    memory_file_path: Path | None = Field(default=None, validation_alias="MEMORY_FILE_PATH")
    claude_config_dir: Path | None = Field(default=None, validation_alias="CLAUDE_CONFIG_DIR")
    claude_session_id: str | None = Field(default=None, validation_alias="CLAUDE_CODE_SESSION_ID")
    claude_project_dir: Path | None = Field(default=None, validation_alias="CLAUDE_PROJECT_DIR")


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set, resolved. `memory_file` is None when no plaintext mirror is kept;
    `protected_root` None when protected files are those of each conversation's own folder. `hosted` is a data home
    whose user has no files on this machine. `tiers.url` is None where no search service is
    set; one in a folder is absolute."""

    home: Path
    bucket: str
    device_name: str
    profile: DeviceProfile
    profiles: dict[str, DeviceProfile]
    memory_file: Path | None
    protected_files: tuple[str, ...]
    protected_root: Path | None
    state: dict[str, Any]
    keystore: KeystoreChoice
    package_cache_mb: int
    model: str
    model_dir: Path
    claude_dir: Path
    claude_session_id: str
    claude_project_dir: str
    passphrase: SecretStr | None
    passphrase_file: Path | None
    index: IndexScope
    hosted: bool = False
    remote: RemoteSettings = field(default_factory=RemoteSettings)
    budget: Budget = field(default_factory=Budget)
    cost: CostSettings = field(default_factory=CostSettings)
    tiers: TierSettings = field(default_factory=TierSettings)
    qdrant_api_key: SecretStr | None = None

    @property
    def sync(self) -> SyncTiming:
        """When this device syncs by itself."""
        return self.profile.sync

    def profile_for(self, name: str | None) -> DeviceProfile:
        """The named profile with the user's own limits, or this device's. Raises UsageError."""
        if not name:
            return self.profile
        return self.profiles.get(name.lower()) or profile_named(name)

    def read_passphrase(self) -> str | None:
        """The passphrase from the environment or its file, else None. Raises LockedError if the file fails."""
        if self.passphrase is not None:
            return self.passphrase.get_secret_value()
        if self.passphrase_file is None:
            return None
        try:
            # One trailing line break is the editor's, not the user's.
            return _expanded(self.passphrase_file).read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
        except (OSError, UnicodeDecodeError) as error:
            raise LockedError(
                f"the passphrase file cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8'}",
                operation="read passphrase",
                subject=str(self.passphrase_file),
                hint="Check DUALMEM_PASSPHRASE_FILE.",
            ) from None


def load_settings(home: Path | None = None, *, bucket: str | None = None, platform: str = sys.platform) -> Settings:
    """The settings for a data home (given, or DUALMEM_HOME, or the platform's user data folder).

    Raises UsageError that names the field when the environment or `cloud_sync_config.json` does not fit.
    """
    return _settings(_environment(), home, bucket, platform)


def _environment() -> _Environment:
    try:
        return _Environment()
    except ValidationError as error:
        raise unfit(error, "environment", "Correct or unset the variable.") from None


def _settings(environment: _Environment, home: Path | None, bucket: str | None, platform: str) -> Settings:
    with _home_folder("the user's data folder"):
        resolved = _expanded(home or environment.home or platformdirs.user_data_path("dualmem")).absolute()
    config = read_config(resolved)
    profiles = _profiles(config)
    own_profile = (environment.device or config.device or "desktop").lower()
    memory_file = environment.memory_file_path
    if memory_file is None and config.mirror:
        memory_file = Path("memory.json")
    if given_bucket := bucket or environment.bucket:
        location = _location(given_bucket, base=Path.cwd())
    else:
        location = _location(config.bucket or f"../{resolved.name}-bucket", base=resolved)
    return Settings(
        home=resolved,
        bucket=location,
        device_name=config.device_name or "",
        profile=profiles.get(own_profile) or profile_named(own_profile),
        profiles=profiles,
        memory_file=resolved / _expanded(memory_file) if memory_file is not None else None,
        protected_files=tuple(config.protected_files),
        protected_root=Path(_location(config.protected_root, base=resolved)) if config.protected_root else None,
        state=config.state,
        keystore=environment.keystore or config.keystore,
        package_cache_mb=config.package_cache_mb,
        model=environment.model or config.model or DEFAULT_MODEL,
        model_dir=_expanded(environment.model_dir or platformdirs.user_cache_path("dualmem") / "models").absolute(),
        claude_dir=_expanded(environment.claude_config_dir or Path("~/.claude")).absolute(),
        claude_session_id=environment.claude_session_id or "",
        claude_project_dir=str(environment.claude_project_dir or ""),
        passphrase=environment.passphrase,
        passphrase_file=environment.passphrase_file,
        index=_index_scope(config.index, platform),
        remote=_remote(config.remote, resolved),
        budget=config.budget,
        cost=config.cost,
        tiers=_tiers(config.tiers, environment.qdrant_url, resolved),
        qdrant_api_key=_api_key(environment.qdrant_api_key),
    )


def load_hosted_settings(home: Path) -> Settings:
    """The settings of the data home of a user of this host: what is in it, and of the environment only where models
    lie. Nothing of theirs is written in clear, no session or file of whoever runs the host is theirs, and nothing
    of them goes into a search service, which only they themselves could switch on.

    Raises UsageError as `load_settings`.
    """
    environment = _environment()
    models = {name: getattr(environment, name) for name in ("model", "model_dir")}
    settings = _settings(_Environment.model_construct(**models), home, None, sys.platform)
    return replace(
        settings,
        memory_file=None,
        protected_files=(),
        protected_root=None,
        claude_dir=settings.home / "claude",
        tiers=TierSettings(),
        hosted=True,
    )


def _index_scope(rules: IndexRules, platform: str) -> IndexScope:
    def absolute(pattern: str) -> str:
        path = _expanded(Path(pattern))
        # A pattern that starts at no folder is for any: `*/private`, `scratch-*`.
        return str(path) if path.is_absolute() or pattern.startswith("*") else f"*/{pattern}"

    projects = rules.projects if isinstance(rules.projects, str) else tuple(map(absolute, rules.projects))
    # As the file systems of these platforms do; and it is better to leave too much out than to take too much in.
    return IndexScope(projects, tuple(map(absolute, rules.exclude)), ignores_case=platform in ("darwin", "win32"))


def _tiers(given: TierSettings, url: str | None, home: Path) -> TierSettings:
    """What the file says, with the variable's location in the place of its own."""
    base, setting = (Path.cwd(), "DUALMEM_QDRANT_URL") if url else (home, f"tiers.url in {CONFIG_FILE}")
    text = url or given.url
    if not text:
        return replace(given, url=None)
    location = service_location(text, setting)
    return replace(given, url=location if location == MEMORY else _location(location, base=base))


def _api_key(given: SecretStr | None) -> SecretStr | None:
    """The key as a header can hold it, without the line feed of the file that it may have been read from."""
    key = given.get_secret_value().strip() if given is not None else ""
    if not (key.isascii() and key.isprintable()):
        raise UsageError(
            "DUALMEM_QDRANT_API_KEY is no API key: it holds characters that no header can hold",
            operation="read settings",
            subject="DUALMEM_QDRANT_API_KEY",
            hint="Copy the key anew, alone and whole.",
        )
    return type(given)(key) if given is not None and key else None


def _remote(given: RemoteSettings, home: Path) -> RemoteSettings:
    certificate, key = (path and home / _expanded(path) for path in (given.certificate, given.key))
    return replace(given, certificate=certificate, key=key)


def _location(text: str, *, base: Path) -> str:
    """An s3:// address as it is; a folder absolute: typed ones from where the user stands, written ones
    from the data home that holds the file. Raises UsageError for what no folder can be called."""
    if "\0" in text:
        raise UsageError(
            f"no folder can be called {text!r}",
            operation="read settings",
            subject=text,
            hint=f"Correct bucket and protected_root in {CONFIG_FILE}.",
        )
    return text if "://" in text else os.path.normpath(base / _expanded(Path(text)))


def _expanded(path: Path) -> Path:
    """The path with the home folder for `~`. Raises UsageError where that is not known, as in containers
    whose user has neither an entry nor HOME."""
    with _home_folder(str(path)):
        return path.expanduser()


@contextlib.contextmanager
def _home_folder(subject: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError:
        raise UsageError(
            f"it is not known which folder {subject} is",
            operation="read settings",
            subject=subject,
            hint="Set HOME, or give DUALMEM_HOME, DUALMEM_BUCKET and CLAUDE_CONFIG_DIR as absolute paths.",
        ) from None


def _profiles(config: ConfigFile) -> dict[str, DeviceProfile]:
    # What is said of sync for all profiles comes first, then what is said for one.
    profiles = {name: replace(base, sync=_timing(base.sync, config.sync)) for name, base in PROFILES.items()}
    for name, limits in config.profiles.items():
        base = profiles.get(name.lower(), profiles["desktop"])
        given = {field: value for field, value in limits.model_dump(exclude={"sync"}).items() if value is not None}
        profiles[name.lower()] = replace(base, name=name.lower(), sync=_timing(base.sync, limits.sync), **given)
    return profiles


def _timing(base: SyncTiming, given: SyncTimingFields) -> SyncTiming:
    timing = replace(base, **{field: value for field, value in given.model_dump().items() if value is not None})
    # Who wants fewer requests sets one of the two: idle is never busier than in use.
    return replace(timing, idle_seconds=max(timing.idle_seconds, timing.poll_seconds))
