"""Sessions of one user: bounded, each its principal's, and none lost that is in use."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from mcp.server.connection import Connection
from mcp.server.lowlevel import Server
from mcp.server.runner import ServerRunner

from dualmem_mcp.model.grant import UserId
from dualmem_mcp.remote.sessions import Principal, Session, Sessions

MOST = 3
OWNERS = [Principal(UserId(user), grant) for user in ("ana", "ben") for grant in ("one", "two")]

# What a client does: begin a session, use, listen, stop listening, end; by whom; on which of those begun.
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["open", "open_if_room", "use", "listen", "leave", "end"]),
        st.integers(0, len(OWNERS) - 1),
        st.integers(0, 20),
    ),
    max_size=40,
)


@given(STEPS)
def test_sessions_are_bounded_and_those_in_use_stay(steps: list[tuple[str, int, int]]) -> None:
    asyncio.run(_walk(steps))


async def _walk(steps: list[tuple[str, int, int]]) -> None:
    server: Server[Any] = Server("test")
    sessions = Sessions(lambda connection: ServerRunner(server, connection, {}), most=MOST, idle_seconds=60)
    begun: list[tuple[Session, Principal]] = []
    listening: dict[str, asyncio.Task[None]] = {}
    let_go: list[Connection] = []

    async def send(_message: Any) -> None:
        pass

    for step, who, which in steps:
        owner = OWNERS[who]
        if step.startswith("open"):
            in_use = [session for session, _ in begun if session.busy]
            made = await sessions.open(owner, make_room=step == "open")
            assert (made is None) <= (len(in_use) >= MOST or step == "open_if_room")
            if made is not None:
                assert made.id not in [session.id for session, _ in begun]
                made.connection.exit_stack.callback(let_go.append, made.connection)
                begun.append((made, owner))
            assert all(sessions.find(session.id, session.owner) is session for session in in_use)
        elif begun:
            session, of = begun[which % len(begun)]
            found = sessions.find(session.id, owner)
            assert found is None or (found is session and owner == of)
            if found is None:
                continue
            if step == "listen" and session.id not in listening:
                listening[session.id] = asyncio.create_task(session.outbox.stream(send))
                await asyncio.sleep(0)
                assert session.busy
            elif step == "leave" and session.id in listening:
                session.outbox.close()
                await listening.pop(session.id)
                assert not session.busy
            elif step == "end":
                await sessions.end(session)
                if session.id in listening:
                    await listening.pop(session.id)
        assert len(sessions) <= MOST
        there = [session for session, of in begun if sessions.find(session.id, of) is session]
        assert len(there) == len(sessions)
        # Whatever is not there any more was let go of, once; and nothing else was.
        assert set(let_go) == {session.connection for session, _ in begun if session not in there}
        assert len(let_go) == len(begun) - len(there)
    await sessions.end_those(lambda _: True)
    for task in listening.values():
        await task
    assert len(let_go) == len(begun)
