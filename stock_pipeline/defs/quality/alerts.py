"""The sensor that says once what has gone wrong, and once that it is over: to a webhook, or to its log."""

from datetime import UTC, datetime, timedelta
from http.client import HTTPException

from dagster import (
    AssetCheckSeverity,
    DagsterEventType,
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    DefaultSensorStatus,
    RunsFilter,
    SensorEvaluationContext,
    SkipReason,
    sensor,
)
from dagster._core.events import JobFailureData
from dagster._core.storage.dagster_run import FINISHED_STATUSES
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
    SCHEDULE_NAME_TAG,
)

from stock_pipeline.alerts import Incidents, brief, post
from stock_pipeline.defs.quality.evaluations import newest_evaluations
from stock_pipeline.errors import first_line
from stock_pipeline.services.supervisor import SERVICES, held_path, log_path, read_heartbeat
from stock_pipeline.settings import Settings, load_settings

SILENCE = timedelta(seconds=90)
"""How long a service may be without a live heartbeat: about what a start takes at most."""

STEADY = timedelta(seconds=60)
"""A service whose run has lasted this long is well again."""

OVERLAP = timedelta(seconds=60)
"""A run may show as finished this much later than its time says."""

MAX_UNSENT = 200
"""Announcements kept for a webhook that does not take them; older ones are in the log only."""

MAX_RUNS = 200
"""Most finished runs that a tick looks at; the next goes on there."""


class State(Incidents):
    """The sensor's cursor."""

    looked_until: datetime
    """Runs that finished before are done with; of those since, `seen` are."""
    seen: set[str] = set()
    logged: int = 0
    """Announcements that wait for the webhook and are in this sensor's log already."""
    silent_since: dict[str, datetime] = {}
    """The services without a live heartbeat."""


@sensor(
    minimum_interval_seconds=30,
    default_status=DefaultSensorStatus.RUNNING,
    description=(
        "Announces failed runs, failed asset checks of severity ERROR and services that do not stay up, and when each "
        "is over: to ALERT_WEBHOOK_URL where it is set, else in this sensor's log."
    ),
)
def alert(context: SensorEvaluationContext) -> SkipReason:
    settings = load_settings()
    now = datetime.now(UTC)
    state = State.model_validate_json(context.cursor) if context.cursor else State(looked_until=now)
    _follow_runs(context.instance, settings, state, now)
    _follow_checks(context, settings, state, now)
    _follow_services(context.instance, settings, state, now)
    failure = _deliver(context, settings, state)
    context.update_cursor(state.model_dump_json())
    return SkipReason(f"{failure}{state.status_line()}")


def _deliver(context: SensorEvaluationContext, settings: Settings, state: State) -> str:
    """Send what was not sent yet, as one message; what is to be said where that fails."""
    if settings.alert_webhook_url is None:
        for text in state.unsent:
            context.log.warning(text)
    elif state.unsent:
        try:
            post(settings.alert_webhook_url.get_secret_value(), "\n".join(state.unsent))
        except (OSError, HTTPException) as error:
            reason = brief(first_line(error), settings.secrets())
            context.log.error(f"alerts are not delivered, next try at the next tick: {reason}")
            for text in state.unsent[state.logged :]:
                context.log.warning(text)
            del state.unsent[:-MAX_UNSENT]
            state.logged = len(state.unsent)
            return f"alerts that wait for the webhook: {len(state.unsent)} ({reason}); "
    state.unsent.clear()
    state.logged = 0
    return ""


def _follow_runs(instance: DagsterInstance, settings: Settings, state: State, now: datetime) -> None:
    """Incidents of runs, in the order in which they finished: each ends with what ended last."""
    records = instance.get_run_records(
        RunsFilter(statuses=FINISHED_STATUSES, updated_after=state.looked_until),
        limit=MAX_RUNS,
        order_by="update_timestamp",
        ascending=True,
    )
    for record in records:
        run, ended = record.dagster_run, datetime.fromtimestamp(record.end_time or 0, UTC)
        # A tag that is added to an old run updates it.
        if run.run_id in state.seen or ended <= state.looked_until:
            continue
        key = _run_key(run)
        if run.status == DagsterRunStatus.FAILURE:
            problem = f"run failed: {brief(_failure(instance, run.run_id), settings.secrets())}"
            state.begin(key, problem, ended, _run_url(settings, run.run_id), run.run_id, _selected(run))
        elif run.status == DagsterRunStatus.SUCCESS and "service" not in run.tags:
            state.end(key, now, assets=_selected(run))
    state.looked_until = (
        records[-1].update_timestamp if len(records) == MAX_RUNS else max(state.looked_until, now - OVERLAP)
    )
    state.seen = {record.dagster_run.run_id for record in records}
    _end_deleted(instance, state, now)


