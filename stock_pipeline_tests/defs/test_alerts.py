"""The sensor `alert`, by real ticks on an ephemeral instance, and a webhook that is a real HTTP server."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import psutil
import pytest
from dagster import (
    AssetCheckResult,
    AssetCheckSeverity,
    AssetKey,
    AssetSelection,
    DagsterEvent,
    DagsterEventType,
    DagsterInstance,
    DagsterRunStatus,
    Definitions,
    asset,
    asset_check,
    build_sensor_context,
    define_asset_job,
    in_process_executor,
    job,
    op,
)

from stock_pipeline.defs.ingest.producer import producer
from stock_pipeline.defs.quality import alerts
from stock_pipeline.defs.quality.alerts import alert
from stock_pipeline.errors import SettingsError
from stock_pipeline.services.processes import ProcessRecord
from stock_pipeline.services.service import Heartbeat, record_path
from stock_pipeline.services.supervisor import held_path
from stock_pipeline.settings import load_settings

PASSWORD = "p4ssw0rd-of-the-owner"

PATH = "/services/T0/B0/s3cret"


class Webhook:
    """A server that accepts what Slack does; `status` is its answer."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.status = 200
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if webhook.status == 200 and self.path == PATH and self.headers["Content-Type"] == "application/json":
                    webhook.texts.append(body["text"])
                self.send_response(webhook.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}{PATH}"
        Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@dataclass
class Dagster:
    """An instance, and the sensor's ticks on it with its cursor."""

    instance: DagsterInstance
    definitions: Definitions
    cursor: str | None = None
    broken: list[str] = field(default_factory=list)
    """What the work fails with, while it does."""

    def tick(self) -> str:
        context = build_sensor_context(self.instance, cursor=self.cursor, definitions=self.definitions)
        with context:
            reason = alert(context).skip_message
        self.cursor = context.cursor
        return reason

    def run(self, name: str, **tags: str) -> str:
        chosen = self.definitions.resolve_job_def(name)
        return chosen.execute_in_process(instance=self.instance, raise_on_error=False, tags=tags).run_id

    def work(self, **tags: str) -> str:
        return self.run("work", **tags)

    def check(self, passed: bool, severity: AssetCheckSeverity = AssetCheckSeverity.ERROR) -> None:
        self.broken[:] = [] if passed else [severity.value]
        self.run("check")


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    server = Webhook()
    monkeypatch.setenv("ALERT_WEBHOOK_URL", server.url)
    yield server
    server.close()


@pytest.fixture
def dagster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dagster]:
    """A tick has been, so that what follows is new."""
    monkeypatch.setenv("STOCK_PIPELINE_HOME", str(tmp_path))
    monkeypatch.setenv("DB_PASSWORD", PASSWORD)
    load_settings.cache_clear()
    broken: list[str] = []

    def fail_where_broken() -> None:
        if broken:
            raise RuntimeError(broken[0])

    @op
    def something() -> None:
        fail_where_broken()

    @job(executor_def=in_process_executor)
    def work() -> None:
        something()

    @asset
    def bars() -> None: ...

    @asset_check(asset=bars)
    def bars_are_right() -> AssetCheckResult:
        severity = AssetCheckSeverity(broken[0]) if broken else AssetCheckSeverity.ERROR
        return AssetCheckResult(passed=not broken, severity=severity, description=f"compared with {PASSWORD}")

    @asset
    def rollups() -> None:
        fail_where_broken()

    check = define_asset_job("check", selection=[bars], executor_def=in_process_executor)
    make = define_asset_job("make", AssetSelection.assets(bars, rollups), executor_def=in_process_executor)
    definitions = Definitions(assets=[bars, rollups], asset_checks=[bars_are_right], jobs=[work, check, make])
    with DagsterInstance.ephemeral() as instance:
        result = Dagster(instance, definitions, broken=broken)
        assert result.tick() == "nothing is wrong"
        yield result
    load_settings.cache_clear()


def beat(name: str, pid: int) -> None:
    process = ProcessRecord.of(name, pid) if psutil.pid_exists(pid) else ProcessRecord(name=name, pid=pid, created=0)
    heartbeat = Heartbeat(**process.model_dump(), beat_at=0, state="running", offsets={}, counts={})
    heartbeat.write(record_path(load_settings(), name))


