"""Nothing of one user reaches another of the host: by no tool, resource, subscription, id, session or object."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from dualmem_mcp.app import open_app
from dualmem_mcp.crypto.user_keys import unwrap_for_token, wrap_for_token
from dualmem_mcp.errors import LockedError
from dualmem_mcp.model.grant import UserId
from dualmem_mcp.model.graph import Entity
from dualmem_mcp.server.protocol import TOOLS
from dualmem_mcp.settings import load_hosted_settings
from dualmem_mcp.stores.keystore import make_sealed
from dualmem_mcp.stores.login_store import KeptGrant, NewToken, open_logins
from tests.conftest import SteppingClock
from tests.handoff.conftest import PASSPHRASE, SESSION_ID, World
from tests.remote.object_graph import owned_objects
from tests.remote.two_users import (
    INITIALIZE,
    NOBODYS_ID,
    Client,
    Serving,
    make_two_users,
    marker,
    private_id,
    serving,
)
from tests.remote.user_host import UserHost

STREAM = "text/event-stream"
BOTH = f"application/json, {STREAM}"
GRAPH = "memory://knowledge-graph"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UserHost]:
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("DUALMEM_", "CLAUDE_")):
                patch.delenv(name)
        yield make_two_users(tmp_path_factory.mktemp("two users"))


async def facts_of(client: Client, name: str, host: UserHost) -> list[bytes]:
    """What says something of a user: words, ids and places that are theirs alone."""
    status = (await client.call("memory_status"))["structuredContent"]
    assert status["home"] is None  # where the host keeps things is no user's business
    devices = {path.name for path in (host.root / name / "bucket" / "keys" / "d").iterdir()}
    facts = {
        marker(name),
        status["vault_id"],
        status["device_id"],
        str(host.root / name),
        str(host.folder.root / name),
    }
    return [fact.encode() for fact in facts | devices]


async def indexed(both: Serving) -> None:
    """Until search finds what each of the two has: a process of its own indexes it meanwhile."""
    with anyio.fail_after(60):
        for client, name in ((both.ana, "ana"), (both.ben, "ben")):
            while marker(name) not in json.dumps(await client.call("search_memory", query="importer")):  # noqa: ASYNC110
                await anyio.sleep(0.05)


def calls(ids: dict[str, str]) -> list[tuple[str, dict[str, Any]]]:
    """Every tool, with every argument by which something could be reached."""
    conversation, private = SESSION_ID, ids["private"]
    return [
        ("read_graph", {}),
        ("search_nodes", {"query": "importer"}),
        ("search_nodes", {"query": ids["word"]}),
        ("open_nodes", {"names": ["importer", "crane", "Ada"]}),
        ("search_memory", {"query": f"importer step {ids['word']}turn3", "limit": 100}),
        ("search_memory", {"query": "importer", "conversation_id": conversation}),
        ("search_memory", {"query": "importer", "conversation_id": private}),
        ("list_conversations", {"limit": 2}),
        ("list_conversations", {"query": ids["word"]}),
        ("list_conversations", {"cursor": ids["list cursor"]}),
        ("resume_conversation", {}),
        ("resume_conversation", {"conversation_id": conversation}),
        ("resume_conversation", {"conversation_id": private}),
        ("resume_conversation", {"conversation_id": private.replace("-", "")}),
        ("resume_conversation", {"conversation_id": f"../../{ids['user']}/{private}"}),
        ("load_context", {"conversation_id": conversation, "section": "thread"}),
        ("load_context", {"conversation_id": conversation, "section": "thread", "cursor": ids["page cursor"]}),
        ("load_context", {"conversation_id": private, "section": "thread", "cursor": ids["page cursor"]}),
        ("load_context", {"conversation_id": conversation, "section": f"../../{ids['user']}/memory.db"}),
        ("list_conflicts", {}),
        ("resolve_conflict", {"conflict_id": ids["conflict"], "keep": False}),
        ("resolve_conflict", {"conflict_id": ids["own conflict"], "keep": True, "stamp": ids["stamp"]}),
        ("prepare_handoff", {"conversation_id": private}),
        ("prepare_handoff", {"conversation_id": conversation}),
        ("prepare_handoff", {}),
        ("save_progress", {"conversation_id": conversation, "summary": "mine"}),
        ("create_entities", {"entities": [{"name": "mine", "entityType": "thing", "observations": ["own"]}]}),
        ("create_relations", {"relations": [{"from": "Ada", "to": "crane", "relationType": "sees"}]}),
        ("add_observations", {"observations": [{"entityName": "importer", "contents": ["own"]}]}),
        ("delete_observations", {"deletions": [{"entityName": "importer", "observations": ["own"]}]}),
        ("delete_relations", {"relations": [{"from": "Ada", "to": "crane", "relationType": "sees"}]}),
        ("delete_entities", {"entityNames": ["mine"]}),
        ("sync_memory", {}),
        ("estimate_costs", {}),
        ("memory_status", {}),
    ]


READING = {
    "read_graph",
    "search_nodes",
    "open_nodes",
    "search_memory",
    "list_conversations",
    "resume_conversation",
    "load_context",
    "list_conflicts",
}


async def ids_of(client: Client, name: str) -> dict[str, str]:
    """The ids and cursors that a user's answers hold."""
    listed = (await client.call("list_conversations", limit=2))["structuredContent"]
    page = await client.call("load_context", conversation_id=private_id(name), section="thread")
    [conflict] = (await client.call("list_conflicts"))["structuredContent"]["conflicts"]
    assert listed["next_cursor"]
    assert page["structuredContent"]["next_cursor"]
    return {
        "user": name,
        "word": marker(name),
        "private": private_id(name),
        "list cursor": listed["next_cursor"],
        "page cursor": page["structuredContent"]["next_cursor"],
        "conflict": conflict["conflict_id"],
        "stamp": conflict["lost"][0]["stamp"],
    }


