"""Settings: the environment first, then `cloud_sync_config.json` in the data home, then defaults.

The only module that reads the environment.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, SecretStr, StrictBool, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from dualmem_mcp.embedding.minilm import NAME as DEFAULT_MODEL
from dualmem_mcp.errors import LockedError, UsageError
from dualmem_mcp.model.budget import Budget, CostSettings
from dualmem_mcp.model.device import PROFILES, DeviceProfile, ProfileName, profile_named
from dualmem_mcp.model.index_scope import IndexScope
from dualmem_mcp.model.sync_timing import SyncTiming

CONFIG_FILE = "cloud_sync_config.json"

KeystoreChoice = Literal["auto", "keyring", "file"]


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
    memory_file_path: Path | None = Field(default=None, validation_alias="MEMORY_FILE_PATH")
    claude_config_dir: Path | None = Field(default=None, validation_alias="CLAUDE_CONFIG_DIR")
    claude_session_id: str | None = Field(default=None, validation_alias="CLAUDE_CODE_SESSION_ID")
    claude_project_dir: Path | None = Field(default=None, validation_alias="CLAUDE_PROJECT_DIR")


class _SyncTiming(BaseModel):
    model_config = ConfigDict(extra="forbid")

    automatic: bool | None = None
    # The lower bounds keep a slip of the pen from costing a request every few milliseconds.
    poll_seconds: float | None = Field(default=None, ge=0.2, le=86_400)
    idle_seconds: float | None = Field(default=None, ge=0.2, le=86_400)
    batch_changes: int | None = Field(default=None, ge=1, le=10_000)
    batch_ms: int | None = Field(default=None, ge=0, le=3_600_000)
    background_seconds: float | None = Field(default=None, ge=1, le=86_400)
    wifi_only: bool | None = None
    checkpoint_seconds: float | None = Field(default=None, ge=1, le=86_400)


class _ProfileLimits(BaseModel):
    model_config = ConfigDict(extra="forbid")

    memory_mb: int | None = Field(default=None, gt=0)
    cached_vectors: int | None = Field(default=None, ge=0)
    max_agents: int | None = Field(default=None, ge=0)
    context_tokens: int | None = Field(default=None, ge=200)
    sync: _SyncTiming = Field(default_factory=_SyncTiming)


class _IndexRules(BaseModel):
    model_config = ConfigDict(extra="forbid")

    projects: Literal["current", "all"] | list[str] = "current"
    exclude: list[str] = Field(default_factory=list)


@dataclass(frozen=True, slots=True)
class RemoteSettings:
    """What is set of the remote endpoint; None where nothing is. Whether it fits is checked when it is used."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    public_url: str | None = None
    host: str | None = None
    port: Annotated[int, Field(ge=0, le=65_535)] | None = None
    certificate: Path | None = None
    key: Path | None = None
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    redirects: tuple[str, ...] = ()
    profile: ProfileName | None = None


class _ConfigFile(BaseModel):
    """`cloud_sync_config.json`. Unknown fields are left alone: an older version may read a newer file."""

    model_config = ConfigDict(extra="ignore")

    device_name: str | None = None
    device: str | None = None
    bucket: str | None = None
    mirror: bool = False
    protected_files: list[str] = Field(default_factory=list)
    protected_root: str | None = None
    profiles: dict[str, _ProfileLimits] = Field(default_factory=dict)
    state: dict[str, Any] = Field(default_factory=dict)
    keystore: KeystoreChoice = "auto"
    package_cache_mb: int = Field(default=2_048, ge=0)
    model: str | None = None
    index: _IndexRules = Field(default_factory=_IndexRules)
    sync: _SyncTiming = Field(default_factory=_SyncTiming)
    remote: RemoteSettings = RemoteSettings()
    budget: Budget = Budget()
    cost: CostSettings = CostSettings()
    # Read by hook.py, which cannot wait for pydantic; here so that a slip of the pen is told.
    auto_handoff: StrictBool = False
    hooks: dict[Literal["SessionStart", "PostCompact", "Stop", "SessionEnd"], StrictBool] = {}


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set, resolved. `memory_file` is None when no plaintext mirror is kept;
    `protected_root` None when protected files are those of each conversation's own folder. `hosted` is a data home
    whose user has no files on this machine."""

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
    remote: RemoteSettings = RemoteSettings()
    budget: Budget = field(default_factory=Budget)
    cost: CostSettings = field(default_factory=CostSettings)

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
        raise _unfit(error, "environment", "Correct or unset the variable.") from None


def _settings(environment: _Environment, home: Path | None, bucket: str | None, platform: str) -> Settings:
    with _home_folder("the user's data folder"):
        resolved = _expanded(home or environment.home or platformdirs.user_data_path("dualmem")).absolute()
    config = _read_config(resolved / CONFIG_FILE)
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
    )


def load_hosted_settings(home: Path) -> Settings:
    """The settings of the data home of a user of this host: what is in it, and of the environment only where models
    lie. Nothing of theirs is written in clear, and no session or file of whoever runs the host is theirs.

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
        hosted=True,
    )


