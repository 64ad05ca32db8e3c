"""Our processes end when told to, also while they still wait for a server that is away."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from laptop.ports import free_ports

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("process", [["edge"], ["functions", "send"]])
def test_sigterm_ends_a_process_that_waits_for_nats(process: list[str]) -> None:
    port, edge_port = free_ports(2)
    env = os.environ | {
        "IM_EDGE_PORT": str(edge_port),
        "IM_NATS_URL": f"nats://127.0.0.1:{port}",
        "IM_LOG_URL": "jetstream://",
        "IM_DB_URL": "sqlite+aiosqlite://",
        "IM_REDIS_URL": f"redis://127.0.0.1:{port}",
        "IM_JWT_SECRET": "0123456789abcdef0123456789abcdef",
    }
    command = [sys.executable, "-m", *process]
    with subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True) as popen:
        assert popen.stderr is not None
        try:
            for line in popen.stderr:
                if "nats: " in line:  # it has tried once
                    break
            popen.send_signal(signal.SIGTERM)
            popen.stderr.read()
            assert popen.wait(30) == 0
        finally:
            popen.kill()
