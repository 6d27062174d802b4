"""What is said to one client reaches that client alone, on the stream that it belongs to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import mcp_types as types
import pytest
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ResourceUpdated

from dualmem_mcp.model.grant import UserId
from dualmem_mcp.remote import exchange, sessions
from dualmem_mcp.remote.interfaces import CALLER_KEY
from dualmem_mcp.remote.options import Limits
from dualmem_mcp.remote.wire import Accept
from tests.remote.mcp_host import (
    Client,
    Host,
    Json,
    OpenTenant,
    events,
    hosting,
    initialize,
    modern,
    request,
    until,
)

Context = ServerRequestContext[Any, Any]

SCHEMA = {"type": "object", "properties": {"name": {"type": "string", "x-mcp-header": "Name"}}}


class Workshop:
    """A server whose tool `work` goes on step by step as the test lets it, and says who asked for it."""

    def __init__(self, user: str, limits: Limits | None = None) -> None:
        self.began: dict[str, anyio.Event] = {}
        self.steps: dict[str, asyncio.Semaphore] = {}
        self.cancelled: list[str] = []
        self.finished: list[str] = []
        self.contexts: list[Context] = []
        self.bus = InMemorySubscriptionBus()
        server: Server[Any] = Server(
            "workshop",
            on_call_tool=self._call,
            on_subscriptions_listen=ListenHandler(self.bus),
            get_tool_input_schema=lambda name: SCHEMA if name == "headed" else None,
        )
        server.add_notification_handler("notifications/initialized", types.NotificationParams, self._initialized)
        self.tenant = OpenTenant(user, server, limits or Limits())

    def begun(self, name: str) -> anyio.Event:
        return self.began.setdefault(name, anyio.Event())

    def step(self, name: str) -> None:
        self.steps.setdefault(name, asyncio.Semaphore(0)).release()

    async def _initialized(self, context: Context, _params: types.NotificationParams) -> None:
        self.contexts.append(context)

    async def _call(self, context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        arguments = params.arguments or {}
        if params.name == "ask":
            reply = await context.session.send_request(
                types.ElicitRequest(
                    params=types.ElicitRequestFormParams(
                        message="who?", requested_schema={"type": "object", "properties": {}}
                    )
                ),
                types.ElicitResult,
                metadata=_related(context),
            )
            return _text(f"{reply.action} {reply.content}")
        name, steps = arguments["name"], arguments.get("steps", 1)
        self.begun(name).set()
        semaphore = self.steps.setdefault(name, asyncio.Semaphore(0))
        try:
            for step in range(steps):
                await semaphore.acquire()
                await context.session.report_progress(step + 1, steps, f"{name} {step + 1}")
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        self.finished.append(name)
        grant = context.request.scope[CALLER_KEY].grant
        return _text(f"{name} for {grant.user}/{grant.grant_id}")


def _related(context: Context) -> Any:
    from mcp.shared.message import ServerMessageMetadata

    return ServerMessageMetadata(related_request_id=context.request_id)


def _text(text: str) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(text=text)])


def work(name: str, steps: int = 1, token: str = "t") -> Json:
    return {"name": "work", "arguments": {"name": name, "steps": steps}, "_meta": {"progressToken": token}}


def text_of(answer: Json) -> str:
    return answer["result"]["content"][0]["text"]


def progress(*messages: Json) -> list[str]:
    assert {message["method"] for message in messages} <= {"notifications/progress"}
    return [message["params"]["message"] for message in messages]


@asynccontextmanager
async def shop(folder: Path, limits: Limits | None = None) -> AsyncIterator[tuple[Workshop, Host]]:
    """One user's workshop."""
    workshop = Workshop("ana", limits)
    async with hosting(folder, workshop.tenant, limits=limits) as host:
        yield workshop, host


