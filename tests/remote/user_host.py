"""A host with users, each with a vault of their own in a folder bucket."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from dualmem_mcp.app import App, open_app
from dualmem_mcp.config_file import save_config
from dualmem_mcp.model.grant import ALL_SCOPES, Grant, Scope, UserId
from dualmem_mcp.remote.interfaces import Caller
from dualmem_mcp.remote.options import RemoteOptions
from dualmem_mcp.remote.tenant import McpTenant
from dualmem_mcp.remote.tenants import UserTenants
from dualmem_mcp.settings import load_hosted_settings
from dualmem_mcp.stores.user_folder import UserFolder

OPTIONS = RemoteOptions(public_url="http://localhost:8787")
ADDED_AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def passphrase_of(name: str) -> str:
    """The passphrase of a user of these tests."""
    return f"{name} correct horse battery"


@functools.cache
def _made(name: str) -> UserHost:
    """A host with that user alone, made once for all tests of a process: stretching a passphrase takes its time."""
    host = UserHost(Path(tempfile.mkdtemp(prefix="dualmem-users-")))
    atexit.register(shutil.rmtree, host.root)
    user = UserId(name)
    aside, secret = host.folder.begin(user)
    settings = replace(load_hosted_settings(aside), bucket=str(host.bucket(name)))
    with open_app(settings, secret=secret) as app:
        app.init(passphrase_of(name), device_name="host")
    host.folder.finish(user, aside, secret, passphrase_of(name), now=ADDED_AT)
    host.secrets[user] = secret
    return host


@dataclass
class UserHost:
    """A folder of users below `root`, and what opens their data homes."""

    root: Path
    secrets: dict[UserId, bytes] = field(default_factory=dict)

    @property
    def folder(self) -> UserFolder:
        return UserFolder(self.root / "users")

    def bucket(self, name: str) -> Path:
        """Where a user's vault lies."""
        return self.root / f"bucket of {name}"

    def add(self, name: str) -> Caller:
        """Add a user with a new vault."""
        made = _made(name)
        user = UserId(name)
        shutil.copytree(made.root, self.root, dirs_exist_ok=True)
        save_config(self.folder.home(user), {"bucket": str(self.bucket(name))})
        self.secrets[user] = made.secrets[user]
        return self.caller(name)

    def caller(self, name: str, *, secret: bytes | None = None, scopes: frozenset[Scope] = ALL_SCOPES) -> Caller:
        """Whoever a user's token makes of a request, or somebody with another secret."""
        user = UserId(name)
        grant = Grant(user, "client", f"grant of {name}", scopes, int(time.time()) + 3_600)
        return Caller(grant, self.secrets[user] if secret is None else secret)

    def opened(self, name: str) -> App:
        """The user's application, in this process, as a second one beside the host's."""
        user = UserId(name)
        return open_app(load_hosted_settings(self.folder.home(user)), secret=self.secrets[user])

    def tenants(self, **how: object) -> UserTenants:
        """The host's tenants, on real applications."""
        return UserTenants(self.folder, partial(McpTenant, options=OPTIONS), **how)  # type: ignore[arg-type]
