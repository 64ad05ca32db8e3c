"""The client: one user's device, on-line for as long as it is open.

async with Client("http://127.0.0.1:8080", username="alice", password="…") as im:
    ack = await im.send(peer=2, text="hello")
    async for event in im.events():
        ...
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, Self

import aiohttp
from msgspec import UNSET, UnsetType
from yarl import URL

from clients.python.natterjack.api import Api
from clients.python.natterjack.auth import Credentials, Keeper, Password
from clients.python.natterjack.backoff import BACKOFF, Backoff
from clients.python.natterjack.connection import Connection
from clients.python.natterjack.errors import (
    ApiError,
    ClientClosed,
    ConnectionLost,
    SessionEnded,
    Transient,
    Unauthenticated,
)
from clients.python.natterjack.events import Connected, Disconnected, Event
from clients.python.natterjack.frames import (
    CLOSE_SESSION_ENDED,
    CLOSE_UNAUTHENTICATED,
    Frame,
    Reply,
    decode_reply,
)
from clients.python.natterjack.groups import GroupCalls
from clients.python.natterjack.ids import uuid7
from clients.python.natterjack.outgoing import message_of
from clients.python.natterjack.positions import MemoryPositions, PositionStore, Progress
from clients.python.natterjack.presence import PresenceWatch
from clients.python.natterjack.receiver import Receiver
from schemas.conversations import (
    ClearConversation,
    Conversations,
    ConversationState,
    ConversationSummary,
    ListConversations,
    UpdateConversation,
)
from schemas.events import PresencePushed, Ready
from schemas.messages import (
    Changed,
    ConfirmDelivery,
    EditMessage,
    GetHistory,
    History,
    Mention,
    Message,
    MessageAck,
    PinMessage,
    ReactToMessage,
    ReadMessages,
    ReadPosition,
    RecallMessage,
    SendMessage,
)
from schemas.presence import SendTyping
from schemas.types import Empty, Model

IN_FLIGHT = 32
"""Sends at once: half of what the server takes per connection, so that pulls have room."""
CAPACITY = 10_000
"""Events that wait for the reader before the client stops pulling more."""

MAX_REFUSALS = 3
"""Tokens refused in a row, one of them fresh for sure, until the client takes it that it is not wanted."""

log = logging.getLogger(__name__)


class Client:
    """Log in with `username` and `password`, or go on with `credentials`; open it with `async with`.

    Opening waits for the first connection, for ever if the server is away (wrap it in `asyncio.timeout` to give
    up), and raises Unauthenticated if the server refuses. Later losses are healed in the background until the
    client is closed or its session ends.

    keep: is given every new pair of tokens, to be stored before it is used.
    store: where positions are kept between runs; in memory by default.
    newest: how many messages of each conversation a new device starts with; None: all.
    """

    user_id: int
    """One's own number, known as soon as the client is open."""
    api: Api
    """The HTTP calls, with this client's log-in."""
    groups: GroupCalls
    """All that one does in groups but write, for which `send` is there."""
    presence: PresenceWatch
    """Which friends are watched: their coming and going are events."""

    def __init__(
        self,
        base_url: str,
        *,
        credentials: Credentials | None = None,
        username: str | None = None,
        password: str | None = None,
        device_id: str | None = None,
        keep: Callable[[Credentials], None] = lambda _: None,
        store: PositionStore | None = None,
        newest: int | None = None,
        backoff: Backoff = BACKOFF,
        capacity: int = CAPACITY,
    ) -> None:
        url = URL(base_url)
        if url.scheme not in ("http", "https") or not url.host:
            raise ValueError(f"not an http address: {base_url!r}")
        self._base_url = base_url.rstrip("/")
        self._credentials = credentials
        self._password = Password(username, password, device_id) if username and password else None
        self._keep = keep
        self._backoff = backoff
        self._progress = Progress(store if store is not None else MemoryPositions())
        self._receiver = Receiver(
            self.request,
            self._progress.at_start,
            newest=newest,
            capacity=capacity,
            backoff=backoff,
        )
        self.presence = PresenceWatch(self.request, self._receiver.notice)
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self._connection: Connection | None = None
        self._changed = asyncio.Event()
        """Set when there is a new connection, or none will ever be."""
        self._end: Exception | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._pumps: set[asyncio.Task[tuple[int | None, str]]] = set()

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        self._keeper = Keeper(
            Api(self._base_url, self._http),
            credentials=self._credentials,
            password=self._password,
            keep=self._keep,
            backoff=self._backoff,
        )
        self.api = Api(self._base_url, self._http, self._keeper)
        self.groups = GroupCalls(self.request, self.api)
        self._tasks = [
            asyncio.create_task(self._stay_connected(), name="stay connected"),
            asyncio.create_task(self._until_the_end(self._receiver.run()), name="catch up"),
            asyncio.create_task(self._until_the_end(self.presence.run()), name="presence"),
        ]
        try:
            await self._usable()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connection; sends under way and `events()` end too. Can be called more than once."""
        self._finish(ClientClosed("the client is closed"))
        for task in (*self._tasks, *self._pumps):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._pumps, return_exceptions=True)
        await self._receiver.close()
        await self._keeper.close()
        self._progress.save()
        await self._http.close()

    async def send(
        self,
        *,
        text: str,
        peer: int | None = None,
        group: int | None = None,
        conversation: str | None = None,
        reply_to: str | None = None,
        mentions: Sequence[Mention] = (),
        client_msg_id: str | None = None,
    ) -> MessageAck:
        """Sends a text to exactly one of `peer` (a user), `group`, `conversation`. See `send_message`."""
        return await self.send_message(
            SendMessage(
                client_msg_id if client_msg_id is not None else uuid7(),
                text,
                receiver_id=peer,
                group_id=group,
                conversation_id=conversation,
                reply_to=reply_to,
                mentions=list(mentions),
            )
        )

    async def send_message(self, command: SendMessage) -> MessageAck:
        """Sends under the same `client_msg_id`, again and again if need be, until it is acked or finally refused.

        So a lost connection or a time-out is never a failure; it only takes longer (`asyncio.timeout` stops the
        waiting, not the message). Raises: ApiError if the server refuses; ClientClosed, SessionEnded.
        """
        async with self._slots:
            ack = await self.request(command, MessageAck)
        if command.forward_of is None:
            self._receiver.add(message_of(command, ack, self.user_id))
        else:  # only the server knows what it says
            self._receiver.head(ack.conversation_id, ack.seq)
        return ack

    async def forward(
        self,
        msg_id: str,
        *,
        peer: int | None = None,
        group: int | None = None,
        conversation: str | None = None,
    ) -> MessageAck:
        """Sends a message that one may see to exactly one of `peer`, `group`, `conversation`. See `send_message`."""
        return await self.send_message(
            SendMessage(
                uuid7(),
                receiver_id=peer,
                group_id=group,
                conversation_id=conversation,
                forward_of=msg_id,
            )
        )

    async def recall(self, msg_id: str) -> Changed:
        """Takes a message back, from everywhere. Asking again is safe, as for all changes. Raises: as `request`."""
        return await self.request(RecallMessage(msg_id), Changed)

    async def edit(self, msg_id: str, text: str, mentions: Sequence[Mention] = ()) -> Changed:
        """Gives one's own message another content."""
        return await self.request(EditMessage(msg_id, text, list(mentions)), Changed)

    async def react(self, msg_id: str, emoji: str, *, remove: bool = False) -> Changed:
        """Puts an emoji on a message, or takes one's own away."""
        return await self.request(ReactToMessage(msg_id, emoji, remove), Changed)

    async def pin(self, msg_id: str, *, remove: bool = False) -> Changed:
        """Pins a message in its conversation for all members, or unpins it."""
        return await self.request(PinMessage(msg_id, remove), Changed)

    async def read(self, conversation_id: str, seq: int) -> ReadPosition:
        """Says that one has read up to `seq`: all one's devices and the peer hear of it."""
        return await self.request(ReadMessages(conversation_id, seq), ReadPosition)

    async def delivered(self, conversation_id: str, seq: int) -> None:
        """Says that this device has everything up to `seq`. One call for many messages is enough."""
        await self.request(ConfirmDelivery(conversation_id, seq), Empty)

    async def typing(
        self,
        *,
        peer: int | None = None,
        group: int | None = None,
        conversation: str | None = None,
        typing: bool = True,
    ) -> None:
        """Says that one is typing. Raises: ApiError if the server refuses."""
        await self.request(SendTyping(peer, group, conversation, typing), Empty)

    async def request(self, command: Model, reply: type[Reply]) -> Reply:
        """Any command that may be repeated, over the WebSocket, until there is an answer.

        Raises: ApiError if the server refuses; ClientClosed, SessionEnded.
        """
        attempt = 0
        while True:
            connection = await self._usable()
            try:
                return await connection.request(command, reply)
            except ConnectionLost:
                await asyncio.sleep(0)  # the next connection is waited for above
            except Transient as error:
                await asyncio.sleep(self._backoff.delay_s(attempt, error.retry_after_ms))
                attempt += 1

    async def events(self) -> AsyncIterator[Event]:
        """Everything that happens; the messages of each conversation in order, each once. One reader at a time.

        An event counts as handled when the next one is asked for. Ends when the client is closed.
        Raises: SessionEnded, Unauthenticated when the server ended the session.
        """
        while True:
            try:
                entry = await self._receiver.next()
            except ClientClosed:
                return
            if entry.event is not None:
                yield entry.event
            self._progress.mark(entry.conversation_id, entry.reached)

    async def messages(self, conversation_id: str, after_seq: int = 0) -> AsyncIterator[Message]:
        """A conversation's messages after `after_seq` in order, from the server, up to its newest."""
        while True:
            asked = GetHistory(conversation_id, after_seq=after_seq, limit=200)
            page = await self.request(asked, History)
            for message in page.messages:
                yield message
                after_seq = message.seq
            if not page.has_more or not page.messages:
                return

    async def conversations(self) -> AsyncIterator[ConversationSummary]:
        """All one's conversations, from the server: pinned ones first, then by their newest message."""
        cursor: str | None = None
        while True:
            page = await self.request(ListConversations(cursor, 200), Conversations)
            for conversation in page.conversations:
                yield conversation
            if (cursor := page.next) is None:
                return

    async def set_conversation(
        self,
        conversation_id: str,
        *,
        pinned: bool | UnsetType = UNSET,
        muted: bool | UnsetType = UNSET,
        draft: str | UnsetType | None = UNSET,
    ) -> ConversationState:
        """Sets what is given, on all one's devices; `draft` None removes it."""
        asked = UpdateConversation(conversation_id, pinned, muted, draft)
        return await self.request(asked, ConversationState)

    async def clear(self, conversation_id: str, upto_seq: int | None = None) -> ConversationState:
        """Removes a conversation's messages for oneself: all there are, or those up to `upto_seq`."""
        return await self.request(ClearConversation(conversation_id, upto_seq), ConversationState)

    def _finish(self, error: Exception) -> None:
        """From now on nothing works any more, because of `error`; the first one stands."""
        if self._end is None:
            self._end = error
            self._receiver.end(error)
            self._changed.set()

    async def _usable(self) -> Connection:
        while True:
            if self._end is not None:
                raise self._end
            if self._connection is not None and self._connection.usable:
                return self._connection
            self._changed.clear()
            await self._changed.wait()

    async def _until_the_end(self, work: Coroutine[Any, Any, None]) -> None:
        with contextlib.suppress(ClientClosed, SessionEnded, Unauthenticated):
            await work

    async def _stay_connected(self) -> None:
        """Connects again and again, until the session is over."""
        attempt = 0
        refusals = 0
        while True:
            try:
                token = await self._keeper.access_token()
                connection = await Connection.open(
                    self._http, f"{self._base_url}/ws", token, self._on_push
                )
                code, reason = await self._pump(connection)
                log.info("connection ended: %s", reason)
                if connection.was_ready:
                    attempt = refusals = 0
                    self._receiver.notice(Disconnected(reason))
                if code == CLOSE_SESSION_ENDED:
                    return self._finish(SessionEnded(reason))
                if code == CLOSE_UNAUTHENTICATED:
                    refusals += 1
                    if refusals == MAX_REFUSALS:
                        raise Unauthenticated("unauthenticated", reason)
                    await self._keeper.renew(token)
            except Unauthenticated as error:
                return self._finish(error)
            except (aiohttp.ClientError, OSError, ApiError) as error:
                # Away, or not what we think: both may change.
                log.info("no connection to %s, will be tried again: %r", self._base_url, error)
            await asyncio.sleep(self._backoff.delay_s(attempt))
            attempt += 1

    async def _pump(self, connection: Connection) -> tuple[int | None, str]:
        """Runs the connection until it ends or, the server draining, should be replaced. Returns code and reason."""
        pump = asyncio.create_task(connection.run(), name="connection")
        self._pumps.add(pump)
        pump.add_done_callback(self._pumps.discard)
        ends: list[asyncio.Future[Any]] = [pump, connection.draining]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        return pump.result() if pump.done() else (None, "the server is draining")

    def _on_push(self, connection: Connection, frame: Frame) -> None:
        if frame.type == "ready":
            self.user_id = self._receiver.user_id = decode_reply(frame.data, Ready).user_id
            self._connection = connection
            self._changed.set()
            self._receiver.notice(Connected())
            self._receiver.catch_up()
            self.presence.renew()
        elif frame.type == "resync":
            self._receiver.catch_up()
            self.presence.renew()
        elif frame.type == "presence":
            self.presence.pushed(decode_reply(frame.data, PresencePushed))
        elif frame.type not in ("draining", "kicked"):  # what follows from those is the close code
            self._receiver.push(frame)