async def test_interleaved_calls_with_one_id_are_each_answered_on_their_own_stream(tmp_path: Path) -> None:
    shops = {user: Workshop(user) for user in ("ana", "ben")}
    async with hosting(tmp_path, *(each.tenant for each in shops.values())) as host:
        clients = {
            f"{user}/{grant}": await host.client(user, grant).begin()
            for user in shops
            for grant in ("desk", "phone")
        }
        got: dict[str, list[Json]] = {}
        async with asyncio.TaskGroup() as tasks:
            # Two of each client's own too, all with the same id and progress token.
            for owner, client in clients.items():
                for number in (1, 2):
                    name = f"{owner}#{number}"

                    async def call(client: Client, name: str) -> None:
                        got[name] = await client.ask("tools/call", work(name, 3), 7)

                    tasks.create_task(call(client, name))
            for name in [f"{owner}#{number}" for owner in clients for number in (1, 2)]:
                await until(shops[name.partition("/")[0]].begun(name).is_set)
            for _ in range(3):
                for name in sorted(shops["ana"].began | shops["ben"].began, reverse=True):
                    shops[name.partition("/")[0]].step(name)
                    await asyncio.sleep(0)
        assert len(got) == 8
        for name, messages in got.items():
            assert progress(*messages[:-1]) == [f"{name} 1", f"{name} 2", f"{name} 3"]
            assert text_of(messages[-1]) == f"{name} for {name.partition('#')[0]}"
            assert messages[-1]["id"] == 7


async def test_calls_over_http_and_sse_are_answered_on_their_own_streams(tmp_path: Path) -> None:
    async with shop(tmp_path) as (workshop, host):
        clients = [host.client(grant=grant) for grant in ("one", "two")]
        async with clients[0].stream("/sse") as first, clients[1].stream("/sse") as second:
            paths = []
            for client, stream in zip(clients, (first, second), strict=True):
                name, path = await stream.event()
                assert (name, path.partition("=")[0]) == ("endpoint", "/messages?session_id")
                paths.append(path)
                assert (await client.post(initialize("2024-11-05"), path=path)).status_code == 202
                assert (await stream.message())["result"]["protocolVersion"] == "2024-11-05"
            for client, path, name in zip(clients, paths, "ab", strict=True):
                posted = await client.post(request("tools/call", work(name, 2), 7), path=path)
                assert posted.status_code == 202
            for name in "baba":
                workshop.step(name)
            for grant, stream, name in (("one", first, "a"), ("two", second, "b")):
                messages = [await stream.message() for _ in range(3)]
                assert progress(*messages[:2]) == [f"{name} 1", f"{name} 2"]
                assert text_of(messages[2]) == f"{name} for ana/{grant}"
            # Each path is its own client's, and gone with its stream.
            assert (await clients[0].post(request("ping"), path=paths[1])).status_code == 404
            assert (await clients[0].post(b"{", path=paths[0])).status_code == 400
            assert (
                await clients[0].post(request("ping", None, "still")["jsonrpc"], path=paths[0])
            ).status_code == 400
            assert (await clients[0].post(request("ping", None, "still"), path=paths[0])).status_code == 202
            assert await first.message() == {"jsonrpc": "2.0", "id": "still", "result": {}}
        await until(lambda: not len(workshop.tenant.ways.event_sessions))
        assert (await clients[0].post(request("ping"), path=paths[0])).status_code == 404


