"""A memory that holds something of everything, hostile text among it, served to a browser."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import anyio
import uvicorn
from starlette.applications import Starlette

from dualmem_mcp.app import App
from dualmem_mcp.errors import LockedError
from dualmem_mcp.model.grant import ALL_SCOPES, OWNER, Scope, UserId
from dualmem_mcp.model.graph import Entity, Relation
from dualmem_mcp.remote.interfaces import Caller, Unlocked
from dualmem_mcp.remote.oauth.browser import BrowserSessions
from dualmem_mcp.remote.oauth.passphrases import USUAL_PACE, PassphraseGate
from dualmem_mcp.remote.options import RemoteOptions
from dualmem_mcp.remote.pages import Pages
from dualmem_mcp.remote.pages.sessions import Connection
from dualmem_mcp.server.lazy_app import LazyApp
from tests.handoff.conftest import PASSPHRASE, World

HOSTILE = (
    "<script>document.title='owned'</script>",
    '"><img src=x onerror="document.title=\'owned\'">',
    "javascript:document.title='owned'",
    "[click](javascript:document.title='owned') ![x](https://tracker.example/x.png) <https://tracker.example/>",
    "</pre></article><form action='https://tracker.example'><button>Log in again</button></form>",
    "{{ 7 * 7 }} {% raw %} &lt;b&gt; &#60;script&#62;",
    "# Not a heading\n- not a list\n```\nnot a fence",
)


class Sessions(BrowserSessions):
    """Browser sessions that may be given less than all scopes."""

    scopes: frozenset[Scope] = ALL_SCOPES

    def caller(self, cookie: str) -> Caller | None:
        found = super().caller(cookie)
        return found and replace(found, grant=replace(found.grant, scopes=self.scopes))


@dataclass
class Users:
    """Accounts by passphrase: one, or several by name."""

    passphrases: dict[str, str]
    several: bool = False

    def unlock(self, name: str, passphrase: str) -> Unlocked:
        user = name if self.several else OWNER
        if self.passphrases.get(user) != passphrase:
            raise LockedError("name and passphrase do not fit", operation="unlock")
        return Unlocked(UserId(user), b"")


class Tenancy:
    """A user's application."""

    def __init__(self, user: UserId, opener: Callable[[], App]) -> None:
        self.user = user
        self.app = LazyApp(opener)
        self.works = 0
        self.stopping = False

    @contextmanager
    def under_way(self) -> Iterator[None]:
        with anyio.CancelScope() as scope:
            self.works += 1
            if self.stopping:
                scope.cancel()
            try:
                yield
            finally:
                self.works -= 1


class OneOfEach:
    """The application of each user."""

    def __init__(self, apps: dict[UserId, Callable[[], App]]) -> None:
        self._tenants = {user: Tenancy(user, opener) for user, opener in apps.items()}
        self.locked = False

    @property
    def all(self) -> list[Tenancy]:
        return list(self._tenants.values())

    async def tenant(self, caller: Caller) -> Any:
        await anyio.lowlevel.checkpoint()
        if self.locked:
            raise LockedError("the passphrase was changed", operation="open")
        return self._tenants[caller.grant.user]


@dataclass
class LetIn:
    """Connected clients in a list."""

    of: dict[UserId, list[Connection]] = field(default_factory=dict)

    def connections(self, user: UserId) -> Sequence[Connection]:
        return list(self.of.get(user, ()))

    def revoke(self, user: UserId, grant_id: str) -> bool:
        before = self.of.get(user, [])
        self.of[user] = [one for one in before if one.grant_id != grant_id]
        return len(self.of[user]) < len(before)


