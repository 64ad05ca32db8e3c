"""Decides from the settings which servers are embedded, and makes the environment of the processes that use them."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from laptop.data import DataFolder
from laptop.ports import is_free
from laptop.process import LaptopError, Process
from laptop.servers import NatsServer, RedisServer, S3Server, Server
from shared.settings import Settings

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to run. `servers` and `s3` are the embedded ones; `migrations` ends by itself, the others stay.

    The S3 server is the slowest by far and nobody's start needs it: the rest does not wait for it, so that its bucket
    is not made by the migrations but, with the `settings` of the processes, when it answers.
    """

    servers: list[Server]
    s3: S3Server | None
    settings: Settings
    migrations: Process
    functions: Process
    edge: Process
    urls: dict[str, str]


def make_plan(settings: Settings, environment: Mapping[str, str], data: DataFolder) -> Plan:
    """Every URL that is unset gets an embedded server. Raises: LaptopError."""
    env = dict(environment) | {"IM_DATA_DIR": str(data.path), "PYTHONPATH": str(ROOT)}
    env["PYTHONUNBUFFERED"] = "1"
    env["IM_HOST"] = "nats"  # whatever port the environment may name
    servers: list[Server] = []
    s3: S3Server | None = None
    nats_url, redis_url, s3_url = settings.nats_url, settings.redis_url, settings.s3_endpoint
    edge_port = _edge_port(settings, data)
    if not nats_url:
        port = _ports(environment, "nats", data)[0]
        nats = NatsServer(data.path / "nats", port, data.log("nats"))
        servers.append(nats)
        env["IM_NATS_URL"] = nats_url = nats.url
    if not redis_url:
        port = _ports(environment, "redis", data)[0]
        redis = RedisServer(data.path / "redis", port, data.log("redis"))
        servers.append(redis)
        env["IM_REDIS_URL"] = redis_url = redis.url
    if not s3_url:
        keys = data.secret("s3_access_key"), data.secret("s3_secret_key")
        ports = _ports(environment, "s3", data, S3Server.PORTS)
        s3 = S3Server(data.path / "s3", ports, data.log("s3"), *keys)
        env["IM_S3_ENDPOINT"] = s3_url = s3.url
        env["IM_S3_ACCESS_KEY"], env["IM_S3_SECRET_KEY"] = keys
    if not settings.db_url:
        env["IM_DB_URL"] = f"sqlite+aiosqlite:///{data.path / 'natterjack.db'}"
    if not settings.log_url:
        env["IM_LOG_URL"] = "jetstream://"
        env.setdefault("IM_LOG_PARTITIONS", "8")
    if not settings.jwt_secret and not settings.jwt_keys:
        env["IM_JWT_SECRET"] = data.secret("jwt_secret")
    env["IM_EDGE_PORT"] = str(edge_port)

    def python(name: str, env: Mapping[str, str] = env) -> Process:
        command = [sys.executable, "-m", name]
        return Process(name, command, folder=ROOT, log=data.log(name), env=env, grace=15)

    host = "127.0.0.1" if settings.edge_host in {"0.0.0.0", "::", ""} else settings.edge_host
    address = f"[{host}]:{edge_port}" if ":" in host else f"{host}:{edge_port}"
    urls = {
        "http": f"http://{address}",
        "ws": f"ws://{address}/ws",
        "docs": f"http://{address}/docs",
        "nats": nats_url,
        "redis": redis_url,
        "s3": s3_url,
    }
    without_s3 = {name: value for name, value in env.items() if name != "IM_S3_ENDPOINT"}
    return Plan(
        servers=servers,
        s3=s3,
        settings=Settings.load(env),
        migrations=python("migrations", without_s3 if s3 else env),
        functions=python("functions"),
        edge=python("edge"),
        urls=urls,
    )


def _edge_port(settings: Settings, data: DataFolder) -> int:
    """Port 0 means any free one."""
    if not settings.edge_port:
        return data.ports("edge")[0]
    # The edge's workers share their port, so they would share it with a stranger's as well.
    if not is_free(settings.edge_port, settings.edge_host):
        raise LaptopError(
            f"IM_EDGE_PORT: port {settings.edge_port} of {settings.edge_host} is in use or not allowed"
        )
    return settings.edge_port


def _ports(env: Mapping[str, str], name: str, data: DataFolder, count: int = 1) -> list[int]:
    variable = f"IM_{name.upper()}_PORT"
    text = env.get(variable, "")
    if not text:
        return data.ports(name, count)
    if not (text.isdecimal() and 0 < int(text) < 65_536):
        raise LaptopError(f"{variable}: {text!r} is not a port number")
    if not is_free(int(text)):
        raise LaptopError(f"{variable}: port {text} is in use or not allowed")
    return data.ports(name, count, int(text))
