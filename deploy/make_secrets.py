"""`./task secrets`: makes what docker-compose.yml needs on this host and the repository must not hold.

Passwords in .secrets (files of mode 0600), folders for the servers' data, and a .env that names the user who owns both.
What is there already is kept, so it may be run again at any time; to change a password, remove its file first.
"""

import argparse
import json
import os
import secrets
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
DATA_FOLDERS = ("grafana", "minio", "mysql", "nats", "prometheus")
NATS_USERS = ("edge", "functions", "timeline", "migrations", "monitor", "integrator")
INTEGRATOR_DOMAINS = ("message", "conversation", "user")
WITHOUT_ROOT = 10_001
"""User of the containers if root himself runs this: they are not to run as root."""


class Folder:
    """Files that only `uid` may read."""

    def __init__(self, path: Path, uid: int, gid: int) -> None:
        self._path = path
        self._owner = (uid, gid)
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o700)
        os.chown(path, uid, gid)

    def write(self, name: str, text: str) -> None:
        """Writes a file, never readable by others, not even for a moment."""
        path = self._path / name
        new = path.with_name(f"{name}.new")
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.chown(new, *self._owner)
        new.rename(path)

    def secret(self, name: str) -> str:
        """The secret of this name; made if it is not there yet. Safe in URLs and configuration files."""
        return self.kept(name, secrets.token_urlsafe(32))

    def kept(self, name: str, default: str) -> str:
        """What the file holds; it is written if it is not there yet."""
        path = self._path / name
        if not path.exists():
            self.write(name, default)
        return path.read_text(encoding="utf-8").strip()


def make(folder: Folder, integrator: int | None) -> None:
    """All secrets, and the files that are put together out of them."""
    for name in (
        "grafana_password",
        "jwt_secret",
        "mysql_root_password",
        "s3_access_key",
        "s3_secret_key",
    ):
        folder.secret(name)
    if integrator is not None:
        folder.write("integrator", str(integrator))
    folder.write(
        "db_url", f"mysql+aiomysql://natterjack:{folder.secret('mysql_password')}@mysql/natterjack"
    )
    redis = folder.secret("redis_password")
    folder.write("redis.conf", f"requirepass {redis}\n")
    folder.write("redis_url", f"redis://:{redis}@redis:6379")
    passwords = {user: folder.secret(f"nats_{user}_password") for user in NATS_USERS}
    for user, password in passwords.items():
        folder.write(f"nats_{user}_url", f"nats://{user}:{password}@nats:4222")
    folder.write(
        "nats_passwords.conf", nats_variables(passwords, int(folder.kept("integrator", "0")))
    )


def nats_variables(passwords: dict[str, str], integrator: int) -> str:
    """The variables of deploy/nats.conf. `integrator`: user id that he acts as; 0 for nobody."""
    lines = [f'{user.upper()}_PASSWORD: "{password}"' for user, password in passwords.items()]
    publish = [f"im.v1.cmd.{integrator}.{domain}.*" for domain in INTEGRATOR_DOMAINS]
    subscribe = [f"im.v1.user.{integrator}", f"_INBOX.u.{integrator}.>"]
    if not integrator:
        # User 0 is for log-in and belongs to the edge alone; NATS takes an empty list for "everything".
        publish = subscribe = ["nothing"]
    for name, granted in (("PUBLISH", publish), ("SUBSCRIBE", subscribe)):
        lines.append(f"INTEGRATOR_{name}: {json.dumps(granted)}")
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Status 1 if something cannot be written; one line says what."""
    parser = argparse.ArgumentParser(prog="./task secrets --", description=__doc__)
    parser.add_argument("--root", type=Path, default=ROOT, help="folder of docker-compose.yml")
    parser.add_argument(
        "--integrator",
        type=int,
        metavar="USER_ID",
        help="the user as whom the NATS user `integrator` acts from now on; 0: nobody, as at first",
    )
    options = parser.parse_args(arguments)
    root: Path = options.root
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        uid = gid = WITHOUT_ROOT
    try:
        make(Folder(root / ".secrets", uid, gid), options.integrator)
        data = root / ".data" / "host"
        for name in DATA_FOLDERS:
            (data / name).mkdir(parents=True, exist_ok=True)
            os.chown(data / name, uid, gid)
        if not (root / ".env").exists():
            (root / ".env").write_text(f"IM_UID={uid}\nIM_GID={gid}\n", encoding="utf-8")
    except OSError as error:
        print(f"secrets: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
