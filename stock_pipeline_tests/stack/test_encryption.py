"""Servers that speak TLS only: a broker that wants a login and a certificate, a database whose certificate counts."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from stock_pipeline.local.component import free_port
from stock_pipeline.local.kafka import Kafka
from stock_pipeline.settings import Settings
from stock_pipeline_tests.conftest import Stack, eventually
from stock_pipeline_tests.feed import Feed, frame
from stock_pipeline_tests.messages import trade
from stock_pipeline_tests.stack.test_producer import counts, finish, start_producer

pytestmark = [
    pytest.mark.stack,
    pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make certificates with"),
]

PASSWORD = 'pass"word\\of the test'


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ca.pem and, signed by it, server.pem and client.pem with their keys."""
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    key = ("-newkey", "rsa:2048", "-nodes")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=authority", "-days", "2")
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")
    for name in ("server", "client"):
        openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names")
        openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *signed)
    both = (folder / "server.key").read_text() + (folder / "server.pem").read_text()
    (folder / "server.both").write_text(both)
    return folder


class EncryptedKafka(Kafka):
    """The embedded broker, which listens for encrypted connections only, with certificates and a login."""

    certificates: Path

    def _render_properties(self) -> str:
        plain = super()._render_properties().replace("PLAINTEXT://", "SASL_SSL://")
        word = PASSWORD.replace("\\", "\\\\").replace('"', '\\"').replace("\\", "\\\\")
        changes = {
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL",
            "inter.broker.listener.name": "SASL_SSL",
            "sasl.enabled.mechanisms": "PLAIN",
            "sasl.mechanism.inter.broker.protocol": "PLAIN",
            "listener.name.sasl_ssl.plain.sasl.jaas.config": "org.apache.kafka.common.security.plain.PlainLoginModule "
            f'required username="broker" password="broker" user_broker="broker" user_pipeline="{word}";',
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": self.certificates / "server.both",
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": self.certificates / "ca.pem",
            "ssl.client.auth": "required",
        }
        return plain + "".join(f"{name}={value}\n" for name, value in changes.items())

    def is_healthy(self) -> bool:
        return "Kafka Server started" in self.log_file.read_text()


@pytest.fixture
def broker(own: Stack, certificates: Path) -> Iterator[dict[str, str]]:
    """The settings of a client."""
    address = f"localhost:{free_port()}"
    settings = Settings(kafka_bootstrap_servers=address, stock_pipeline_home=own.home.parent / "broker")
    kafka = EncryptedKafka(settings)
    kafka.certificates = certificates
    kafka.start()
    yield {
        "KAFKA_BOOTSTRAP_SERVERS": address,
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA_SASL_MECHANISM": "PLAIN",
        "KAFKA_SASL_USERNAME": "pipeline",
        "KAFKA_SASL_PASSWORD": PASSWORD,
        "KAFKA_SSL_CA": str(certificates / "ca.pem"),
        "KAFKA_SSL_CERTIFICATE": str(certificates / "client.pem"),
        "KAFKA_SSL_KEY": str(certificates / "client.key"),
    }
    kafka.stop()


def test_trades_go_through_a_broker_and_a_database_that_speak_tls_only(
    own: Stack, broker: dict[str, str], feed: Feed, certificates: Path
):
    assert own.command("up").returncode == 0
    encrypted = broker | {"DB_URL": encrypt_database(own, certificates)}
    producer = start_producer(own, feed, SYMBOLS="TLS:A", **encrypted)
    eventually(lambda: feed.received, 60)
    feed.send(frame(trade("TLS:A")))
    eventually(lambda: counts(own).get("delivered") == 1, 60)
    for name in ("tick", "ohlcv"):
        done = own.command("stream", name, "--available-now", **encrypted)
        assert done.returncode == 0, done.stderr
        assert PASSWORD not in done.stderr
    assert own.query("SELECT count(*) FROM tick_data WHERE symbol = 'TLS:A'") == [(1,)]
    assert own.query("SELECT ticks FROM ohlcv_data WHERE symbol = 'TLS:A'") == [(1,)]
    output = finish(producer)
    assert PASSWORD not in output

    refused = own.start("consume", **broker | {"KAFKA_SASL_PASSWORD": "wrong-password"})
    time.sleep(12)
    refused.terminate()
    output, _ = refused.communicate(timeout=30)
    assert "Kafka refuses us" in output and "kafka_sasl_" in output
    assert "wrong-password" not in output
    other = own.command("init-db", DB_URL=encrypted["DB_URL"].replace("ca.pem", "client.pem"))
    assert other.returncode == 1 and "certificate verify failed" in other.stderr


def encrypt_database(stack: Stack, certificates: Path) -> str:
    """Let the server take encrypted connections from now on; the URL of one whose certificate is checked."""
    record = json.loads((stack.home / "run" / "timescaledb.json").read_text())
    owner = Path(f"/proc/{record['pid']}").stat()
    folder = stack.home / "timescaledb"
    for name in ("server.pem", "server.key"):
        shutil.copy(certificates / name, folder)
        os.chown(folder / name, owner.st_uid, owner.st_gid)
        (folder / name).chmod(0o600)
    password = json.loads((stack.home / "credentials.json").read_text())["superuser"]
    conninfo = f"postgresql://localhost:{stack.database_port}/postgres"
    with psycopg.connect(make_conninfo(conninfo, user="postgres", password=password), autocommit=True) as connection:
        for name, value in {"ssl_cert_file": "server.pem", "ssl_key_file": "server.key", "ssl": "on"}.items():
            connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        # Nobody gets in without encryption any more.
        rules = folder / "pg_hba.conf"
        rules.write_text("hostssl all all all scram-sha-256\n")
        connection.execute("SELECT pg_reload_conf()")
    return (
        f"postgresql://localhost:{stack.database_port}/stocks?sslmode=verify-full&sslrootcert={certificates / 'ca.pem'}"
    )