async def test_no_tool_shows_a_byte_of_another_user(made: UserHost) -> None:
    async with serving(made) as both:
        await indexed(both)
        facts = await facts_of(both.ana, "ana", both.host)
        anas, bens = await ids_of(both.ana, "ana"), await ids_of(both.ben, "ben")
        asked = calls({**anas, "own conflict": bens["conflict"]})
        assert {tool for tool, _ in asked} == {tool.name for tool in TOOLS}
        # Hers are found by these very calls, so that finding none of them means something.
        for tool in READING:
            before = len(both.ana.seen)
            await both.ana.call(tool, **next(arguments for name, arguments in asked if name == tool))
            assert marker("ana").encode() in both.ana.seen[before:], tool
        for tool, arguments in asked:
            before = len(both.ben.seen)
            await both.ben.call(tool, **arguments)
            for fact in facts:
                # His own question may come back to him.
                assert fact not in both.ben.seen[before:] or fact.decode() in json.dumps(arguments), (
                    tool,
                    arguments,
                )
        # And nothing that he did has touched hers.
        graph = (await both.ana.call("read_graph"))["structuredContent"]
        assert {entity["name"] for entity in graph["entities"]} == {"importer", "Ada", "crane"}
        assert marker("ben") not in json.dumps(graph)
        assert (await ids_of(both.ana, "ana"))["conflict"] == anas["conflict"]


async def test_an_id_of_another_user_is_answered_as_one_that_never_existed(made: UserHost) -> None:
    async with serving(made) as both:
        anas = await ids_of(both.ana, "ana")
        private = anas["private"]
        conflict = "0123456789abcdef"
        pairs = [
            ("resume_conversation", {"conversation_id": private}, {"conversation_id": NOBODYS_ID}),
            (
                "load_context",
                {"conversation_id": private, "section": "thread"},
                {"conversation_id": NOBODYS_ID, "section": "thread"},
            ),
            (
                "search_memory",
                {"query": "step", "conversation_id": private},
                {"query": "step", "conversation_id": NOBODYS_ID},
            ),
            ("prepare_handoff", {"conversation_id": private}, {"conversation_id": NOBODYS_ID}),
            ("list_conversations", {"query": private}, {"query": NOBODYS_ID}),
            (
                "resolve_conflict",
                {"conflict_id": anas["conflict"], "keep": True},
                {"conflict_id": conflict, "keep": True},
            ),
        ]
        for tool, hers, nobodys in pairs:
            answers = []
            for arguments in (hers, nobodys):
                answer = json.dumps(await both.ben.call(tool, **arguments))
                for given in (private, NOBODYS_ID, anas["conflict"], conflict):
                    answer = answer.replace(given, "ID")
                answers.append(_without_times(answer))
            assert answers[0] == answers[1], tool
        # With her own login each of them is there.
        assert "isError" not in await both.ana.call("resume_conversation", conversation_id=private)


