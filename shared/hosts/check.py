"""`python -m shared.hosts.check NAME …`: asks over NATS whether these functions are served on this machine.

It is the health check of containers, which have no port. As it runs again and again, it imports little.
"""

import asyncio
import socket
import sys
from collections.abc import Iterable
from contextlib import suppress

import msgspec

from shared import subjects
from shared.adapters.nats import NatsBus
from shared.ids import random_token
from shared.settings import Settings, SettingsError

TIMEOUT_S = 4.0


class _Ping(msgspec.Struct):
    """The parts in use of an answer to `$SRV.PING`."""

    name: str
    metadata: dict[str, str] = {}


async def missing(
    nats_url: str, names: Iterable[str], timeout_s: float = TIMEOUT_S, host: str = ""
) -> list[str]:
    """Those of `names` that no process on `host` (default: this machine) answers for within `timeout_s`.

    Functions elsewhere answer as well and do not count: a container is to vouch for itself.
    """
    host = host or socket.gethostname()
    silent = set(names)
    settled = asyncio.Event()

    def answered(_subject: str, _reply: str, payload: bytes, _headers: bytes) -> None:
        if not payload:
            return  # the server's word that nobody serves one of them
        ping = msgspec.json.decode(payload, type=_Ping)
        if ping.metadata.get("host") == host:
            silent.discard(ping.name)
            if not silent:
                settled.set()

    with suppress(TimeoutError):  # nobody on that machine answers for the rest
        async with asyncio.timeout(timeout_s):
            bus = await NatsBus.open(nats_url, "check")
            try:
                inbox = f"{subjects.MONITOR_INBOX}{random_token()}"
                bus.listen(inbox, answered)
                for name in sorted(silent):
                    bus.send(f"$SRV.PING.{name}", b"", inbox)
                await settled.wait()
            finally:
                await bus.close()
    return sorted(silent)


def main(names: list[str]) -> int:
    """Status 0 if all are served; otherwise 1, and one line says which are not; 2 if a setting is wrong."""
    try:
        nats_url = Settings.load().require("nats_url")
    except SettingsError as error:
        print(f"check: {error}", file=sys.stderr)  # noqa: T201 the one line to whoever asks
        return 2
    silent = asyncio.run(missing(nats_url, names))
    if silent:
        print(f"check: no answer from {', '.join(silent)}", file=sys.stderr)  # noqa: T201
    return 1 if silent else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
