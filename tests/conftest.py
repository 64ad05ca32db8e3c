"""Fixtures of all tests: the real servers, one of each a session. A test that stops one starts it again."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests import servers
from tests.servers import KafkaServer, MariaDbServer, NatsServer, RedisServer, S3Server

# How long an example takes says more about the machine than about the code.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def nats_server() -> Iterator[NatsServer]:
    with servers.serve("nats-server", servers.nats) as server:
        yield server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    with servers.serve("redis-server", servers.redis) as server:
        yield server


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    with servers.serve("S3 server", servers.s3) as server:
        yield server


@pytest.fixture(scope="session")
def kafka_server() -> Iterator[KafkaServer]:
    with servers.serve("Kafka", servers.kafka) as server:
        yield server


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariaDbServer]:
    with servers.serve("MariaDB", servers.mariadb) as server:
        yield server


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.section("real servers")
    for name, state in servers.PARTICIPANTS.items():
        terminalreporter.write_line(f"{name}: {state.splitlines()[0]}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI a whole run in which a real server was missing is no success, even if no test noticed."""
    missing = any(state.startswith("MISSING") for state in servers.PARTICIPANTS.values())
    if missing and os.environ.get("CI") == "true" and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