def add_run(dagster: Dagster, status: DagsterRunStatus) -> str:
    """A run of the producer's job, started and ended by events, as real ones are."""
    started = dagster.instance.create_run_for_job(producer, tags=producer.tags)
    event = DagsterEvent(event_type_value=DagsterEventType.RUN_START.value, job_name=producer.name)
    dagster.instance.report_dagster_event(event, run_id=started.run_id)
    if status == DagsterRunStatus.FAILURE:
        dagster.instance.report_run_failed(started, f"its process <1> is gone; {PASSWORD}\nits log")
    if status == DagsterRunStatus.CANCELED:
        dagster.instance.report_run_canceled(started)
    return started.run_id


def test_a_failed_run_is_announced_once_and_once_that_it_is_over(webhook: Webhook, dagster: Dagster):
    dagster.broken.append("the disk is full\nsecond line")
    run_id = dagster.work()
    assert dagster.tick() == "1 open incident: run work"
    (text,) = webhook.texts
    assert text.startswith("run work: run failed: RuntimeError: the disk is full; since 2")
    assert text.endswith(f"UTC; see http://localhost:{load_settings().webserver_port}/runs/{run_id}")
    dagster.work()
    dagster.tick()
    dagster.tick()
    assert len(webhook.texts) == 1
    dagster.broken.clear()
    dagster.work()
    assert dagster.tick() == "nothing is wrong"
    dagster.tick()
    assert [over.split(" after ")[0] for over in webhook.texts[1:]] == ["resolved"]
    assert webhook.texts[1].endswith("s: run work")


def test_what_failed_before_the_first_tick_is_no_news(webhook: Webhook, dagster: Dagster):
    dagster.broken.append("long ago")
    dagster.work()
    dagster.cursor = None
    assert dagster.tick() == "nothing is wrong"
    assert dagster.tick() == "nothing is wrong"
    assert webhook.texts == []


def test_a_run_that_failed_and_was_repeated_between_two_ticks_is_announced(webhook: Webhook, dagster: Dagster):
    dagster.broken.append("for a moment")
    dagster.work()
    dagster.broken.clear()
    dagster.work()
    assert dagster.tick() == "nothing is wrong"
    (text,) = webhook.texts
    assert [line.split(":")[0].split(" after ")[0] for line in text.splitlines()] == ["run work", "resolved"]