async def test_a_session_is_its_own_grants_alone(tmp_path: Path) -> None:
    shops = [Workshop("ana"), Workshop("ben")]
    async with hosting(tmp_path, *(each.tenant for each in shops)) as host:
        owner = await host.client("ana", "desk").begin()
        session = {"Mcp-Session-Id": owner.session["Mcp_Session_Id"]}
        async with owner.stream("/sse") as own:
            _, path = await own.event()
            for stranger in (host.client("ana", "phone"), host.client("ben", "desk")):
                never = {"Mcp-Session-Id": "f" * 32}
                answers = []
                for named, messages in ((session, path), (never, f"/messages?session_id={'f' * 32}")):
                    headers = {**stranger.headers, **named, "Accept": "text/event-stream"}
                    deleted = await host.http.delete("/mcp", headers=headers)
                    listened = await host.http.get("/mcp", headers=headers)
                    asked = await stranger.post(
                        request("tools/call", work("stolen")), Mcp_Session_Id=named["Mcp-Session-Id"]
                    )
                    told = await stranger.post(request("ping"), path=messages)
                    answers.append([(each.status_code, each.text) for each in (deleted, listened, asked, told)])
                assert answers[0] == answers[1]
                assert [status for status, _ in answers[0]] == [404] * 4
            assert shops[0].began == shops[1].began == {}
            assert (await owner.ask("ping"))[-1]["result"] == {}
            # One way's id does not open the other.
            crossed = await owner.post(request("ping"), path=f"/messages?session_id={session['Mcp-Session-Id']}")
            assert crossed.status_code == 404
            assert (await owner.post(request("ping"), Mcp_Session_Id=path.partition("=")[2])).status_code == 404
            assert (await owner.post(request("ping"), path="/messages")).status_code == 404
        # A token that was renewed is of the same grant.
        renewed = host.client("ana", "desk")
        assert (await renewed.post(request("ping"), **owner.session)).status_code == 200


async def updated(context: Context, uri: str) -> None:
    await context.session.send_resource_updated(uri)


async def test_notifications_reach_the_stream_of_their_session_once(tmp_path: Path) -> None:
    async with shop(tmp_path) as (workshop, host):
        first, second = await host.client(grant="one").begin(), await host.client(grant="two").begin()
        of_first, of_second = workshop.contexts
        await updated(of_first, "memory://before")  # kept until there is a stream
        await updated(of_first, "memory://before")
        async with first.stream() as one, second.stream() as two:
            assert (await one.message())["params"] == {"uri": "memory://before"}
            await updated(of_second, "memory://second")
            await updated(of_first, "memory://first")
            assert (await two.message())["params"] == {"uri": "memory://second"}
            assert (await one.message())["params"] == {"uri": "memory://first"}
            # A reply goes on its own response, not here.
            assert (await first.ask("ping"))[-1]["result"] == {}
            async with first.stream() as newer:
                assert newer.status == 200
                await streams_are(workshop, first, 2)
                await updated(of_first, "memory://newer")
                assert (await newer.message())["params"] == {"uri": "memory://newer"}
            await streams_are(workshop, first, 1)
            await updated(of_first, "memory://after")
            assert (await one.message())["params"] == {"uri": "memory://after"}


async def streams_are(workshop: Workshop, client: Client, number: int) -> None:
    """Wait until the client's session has so many streams."""
    principal = sessions.Principal(UserId(client.user), client.grant)
    session = workshop.tenant.ways.sessions.find(client.session["Mcp_Session_Id"], principal)
    await until(lambda: session.outbox.streams == number)


async def test_too_many_streams_of_a_session_end_the_oldest(tmp_path: Path) -> None:
    async with shop(tmp_path) as (_, host):
        client = await host.client().begin()
        async with client.stream() as oldest:
            others = [client.stream() for _ in range(sessions.MOST_STREAMS)]
            for each in others:
                await each.__aenter__()
            assert await oldest.has_ended()
            for each in others:
                await each.__aexit__(None, None, None)


async def test_who_cancels_a_request_cancels_that_of_the_own_session(tmp_path: Path) -> None:
    async with shop(tmp_path) as (workshop, host):
        first, second = await host.client(grant="one").begin(), await host.client(grant="two").begin()
        async with asyncio.TaskGroup() as tasks:
            mine = tasks.create_task(first.ask("tools/call", work("mine"), 7))
            others = tasks.create_task(second.ask("tools/call", work("others"), 7))
            for name in ("mine", "others"):
                await until(workshop.begun(name).is_set)
            cancel = request("notifications/cancelled", {"requestId": 7}, None)
            assert (await first.post(cancel)).status_code == 202  # without its session it names nothing
            assert (await first.post(cancel, **first.session)).status_code == 202
            assert (await mine)[-1]["error"]["code"] == exchange.REQUEST_CANCELLED
            workshop.step("others")
            assert text_of((await others)[-1]) == "others for ana/two"
        assert workshop.cancelled == ["mine"]