def clients(now: datetime) -> list[Connection]:
    """Two clients as a user has them, and one whose name wants to be more."""
    read_write: frozenset[Scope] = frozenset({"read", "write"})
    return [
        Connection("g1", "Claude", "claude.ai", read_write, now - timedelta(days=40), now - timedelta(minutes=3)),
        Connection("g2", "Claude Code", "localhost", read_write, now - timedelta(days=2), now - timedelta(hours=5)),
        Connection("g3", HOSTILE[1], "claude.com", frozenset({"read"}), now - timedelta(days=2), None),
    ]


TALK = (
    "The marmalade importer drops the last row of every file. Please find out why, and keep the order of the rows.",
    "The reader stops at the first empty line, and the files end with one. `read_rows` skips empty lines now.",
    "Good. Does that also hold for files from Windows?",
    "Yes: `\\r\\n` is split as one line end. I added a test with such a file.",
)


def fill(world: World, *, hostile: bool) -> App:
    """The desktop of a user with two devices, conversations, a graph, notes and conflicts; synced."""
    desk = world.desktop()
    phone = world.phone()
    texts = list(TALK)
    if hostile:
        texts += [part for text in HOSTILE for part in (f"Look at this: {text}", f"I see {text}")]
    world.write_session(texts)
    desk.prepare_handoff(summary=HOSTILE[0] if hostile else "", next_steps=HOSTILE if hostile else ())
    if hostile:
        for index, text in enumerate(HOSTILE):
            world.write_session([text, f"About {text}"], f"0b5f0c66-7a3e-4f0e-9a53-2c1d5f1b7b0{index}")
            desk.prepare_handoff(f"0b5f0c66-7a3e-4f0e-9a53-2c1d5f1b7b0{index}")
        desk.graph.create_entities([Entity(text, text, (text, f"seen: {text}")) for text in HOSTILE])
        desk.notebook.add_note(HOSTILE[1], title=HOSTILE[0])
    desk.graph.create_entities(
        [
            Entity("marmalade importer", "program", ("keeps the order of the rows", "skips empty lines")),
            Entity("Ada", "person", ("prefers tests with real files",)),
        ]
    )
    desk.graph.create_relations([Relation("Ada", "marmalade importer", "maintains")])
    # Each device makes the same entity without knowing of the other's.
    name = HOSTILE[1] if hostile else "harbour crane"
    desk.graph.create_entities([Entity(f"{name}!", HOSTILE[0] if hostile else "machine", ())])
    phone.graph.create_entities([Entity(f"{name}!", HOSTILE[5] if hostile else "landmark", ())])
    for app in (desk, phone, desk):
        app.sync()
    return desk


@dataclass
class Host:
    """The pages over a world, and what stands behind them."""

    apps: Mapping[UserId, App]
    options: RemoteOptions
    users: Users = field(default_factory=lambda: Users({OWNER: PASSPHRASE}))
    let_in: LetIn = field(default_factory=LetIn)

    @property
    def app(self) -> App:
        """The owner's application."""
        return self.apps[OWNER]

    def __post_init__(self) -> None:
        self.sessions = Sessions(self.app.clock)
        self.tenants = OneOfEach({user: lambda app=app: app for user, app in self.apps.items()})
        self.let_in.of.setdefault(OWNER, clients(self.app.clock.now()))
        # Wrong passphrases cost a second each where nobody waits for tests.
        gate = PassphraseGate(self.users, bytes(32), replace(USUAL_PACE, wrong_seconds=0.0))
        pages = Pages(self.tenants, self.sessions, self.users, self.options, gate=gate, connections=self.let_in)
        self.asgi = Starlette(routes=pages.routes())


def free_port() -> int:
    """A port of loopback that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def served(host: Host, port: int) -> Iterator[str]:
    """The host's pages by HTTP on loopback, for as long as it takes; the address."""
    server = uvicorn.Server(
        uvicorn.Config(host.asgi, host="127.0.0.1", port=port, log_level="warning", lifespan="off")
    )
    thread = threading.Thread(target=server.run, name="pages", daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        assert time.monotonic() < deadline, "the pages are not served"
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(20)
