"""`cloud_sync_config.json` in the data home: its fields, how it is read and how it is changed."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError, field_validator

from dualmem_mcp.errors import UsageError
from dualmem_mcp.model.budget import Budget, CostSettings
from dualmem_mcp.model.device import ProfileName

CONFIG_FILE = "cloud_sync_config.json"

KeystoreChoice = Literal["auto", "keyring", "file"]


class SyncTimingFields(BaseModel):
    """`sync`: what is said of when a device syncs by itself."""

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


class ProfileLimits(BaseModel):
    """`profiles.NAME`: what is said of a device profile."""

    model_config = ConfigDict(extra="forbid")

    memory_mb: int | None = Field(default=None, gt=0)
    cached_vectors: int | None = Field(default=None, ge=0)
    max_agents: int | None = Field(default=None, ge=0)
    context_tokens: int | None = Field(default=None, ge=200)
    sync: SyncTimingFields = Field(default_factory=SyncTimingFields)


class IndexRules(BaseModel):
    """`index`: whose sessions are indexed."""

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


@dataclass(frozen=True, slots=True)
class TierSettings:
    """What is set of the search service: where it is (None for none), and how a cluster spreads a collection."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    url: str | None = None
    shards: Annotated[int, Field(ge=1, le=1_000)] = 1
    replicas: Annotated[int, Field(ge=1, le=100)] = 1


class ConfigFile(BaseModel):
    """`cloud_sync_config.json`. Unknown fields are left alone: an older version may read a newer file."""

    model_config = ConfigDict(extra="ignore")

    device_name: str | None = None
    device: str | None = None
    bucket: str | None = None
    mirror: bool = False
    protected_files: list[str] = Field(default_factory=list)
    protected_root: str | None = None
    profiles: dict[str, ProfileLimits] = Field(default_factory=dict)
    state: dict[str, Any] = Field(default_factory=dict)
    keystore: KeystoreChoice = "auto"
    package_cache_mb: int = Field(default=2_048, ge=0)
    model: str | None = None
    index: IndexRules = Field(default_factory=IndexRules)
    sync: SyncTimingFields = Field(default_factory=SyncTimingFields)
    remote: RemoteSettings = RemoteSettings()
    budget: Budget = Budget()
    cost: CostSettings = CostSettings()
    tiers: TierSettings = TierSettings()
    # Read by hook.py, which cannot wait for pydantic; here so that a slip of the pen is told.
    auto_handoff: StrictBool = False
    hooks: dict[Literal["SessionStart", "PostCompact", "Stop", "SessionEnd"], StrictBool] = {}

    @field_validator("tiers", mode="before")
    @classmethod
    def _without_key(cls, tiers: Any) -> Any:
        """This file is plain text, is shown to others for help, and lies in backups: no place for a key."""
        if isinstance(tiers, dict) and tiers.keys() & {"api_key", "key", "token"}:
            raise ValueError(
                "an API key does not belong in this file, which is plain text; set DUALMEM_QDRANT_API_KEY"
            )
        return tiers


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


def read_config(home: Path) -> ConfigFile:
    """What the data home's settings file says; defaults where there is none.

    Raises UsageError that names the field, or what makes the file unreadable.
    """
    path = home / CONFIG_FILE
    try:
        return ConfigFile.model_validate(_read_document(path))
    except ValidationError as error:
        raise unfit(error, path.name, f"Correct the field in {path}.") from None


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


def unfit(error: ValidationError, where: str, hint: str) -> UsageError:
    """The error that names the first field that does not fit, and nothing of what was given for it."""
    first = error.errors(include_input=False, include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    return UsageError(f"{where}: {field}: {first['msg']}", operation="read settings", subject=field, hint=hint)