def _without_times(answer: str) -> str:
    document = json.loads(answer)
    if isinstance(document.get("structuredContent"), dict):
        document["structuredContent"].pop("timings_ms", None)
        document["structuredContent"].pop("tiers", None)
        document["content"] = [] if "timings_ms" in answer else document["content"]
    return json.dumps(document)


async def test_no_resource_shows_a_byte_of_another_user(made: UserHost) -> None:
    async with serving(made) as both:
        facts = await facts_of(both.ana, "ana", both.host)
        hers = f"dualmem://conversation/{private_id('ana')}"
        nobodys = f"dualmem://conversation/{NOBODYS_ID}"
        assert marker("ana") in json.dumps(await both.ana.ask("resources/read", {"uri": f"{hers}/brief"}))
        listed = (await both.ben.ask("resources/list"))["resources"]
        assert {one["uri"] for one in listed}.isdisjoint({f"{hers}/brief"})
        for uri in (GRAPH, *(one["uri"] for one in listed), f"dualmem://conversation/{SESSION_ID}/thread"):
            await both.ben.ask("resources/read", {"uri": uri})
        for part in ("brief", "thread", "../../ana/memory.db", "%2e%2e/brief"):
            answers = [
                json.dumps(await both.ben.ask("resources/read", {"uri": f"{uri}/{part}"})).replace(each, "ID")
                for uri, each in ((hers, private_id("ana")), (nobodys, NOBODYS_ID))
            ]
            assert answers[0] == answers[1]
            assert '"error"' in answers[0]
        for cursor in ((await ids_of(both.ana, "ana"))["list cursor"], "x"):
            await both.ben.ask("resources/list", {"cursor": cursor})
        for method in ("prompts/list", "tools/list", "resources/templates/list"):
            await both.ben.ask(method)
        for fact in facts:
            assert fact not in both.ben.seen


@asynccontextmanager
async def listening(
    client: Client, method: str, path: str, *, body: Any = None, **headers: str
) -> AsyncIterator[tuple[bytearray, Callable[[bytes], Any]]]:
    """A stream read beside the test: what has come, and a wait for some of it."""
    come = bytearray()
    news = anyio.Event()

    async def read() -> None:
        nonlocal news
        content = None if body is None else json.dumps(body)
        sent = client.headers(Accept=STREAM if body is None else BOTH, **headers)
        async with client.http.stream(method, path, headers=sent, content=content) as answer:
            assert answer.status_code == 200, await answer.aread()
            async for part in answer.aiter_bytes():
                come.extend(part)
                client.seen += part
                news.set()
                news = anyio.Event()

    async def wait_for(what: bytes) -> None:
        with anyio.fail_after(30):
            while what not in come:
                await news.wait()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await wait_for(b":")  # the first that a stream says: from now on it hears
        yield come, wait_for
        tasks.cancel_scope.cancel()


async def test_nobody_hears_of_changes_in_anothers_memory(made: UserHost) -> None:
    """In sessions with a stream, over HTTP+SSE, and by subscriptions of the newer protocol."""
    async with serving(made) as both:
        uris = [
            GRAPH,
            f"dualmem://conversation/{private_id('ana')}/brief",
            f"dualmem://conversation/{SESSION_ID}/brief",
        ]
        listen = {
            "jsonrpc": "2.0",
            "id": 5,
            "method": "subscriptions/listen",
            "params": {
                "notifications": {"resourceSubscriptions": uris, "resourcesListChanged": True},
                "_meta": {
                    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                    "io.modelcontextprotocol/clientInfo": {"name": "Claude", "version": "1"},
                    "io.modelcontextprotocol/clientCapabilities": {},
                },
            },
        }
        modern = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "subscriptions/listen"}
        sessions = {}
        for client in (both.ana, both.ben):
            session = {"Mcp-Session-Id": await client.initialize()}
            sessions[client.token] = session
            for uri in uris:
                await client.ask("resources/subscribe", {"uri": uri}, **session)
        async with (
            listening(both.ana, "GET", "/mcp", **sessions[both.ana.token]) as (_, ana_hears),
            listening(both.ben, "GET", "/mcp", **sessions[both.ben.token]) as (ben_heard, ben_hears),
            listening(both.ana, "POST", "/mcp", body=listen, **modern) as (_, ana_listens),
            listening(both.ben, "POST", "/mcp", body=listen, **modern) as (ben_listened, ben_listens),
        ):
            await both.ana.call("add_observations", observations=[{"entityName": "Ada", "contents": ["changed"]}])
            await both.ana.call("save_progress", conversation_id=private_id("ana"), summary="went on")
            await ana_hears(b"resources/updated")
            await ana_listens(b"resources/updated")
            assert b"updated" not in ben_heard
            assert b"updated" not in ben_listened
            # His own change comes, so that his streams are known to have been listening.
            await both.ben.call("add_observations", observations=[{"entityName": "Ada", "contents": ["his"]}])
            await ben_hears(b"resources/updated")
            await ben_listens(b"resources/updated")
            for heard in (ben_heard, ben_listened):
                assert heard.count(b"resources/updated") == 1
                assert private_id("ana").encode() not in heard.split(b"resources/updated")[-1]
        await both.ana.call("delete_observations", deletions=[{"entityName": "Ada", "observations": ["changed"]}])