async def test_going_away_cancels_a_request_of_2026_and_no_older_one(tmp_path: Path) -> None:
    async with shop(tmp_path) as (workshop, host):
        client = await host.client().begin()
        asked = [
            asyncio.create_task(client.post(modern("tools/call", work("newer")))),
            asyncio.create_task(client.ask("tools/call", work("older"))),
        ]
        for name in ("newer", "older"):
            await until(workshop.begun(name).is_set)
        for each in asked:
            each.cancel()
        await until(lambda: workshop.cancelled)
        workshop.step("older")
        await until(lambda: workshop.finished)
        assert (workshop.cancelled, workshop.finished) == (["newer"], ["older"])


async def test_a_listener_of_2026_hears_what_it_asked_for(tmp_path: Path) -> None:
    async with shop(tmp_path) as (workshop, host):
        client = host.client()
        asked = modern("subscriptions/listen", {"notifications": {"resourceSubscriptions": ["memory://a"]}}, "l")
        headers = {
            **client.headers,
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "Accept-Encoding": "identity",
        }
        async with host.http.stream("POST", "/mcp", content=json.dumps(asked), headers=headers) as response:
            lines = response.aiter_lines()

            async def message() -> Json:
                async for line in lines:
                    if line.startswith("data: "):
                        return json.loads(line.removeprefix("data: "))
                raise EOFError

            assert (await message())["method"] == "notifications/subscriptions/acknowledged"
            await workshop.bus.publish(ResourceUpdated("memory://b"))
            await workshop.bus.publish(ResourceUpdated("memory://a"))
            heard = await message()
            assert heard["params"]["uri"] == "memory://a"
            assert heard["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"] == "l"
            assert workshop.tenant.ways.streamable_http.streams == 1
            workshop.tenant.ways.end_streams()
            with pytest.raises(EOFError):
                await message()
        assert workshop.tenant.ways.streamable_http.streams == 0


async def test_a_header_that_repeats_an_argument_must_say_the_same(tmp_path: Path) -> None:
    async with shop(tmp_path) as (workshop, host):
        workshop.step("cut")
        call = modern("tools/call", {**work("cut"), "name": "headed"})
        for header, status in (("sew", 400), ("=?base64?Y3V0?=", 200)):
            assert (await host.client().post(call, Mcp_Param_Name=header)).status_code == status
        assert (await host.client().post(call)).json()["error"]["code"] == -32020
        assert workshop.finished == ["cut"]
        unfit = modern("tools/call", {"name": "headed", "arguments": [1]})
        assert (await host.client().post(unfit)).json()["error"]["code"] == -32602


async def test_a_client_is_asked_on_the_response_that_it_waits_for(tmp_path: Path) -> None:
    async with shop(tmp_path) as (_, host):
        client, other = await host.client(grant="one").begin(), await host.client(grant="two").begin()
        headers = {
            **client.headers,
            "Mcp-Session-Id": client.session["Mcp_Session_Id"],
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "Accept-Encoding": "identity",
        }
        body = json.dumps(request("tools/call", {"name": "ask"}, 7))
        async with host.http.stream("POST", "/mcp", content=body, headers=headers) as response:
            lines = response.aiter_lines()

            async def message() -> Json:
                async for line in lines:
                    if line.startswith("data: "):
                        return json.loads(line.removeprefix("data: "))
                raise EOFError

            question = await message()
            assert question["method"] == "elicitation/create"
            reply = {"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept", "content": {"a": "no"}}}
            assert (await other.post(reply, **other.session)).status_code == 202  # heard by nobody
            assert (await client.post({**reply, "id": "s0"}, **client.session)).status_code == 202
            reply["result"] = {"action": "accept", "content": {"a": "yes"}}
            assert (await client.post(reply, **client.session)).status_code == 202
            assert text_of(await message()) == "accept {'a': 'yes'}"
        # Without a session there is nobody to ask.
        assert "error" in (await client.post(request("tools/call", {"name": "ask"}))).json()


