"""Reads NATS's wire protocol for `NatsBus`: finds messages by plain byte searches and hands ours over at once.

nats-py's own parser tries up to seven regular expressions on each line and awaits a coroutine for each message; a
message costs it three times as much. Everything but MSG and HMSG it still does itself.
"""

import logging
from typing import Protocol

from nats.errors import ProtocolError
from nats.protocol.parser import Parser

from shared.bus import OnMessage

log = logging.getLogger(__name__)

MAX_LINE = 8192
"""Longest control line; nats-server's own limit is 4 KiB."""


class Dispatcher(Protocol):
    """Whose messages these are: a nats-py client that knows some subscriptions itself."""

    def listener_of(self, sid: int) -> OnMessage | None:
        """Who hears the messages of a subscription; None if it is one of nats-py's own."""

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None: ...


class LeanParser(Parser):
    """Takes the place of `Client._ps`."""

    nc: Dispatcher

    def reset(self) -> None:
        """A new connection begins with a new line."""
        super().reset()
        self._rest = b""

    async def parse(self, data: bytes = b"") -> None:
        """Takes what came from the server, in pieces of any size. Raises: ProtocolError."""
        try:
            await self._parse(data)
        except (ValueError, IndexError) as error:
            raise ProtocolError(f"nats: malformed message: {error}") from error

    async def _parse(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        position = 0
        while (end := data.find(b"\r\n", position)) >= 0:
            first = data[position]
            if first == 77:  # MSG <subject> <sid> [reply] <size>
                line = data[position + 4 : end].split(b" ")
                head = 0
            elif first == 72:  # HMSG <subject> <sid> [reply] <size of headers> <size>
                line = data[position + 5 : end].split(b" ")
                head = int(line[-2])
            else:
                await super().parse(data[position : end + 2])
                position = end + 2
                continue
            start = end + 2
            stop = start + int(line[-1])
            if len(data) < stop + 2:
                break
            reply = line[2] if len(line) == (5 if head else 4) else b""
            position = stop + 2
            on_message = self.nc.listener_of(int(line[1]))
            if on_message is None:
                headers, payload = data[start : start + head], data[start + head : stop]
                await self.nc._process_msg(int(line[1]), line[0], reply, payload, headers)  # noqa: SLF001
                continue
            try:
                on_message(
                    line[0].decode(),
                    reply.decode(),
                    data[start + head : stop],
                    data[start : start + head],
                )
            except Exception:
                # An exception would end nats-py's read loop and with it this process's whole connection.
                log.exception("a listener failed on a message of %s", line[0][:128])
        self._rest = data[position:]
        if end < 0 and len(self._rest) > MAX_LINE:
            raise ProtocolError("nats: a line without end")
