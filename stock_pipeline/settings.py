"""All settings: from the environment, then .env, then config.json, then the defaults below."""

import json
import os
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import parse_qsl, urlsplit

from psycopg.conninfo import make_conninfo
from pydantic import Field, HttpUrl, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    JsonConfigSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings.exceptions import SettingsError as UnreadableSource

from stock_pipeline import PROJECT_ROOT
from stock_pipeline.errors import SettingsError

type_of_symbols = Annotated[tuple[str, ...], NoDecode]

Role = Literal["owner", "writer", "reader"]

ROLE_NAMES: dict[Role, str] = {"writer": "stocks_writer", "reader": "stocks_reader"}
"""Database roles beside the owner, whose name is the setting `db_user`."""


class ConfigFile(JsonConfigSettingsSource):
    """config.json. There the home folder is called `home`; in the environment HOME is something else."""

    def __call__(self) -> dict[str, Any]:
        values = super().__call__()
        if "home" in values:
            values["stock_pipeline_home"] = values.pop("home")
        return values


class Settings(BaseSettings):
    """Typed settings. Environment variables have the same names in capitals (STOCK_PIPELINE_HOME for home)."""

    model_config = SettingsConfigDict(
        env_file=(PROJECT_ROOT / ".env", ".env"),
        json_file=(PROJECT_ROOT / "config.json", "config.json"),
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
    )

    finnhub_token: SecretStr | None = Field(None, description="API key; without one the simulator is used")
    finnhub_url: str | None = Field(
        None, description="WebSocket server; unset: Finnhub, or the simulator without a token"
    )
    symbols: type_of_symbols = Field(
        ("BINANCE:BTCUSDT", "AAPL", "MSFT", "TSLA", "IC MARKETS:1"), description="what to subscribe to"
    )
    schema_path: Path | None = Field(None, description="Avro schema of the messages; missing: the built-in one")
    kafka_bootstrap_servers: str = Field(
        "localhost:9094", description="the embedded broker listens at the first of them"
    )
    kafka_topic: str = Field("stock-ticks", pattern=r"^[a-zA-Z0-9._-]{1,200}$", description="topic of the trades")
    kafka_retention_days: int = Field(7, ge=1, description="how long the topic keeps messages")
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="how a broker of yours is spoken to; the embedded one is spoken to in plain text"
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", description="how kafka_sasl_username logs in"
    )
    kafka_sasl_username: str | None = Field(None, description="user of the broker, for SASL_…")
    kafka_sasl_password: SecretStr | None = Field(None, description="the user's")
    kafka_ssl_ca: Path | None = Field(
        None, description="PEM file with the certificates that vouch for the broker; unset: those of this machine"
    )
    kafka_ssl_certificate: Path | None = Field(
        None, description="PEM file with our own certificate, where the broker wants one"
    )
    kafka_ssl_key: Path | None = Field(None, description="PEM file with its key, PKCS #8, not encrypted")
    spool_limit_mb: int = Field(
        1_000, ge=1, description="what the producer keeps on disk while Kafka is away, in MB; then the feed waits"
    )
    db_url: str = Field("postgresql://localhost:5433/stocks", description="postgresql:// or jdbc:postgresql://")
    db_user: str = Field("stocks_owner", min_length=1, description="owner of the database")
    db_password: SecretStr | None = Field(None, description="the owner's; generated for the embedded stack")
    db_writer_password: SecretStr | None = Field(None, description="of stocks_writer; generated for the embedded stack")
    db_reader_password: SecretStr | None = Field(None, description="of stocks_reader; generated for the embedded stack")
    tick_retention_days: int = Field(90, ge=1, le=36_500, description="how long tick_data keeps trades")
    spark_master: str = Field("local[2]", description="local[N] or spark://host:port")
    bar_eligibility: Literal["consolidated", "all"] = Field(
        "consolidated", description="which trades make bars: those that trade_condition lets, or all"
    )
    stack: Literal["embedded", "docker", "external"] = Field("embedded", description="who runs Kafka and TimescaleDB")
    home: Path = Field(
        Path(".stock_pipeline"),
        validation_alias="stock_pipeline_home",
        description="data of the embedded stack, checkpoints, locks, logs; relative to the project",
    )
    webserver_port: int = Field(3001, ge=1, le=65535, description="Dagster's user interface")
    simulator_port: int = Field(8765, ge=1, le=65535, description="the simulator that `run` starts without a token")
    grafana_home: Path | None = Field(
        None,
        description="unpacked Grafana, which `run` starts, relative to the project; unset: that of `grafana` on PATH",
    )
    grafana_port: int = Field(3000, ge=1, le=65535, description="Grafana, where `run` starts it")
    alert_webhook_url: SecretStr | None = Field(
        None, description="Slack's incoming webhook, or what takes its format; unset: alerts are log lines"
    )
    db_size_alert_gb: float = Field(50, gt=0, description="Grafana's alert on the size of all databases, in GB")
    debian_mirror: str | None = Field(
        None, description="where Debian packages come from; unset: where this machine's apt gets them"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, dotenv_settings, ConfigFile(settings_cls)

    @field_validator("symbols", mode="before")
    @classmethod
    def _split_symbols(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("symbols")
    @classmethod
    def _check_symbols(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for symbol in value:
            if not 1 <= len(symbol) <= 64 or not symbol.isprintable():
                raise ValueError(f"{symbol[:80]!r} is no symbol: 1 to 64 printable characters")
        if not value:
            raise ValueError("name at least one symbol")
        return tuple(dict.fromkeys(value))

    @field_validator("finnhub_token")
    @classmethod
    def _no_placeholder(cls, value: SecretStr | None) -> SecretStr | None:
        return None if value is None or value.get_secret_value() in ("", "YOUR_TOKEN") else value

    @field_validator("db_url")
    @classmethod
    def _check_db_url(cls, value: str) -> str:
        url = value.removeprefix("jdbc:")
        parts = urlsplit(url)
        if parts.scheme not in ("postgresql", "postgres") or not parts.hostname or len(parts.path) < 2:
            raise ValueError("expected postgresql://host:port/database or jdbc:postgresql://host:port/database")
        if parts.username or parts.password or {"user", "password"} & dict(parse_qsl(parts.query)).keys():
            raise ValueError("put the user into db_user and the password into db_password")
        return url

    @field_validator("alert_webhook_url")
    @classmethod
    def _check_webhook(cls, value: SecretStr | None) -> SecretStr | None:
        try:
            return SecretStr(str(HttpUrl(value.get_secret_value()))) if value else None
        except ValidationError:
            # Its text, the cause of another one, holds the URL.
            raise ValueError("expected https://host/path or http://host/path") from None

    @field_validator("kafka_bootstrap_servers")
    @classmethod
    def _check_servers(cls, value: str) -> str:
        for server in value.split(","):
            host, _, port = server.strip().rpartition(":")
            if not host or not port.isdigit():
                raise ValueError("expected host:port, several separated by commas")
        return value

    @field_validator("kafka_ssl_ca", "kafka_ssl_certificate", "kafka_ssl_key")
    @classmethod
    def _check_readable(cls, value: Path | None) -> Path | None:
        path = cls._absolute(value)
        if path is not None and not os.access(path, os.R_OK):
            raise ValueError(f"{path} cannot be read")
        return path

    @model_validator(mode="after")
    def _check_login(self) -> Self:
        if self.kafka_security_protocol.startswith("SASL") and not (
            self.kafka_sasl_username and self.kafka_sasl_password
        ):
            raise ValueError("kafka_security_protocol: SASL needs kafka_sasl_username and kafka_sasl_password")
        if (self.kafka_ssl_certificate is None) != (self.kafka_ssl_key is None):
            raise ValueError("kafka_ssl_certificate: it and kafka_ssl_key need each other")
        return self

    @model_validator(mode="after")
    def _check_schema(self) -> Self:
        _ = self.avro_schema
        return self

    @field_validator("home", "grafana_home")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else (PROJECT_ROOT / value.expanduser()).resolve()

    @property
    def kafka_address(self) -> tuple[str, int]:
        """Host and port of the first bootstrap server."""
        host, _, port = self.kafka_bootstrap_servers.split(",")[0].strip().rpartition(":")
        return host, int(port)

    @property
    def db_address(self) -> tuple[str, int]:
        """Host and port of the database server."""
        parts = urlsplit(self.db_url)
        return parts.hostname or "localhost", parts.port or 5432

    @property
    def db_name(self) -> str:
        return urlsplit(self.db_url).path.removeprefix("/")

    @property
    def dead_letter_topic(self) -> str:
        return f"{self.kafka_topic}-dead-letter"

    @property
    def uses_simulator(self) -> bool:
        """Whether `run` has to start the simulator: neither a token nor another server is named."""
        return self.finnhub_token is None and self.finnhub_url is None

    @property
    def feed_url(self) -> str:
        """WebSocket server of the feed, without the token."""
        if self.finnhub_url:
            return self.finnhub_url
        return f"ws://127.0.0.1:{self.simulator_port}" if self.uses_simulator else "wss://ws.finnhub.io"

    @property
    def feed_token(self) -> str:
        """Finnhub's API key, or the name under which the simulator knows this home."""
        return self.finnhub_token.get_secret_value() if self.finnhub_token else "simulator"

    @cached_property
    def avro_schema(self) -> dict[str, Any]:
        """The schema of a Kafka message, from schema_path where that file exists.

        Raises:
            SettingsError: it is none, or the messages would have another form than the built-in one's.
        """
        built_in = PROJECT_ROOT / "stock_pipeline" / "ingest" / "trade.avsc"
        path = self.schema_path if self.schema_path is not None and self.schema_path.is_file() else built_in
        try:
            schema: dict[str, Any] = json.loads(path.read_text())
            is_known = _form(schema) == _form(json.loads(built_in.read_text()))
        except (OSError, ValueError, KeyError) as error:
            raise SettingsError(f"schema_path: {path} is no readable Avro schema: {error}") from error
        if not is_known:
            raise SettingsError(
                f"schema_path: messages of {path} have another form than those of {built_in}, which the streams read"
            )
        return schema

    @property
    def is_spark_local(self) -> bool:
        """Whether a stream's driver does the work itself, without a cluster's executors."""
        return self.spark_master.startswith("local")

    @property
    def credentials_path(self) -> Path:
        return self.home / "credentials.json"

    def role(self, role: Role) -> tuple[str, str | None]:
        """User and password of a role; without a password for writer or reader, the owner's.

        Not cached: `up` generates the passwords of the embedded stack.
        """
        configured = {
            "owner": self.db_password,
            "writer": self.db_writer_password,
            "reader": self.db_reader_password,
        }
        secret = configured[role]
        password = secret.get_secret_value() if secret else self._generated_passwords().get(role)
        if role == "owner" or password is None:
            return self.db_user, password or self.owner_password()
        return ROLE_NAMES[role], password

    def owner_password(self) -> str | None:
        if self.db_password:
            return self.db_password.get_secret_value()
        return self._generated_passwords().get("owner")

    def _generated_passwords(self) -> dict[str, str]:
        if self.stack != "embedded" or not self.credentials_path.exists():
            return {}
        passwords: dict[str, str] = json.loads(self.credentials_path.read_text())
        return passwords

    def with_passwords(self) -> "Settings":
        """These settings with the generated passwords in them, for a worker that cannot read home."""
        fields = {"db_password": "owner", "db_writer_password": "writer", "db_reader_password": "reader"}
        generated = self._generated_passwords()
        missing = {name: role for name, role in fields.items() if getattr(self, name) is None and role in generated}
        return self.model_copy(update={name: SecretStr(generated[role]) for name, role in missing.items()})

    def conninfo(self, role: Role, database: str | None = None) -> str:
        """libpq connection string, password included: never log it."""
        user, password = self.role(role)
        return make_conninfo(
            self.db_url,
            user=user,
            password=password,
            dbname=database or self.db_name,
            connect_timeout=5,
            application_name="stock_pipeline",
        )

    def secrets(self) -> list[str]:
        """Every value that must not appear in a log."""
        values = [value.get_secret_value() for _, value in self if isinstance(value, SecretStr) and value]
        return values + list(self._generated_passwords().values())


def _form(schema: Any) -> Any:
    """What of an Avro schema decides how a message is written: types, and the names of the fields."""
    match schema:
        case {"type": "record", "fields": list(fields)}:
            return [(field["name"], _form(field["type"])) for field in fields]
        case {"type": "array", "items": items}:
            return {"array": _form(items)}
        case {"type": inner}:
            return _form(inner)
        case list():
            return [_form(branch) for branch in schema]
        case _:
            return schema


@lru_cache
def load_settings() -> Settings:
    """The settings of this process.

    Raises:
        SettingsError: a value has a wrong type or form, or config.json is no JSON.
    """
    try:
        return Settings()
    except ValidationError as error:
        lines = []
        for fault in error.errors(include_input=False, include_url=False):
            name = str(fault["loc"][0]) if fault["loc"] else "settings"
            position = "".join(f"[{part}]" for part in fault["loc"][1:])
            lines.append(f"{name}{position}: {fault['msg'].removeprefix('Value error, ')}")
        raise SettingsError("wrong settings (environment, .env or config.json):\n  " + "\n  ".join(lines)) from error
    except (UnreadableSource, ValueError) as error:
        raise SettingsError(f"config.json or .env cannot be read: {error}") from error
