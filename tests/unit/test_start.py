"""What a process imports before it serves: a cold function's asker waits for it."""

import asyncio
import json
import subprocess
import sys

import pytest

from functions.__main__ import registry
from shared.adapters.log import LateWriter
from shared.adapters.memory_log import MemoryLog
from shared.log import REQUESTS, LogError, LogWriter, NotAppendedError
from tests.system import ROOT


def imported(*modules: str) -> set[str]:
    """Top-level names, and those of our own modules in full, that importing these brings along."""
    script = f"import sys, json, {', '.join(modules)}; print(json.dumps(list(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=True, timeout=60
    )
    return {
        name if name.startswith(("functions", "shared")) else name.split(".")[0]
        for name in json.loads(done.stdout)
    }


@pytest.mark.parametrize("name", registry())
def test_a_function_imports_no_other_and_no_kafka(name: str) -> None:
    names = imported("functions.__main__", f"functions.{name}")
    own = {n for n in names if n.startswith("functions.")} - {"functions.__main__"}
    assert all(n.split(".")[1] == name for n in own)
    assert not names & {"aiokafka", "alembic", "minio"}


def test_a_bridge_imports_no_function_and_no_storage() -> None:
    names = imported("shared.hosts.bridge")
    assert not {n for n in names if n.startswith("functions")}
    assert not names & {"aiokafka", "sqlalchemy", "redis", "minio", "argon2", "jwt"}


async def test_the_log_is_opened_once_with_the_first_record() -> None:
    log = MemoryLog(4)
    opened = 0

    async def open_log() -> LogWriter:
        nonlocal opened
        opened += 1
        await asyncio.sleep(0)
        return log

    writer = LateWriter(open_log)
    assert opened == 0
    await asyncio.gather(
        writer.append(REQUESTS, "a", b"1"),
        writer.append(REQUESTS, "a", b"2"),
        writer.append_all(REQUESTS, [("a", b"3")]),
    )
    await writer.append(REQUESTS, "a", b"4")
    assert opened == 1
    assert [record.value for record in log.records(REQUESTS)] == [b"1", b"2", b"3", b"4"]


async def test_a_log_that_cannot_be_opened_has_no_record() -> None:
    async def open_log() -> LogWriter:
        raise LogError("no such topic")

    writer = LateWriter(open_log)
    for _ in range(2):
        with pytest.raises(NotAppendedError, match="no such topic"):
            await writer.append(REQUESTS, "a", b"1")
