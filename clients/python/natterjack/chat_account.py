"""Who one is in the terminal chat: the server's address, the files of an account, log-in or registration."""

import fcntl
import os
import re
import sys
from collections.abc import Callable
from getpass import getpass
from hashlib import blake2b
from pathlib import Path
from typing import IO

import msgspec
from yarl import URL

from clients.python.natterjack.api import Api
from clients.python.natterjack.auth import Credentials
from clients.python.natterjack.errors import Conflict, Unauthenticated
from clients.python.natterjack.files import write_atomically
from schemas.auth import Login, Register, Tokens
from schemas.users import Me

LAPTOP = "http://127.0.0.1:8080"


class GiveUp(Exception):
    """Ends the program with one line that says why."""


def default_url() -> str:
    """Where `./task dev` says that it runs, else where it runs by default."""
    try:
        run = msgspec.json.decode(
            (Path(os.environ.get("IM_DATA_DIR", ".data")) / "run.json").read_bytes()
        )
        return str(run["urls"]["http"])
    except (OSError, msgspec.DecodeError, KeyError, TypeError):
        return LAPTOP


class AccountFiles:
    """Tokens and positions of one user at one server, readable by their owner only.

    A refresh token is good for one use, so two programs must not share it: the first one holds the files, a
    second one for the same user (`held` is false) logs in by itself and keeps nothing.
    """

    def __init__(self, url: str, user: str) -> None:
        base = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "natterjack"
        address = URL(url)
        plain = f"{address.host}_{address.port}-{user.lower()}"
        name = re.sub(r"[^A-Za-z0-9._-]", "_", plain)
        if name != plain:
            # Without it all names of two Chinese characters would be one account.
            name += f"-{blake2b(plain.encode(), digest_size=8).hexdigest()}"
        self.tokens = base / f"{name}.json"
        self.positions = base / f"{name}.positions.json"
        base.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock: IO[str] = (base / f"{name}.lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.held = True
        except BlockingIOError:
            self.held = False

    def load(self) -> Credentials | None:
        """The tokens that were kept last; None if there are none that can be used."""
        if not self.held:
            return None
        try:
            return msgspec.json.decode(self.tokens.read_bytes(), type=Credentials)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def keep(self, credentials: Credentials) -> None:
        """Keeps tokens."""
        if self.held:
            write_atomically(self.tokens, msgspec.json.encode(credentials))

    def close(self) -> None:
        """Lets go of the files."""
        self._lock.close()


async def log_in(
    api: Api, user: str, password: str | None, say: Callable[[str], None]
) -> Credentials:
    """Logs in, or registers a name that is free.

    Raises: GiveUp for a wrong password; ApiError.
    """
    given = password if password is not None else ask_password(user)
    login = Login(user, given, platform="desktop")
    try:
        return Credentials.of(await api.call(login, Tokens))
    except Unauthenticated:
        # The server does not tell a wrong password from an unknown name; registering does.
        if password is None and not confirmed(
            f"Wrong password, or no account {user} yet. Register it? [y/N] "
        ):
            raise GiveUp(f"not logged in as {user}") from None
    try:
        await api.call(Register(user, given), Me)
    except Conflict:
        raise GiveUp(f"wrong password for {user}") from None
    say(f"registered {user}")
    return Credentials.of(await api.call(login, Tokens))


def ask_password(user: str) -> str:
    """Asks on the terminal, without showing it. Raises: GiveUp if there is no terminal."""
    if not sys.stdin.isatty():
        raise GiveUp("no terminal to ask for the password; give it with --password")
    return getpass(f"Password of {user}: ")


def confirmed(question: str) -> bool:
    """Asks a question whose answer is no unless it is yes."""
    return input(question).strip().lower() in ("y", "yes")
