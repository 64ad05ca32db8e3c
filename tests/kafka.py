"""A Kafka broker for tests: one node in KRaft mode from the jars that `.ci/kafka` fetches from Maven Central."""

import os
import socket
import subprocess
from pathlib import Path

from laptop.process import LaptopError
from laptop.servers import Server, find_binary

ROOT = Path(__file__).parent.parent
SESSION_TIMEOUT_MS = 6000


class KafkaServer(Server):
    """Broker and controller on 127.0.0.1. `ports`: of the broker, of the controller.

    settled: for one that is to run as brokers do that have been up for long. Java compiles all it can then, which costs
    more than it saves until some 40 s under load have passed.
    """

    PORTS = 2

    def __init__(self, folder: Path, ports: list[int], log: Path, *, settled: bool = False) -> None:
        java = find_binary("java", "none")
        jars = Path(os.environ.get("IM_KAFKA_JARS", ROOT / ".cache" / "kafka"))
        if not list(jars.glob("kafka_*.jar")):
            raise LaptopError(f"no Kafka jars in {jars} (.ci/kafka fetches them)")
        folder.mkdir(parents=True, exist_ok=True)
        broker, controller = ports
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": f"PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{broker}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "log.dirs": str(folder / "logs"),
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
            "auto.create.topics.enable": "false",
            "log.cleaner.dedupe.buffer.size": str(4 << 20),
        }
        config = folder / "server.properties"
        config.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        run = [
            java,
            # Collectors that stop the broker do so for 10 ms each second, which is the slowest hundredth of all acks.
            "-XX:+UseZGC",
            "-Xms768m",
            "-Xmx768m",
            *([] if settled else ["-XX:TieredStopAtLevel=1"]),
            "-cp",
            f"{jars}/*",
        ]
        if not (folder / "logs").exists():
            self._format(
                [
                    *run,
                    "kafka.tools.StorageTool",
                    "format",
                    "-t",
                    "TmF0dGVyamFja1Rlc3RzMA",
                    "-c",
                    str(config),
                ]
            )
        super().__init__(
            "Kafka", [*run, "kafka.Kafka", str(config)], folder=folder, log=log, grace=15
        )
        self.url = f"kafka://127.0.0.1:{broker}"
        self._port = broker

    def ready(self) -> bool:
        """The broker listens only when it can serve."""
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=1):
                return True
        except OSError:
            return False

    @staticmethod
    def _format(command: list[str]) -> None:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise LaptopError(f"Kafka's storage cannot be formatted: {done.stdout}{done.stderr}")