def save_config(home: Path, values: dict[str, Any]) -> None:
    """Set fields in `cloud_sync_config.json`, keeping every other field as it is.

    Raises UsageError if what is there cannot be read, DiskFullError or StoreUnreachableError if it cannot be
    written; the file is then as it was.
    """
    from dualmem_mcp.durable_files import write_durably  # noqa: PLC0415  (only `init` and `join` write)

    path = home / CONFIG_FILE
    document = _read_document(path)
    if all(document.get(name) == value for name, value in values.items()):
        return
    document.update(values)
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    try:
        data = text.encode()
    except UnicodeEncodeError:
        # A path whose bytes are no text in this locale; JSON has an escape for what Python makes of them.
        data = json.dumps(document, indent=2).encode("ascii") + b"\n"
    write_durably(Path(os.path.realpath(path)), [data])  # a symbolic link stays one


def _index_scope(rules: _IndexRules, platform: str) -> IndexScope:
    def absolute(pattern: str) -> str:
        path = _expanded(Path(pattern))
        # A pattern that starts at no folder is for any: `*/private`, `scratch-*`.
        return str(path) if path.is_absolute() or pattern.startswith("*") else f"*/{pattern}"

    projects = rules.projects if isinstance(rules.projects, str) else tuple(map(absolute, rules.projects))
    # As the file systems of these platforms do; and it is better to leave too much out than to take too much in.
    return IndexScope(projects, tuple(map(absolute, rules.exclude)), ignores_case=platform in ("darwin", "win32"))


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


def _profiles(config: _ConfigFile) -> dict[str, DeviceProfile]:
    # What is said of sync for all profiles comes first, then what is said for one.
    profiles = {name: replace(base, sync=_timing(base.sync, config.sync)) for name, base in PROFILES.items()}
    for name, limits in config.profiles.items():
        base = profiles.get(name.lower(), profiles["desktop"])
        given = {field: value for field, value in limits.model_dump(exclude={"sync"}).items() if value is not None}
        profiles[name.lower()] = replace(base, name=name.lower(), sync=_timing(base.sync, limits.sync), **given)
    return profiles


def _timing(base: SyncTiming, given: _SyncTiming) -> SyncTiming:
    timing = replace(base, **{field: value for field, value in given.model_dump().items() if value is not None})
    # Who wants fewer requests sets one of the two: idle is never busier than in use.
    return replace(timing, idle_seconds=max(timing.idle_seconds, timing.poll_seconds))


def _read_document(path: Path) -> dict[str, Any]:
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited on for ever
            raise OSError(0, "not a file")
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path.name} cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8'}",
            operation="read settings",
            subject=str(path),
            hint="Check the file's rights and encoding.",
        ) from None
    try:
        document = json.loads(text) if text.strip() else {}
    except (json.JSONDecodeError, RecursionError) as error:
        at = f"line {error.lineno}" if isinstance(error, json.JSONDecodeError) else "too deeply nested"
        raise UsageError(
            f"{path.name} is not valid JSON ({at})",
            operation="read settings",
            subject=str(path),
            hint="Correct the file, or move it away to use the defaults.",
        ) from None
    if not isinstance(document, dict):
        raise UsageError(
            f"{path.name} must hold a JSON object",
            operation="read settings",
            subject=str(path),
            hint="Correct the file, or move it away to use the defaults.",
        )
    return document


def _read_config(path: Path) -> _ConfigFile:
    try:
        return _ConfigFile.model_validate(_read_document(path))
    except ValidationError as error:
        raise _unfit(error, path.name, f"Correct the field in {path}.") from None


def _unfit(error: ValidationError, where: str, hint: str) -> UsageError:
    first = error.errors(include_input=False, include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    return UsageError(f"{where}: {field}: {first['msg']}", operation="read settings", subject=field, hint=hint)
