"""All settings, from environment variables. A wrong one is a one-line SettingsError that names it.

Any variable may instead be given as `<NAME>_FILE`, the path of a file that holds the value (for secrets).
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from shared.cloudevents import read_overrides

T = TypeVar("T")

_FOREIGN = {"sink": "K_SINK", "ce_overrides": "K_CE_OVERRIDES", "port": "PORT"}
"""Settings whose names Knative has given."""
_FACT = re.compile(r"[a-z_]{1,32}\.[a-z_]{1,32}")


class SettingsError(Exception):
    """A setting is missing or wrong; the message is one line and names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of every process; each uses its part. URLs are empty where unset (the laptop fills them in)."""

    edge_host: str
    edge_port: int
    edge_workers: int
    data_dir: Path
    nats_url: str
    redis_url: str
    log_url: str
    log_partitions: int
    db_url: str
    s3_endpoint: str
    s3_access_key: str
    s3_secret_key: str
    s3_bucket: str
    jwt_secret: str
    jwt_keys: str
    cors_origins: tuple[str, ...]
    registration_open: bool
    rate_limits: bool
    strangers: bool
    recall_window_s: int
    otlp_endpoint: str
    trace_sample: float
    faces: str
    """How functions are served: `nats`, `http` or `both`."""
    port: int
    """Of HTTP, where functions or a bridge speak it; 0: any free one."""
    sink: str
    ce_overrides: Mapping[str, str]
    facts: tuple[str, ...]
    bridge_in_flight: int

    @classmethod
    def load(cls, env: Mapping[str, str] = os.environ) -> "Settings":
        """Reads and checks the environment.

        Raises: SettingsError.
        """
        get = _Reader(env)
        otlp_endpoint = get.parsed("OTEL_EXPORTER_OTLP_ENDPOINT", "", _url("http", "https"))
        return cls(
            edge_host=get.text("IM_EDGE_HOST", "127.0.0.1"),
            edge_port=get.parsed("IM_EDGE_PORT", "8080", _port),
            edge_workers=get.parsed("IM_EDGE_WORKERS", "1", _integer(1, 256)),
            data_dir=Path(get.text("IM_DATA_DIR", ".data")).absolute(),
            nats_url=get.parsed("IM_NATS_URL", "", _url("nats", "tls")),
            redis_url=get.parsed("IM_REDIS_URL", "", _url("redis", "rediss")),
            log_url=get.parsed("IM_LOG_URL", "", _url("kafka", "jetstream")),
            log_partitions=get.parsed("IM_LOG_PARTITIONS", "64", _integer(1, 1024)),
            db_url=get.parsed("IM_DB_URL", "", _url("mysql+aiomysql", "sqlite+aiosqlite")),
            s3_endpoint=get.parsed("IM_S3_ENDPOINT", "", _url("http", "https")),
            s3_access_key=get.text("IM_S3_ACCESS_KEY", ""),
            s3_secret_key=get.text("IM_S3_SECRET_KEY", ""),
            s3_bucket=get.text("IM_S3_BUCKET", "natterjack"),
            jwt_secret=get.parsed("IM_JWT_SECRET", "", _secret),
            jwt_keys=get.text("IM_JWT_KEYS", ""),
            cors_origins=tuple(
                o.strip() for o in get.text("IM_CORS_ORIGINS", "").split(",") if o.strip()
            ),
            registration_open=get.parsed("IM_REGISTRATION", "open", _choice("open", "closed"))
            == "open",
            rate_limits=get.parsed("IM_RATE_LIMITS", "on", _choice("on", "off")) == "on",
            strangers=get.parsed("IM_STRANGERS", "deny", _choice("allow", "deny")) == "allow",
            recall_window_s=get.parsed("IM_RECALL_WINDOW_S", "120", _integer(0, 10**9)),
            otlp_endpoint=otlp_endpoint,
            trace_sample=get.parsed("IM_TRACE_SAMPLE", "0.01" if otlp_endpoint else "0", _share),
            faces=get.parsed(
                "IM_HOST",
                # Whoever names a port, as Knative does, wants to speak HTTP.
                "http" if env.get("PORT") or env.get("K_SERVICE") else "nats",
                _choice("nats", "http", "both"),
            ),
            port=get.parsed("PORT", "8080", _port),
            sink=get.parsed("K_SINK", "", _url("http", "https")),
            ce_overrides=get.parsed("K_CE_OVERRIDES", "", read_overrides),
            facts=get.parsed("IM_FACTS", "", _facts),
            bridge_in_flight=get.parsed("IM_BRIDGE_IN_FLIGHT", "256", _integer(1, 65_536)),
        )

    @property
    def http(self) -> bool:
        """Whether a function process speaks HTTP."""
        return self.faces != "nats"

    def require(self, name: str) -> str:
        """The value of a URL or secret field that this process cannot do without.

        Raises: SettingsError naming the variable if it is unset.
        """
        value = getattr(self, name)
        if not value:
            raise SettingsError(f"{_FOREIGN.get(name) or f'IM_{name.upper()}'} is not set")
        return str(value)


class _Reader:
    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env

    def text(self, name: str, default: str) -> str:
        value, path = self._env.get(name), self._env.get(f"{name}_FILE")
        if value and path:
            raise SettingsError(f"{name} and {name}_FILE are both set; keep one")
        if path:
            try:
                return Path(path).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise SettingsError(f"{name}_FILE: cannot read {path}: {error}") from None
        return value or default

    def parsed(self, name: str, default: str, parse: Callable[[str], T]) -> T:
        value = self.text(name, default)
        try:
            return parse(value)
        except ValueError as error:
            raise SettingsError(f"{name}: {error}") from None


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        if not (value.isdecimal() and low <= int(value) <= high):
            raise ValueError(f"{value!r} is not a number from {low} to {high}")
        return int(value)

    return parse


_port = _integer(0, 65_535)


def _share(value: str) -> float:
    try:
        share = float(value)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise ValueError(f"{value!r} is not a number from 0 to 1")
    return share


def _choice(*choices: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value not in choices:
            raise ValueError(f"{value!r} is not one of {', '.join(choices)}")
        return value

    return parse


def _url(*schemes: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value and urlsplit(value).scheme not in schemes:
            # The value is not repeated: it may hold a password.
            raise ValueError(f"must start with {' or '.join(f'{s}://' for s in schemes)}")
        return value

    return parse


def _facts(value: str) -> tuple[str, ...]:
    facts = tuple(f.strip() for f in value.split(",") if f.strip())
    for fact in facts:
        if not _FACT.fullmatch(fact):
            raise ValueError(f"{fact!r} is not <domain>.<fact>")
    return facts


def _secret(value: str) -> str:
    if value and len(value.encode()) < 32:
        raise ValueError("must have at least 32 bytes")
    return value