def test_a_tick_that_cannot_look_at_all_runs_goes_on_with_the_next(
    webhook: Webhook, dagster: Dagster, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(alerts, "MAX_RUNS", 1)
    dagster.broken.append("twice")
    dagster.work(**{"dagster/partition": "a"})
    dagster.work(**{"dagster/partition": "b"})
    assert dagster.tick() == "1 open incident: run work a"
    assert dagster.tick() == "2 open incidents: run work a, run work b"
    assert dagster.tick() == "2 open incidents: run work a, run work b"
    assert len(webhook.texts) == 2


def test_partitions_are_incidents_of_their_own_but_a_schedule_goes_on_with_the_next(webhook: Webhook, dagster: Dagster):
    dagster.broken.append("no space")
    dagster.work(**{"dagster/partition": "2026-01-01"})
    dagster.work(**{"dagster/partition": "2026-01-02", "dagster/schedule_name": "daily"})
    assert dagster.tick() == "2 open incidents: run work, run work 2026-01-01"
    dagster.broken.clear()
    dagster.work(**{"dagster/partition": "2026-01-03", "dagster/schedule_name": "daily"})
    assert dagster.tick() == "1 open incident: run work 2026-01-01"


def test_a_schedule_that_selects_what_is_due_is_well_when_all_that_failed_is(webhook: Webhook, dagster: Dagster):
    scheduled = {"dagster/schedule_name": "every_minute"}

    def run(*names: str) -> None:
        dagster.definitions.resolve_job_def("make").execute_in_process(
            instance=dagster.instance, raise_on_error=False, tags=scheduled, asset_selection=[*map(AssetKey, names)]
        )

    dagster.broken.append("no space")
    run("rollups")
    run("bars", "rollups")
    assert dagster.tick() == "1 open incident: run make"
    dagster.broken.clear()
    run("rollups")
    assert dagster.tick() == "1 open incident: run make"
    run("bars", "rollups")
    assert dagster.tick() == "nothing is wrong"
    assert len(webhook.texts) == 2


def test_a_run_that_a_person_cancels_is_no_recovery(webhook: Webhook, dagster: Dagster):
    dagster.broken.append("no space")
    dagster.work()
    dagster.tick()
    again = dagster.instance.create_run_for_job(dagster.definitions.resolve_job_def("work"))
    dagster.instance.report_run_canceled(again)
    assert dagster.tick() == "1 open incident: run work"


def test_an_incident_ends_when_its_run_is_deleted(webhook: Webhook, dagster: Dagster):
    dagster.broken.append("an experiment")
    run_id = dagster.work()
    dagster.tick()
    dagster.instance.delete_run(run_id)
    assert dagster.tick() == "nothing is wrong"
    assert webhook.texts[1].startswith("run deleted after ")


def test_a_tag_on_an_old_failure_is_no_failure(webhook: Webhook, dagster: Dagster, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(alerts, "OVERLAP", timedelta(0))
    dagster.broken.append("once")
    run_id = dagster.work()
    dagster.broken.clear()
    dagster.work()
    dagster.tick()
    dagster.tick()
    dagster.instance.add_run_tags(run_id, {"looked_at": "yes"})
    assert dagster.tick() == "nothing is wrong"
    assert len(webhook.texts) == 1


def test_a_webhook_that_is_away_gets_the_alert_when_it_is_back(
    webhook: Webhook, dagster: Dagster, capfd: pytest.CaptureFixture[str]
):
    webhook.status = 503
    dagster.broken.append(f"bad login {PASSWORD}")
    dagster.work()
    capfd.readouterr()
    reason = dagster.tick()
    assert reason.startswith("alerts that wait for the webhook: 1 (HTTP Error 503: Service Unavailable); 1 open")
    said = capfd.readouterr().err + reason + dagster.cursor
    assert "next try at the next tick: HTTP Error 503" in said
    assert "bad login ***" in said
    assert PASSWORD not in said
    assert "s3cret" not in said
    dagster.broken.clear()
    dagster.work()
    assert dagster.tick().startswith("alerts that wait for the webhook: 2 ")
    said = capfd.readouterr().err
    assert "resolved after " in said and "bad login" not in said, "each is logged once"
    webhook.status = 200
    assert dagster.tick() == "nothing is wrong"
    assert dagster.tick() == "nothing is wrong"
    (text,) = webhook.texts
    alert_text, over = text.splitlines()
    assert "bad login ***" in alert_text
    assert over.startswith("resolved after ")


def test_of_too_many_alerts_the_newest_wait_for_the_webhook(
    webhook: Webhook, dagster: Dagster, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(alerts, "MAX_UNSENT", 2)
    webhook.status = 404
    dagster.broken.append("no space")
    for partition in "abc":
        dagster.work(**{"dagster/partition": partition})
        dagster.tick()
    webhook.status = 200
    dagster.tick()
    (text,) = webhook.texts
    assert [line.split(":")[0] for line in text.splitlines()] == ["run work b", "run work c"]


def test_without_a_webhook_an_alert_is_a_line_of_the_log(dagster: Dagster, capfd: pytest.CaptureFixture[str]):
    dagster.broken.append("the disk is full")
    dagster.work()
    capfd.readouterr()
    dagster.tick()
    assert "run work: run failed: RuntimeError: the disk is full" in capfd.readouterr().err
    dagster.tick()
    assert "the disk is full" not in capfd.readouterr().err


def test_a_failed_check_of_severity_error_is_announced_and_a_warning_is_not(webhook: Webhook, dagster: Dagster):
    dagster.check(passed=False, severity=AssetCheckSeverity.WARN)
    assert dagster.tick() == "nothing is wrong"
    dagster.check(passed=False)
    assert dagster.tick() == "1 open incident: check bars:bars_are_right"
    assert webhook.texts[0].startswith("check bars:bars_are_right: failed: compared with ***; since 2")
    dagster.check(passed=False)
    dagster.tick()
    assert len(webhook.texts) == 1
    dagster.check(passed=False, severity=AssetCheckSeverity.WARN)
    assert dagster.tick() == "nothing is wrong"
    assert webhook.texts[1].startswith("resolved after ")


def test_a_check_that_could_not_be_evaluated_is_as_it_was(webhook: Webhook, dagster: Dagster):
    dagster.check(passed=False)
    dagster.tick()
    dagster.broken[:] = ["no severity"]
    dagster.run("check")
    assert dagster.tick() == "2 open incidents: check bars:bars_are_right, run check"
    assert "ValueError: 'no severity'" in webhook.texts[1]


def test_a_service_that_crashes_is_one_incident_until_its_next_run_is_steady(
    webhook: Webhook, dagster: Dagster, monkeypatch: pytest.MonkeyPatch
):
    failed = add_run(dagster, DagsterRunStatus.FAILURE)
    assert dagster.tick() == "1 open incident: service producer"
    (text,) = webhook.texts
    assert text.startswith("service producer: run failed: its process &lt;1&gt; is gone; ***; since")
    assert text.endswith(failed)
    monkeypatch.setattr(alerts, "SILENCE", timedelta(seconds=-1))
    assert "service producer, service tick-stream" in dagster.tick()
    assert "service producer" not in webhook.texts[1], "its silence is the same incident"
    for name in alerts.SERVICES:
        beat(name, os.getpid())
    add_run(dagster, DagsterRunStatus.STARTED)
    assert "service producer" in dagster.tick(), "it may die again"
    monkeypatch.setattr(alerts, "STEADY", timedelta(0))
    assert "service producer" not in dagster.tick()
    assert webhook.texts[2].startswith("resolved after ")


def test_a_service_without_a_heartbeat_is_announced_after_a_while(
    webhook: Webhook, dagster: Dagster, monkeypatch: pytest.MonkeyPatch
):
    beat("tick-stream", os.getpid())
    beat("producer", 2**22 + 1)
    assert dagster.tick() == "nothing is wrong", "it may be starting"
    monkeypatch.setattr(alerts, "SILENCE", timedelta(seconds=-1))
    assert dagster.tick() == "2 open incidents: service ohlcv-stream, service producer"
    assert "producer.log" in webhook.texts[0]


def test_a_service_that_a_person_stopped_is_no_incident(
    webhook: Webhook, dagster: Dagster, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(alerts, "SILENCE", timedelta(seconds=-1))
    for name in alerts.SERVICES[:2]:
        held_path(load_settings(), name).parent.mkdir(parents=True, exist_ok=True)
        held_path(load_settings(), name).touch()
    assert dagster.tick() == "1 open incident: service producer"
    add_run(dagster, DagsterRunStatus.CANCELED)
    assert dagster.tick() == "nothing is wrong"
    assert dagster.tick() == "nothing is wrong"
    begun, over = webhook.texts
    assert begun.startswith("service producer: no process with a heartbeat; since ")
    assert "\n" not in begun, "of the others there is nothing to say"
    assert over.endswith(": service producer")


@pytest.mark.parametrize("url", ["hooks.example/s3cret", "ftp://hooks.example/s3cret", "http://host:99999/s3cret"])
def test_a_wrong_webhook_is_named_and_not_shown(monkeypatch: pytest.MonkeyPatch, url: str):
    monkeypatch.setenv("ALERT_WEBHOOK_URL", url)
    load_settings.cache_clear()
    with pytest.raises(SettingsError, match="alert_webhook_url") as error:
        load_settings()
    load_settings.cache_clear()
    assert "s3cret" not in f"{error.value}{error.value.__cause__.__cause__}"


def test_the_webhook_is_a_secret(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ALERT_WEBHOOK_URL", "https://hooks.example/s3cret")
    load_settings.cache_clear()
    settings = load_settings()
    load_settings.cache_clear()
    assert "https://hooks.example/s3cret" in settings.secrets()
    assert "s3cret" not in f"{settings!r}{settings.model_dump_json()}"
