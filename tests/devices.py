"""A device under test: a client that keeps what it has been told, as an application would."""

import asyncio
from collections.abc import Callable

from clients.python.natterjack import Client, MessageChanged, MessageReceived, PresenceChanged
from clients.python.natterjack.events import Pushed, ReadMoved
from schemas.messages import Message


class Device:
    """Messages by `seq` as they are now, every state they were seen in, read positions and presence by user.

    `client` may be replaced by the next one of the same device: what it holds stays.
    """

    def __init__(self, client: Client) -> None:
        self.messages: dict[int, Message] = {}
        self.states: list[Message] = []
        self.reads: dict[int, int] = {}
        self.online: dict[int, bool] = {}
        self.delivered = asyncio.Event()
        self._moved = asyncio.Event()
        self.listen(client)

    def listen(self, client: Client) -> None:
        """Goes on with this client, which is open; ends with it."""
        self.client = client
        self._task = asyncio.create_task(self._listen())

    async def until(self, condition: Callable[["Device"], bool], timeout_s: float = 20) -> None:
        """Returns when what it holds meets a condition."""
        async with asyncio.timeout(timeout_s):
            while not condition(self):
                self._moved.clear()
                await self._moved.wait()

    async def leave(self) -> None:
        """Closes the client; what it has received it has also kept."""
        await self.client.close()
        await self._task

    async def _listen(self) -> None:
        async for event in self.client.events():
            match event:
                case MessageReceived(message) | MessageChanged(message):
                    self.messages[message.seq] = message
                    self.states.append(message)
                case ReadMoved(_, user, seq):
                    self.reads[user] = seq
                case PresenceChanged(presence):
                    self.online[presence.user_id] = presence.online
                case Pushed("delivered", _):
                    self.delivered.set()
            self._moved.set()
