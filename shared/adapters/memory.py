"""Servers in memory, for tests: the same behaviour suites run on these and on the real ones."""

import asyncio
import logging
from itertools import count

from shared.bus import NO_RESPONDERS, OnMessage
from shared.errors import Unavailable

log = logging.getLogger(__name__)


class MemoryBus:
    """`shared.bus.Bus` within one event loop: wildcards, queue groups (first come), no-responders answers."""

    def __init__(self) -> None:
        self.connected = True
        self._sids = count(1)
        self._listeners: dict[int, tuple[list[str], str, OnMessage]] = {}
        self._turn = count()

    def send(
        self,
        subject: str,
        payload: bytes,
        reply: str = "",
        headers: bytes = b"",
        *,
        patient: bool = False,  # noqa: ARG002 - nothing costs less together here
    ) -> None:
        """See `Bus.send`. Delivery happens in a later turn of the loop, as over a network."""
        if not self.connected:
            raise Unavailable("the message bus is not reached right now")
        asyncio.get_running_loop().call_soon(self._deliver, subject, payload, reply, headers)

    def listen(self, subject: str, on_message: OnMessage, queue: str = "") -> int:
        """See `Bus.listen`."""
        sid = next(self._sids)
        self._listeners[sid] = (subject.split("."), queue, on_message)
        return sid

    def unlisten(self, sid: int) -> None:
        """See `Bus.unlisten`."""
        self._listeners.pop(sid, None)

    async def flush(self) -> None:
        """See `Bus.flush`."""
        await asyncio.sleep(0)

    def _deliver(self, subject: str, payload: bytes, reply: str, headers: bytes) -> None:
        tokens = subject.split(".")
        hits = [(q, f) for pattern, q, f in self._listeners.values() if _matches(pattern, tokens)]
        if not hits and reply:
            self.send(reply, b"", headers=NO_RESPONDERS + b"\r\n\r\n")
        groups: dict[str, list[OnMessage]] = {}
        for queue, on_message in hits:
            if queue:
                groups.setdefault(queue, []).append(on_message)
            else:
                groups.setdefault(f"> {len(groups)}", []).append(on_message)
        for members in groups.values():
            try:
                chosen = (
                    members[next(self._turn) % len(members)] if len(members) > 1 else members[0]
                )
                chosen(subject, reply, payload, headers)
            except Exception:
                log.exception("a listener failed on a message of %s", subject)


def _matches(pattern: list[str], tokens: list[str]) -> bool:
    for i, part in enumerate(pattern):
        if part == ">":
            return len(tokens) > i
        if i >= len(tokens) or part not in ("*", tokens[i]):
            return False
    return len(pattern) == len(tokens)