def _end_deleted(instance: DagsterInstance, state: State, now: datetime) -> None:
    run_ids = {key: incident.run_id for key, incident in state.open.items() if key.startswith("run ")}
    if run_ids:
        left = set(instance.get_run_ids(RunsFilter(run_ids=list(run_ids.values()))))
        for key in [key for key, run_id in run_ids.items() if run_id not in left]:
            state.end(key, now, "run deleted")


def _run_key(run: DagsterRun) -> str:
    """What a run does: the next run of the same key does it again.

    A schedule goes on with the next partition and with what is due then, so that neither counts.
    """
    if "service" in run.tags:
        return _service_key(run.tags["service"])
    if SCHEDULE_NAME_TAG in run.tags:
        return f"run {run.job_name}"
    names = (PARTITION_NAME_TAG, ASSET_PARTITION_RANGE_START_TAG, ASSET_PARTITION_RANGE_END_TAG)
    partitions = [run.tags[name] for name in names if name in run.tags]
    return " ".join(["run", run.job_name, *partitions, *sorted(_selected(run))])


def _selected(run: DagsterRun) -> set[str]:
    """The assets and checks that a run was launched for, where it was for some of its job's."""
    return {key.to_user_string() for key in (*(run.asset_selection or ()), *(run.asset_check_selection or ()))}


def _service_key(service: str) -> str:
    return f"service {service}"


def _failure(instance: DagsterInstance, run_id: str) -> str:
    """Why a run failed: the error of the first step that failed, or what is said of the run."""
    found = instance.get_records_for_run(run_id, of_type=DagsterEventType.RUN_FAILURE, limit=1, ascending=False)
    event = found.records[0].event_log_entry.dagster_event if found.records else None
    if event is None:
        return "no reason given"
    data = event.event_specific_data
    error = None
    if isinstance(data, JobFailureData):
        step = data.first_step_failure_event
        error = step.step_failure_data.error if step else data.error
    return (error.cause or error).message if error else event.message or "no reason given"


def _run_url(settings: Settings, run_id: str) -> str:
    return f"http://localhost:{settings.webserver_port}/runs/{run_id}"


def _follow_checks(context: SensorEvaluationContext, settings: Settings, state: State, now: datetime) -> None:
    """Incidents of checks, each by its newest evaluation."""
    failed = set()
    for check, evaluation, at, run_id in newest_evaluations(context):
        if evaluation.passed or evaluation.severity != AssetCheckSeverity.ERROR:
            continue
        key = f"check {check.to_user_string()}"
        failed.add(key)
        problem = brief(f"failed: {evaluation.description or 'as its metadata says'}", settings.secrets())
        state.begin(key, problem, at, _run_url(settings, run_id))
    for key in [key for key in state.open if key.startswith("check ") and key not in failed]:
        state.end(key, now)


def _follow_services(instance: DagsterInstance, settings: Settings, state: State, now: datetime) -> None:
    """Incidents of services. A run of theirs that failed has begun one already."""
    for service in SERVICES:
        newest = next(iter(instance.get_run_records(RunsFilter(tags={"service": service}), limit=1)), None)
        status = newest.dagster_run.status if newest else None
        beat = read_heartbeat(settings, service)
        alive = beat is not None and beat.is_alive()
        by_a_person = held_path(settings, service).exists() or status in (
            DagsterRunStatus.CANCELING,
            DagsterRunStatus.CANCELED,
        )
        started = newest.start_time if newest and status == DagsterRunStatus.STARTED else None
        steady = alive and started is not None and now.timestamp() - started > STEADY.total_seconds()
        key = _service_key(service)
        if by_a_person or alive:
            state.silent_since.pop(service, None)
        elif now - (since := state.silent_since.setdefault(service, now)) > SILENCE:
            state.begin(key, "no process with a heartbeat", since, str(log_path(settings, service)))
        if by_a_person or steady:
            state.end(key, now)
