"""The port to NATS: what everything but the adapter itself knows of it.

`shared.adapters.nats` implements it on nats-py, `shared.adapters.memory` in process for tests.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

from shared import subjects
from shared.errors import Unavailable, UnknownOutcome
from shared.ids import random_token

OnMessage = Callable[[str, str, bytes, bytes], None]
"""Called in the event loop for each message with (subject, reply or "", payload, raw header block or b"").

It must not block; what takes long it hands to a task.
"""

NO_RESPONDERS = b"NATS/1.0 503"
ERROR_CODE = b"Nats-Service-Error-Code: "


class Bus(Protocol):
    """Publish and subscribe: `send` and `listen` write to a buffer that leaves once per turn of the event loop, or
    later if all that is in it is patient.
    """

    @property
    def connected(self) -> bool:
        """Whether the server is reached right now."""

    def send(
        self,
        subject: str,
        payload: bytes,
        reply: str = "",
        headers: bytes = b"",
        *,
        patient: bool = False,
    ) -> None:
        """Publishes. `headers` is a block made by `pack_headers`. `patient`: may wait some ms for more of its kind.

        Raises: Unavailable if the server is not reached (surely nothing was sent).
        """

    def listen(self, subject: str, on_message: OnMessage, queue: str = "") -> int:
        """Subscribes, with wildcards and queue groups as in NATS. Returns the number for `unlisten`."""

    def unlisten(self, sid: int) -> None:
        """Ends a subscription."""

    async def flush(self) -> None:
        """Returns when the server has processed all that was sent before: subscriptions are live then."""


def pack_headers(headers: Mapping[str, str]) -> bytes:
    """A NATS header block. Values must hold no CR or LF: callers pass only checked tokens."""
    return ("NATS/1.0\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers.items()) + "\r\n").encode()


def header(block: bytes, name: bytes) -> str:
    """The value of `name` (written as `b"Im-Conn: "`, exact case) in a header block, or ""."""
    start = block.find(b"\r\n" + name)
    if start < 0:
        return ""
    start += 2 + len(name)
    return block[start : block.find(b"\r\n", start)].decode("utf-8", "replace").strip()


def read_headers(block: bytes) -> dict[str, str]:
    """All headers of a block by name, cheaper than `header` where several are wanted."""
    lines = block.decode("utf-8", "replace").split("\r\n")
    return dict([line.split(": ", 1) for line in lines if ": " in line])


OnReply = Callable[[bytes | None, bytes], None]
"""Called once per request with (payload, header block); payload None: no answer in time."""


class Inbox:
    """One wildcard subscription for all answers of this process, and one sweep for all their dead lines.

    A future, a timer and a subscription per request would cost ten times as much.
    """

    SWEEP_S = 0.25

    def __init__(self, bus: Bus, prefix: str = subjects.EDGE_INBOX) -> None:
        """Listens on `<prefix><128 random bits>.*`; `close` ends it."""
        self._bus = bus
        self._loop = asyncio.get_running_loop()
        self._address = f"{prefix}{random_token()}."
        self._waiting: dict[str, tuple[float, OnReply]] = {}
        self._last = 0
        self._sid = bus.listen(f"{self._address}*", self._answered)
        self._sweeper = self._loop.call_later(self.SWEEP_S, self._sweep)

    def ask(
        self,
        subject: str,
        payload: bytes,
        timeout_s: float,
        on_reply: OnReply,
        headers: bytes = b"",
        *,
        patient: bool = False,
    ) -> None:
        """Sends a request; `on_reply` is called exactly once, later. `patient`: see `Bus.send`.

        Raises: Unavailable if the bus is not reached.
        """
        self._last += 1
        token = str(self._last)
        self._bus.send(subject, payload, self._address + token, headers, patient=patient)
        self._waiting[token] = (self._loop.time() + timeout_s, on_reply)

    def expect(self, timeout_s: float, on_reply: OnReply) -> str:
        """The address for one answer to what somebody else sends; `on_reply` as in `ask`, unless it is forgotten."""
        self._last += 1
        token = str(self._last)
        self._waiting[token] = (self._loop.time() + timeout_s, on_reply)
        return self._address + token

    def forget(self, address: str) -> None:
        """Expects nothing any more at an address given by `expect`."""
        self._waiting.pop(address[len(self._address) :], None)

    async def request(
        self, subject: str, payload: bytes, timeout_s: float, headers: bytes = b""
    ) -> tuple[bytes, bytes]:
        """Sends a request and waits for (payload, header block), errors of the service included.

        Raises: Unavailable if nobody serves the subject; UnknownOutcome after `timeout_s`.
        """
        answer: asyncio.Future[tuple[bytes | None, bytes]] = self._loop.create_future()

        def settle(payload: bytes | None, block: bytes) -> None:
            if not answer.done():
                answer.set_result((payload, block))

        self.ask(subject, payload, timeout_s, settle, headers)
        body, block = await answer
        if body is None:
            raise UnknownOutcome("no answer in time; repeat with the same client_msg_id")
        if block.startswith(NO_RESPONDERS):
            raise Unavailable("nobody serves this command right now")
        return body, block

    def close(self) -> None:
        """Stops; requests still waiting hear that no answer came."""
        self._sweeper.cancel()
        self._bus.unlisten(self._sid)
        waiting, self._waiting = self._waiting, {}
        for _, on_reply in waiting.values():
            on_reply(None, b"")

    def __len__(self) -> int:
        """Requests that wait for an answer."""
        return len(self._waiting)

    def _answered(self, subject: str, _reply: str, payload: bytes, headers: bytes) -> None:
        waiting = self._waiting.pop(subject[len(self._address) :], None)
        if waiting is not None:
            waiting[1](payload, headers)

    def _sweep(self) -> None:
        now = self._loop.time()
        late = [token for token, (deadline, _) in self._waiting.items() if deadline <= now]
        for token in late:
            self._waiting.pop(token)[1](None, b"")
        self._sweeper = self._loop.call_later(self.SWEEP_S, self._sweep)
