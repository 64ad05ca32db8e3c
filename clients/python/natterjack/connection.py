"""One WebSocket from its opening to its end: requests and their answers, pushes, heart-beat."""

import asyncio
from collections.abc import Callable
from typing import Final, Literal

import aiohttp
import msgspec
from aiohttp import WSMsgType
from aiohttp.http import WSMessageNoDecodeText

from clients.python.natterjack.errors import ConnectionLost, UnknownOutcome
from clients.python.natterjack.frames import (
    COMMAND_OF,
    Frame,
    Reply,
    decode,
    decode_reply,
    encode,
    encode_auth,
)
from schemas.events import Ready
from schemas.types import Model

OPEN_S: Final = 10.0
"""Until the upgrade is answered, and again until `ready` is there."""
SPARE_S: Final = 5.0
"""Beyond the server's dead line of a command: then its answer is taken for lost."""
MAX_INCOMING: Final = 16 * 1024 * 1024
"""A page of 200 longest messages."""

Socket = aiohttp.ClientWebSocketResponse[Literal[False]]


class Connection:
    """A connection is `usable` from `ready` on until it closes or the server says `draining`."""

    def __init__(self, socket: Socket, on_push: Callable[["Connection", Frame], None]) -> None:
        self._socket = socket
        self._on_push = on_push
        self._answers: dict[int | str | None, asyncio.Future[Frame]] = {}
        self._last_id = 0
        self._patience_s = OPEN_S
        self.usable = False
        self.was_ready = False
        self.draining: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the server says that it goes away."""
        self.refusal = ""
        """Message of the last error that belonged to no request: why the server closes, mostly."""

    @classmethod
    async def open(
        cls,
        http: aiohttp.ClientSession,
        url: str,
        token: str,
        on_push: Callable[["Connection", Frame], None],
    ) -> "Connection":
        """Connects and sends the token. Raises: aiohttp.ClientError, OSError, TimeoutError."""
        async with asyncio.timeout(OPEN_S):
            # Pings are answered in `run`, which must see them to know that the server lives.
            socket = await http.ws_connect(
                url,
                autoping=False,
                decode_text=False,
                max_msg_size=MAX_INCOMING,
                timeout=aiohttp.ClientWSTimeout(ws_close=1.0),
            )
            # The first frame and not the URL carries the token: URLs end up in logs.
            await socket.send_frame(encode_auth(token), WSMsgType.TEXT)
        return cls(socket, on_push)

    async def run(self) -> tuple[int | None, str]:
        """Reads until the connection ends. Returns its close code, if there was one, and the reason in words."""
        reason = "the server closed the connection"
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._patience_s) as silence:
                while await self._take(await self._socket.receive()):
                    silence.reschedule(loop.time() + self._patience_s)
        except TimeoutError:
            reason = f"the server was silent for {self._patience_s:g} s"
        except (aiohttp.ClientError, ConnectionError) as error:
            reason = f"the connection broke: {error}"
        finally:
            self.usable = False
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(ConnectionLost(reason))
            await self._socket.close()
        code = self._socket.close_code
        return code, self.refusal or (f"{reason} ({code})" if code else reason)

    async def request(self, command: Model, reply: type[Reply]) -> Reply:
        """Sends a command and waits for its answer.

        Raises: ApiError as the server says; ConnectionLost when the answer can no longer come.
        """
        self._last_id += 1
        request_id = self._last_id
        frame = encode(command, request_id)
        patience_s = COMMAND_OF[type(command)].deadline_ms / 1000 + SPARE_S
        answer: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._answers[request_id] = answer
        try:
            async with asyncio.timeout(patience_s):
                await self._socket.send_frame(frame, WSMsgType.TEXT)
                received = await answer
        except TimeoutError:
            raise UnknownOutcome("unknown_outcome", f"no answer within {patience_s:g} s") from None
        except (aiohttp.ClientError, ConnectionError) as error:
            raise ConnectionLost(str(error)) from error
        finally:
            self._answers.pop(request_id, None)
            if answer.done() and not answer.cancelled():
                answer.exception()  # seen, also when sending failed first
        if received.type == "error":
            raise received.error()
        return decode_reply(received.data, reply)

    async def _take(self, message: WSMessageNoDecodeText) -> bool:
        """Handles one frame; False at the end."""
        if message.type is WSMsgType.TEXT:
            try:
                frame = decode(message.data)
            except msgspec.DecodeError:
                return True  # what it may have carried is noticed by `head`, or by the asker's time-out
            self._dispatch(frame)
            return True
        if message.type is WSMsgType.PING:
            await self._socket.pong(message.data)
        return message.type in (WSMsgType.PING, WSMsgType.PONG, WSMsgType.BINARY)

    def _dispatch(self, frame: Frame) -> None:
        if frame.type in ("ack", "error"):
            answer = self._answers.get(frame.id)
            if answer is not None and not answer.done():
                answer.set_result(frame)
            elif frame.type == "error" and frame.id is None:
                self.refusal = frame.message
            return
        if frame.type == "ready":
            self._patience_s = 2 * decode_reply(frame.data, Ready).heartbeat_s
            self.usable = self.was_ready = True
        elif frame.type == "draining":
            # Answers to what is under way still come; new requests go to the next connection.
            self.usable = False
            if not self.draining.done():
                self.draining.set_result(None)
        self._on_push(self, frame)
