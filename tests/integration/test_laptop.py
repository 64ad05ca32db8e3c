"""The supervisor with real servers: start, crashes, stop, and that no process is ever left behind."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).parents[2]
WITHOUT_S3 = {"IM_S3_ENDPOINT": "http://127.0.0.1:1"}
TIMEOUT_S = 60


class Laptop:
    """A running supervisor and what it says."""

    def __init__(self, module: str, data: Path, environment: dict[str, str]) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("IM_")}
        ours = {"IM_DATA_DIR": str(data), "IM_EDGE_PORT": "0"}
        self._data = data
        self._lines: queue.Queue[str] = queue.Queue()
        self.process = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=ROOT,
            env=clean | ours | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                self._lines.put(line)
        self._lines.put("")

    def until(self, text: str) -> str:
        """The next line with `text`; fails if the supervisor ends before."""
        said = ""
        while line := self._lines.get(timeout=TIMEOUT_S):
            said += line
            if text in line:
                return line
        raise AssertionError(f"{text!r} was not said, but:\n{said}")

    def rest(self) -> str:
        """What it says until its end."""
        return "".join(iter(lambda: self._lines.get(timeout=TIMEOUT_S), ""))

    def run(self) -> dict[str, Any]:
        """What `run.json` holds."""
        content: dict[str, Any] = json.loads((self._data / "run.json").read_text())
        return content

    def end(self, number: int) -> int:
        """Sends a signal and returns the exit status."""
        self.process.send_signal(number)
        status = self.process.wait(TIMEOUT_S)
        self._reader.join()
        return status


def processes(data: Path) -> list[psutil.Process]:
    """All that run for this data folder."""
    found = []
    for process in psutil.process_iter():
        try:
            of_ours = process.environ().get("IM_DATA_DIR") == str(data)
            if lives(process) and (of_ours or str(data) in " ".join(process.cmdline())):
                found.append(process)
        except psutil.Error:
            continue  # it has ended meanwhile, or is nobody's of us
    return found


def lives(process: psutil.Process) -> bool:
    """Whether it still runs; one that nobody has fetched the status of yet does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def until_gone(processes: list[psutil.Process]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while alive := [process for process in processes if lives(process)]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.01)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Laptop]]:
    started: list[Laptop] = []

    def start(
        module: str = "tests.integration.laptop_with_stand_ins", **environment: str
    ) -> Laptop:
        laptop = Laptop(module, tmp_path, environment)
        started.append(laptop)
        return laptop

    yield start
    for laptop in started:
        if laptop.process.poll() is None:
            laptop.end(signal.SIGTERM)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything(
    start: Callable[..., Laptop], tmp_path: Path, number: int
) -> None:
    laptop = start(**WITHOUT_S3)
    laptop.until("./task chat")
    assert len(processes(tmp_path)) >= 6  # supervisor, nats, redis, functions, edge and its worker
    assert laptop.end(number) == 0
    assert not processes(tmp_path)
    assert not (tmp_path / "run.json").exists()


def test_a_signal_during_the_start_stops_everything(
    start: Callable[..., Laptop], tmp_path: Path
) -> None:
    laptop = start(**WITHOUT_S3)
    while not (tmp_path / "logs" / "nats.log").exists():
        assert laptop.process.poll() is None
    laptop.end(signal.SIGTERM)
    assert not processes(tmp_path)


@pytest.mark.parametrize("name", ["nats-server", "redis-server", "functions", "edge"])
def test_what_dies_is_started_again(
    start: Callable[..., Laptop], tmp_path: Path, name: str
) -> None:
    laptop = start(**WITHOUT_S3)
    laptop.until("./task chat")
    before = laptop.run()
    family = psutil.Process(before["pids"][name]).children()
    os.kill(before["pids"][name], signal.SIGKILL)
    assert "killed by SIGKILL" in laptop.until(f"{name} ended")
    until_gone(family)  # the workers of a dead edge would go on answering
    while (after := laptop.run())["pids"][name] == before["pids"][name]:
        assert laptop.process.poll() is None
    assert after["urls"] == before["urls"]
    assert psutil.pid_exists(after["pids"][name])


def test_nothing_survives_the_supervisor_and_the_next_start_works(
    start: Callable[..., Laptop], tmp_path: Path
) -> None:
    laptop = start(**WITHOUT_S3)
    laptop.until("./task chat")
    left = processes(tmp_path)
    laptop.end(signal.SIGKILL)
    again = start(**WITHOUT_S3)
    again.until("./task chat")
    until_gone(left)


@pytest.mark.parametrize("name", ["migrations", "functions", "edge"])
def test_what_cannot_start_shows_why(
    start: Callable[..., Laptop], tmp_path: Path, name: str
) -> None:
    laptop = start(BROKEN=name, **WITHOUT_S3)
    said = laptop.rest()
    assert laptop.process.wait(TIMEOUT_S) == 1
    assert said.startswith(name)
    assert "exit status 1" in said
    assert "the reason" in said
    assert "Traceback" not in said
    assert not processes(tmp_path)


def test_the_whole_starts_twice_and_finds_its_users_again(start: Callable[..., Laptop]) -> None:
    account = {"username": "alice", "password": "correct horse battery"}
    first = start("laptop")
    first.until("./task chat")
    post(first, "register", account)
    user = post(first, "login", account)["user"]
    assert first.end(signal.SIGINT) == 0
    second = start("laptop")
    second.until("./task chat")
    assert post(second, "login", account)["user"]["user_id"] == user["user_id"]
    assert second.end(signal.SIGTERM) == 0


def post(laptop: Laptop, action: str, body: dict[str, str]) -> dict[str, Any]:
    request = urllib.request.Request(  # noqa: S310 - our own address
        f"{laptop.run()['urls']['http']}/api/v1/auth/{action}",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310
        answer: dict[str, Any] = json.load(response)["data"]
    return answer
