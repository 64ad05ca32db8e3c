"""The client against a server that loses, doubles, delays, refuses and vanishes."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from clients.python.natterjack import (
    Backoff,
    BadRequest,
    Client,
    ClientClosed,
    Conflict,
    Connected,
    Disconnected,
    FilePositions,
    MemoryPositions,
    MessageChanged,
    MessageReceived,
    PositionStore,
    Pushed,
    SessionEnded,
    TooLarge,
    Typing,
    Unauthenticated,
)
from clients.python.natterjack.auth import Credentials
from schemas.messages import Message
from schemas.users import SearchUsers, Users
from tests.unit.fake_server import LOSE, FakeServer

QUICK = Backoff(base_s=0.005, cap_s=0.02)
ALICE, BOB = 1, 2
PAIR = "p_1_2"

Open = Callable[..., Awaitable[Client]]


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    fake = FakeServer()
    assert (fake.account("alice"), fake.account("bob")) == (ALICE, BOB)
    async with TestServer(fake.app(), handler_cancellation=True) as running:
        fake.url = str(running.make_url("/"))
        yield fake


@pytest.fixture
async def opened(server: FakeServer) -> AsyncIterator[Open]:
    clients: list[Client] = []

    async def enter(name: str = "alice", **options: object) -> Client:
        client = Client(server.url, username=name, password="password", backoff=QUICK, **options)  # type: ignore[arg-type]
        clients.append(client)
        return await client.__aenter__()

    yield enter
    for client in clients:
        await client.close()


async def received(client: Client, n: int) -> list[Message]:
    """The next `n` messages."""
    out: list[Message] = []
    async with asyncio.timeout(30):
        async for event in client.events():
            if isinstance(event, MessageReceived):
                out.append(event.message)
                if len(out) == n:
                    break
    return out


async def seqs(client: Client, n: int) -> list[int]:
    return [message.seq for message in await received(client, n)]


async def test_two_clients_talk(server: FakeServer, opened: Open) -> None:
    alice, bob = await opened("alice"), await opened("bob")
    first = await alice.send(peer=BOB, text="hello")
    second = await bob.send(peer=ALICE, text="hello yourself")
    assert (first.seq, second.seq, first.conversation_id) == (1, 2, PAIR)
    for client in (alice, bob):
        heard = await received(client, 2)
        assert [(m.seq, m.sender_id, m.content) for m in heard] == [
            (1, ALICE, "hello"),
            (2, BOB, "hello yourself"),
        ]
        assert heard == server.conversations[PAIR]


async def test_an_own_message_looks_as_to_everybody(server: FakeServer, opened: Open) -> None:
    alice = await opened()
    await alice.send(peer=BOB, text="x")
    assert await received(alice, 1) == server.conversations[PAIR]


@pytest.mark.parametrize("fault", [LOSE, "unavailable", "unknown_outcome", "rate_limited"])
async def test_a_send_is_repeated_under_the_same_id(
    server: FakeServer, opened: Open, fault: str
) -> None:
    alice = await opened()
    server.faults["message.send"] = deque([fault, fault])
    ack = await alice.send(peer=BOB, text="once")
    ids = [data["client_msg_id"] for kind, data in server.seen if kind == "message.send"]
    assert len(ids) == 3
    assert set(ids) == {ack.client_msg_id}
    assert [m.content for m in server.conversations[PAIR]] == ["once"]
    assert await seqs(alice, 1) == [1]


async def test_final_errors_are_raised(server: FakeServer, opened: Open) -> None:
    alice = await opened()
    with pytest.raises(BadRequest) as refused:
        await alice.send(text="to nobody")
    assert refused.value.field == "receiver_id"
    assert refused.value.trace_id
    await alice.send(peer=BOB, text="one", client_msg_id="m")
    with pytest.raises(Conflict):
        await alice.send(peer=BOB, text="another", client_msg_id="m")


async def test_a_frame_that_costs_the_connection_is_not_sent(
    server: FakeServer, opened: Open
) -> None:
    alice = await opened()
    with pytest.raises(TooLarge):
        await alice.send(peer=BOB, text="x" * 70_000)
    assert (await alice.send(peer=BOB, text="still here")).seq == 1


async def test_many_sends_over_breaking_connections(server: FakeServer, opened: Open) -> None:
    alice, bob = await opened("alice"), await opened("bob")
    server.faults["message.send"] = deque([None] * 10 + [LOSE, None, "unavailable"] * 30)

    async def break_now_and_then() -> None:
        for _ in range(5):
            await asyncio.sleep(0.02)
            await server.drop_all()

    sends = [alice.send(peer=BOB, text=str(n)) for n in range(300)]
    acks, _ = await asyncio.gather(asyncio.gather(*sends), break_now_and_then())
    assert sorted(ack.seq for ack in acks) == list(range(1, 301))
    await server.heads()
    assert await seqs(alice, 300) == list(range(1, 301))
    assert await seqs(bob, 300) == list(range(1, 301))


async def test_lost_late_and_double_pushes(server: FakeServer, opened: Open) -> None:
    bob = await opened("bob")
    server.late = []
    server.lose_push = lambda m: m.seq % 3 == 0
    server.double_push = lambda m: m.seq % 4 == 0
    server.page = 7
    for n in range(100):
        await server.post(ALICE, BOB, str(n))
    await server.flush_late(lambda pushes: pushes[::-1])
    await server.heads()
    assert await seqs(bob, 100) == list(range(1, 101))


async def test_a_lost_last_message_is_noticed_by_head(server: FakeServer, opened: Open) -> None:
    bob = await opened("bob")
    server.lose_push = lambda _: True
    await server.post(ALICE, BOB, "last")
    await server.heads()
    assert await seqs(bob, 1) == [1]


async def test_resync_catches_up(server: FakeServer, opened: Open) -> None:
    bob = await opened("bob")
    server.lose_push = lambda _: True
    for n in range(120):
        await server.post(ALICE, BOB, str(n))
    await server.broadcast("resync")
    assert await seqs(bob, 120) == list(range(1, 121))


async def test_everything_missed_while_away(server: FakeServer, opened: Open) -> None:
    """Also conversations that did not exist when the connection broke; sync comes in pages."""
    bob = await opened("bob")
    others = [server.account(f"user{n}") for n in range(7)]
    await server.post(ALICE, BOB, "before")
    assert await seqs(bob, 1) == [1]
    server.refuse_connections = True
    await server.drop_all()
    for sender in [ALICE, *others]:
        for n in range(60):
            await server.post(sender, BOB, str(n))
    server.refuse_connections = False
    heard = await received(bob, 60 * 8)
    by_sender: dict[int, list[int]] = {}
    for message in heard:
        by_sender.setdefault(message.sender_id, []).append(message.seq)
    assert by_sender.pop(ALICE) == list(range(2, 62))
    assert list(by_sender.values()) == [list(range(1, 61))] * 7


async def test_catching_up_is_tried_again(server: FakeServer, opened: Open) -> None:
    await server.post(ALICE, BOB, "x")
    server.faults["message.sync"] = deque(["unavailable", "internal", LOSE])
    assert await seqs(await opened("bob"), 1) == [1]


async def test_missed_changes_arrive(server: FakeServer, opened: Open) -> None:
    bob = await opened("bob")
    await server.post(ALICE, BOB, "tpyo")
    await received(bob, 1)
    server.change(PAIR, 1, "typo")
    await server.heads()
    async for event in bob.events():
        if isinstance(event, MessageChanged):
            assert (event.message.seq, event.message.content) == (1, "typo")
            break


async def test_a_slow_reader_gets_everything(server: FakeServer, opened: Open) -> None:
    """More than the queue holds: it is pulled when there is room again, and acks are not held up by it."""
    alice, bob = await opened("alice", capacity=10), await opened("bob", capacity=10)
    for n in range(60):
        await alice.send(peer=BOB, text=str(n))
    assert len(bob._receiver._queue) <= 12
    assert await seqs(bob, 60) == list(range(1, 61))
    assert await seqs(alice, 60) == list(range(1, 61))


@pytest.mark.parametrize("kind", ["memory", "file"])
async def test_positions_outlive_the_client(
    server: FakeServer, opened: Open, kind: str, tmp_path: Path
) -> None:
    path = tmp_path / "sub" / "positions.json"
    store: PositionStore = FilePositions(path) if kind == "file" else MemoryPositions()
    for n in range(5):
        await server.post(ALICE, BOB, str(n))
    bob = await opened("bob", store=store)
    async for event in bob.events():
        if isinstance(event, MessageReceived) and event.message.seq == 3:
            break  # the third is in hand, but not handled: nobody asked for the next one
    await bob.close()
    again = await opened("bob", store=FilePositions(path) if kind == "file" else store)
    assert await seqs(again, 3) == [3, 4, 5]
    if kind == "file":
        assert path.stat().st_mode & 0o777 == 0o600


async def test_a_damaged_position_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "positions.json"
    path.write_text("{")
    with pytest.raises(ValueError, match=r"positions\.json"):
        Client("http://x", username="a", password="b", store=FilePositions(path))


async def test_a_new_device_may_start_with_the_newest(server: FakeServer, opened: Open) -> None:
    store = MemoryPositions()
    for n in range(100):
        await server.post(ALICE, BOB, str(n))
    bob = await opened("bob", newest=2, store=store)
    assert await seqs(bob, 2) == [99, 100]
    await server.post(ALICE, BOB, "live")
    carol = server.account("carol")
    server.lose_push = lambda _: True
    await server.post(carol, BOB, "first")
    await server.post(carol, BOB, "second")
    await server.heads()
    assert [(m.sender_id, m.seq) for m in await received(bob, 3)] == [
        (ALICE, 101),
        (carol, 1),
        (carol, 2),
    ]


async def test_messages_reads_a_whole_conversation(server: FakeServer, opened: Open) -> None:
    alice = await opened()
    server.page = 30
    for n in range(100):
        await server.post(BOB, ALICE, str(n))
    server.faults["message.history"] = deque(["unavailable", LOSE])
    assert [m.seq async for m in alice.messages(PAIR)] == list(range(1, 101))
    assert [m.seq async for m in alice.messages(PAIR, after_seq=98)] == [99, 100]


async def test_connection_events(server: FakeServer, opened: Open) -> None:
    alice = await opened()
    typing = {"conversation_id": PAIR, "user_id": BOB, "typing": True}
    await server.broadcast("typing", typing)
    await server.broadcast("something.new", {"user_id": BOB})
    events = alice.events()
    assert await anext(events) == Connected()
    assert await anext(events) == Typing(PAIR, BOB, typing=True)
    other = await anext(events)
    assert isinstance(other, Pushed)
    assert (other.type, bytes(other.data)) == ("something.new", b'{"user_id":2}')
    await server.drop_all()
    assert isinstance(await anext(events), Disconnected)
    assert await anext(events) == Connected()


async def test_a_silent_server_is_left(server: FakeServer, opened: Open) -> None:
    server.heartbeat_s = 1
    alice = await opened()
    async for event in alice.events():
        if isinstance(event, Disconnected):
            assert "silent" in event.reason
            break


async def test_pings_keep_the_connection(server: FakeServer, opened: Open) -> None:
    server.heartbeat_s = 2
    alice = await opened()
    (socket,) = server.sockets
    for _ in range(11):  # longer than the four seconds after which silence would end it
        await socket.ping()
        await asyncio.sleep(0.4)
    assert set(server.sockets) == {socket}
    assert alice._connection is not None
    assert alice._connection.usable


async def test_draining_moves_to_a_new_connection(server: FakeServer, opened: Open) -> None:
    alice = await opened()
    (old,) = server.sockets
    await server.broadcast("draining")
    async for event in alice.events():
        if isinstance(event, Disconnected):
            break
    assert (await alice.send(peer=BOB, text="elsewhere")).seq == 1
    assert len(server.sockets) == 2
    await old.close(code=1012)
    assert (await alice.send(peer=BOB, text="and on")).seq == 2
    assert await seqs(alice, 2) == [1, 2]


async def test_a_refused_token_is_renewed_once_for_all(server: FakeServer, opened: Open) -> None:
    kept: list[Credentials] = []
    alice = await opened(keep=kept.append)
    server.access.clear()
    calls = [alice.api.call(SearchUsers("b"), Users) for _ in range(10)]
    found = await asyncio.gather(*calls)
    assert [user.username for user in found[0].users] == ["bob"]
    assert len(server.used) == 1
    server.access.clear()
    await server.close_all(4401)
    assert (await alice.send(peer=BOB, text="back")).seq == 1
    assert len(server.used) == 2
    assert len(kept) == 3
    assert len({pair.refresh_token for pair in kept}) == 3


async def test_a_token_is_refreshed_before_it_expires(server: FakeServer, opened: Open) -> None:
    server.token_life_s = 10
    alice = await opened()
    await alice.api.call(SearchUsers("b"), Users)
    assert server.used
    assert "GET users" in [kind for kind, _ in server.seen]


async def test_a_dead_session_is_replaced_with_the_password(
    server: FakeServer, opened: Open
) -> None:
    alice = await opened()
    server.access.clear()
    server.refresh.clear()
    server.faults["auth/login"] = deque(["unavailable"])
    await server.close_all(4401)
    assert (await alice.send(peer=BOB, text="logged in again")).seq == 1


async def test_a_dead_session_without_password_ends_the_client(server: FakeServer) -> None:
    kept: list[Credentials] = []
    async with Client(
        server.url, username="alice", password="password", keep=kept.append, backoff=QUICK
    ):
        pass
    async with Client(server.url, credentials=kept[0], backoff=QUICK) as alice:
        server.access.clear()
        server.refresh.clear()
        await server.close_all(4401)
        with pytest.raises(Unauthenticated):
            async for _ in alice.events():
                pass
        with pytest.raises(Unauthenticated):
            await alice.send(peer=BOB, text="x")


async def test_wrong_password(server: FakeServer) -> None:
    with pytest.raises(Unauthenticated):
        async with Client(server.url, username="alice", password="wrong", backoff=QUICK):
            pass


async def test_tokens_refused_again_and_again(server: FakeServer) -> None:
    """A server that refuses even fresh tokens: the client says so, and does not hammer it."""
    server.kick = 4401
    with pytest.raises(Unauthenticated):
        async with Client(server.url, username="alice", password="password", backoff=QUICK):
            pass
    assert len(server.used) <= 2


async def test_a_kicked_client_stays_away(server: FakeServer, opened: Open) -> None:
    alice = await opened()
    await server.broadcast("kicked", {"session_id": "s", "reason": "logged out"})
    await server.close_all(4409)
    with pytest.raises(SessionEnded):
        async for _ in alice.events():
            pass
    with pytest.raises(SessionEnded):
        await alice.send(peer=BOB, text="x")
    assert not server.sockets


async def test_closing_ends_what_waits(server: FakeServer, opened: Open) -> None:
    alice = await opened()
    server.refuse_connections = True
    await server.drop_all()
    send = asyncio.create_task(alice.send(peer=BOB, text="x"))
    reader = asyncio.create_task(seqs(alice, 1))
    await asyncio.sleep(0)
    await alice.close()
    with pytest.raises(ClientClosed):
        await send
    assert await reader == []


async def test_a_restarted_server(server: FakeServer) -> None:
    """The whole server goes away and comes back on the same port; the send in between arrives."""
    app = web.AppRunner(server.app(), handler_cancellation=True)
    await app.setup()
    site = web.TCPSite(app, "127.0.0.1", 0)
    await site.start()
    port = app.addresses[0][1]
    async with Client(
        f"http://127.0.0.1:{port}", username="alice", password="password", backoff=QUICK
    ) as alice:
        stopped = asyncio.create_task(app.cleanup())
        await server.drop_all()  # the runner waits for its connections
        await stopped
        send = asyncio.create_task(alice.send(peer=BOB, text="into the dark"))
        async for event in alice.events():
            if isinstance(event, Disconnected):
                break
        app = web.AppRunner(server.app(), handler_cancellation=True)
        await app.setup()
        await web.TCPSite(app, "127.0.0.1", port).start()
        assert (await send).seq == 1
    await app.cleanup()


async def test_rubbish_from_the_server_harms_nothing(server: FakeServer, opened: Open) -> None:
    alice = await opened()
    (socket,) = server.sockets
    await socket.send_str("{")
    await socket.send_str("[]")
    await socket.send_bytes(b"\x00")
    await server.broadcast("message", {"msg_id": 5})
    await server.broadcast("head", {"conversation_id": "nonsense", "seq": -1})
    assert (await alice.send(peer=BOB, text="fine")).seq == 1
    assert len(server.sockets) == 1


def test_addresses_are_checked() -> None:
    for url in ("127.0.0.1:8080", "ftp://x", "http://"):
        with pytest.raises(ValueError, match="address"):
            Client(url, username="a", password="b")


async def test_no_cookies_and_no_token_in_the_address(server: FakeServer, opened: Open) -> None:
    alice = await opened()
    assert isinstance(alice._http.cookie_jar, aiohttp.DummyCookieJar)
    assert not [kind for kind, data in server.seen if "token" in kind]
