"""Free ports of this machine."""

import random
import socket
from collections.abc import Collection
from contextlib import closing

# Below the range from which the system takes the ports of outgoing connections: what is free now is so after a restart.
_RANGE = range(20_000, 30_000)


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with closing(socket.socket(family)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_ports(count: int, without: Collection[int | None] = ()) -> list[int]:
    """Different free ports on the loopback, none of them in `without`."""
    candidates = random.sample(_RANGE, len(_RANGE))
    free = (port for port in candidates if port not in without and is_free(port))
    return [next(free) for _ in range(count)]
