"""The real servers of the tests: each is started when the first test asks for it, on free ports, with fresh data.

The fixtures stand in `conftest.py`, and what the last lines of a run tell about them in `PARTICIPANTS`.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from laptop.ports import free_ports
from laptop.process import LaptopError
from laptop.servers import NatsServer, RedisServer, S3Server, Server
from tests.kafka import KafkaServer
from tests.mariadb import MariaDbServer

__all__ = [
    "PARTICIPANTS",
    "KafkaServer",
    "MariaDbServer",
    "NatsServer",
    "RedisServer",
    "S3Server",
    "await_builds",
    "kafka",
    "mariadb",
    "nats",
    "redis",
    "s3",
    "serve",
]

S = TypeVar("S", bound=Server)

NOT_ASKED = "no test asked for it"
TOOK_PART = "took part"

# What became of each server in this run.
PARTICIPANTS: dict[str, str] = dict.fromkeys(
    (
        *("nats-server", "redis-server", "S3 server", "MariaDB", "Kafka"),
        *("Docker engine", "Compose", "helm", "kubeconform", "knative-admission"),
    ),
    NOT_ASKED,
)


@contextmanager
def serve(name: str, make: Callable[[Path], S]) -> Iterator[S]:
    """Runs the server that `make(folder)` gives until the block ends, then removes its data.

    A server that this machine does not have skips the test; under `CI=true` it fails it.
    """
    folder = Path(tempfile.mkdtemp(prefix="natterjack-"))
    server = None
    try:
        try:
            server = make(folder)
            server.start()
        except LaptopError as error:
            PARTICIPANTS[name] = f"MISSING: {error}"
            if os.environ.get("CI") == "true":
                raise
            pytest.skip(str(error))
        PARTICIPANTS[name] = TOOK_PART
        yield server
    finally:
        if server:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def await_builds() -> None:
    """Returns when `.ci/run`, which builds programs beside the tests, has built them all."""
    lock = Path(__file__).parent.parent / ".cache" / "builds.lock"
    if lock.exists():
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH)


def nats(folder: Path) -> NatsServer:
    """nats-server with JetStream, without accounts."""
    return NatsServer(folder / "nats", free_ports(1)[0], folder / "nats.log")


def redis(folder: Path) -> RedisServer:
    """redis-server without persistence."""
    return RedisServer(folder / "redis", free_ports(1)[0], folder / "redis.log")


def s3(folder: Path) -> S3Server:
    """SeaweedFS with the keys `test` and `test-secret`."""
    ports = free_ports(S3Server.PORTS)
    return S3Server(folder / "s3", ports, folder / "s3.log", "test", "test-secret")


def mariadb(folder: Path, *, pool: str = "64M") -> MariaDbServer:
    """MariaDB; each test makes databases of its own on it. See `MariaDbServer`."""
    return MariaDbServer(folder / "mariadb", free_ports(1)[0], folder / "mariadb.log", pool=pool)


def kafka(folder: Path, *, settled: bool = False) -> KafkaServer:
    """Kafka, one node, without topics. See `KafkaServer`."""
    ports = free_ports(KafkaServer.PORTS)
    return KafkaServer(folder / "kafka", ports, folder / "kafka.log", settled=settled)
