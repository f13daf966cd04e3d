"""Settings: every way in, the original config.json among them, and errors that name the setting."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from stock_pipeline import PROJECT_ROOT
from stock_pipeline.errors import SettingsError
from stock_pipeline.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A folder without .env and config.json, and none of our variables."""
    monkeypatch.chdir(tmp_path)
    for name in ("SYMBOLS", "DB_URL", "DB_USER", "DB_PASSWORD", "FINNHUB_TOKEN", "STOCK_PIPELINE_HOME", "STACK"):
        monkeypatch.delenv(name, raising=False)
    load_settings.cache_clear()
    yield
    load_settings.cache_clear()


def test_the_original_config_file_still_works(tmp_path: Path):
    original = {
        "finnhub_token": "YOUR_TOKEN",
        "symbols": ["AAPL", "BINANCE:BTCUSDT"],
        "schema_path": "schemas/trades.avsc",
        "kafka_bootstrap_servers": "localhost:9094",
        "kafka_topic": "stock-ticks",
        "db_url": "jdbc:postgresql://db.example:5432/stocks",
        "db_user": "postgres",
        "db_password": "secret",
        "home": "elsewhere",
    }
    (tmp_path / "config.json").write_text(json.dumps(original))
    settings = load_settings()
    assert settings.finnhub_token is None
    assert settings.symbols == ("AAPL", "BINANCE:BTCUSDT")
    assert settings.db_address == ("db.example", 5432)
    assert settings.db_name == "stocks"
    assert settings.role("owner") == ("postgres", "secret")
    assert settings.home.name == "elsewhere"
    assert settings.avro_schema["name"] == "FinnhubMessage"


def test_a_schema_of_another_form_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    built_in = json.loads((PROJECT_ROOT / "stock_pipeline" / "ingest" / "trade.avsc").read_text())
    path = tmp_path / "trades.avsc"
    monkeypatch.setenv("SCHEMA_PATH", str(path))
    path.write_text(json.dumps({**built_in, "name": "Other", "doc": "", "namespace": "org.example"}))
    assert Settings().avro_schema["name"] == "Other"
    path.write_text(json.dumps({**built_in, "fields": built_in["fields"][::-1]}))
    with pytest.raises(SettingsError, match="schema_path: .*another form"):
        Settings()
    path.write_text("{")
    with pytest.raises(SettingsError, match="schema_path: .*no readable Avro schema"):
        Settings()


def test_the_environment_goes_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "config.json").write_text('{"symbols": ["AAPL"]}')
    monkeypatch.setenv("SYMBOLS", "IC MARKETS:1, MSFT,MSFT")
    assert load_settings().symbols == ("IC MARKETS:1", "MSFT")


def test_home_is_not_the_variable_home(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/nonexistent")
    assert Settings().home.name == ".stock_pipeline"


def test_the_token_is_not_printed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FINNHUB_TOKEN", "c0ffee")
    settings = Settings()
    assert settings.feed_token == "c0ffee"
    assert settings.feed_url == "wss://ws.finnhub.io"
    assert "c0ffee" not in repr(settings) + str(settings) + settings.model_dump_json()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ('{"symbols": 7}', "symbols"),
        ('{"symbols": ["A", 7]}', r"symbols\[1\]"),
        ('{"symbols": []}', "symbols"),
        ('{"db_url": "mysql://x/y"}', "db_url"),
        ('{"db_url": "postgresql://user:pw@x/y"}', "db_user"),
        ('{"db_url": "jdbc:postgresql://x/y?sslmode=require&password=user:pw"}', "db_password"),
        ('{"db_url": "postgresql://x/y?user=me"}', "db_user"),
        ('{"kafka_bootstrap_servers": "localhost"}', "kafka_bootstrap_servers"),
        ('{"webserver_port": "many"}', "webserver_port"),
        ('{"tick_retention_days": 0}', "tick_retention_days"),
        ('{"stack": "kubernetes"}', "stack"),
        ("{", "config.json"),
    ],
)
def test_a_wrong_value_is_named(tmp_path: Path, content: str, named: str):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(SettingsError, match=named) as error:
        load_settings()
    assert "user:pw" not in str(error.value)


def test_a_missing_writer_password_means_the_owner():
    settings = Settings(stack="external", db_user="me", db_password="pw")
    assert settings.role("writer") == ("me", "pw")
    assert Settings(stack="external", db_writer_password="w").role("writer") == ("stocks_writer", "w")


def test_settings_cannot_be_changed():
    with pytest.raises(ValidationError):
        Settings().kafka_topic = "other"


def test_the_readme_names_every_setting():
    readme = (PROJECT_ROOT / "README.md").read_text()
    names = {str(field.validation_alias or name).upper() for name, field in Settings.model_fields.items()}
    assert [name for name in sorted(names) if f"`{name}`" not in readme] == []