async def test_a_session_of_another_user_is_one_that_never_existed(made: UserHost) -> None:
    async with serving(made) as both:
        hers = await both.ana.initialize()
        assert (await both.ana.ask("ping", **{"Mcp-Session-Id": hers})).get("error") is None
        message = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {"name": "read_graph", "arguments": {}},
        }
        answers: dict[str, list[tuple[int, bytes, list[str]]]] = {}
        for session in (hers, "0" * len(hers)):
            found = answers.setdefault(session, [])
            for method, body in (("POST", message), ("GET", None), ("DELETE", None)):
                sent = both.ben.headers(Accept=STREAM if method == "GET" else BOTH, **{"Mcp-Session-Id": session})
                answer = await both.ben.http.request(
                    method, "/mcp", headers=sent, content=None if body is None else json.dumps(body)
                )
                found.append((answer.status_code, answer.content, sorted(answer.headers)))
        assert answers[hers] == answers["0" * len(hers)]
        assert [status for status, _, _ in answers[hers]] == [404, 404, 404]
        assert (await both.ana.ask("ping", **{"Mcp-Session-Id": hers})).get("error") is None


async def test_nobody_posts_into_anothers_event_stream(made: UserHost) -> None:
    async with serving(made) as both:
        call = {
            "jsonrpc": "2.0",
            "id": 3,
            "method": "tools/call",
            "params": {"name": "read_graph", "arguments": {}},
        }
        async with listening(both.ana, "GET", "/sse") as (come, hears):
            await hears(b"endpoint")
            session_id = come.partition(b"session_id=")[2].split()[0].decode()
            answers = [
                await both.ben.post(call, f"/messages?session_id={each}")
                for each in (session_id, "0" * len(session_id))
            ]
            assert [answer.status_code for answer in answers] == [404, 404]
            assert answers[0].content == answers[1].content
            for message in (INITIALIZE, {"jsonrpc": "2.0", "method": "notifications/initialized"}):
                assert (await both.ana.post(message, f"/messages?session_id={session_id}")).status_code == 202
            await hears(b"serverInfo")
            before = bytes(come)
            assert (await both.ana.post(call, f"/messages?session_id={session_id}")).status_code == 202
            await hears(marker("ana").encode())
            # Hers was the only call that her stream ever answered.
            assert bytes(come)[len(before) :].count(b'"id":3') == 1
        assert marker("ana").encode() not in both.ben.seen


async def test_answers_of_calls_that_cross_go_to_those_who_asked(made: UserHost) -> None:
    """The same JSON-RPC ids at the same time, with sessions and without."""
    async with serving(made) as both:
        await indexed(both)
        own = {client.token: {"Mcp-Session-Id": await client.initialize()} for client in (both.ana, both.ben)}
        answers: list[tuple[str, str]] = []

        async def ask(client: Client, name: str, other: str, request_id: int) -> None:
            headers = own[client.token] if request_id % 2 else {}
            params = {
                "name": "search_memory" if request_id % 3 else "read_graph",
                "arguments": {"query": "importer"},
            }
            found = json.dumps(await client.ask("tools/call", params, request_id, **headers))
            assert marker(name) in found
            assert marker(other) not in found
            answers.append((name, found))

        async with anyio.create_task_group() as tasks:
            for request_id in range(12):
                tasks.start_soon(ask, both.ana, "ana", "ben", request_id)
                tasks.start_soon(ask, both.ben, "ben", "ana", request_id)
        assert len(answers) == 24