async def test_a_response_that_takes_long_becomes_a_stream_that_is_kept_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "PING_SECONDS", 0.01)
    monkeypatch.setattr(exchange, "_ATTENDED_SECONDS", 0.01)
    async with shop(tmp_path) as (workshop, host):
        client = await host.client().begin()
        quiet = {"name": "work", "arguments": {"name": "quiet", "steps": 0}}
        assert (await client.post(request("tools/call", quiet))).headers["Content-Type"] == "application/json"
        slow = {"name": "work", "arguments": {"name": "slow"}}
        for body in (request("tools/call", slow), modern("tools/call", slow)):
            asked = asyncio.create_task(client.post(body))
            await asyncio.sleep(0.1)
            workshop.step("slow")
            answer = await asked
            assert answer.headers["Content-Type"] == "text/event-stream"
            assert answer.text.startswith(": ping\n\n")
            assert text_of(events(answer.text)[-1]) == "slow for ana/desk"
        asked = asyncio.create_task(client.post(request("tools/call", work("json")), accept="application/json"))
        await asyncio.sleep(0.05)
        workshop.step("json")
        assert text_of((await asked).json()) == "json for ana/desk"


async def test_progress_that_nobody_reads_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "_OFFER_SECONDS", 0.01)
    sent = Sent()
    response = exchange.Response(sent, Accept(json=True, stream=True))
    with anyio.fail_after(20):
        await response.offer({"n": 1})  # is given up, and still on its way
        await response.offer({"n": 2})  # is lost
    sent.gate.set()
    await response.finish({"n": 3})
    assert [message["n"] for message in events(b"".join(sent.parts).decode())] == [1, 3]


async def test_an_idle_session_ends_and_one_with_a_stream_does_not(tmp_path: Path) -> None:
    async with shop(tmp_path, Limits(session_idle_seconds=0.2)) as (workshop, host):
        idle, listening = await host.client(grant="one").begin(), await host.client(grant="two").begin()
        ended: list[str] = []
        for context, name in zip(workshop.contexts, ("idle", "listening"), strict=True):
            context.session._connection.exit_stack.callback(ended.append, name)
        async with listening.stream():
            await until(lambda: ended)
            assert ended == ["idle"]
            assert (await idle.post(request("ping"), **idle.session)).status_code == 404
            assert (await listening.ask("ping"))[-1]["result"] == {}


class Sent:
    """An ASGI `send` that keeps what it gets, once it may."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.gate = asyncio.Event()

    async def __call__(self, message: Any) -> None:
        await self.gate.wait()
        self.parts.append(message.get("body", b""))


async def test_an_outbox_keeps_each_notification_once_and_bounded() -> None:
    outbox, sent = sessions.Outbox(), Sent()
    sent.gate.set()
    for number in [*range(1_000), 999, 998]:
        await outbox.notify("notifications/resources/updated", {"uri": f"u{number}"})
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(outbox.stream, sent)
        await until(lambda: len(sent.parts) > 1)
        uris = [each["params"]["uri"] for each in events(sent.parts[1].decode())]
        assert (len(uris), uris[:1], uris[-3:]) == (256, ["u744"], ["u997", "u999", "u998"])
        outbox.close()


async def test_a_stream_that_comes_after_the_end_of_its_session_is_none() -> None:
    outbox, sent = sessions.Outbox(), Sent()
    outbox.end()
    with anyio.fail_after(20):
        await outbox.stream(sent)
    assert outbox.streams == 0


async def test_a_stream_whose_client_does_not_read_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MOST_UNREAD_BYTES", 1_000)
    outbox, sent = sessions.Outbox(), Sent()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(outbox.stream, sent)
        await until(lambda: outbox.streams)
        outbox.say({"answer": "x" * 5_000})  # one alone may be long
        assert outbox.streams
        outbox.say({"answer": "y"})
        assert not outbox.streams
        sent.gate.set()
    assert not any(b"y" in part for part in sent.parts)
