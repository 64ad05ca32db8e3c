"""A MariaDB server for tests: Debian's `mariadb-server`, on a data directory and port of its own."""

import socket
import subprocess
from pathlib import Path

import aiomysql

from laptop.process import LaptopError
from laptop.servers import Server, find_binary
from shared.ids import random_token


class MariaDbServer(Server):
    """mariadbd on 127.0.0.1; root has no password.

    pool: memory for pages, `innodb_buffer_pool_size`.
    """

    def __init__(self, folder: Path, port: int, log: Path, *, pool: str = "64M") -> None:
        install = find_binary("mariadb-install-db", "none")
        program = find_binary("mariadbd", "none")
        data = folder / "data"
        if not data.exists():
            folder.mkdir(parents=True, exist_ok=True)
            done = subprocess.run(
                [
                    install,
                    "--no-defaults",
                    f"--datadir={data}",
                    f"--tmpdir={folder}",
                    "--user=root",
                    "--auth-root-authentication-method=normal",
                    "--skip-test-db",
                ],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise LaptopError(f"mariadb-install-db failed: {done.stdout}{done.stderr}")
        command = [
            program,
            "--no-defaults",
            f"--datadir={data}",
            f"--tmpdir={folder}",
            f"--port={port}",
            "--bind-address=127.0.0.1",
            f"--socket={folder / 'db.sock'}",
            f"--pid-file={folder / 'db.pid'}",
            "--user=root",
            f"--innodb-buffer-pool-size={pool}",
        ]
        super().__init__("MariaDB", command, folder=folder, log=log, grace=20)
        self.url = f"mysql+aiomysql://root@127.0.0.1:{port}/"
        self._port = port

    def ready(self) -> bool:
        """The server greets first, with its version."""
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=1) as connection:
                return b"MariaDB" in connection.recv(128)
        except OSError:
            return False

    async def new_database(self) -> str:
        """Makes an empty database; returns its URL."""
        name = f"test_{random_token().replace('-', '_')}"
        connection = await aiomysql.connect(host="127.0.0.1", port=self._port, user="root")
        try:
            async with connection.cursor() as cursor:
                await cursor.execute(f"CREATE DATABASE `{name}`")
        finally:
            connection.close()
        return self.url + name
