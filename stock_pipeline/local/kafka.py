"""The real Kafka broker, one node, without ZooKeeper: broker and controller in one process (KRaft)."""

import subprocess
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from stock_pipeline.errors import StartError
from stock_pipeline.local.component import Component, free_port
from stock_pipeline.local.downloads import LOCAL, find_java, jars
from stock_pipeline.services.processes import spawn

JVM = "-Xms256m", "-Xmx384m", "-XX:TieredStopAtLevel=1"
"""The quick compiler only: the other one would take the processors from the streams in the first minutes."""


class Kafka(Component):
    name = "kafka"
    setting = "kafka_bootstrap_servers"

    @property
    def address(self) -> tuple[str, int]:
        return self.settings.kafka_address

    @property
    def _folder(self) -> Path:
        return self.settings.home / "kafka"

    def install(self) -> None:
        self._java = find_java()
        self._jars = jars() / "kafka"

    def prepare(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._properties = self._folder / "server.properties"
        self._properties.write_text(self._render_properties())
        if (self._folder / "data" / "meta.properties").exists():
            return
        cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # The equals sign: an id may begin with a hyphen.
        options = f"--cluster-id={cluster_id}", "-c", self._properties
        done = subprocess.run(
            [*self._java_command(), "kafka.tools.StorageTool", "format", *options],
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise StartError(f"kafka: {self._folder} could not be formatted:\n{done.stdout}{done.stderr}")

    def _java_command(self) -> list[str | Path]:
        logging = f"-Dlog4j2.configurationFile={LOCAL / 'kafka-log4j2.xml'}"
        return [self._java, *JVM, logging, "-cp", f"{self._jars}/*"]

    def _render_properties(self) -> str:
        host, port = self.address
        controller = f"127.0.0.1:{free_port()}"
        settings = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{controller}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://{host}:{port},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{host}:{port}",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "log.dirs": self._folder / "data",
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 1,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
            # 8 by default, which on a few processors only wait.
            "num.io.threads": 2,
        }
        return "".join(f"{key}={value}\n" for key, value in settings.items())

    def launch(self) -> subprocess.Popen[bytes]:
        return spawn([*self._java_command(), "kafka.Kafka", self._properties], self.log_file, cwd=self._folder)

    def is_healthy(self) -> bool:
        host, port = self.address
        client = AdminClient({"bootstrap.servers": f"{host}:{port}", "log_level": 0})
        try:
            return bool(client.list_topics(timeout=2).brokers)
        except KafkaException:
            return False

    def version(self) -> str:
        return next((jars() / "kafka").glob("kafka_2.13-*.jar")).stem.removeprefix("kafka_2.13-")
