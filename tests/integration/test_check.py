"""The health check of functions: `python -m shared.hosts.check` over a real nats-server."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from laptop.ports import free_ports
from shared.adapters.nats import NatsBus
from shared.function import Function
from shared.hosts.check import missing
from shared.hosts.nats import Host
from tests.servers import NatsServer

ROOT = Path(__file__).parent.parent.parent


@asynccontextmanager
async def lifespan(_: object) -> AsyncIterator[None]:
    yield


@pytest.fixture
async def served(nats_server: NatsServer) -> AsyncIterator[None]:
    """A function without commands, as `timeline` is."""
    bus = await NatsBus.open(nats_server.url, "test")
    host = Host(bus)
    await host.serve(Function("timeline", (), lifespan), None)
    yield
    await host.drain()
    await bus.close()


async def test_who_serves_answers(served: None, nats_server: NatsServer) -> None:
    assert await missing(nats_server.url, ["timeline"]) == []
    assert await missing(nats_server.url, ["timeline", "nobody"], 0.5) == ["nobody"]


async def test_an_answer_from_elsewhere_does_not_count(
    served: None, nats_server: NatsServer
) -> None:
    assert await missing(nats_server.url, ["timeline"], 0.5, host="elsewhere") == ["timeline"]


def test_a_server_that_is_away_is_one_line_and_status_one() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "shared.hosts.check", "send"],
        cwd=ROOT,
        env=os.environ | {"IM_NATS_URL": f"nats://127.0.0.1:{free_ports(1)[0]}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "check: no answer from send" in done.stderr.splitlines()