async def test_two_users_share_no_object_that_changes(made: UserHost) -> None:
    async with serving(made) as both:
        for client in (both.ana, both.ben):
            await client.initialize()
            await client.call("read_graph")
            await client.call("search_memory", query="importer")
        hers = owned_objects(await both.tenants.tenant(both.host.caller("ana")))
        his = owned_objects(await both.tenants.tenant(both.host.caller("ben")))
        # The walk finds what matters, so that finding nothing in common means something.
        names = {type(one).__name__ for one in hers.values()}
        assert names >= {
            "App",
            "Database",
            "Calls",
            "Server",
            "Subscriptions",
            "SyncWorker",
            "EdgeProcess",
            "Vault",
            "Session",
        }
        # The descriptions of the tools are the program's own.
        constants = owned_objects(TOOLS)
        assert marker("ana") not in repr(TOOLS)
        shared = [hers[key] for key in hers.keys() & his.keys() - constants.keys()]
        assert [f"{type(one).__module__}.{type(one).__qualname__}: {one!r:.80}" for one in shared] == []


def test_nothing_is_told_of_the_hosts_files(tmp_path: Path) -> None:
    """A handoff names folders and files with checksums; on a host they would be guesses at what lies there."""
    world = World(tmp_path, SteppingClock())
    world.write_session(["keep it", "kept"])
    guessed = world.project / "guessed.md"
    guessed.write_text("as it was")
    world.desktop(protected_files=("guessed.md",)).prepare_handoff()
    guessed.write_text("as it is on the host")
    secret = make_sealed(tmp_path / "host")
    settings = replace(load_hosted_settings(tmp_path / "host"), bucket=str(world.bucket))
    with open_app(settings, secret=secret) as app:
        app.join(PASSPHRASE)
        assert "guessed" not in json.dumps(app.resume_conversation()["warnings"])
    # On a device of the user's own they are compared.
    assert "guessed.md differs" in json.dumps(world.phone().resume_conversation()["warnings"])
    world.close()


# What lies on the disk


def test_a_copy_of_the_disk_opens_nothing(made: UserHost, tmp_path: Path) -> None:
    """Every byte below the users' folder, for the secrets, the passphrases and any word of what is kept."""
    root = tmp_path / "copy"
    anas = made.secrets[UserId("ana")]
    token_secret = bytes(range(32))
    with open_logins(made.folder.root, choice="file") as logins:
        grant = KeptGrant("g", UserId("ana"), "c", "Claude", "claude.ai", frozenset({"read"}), "r", 1, 1)
        wrapped = wrap_for_token(anas, token_secret)
        logins.add_grant(grant, *(NewToken(bytes([n] * 16), bytes(32), wrapped, 2**40) for n in (1, 2)))
    with made.opened("ana") as app:
        # Indexes, packages and what waits to be uploaded are there, too.
        app.graph.create_entities([Entity("disk", "thing", (f"{marker('ana')}disk",))])
        assert app.local_edge.search("importer", catch_up=True)["results"]
        app.resume_conversation(SESSION_ID)
        shutil.copytree(made.folder.root, root)  # while it is open, with its write-ahead logs
    words = [marker("ana"), PASSPHRASE, "importer", "maintains", "conversation", "CREATE TABLE"]
    needles = [word.encode(how) for word in words for how in ("utf-8", "utf-16-le")]
    for secret in (anas, made.secrets[UserId("ben")], token_secret):
        needles += [secret, secret.hex().encode(), secret.hex().upper().encode()]
    looked_at = [path for path in root.rglob("*") if path.is_file()]
    kinds = {path.suffix for path in looked_at}
    assert {path.name for path in looked_at} >= {
        "memory.db",
        "logins.db",
        "user.json",
        "device.key",
        "memory.db-wal",
    }
    assert any("vector_cache" in path.parts for path in looked_at)
    assert any("mobile_reconstruction" in path.parts for path in looked_at), kinds
    for path in looked_at:
        data = path.read_bytes()
        assert [needle for needle in needles if needle in data] == [], path
    # What is there, opens with the token's secret alone.
    copied = UserHost(tmp_path)
    copied.root = tmp_path
    root.rename(tmp_path / "users")
    for guess in (b"", bytes(32), made.secrets[UserId("ben")]):
        copied.secrets = {UserId("ana"): guess}
        with pytest.raises(LockedError):
            copied.opened("ana")
    copied.secrets = {UserId("ana"): unwrap_for_token(wrapped, token_secret)}
    with copied.opened("ana") as app:
        assert app.graph.open_nodes(["disk"]).entities
