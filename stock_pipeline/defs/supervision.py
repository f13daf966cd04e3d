"""What the three services have in common in Dagster: a job that supervises the process, a sensor that keeps the job.

The process is an ordinary one and outlives the run: when the run, the daemon or the code server dies, the feed goes
on, and the next run attaches to the process. Only a person who cancels the run stops the process; it stays down
until a person starts the job.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import psycopg2
import sqlalchemy.exc
from confluent_kafka import KafkaException
from dagster import (
    AssetMaterialization,
    AssetObservation,
    DagsterRunStatus,
    DefaultSensorStatus,
    JobDefinition,
    OpExecutionContext,
    RunRecord,
    RunRequest,
    RunsFilter,
    SensorDefinition,
    SensorEvaluationContext,
    SkipReason,
    in_process_executor,
    job,
    op,
    sensor,
)
from dagster._core.errors import DagsterExecutionInterruptedError

from stock_pipeline.errors import UnknownTopic, first_line
from stock_pipeline.resources.kafka import KafkaResource
from stock_pipeline.resources.spark import SparkResource
from stock_pipeline.resources.timescale import TimescaleResource
from stock_pipeline.services.lock import hold, is_held
from stock_pipeline.services.service import Heartbeat, ServiceName, lock_path
from stock_pipeline.services.supervisor import Supervisor, held_path, read_heartbeat
from stock_pipeline.settings import Settings, load_settings

LEASE = 6 * 3600.0
"""Seconds after which a run gives way to the next, so that no run's event log grows for ever."""

LOOK = 1.0
"""Seconds between two looks at the process."""

REPORT = 240.0
"""Seconds between two reports to the assets: each is some kilobytes of Dagster's event log."""

STATUS_LOOK = 5.0
"""Seconds between two looks at the run's own status: one that was force-terminated gets no interrupt."""

LIVE = (
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
)

CANCELLED = (DagsterRunStatus.CANCELING, DagsterRunStatus.CANCELED)
"""What only a person makes of a run."""

LAUNCH_PATIENCE = 90.0
"""Seconds from a run's creation to its start."""

ATTACH_PATIENCE = 20.0
"""Seconds from a run's start to its hold on the supervisor's lock."""

SHORT_LIFE = 60.0
"""A run that failed within this many seconds counts towards the back-off."""

MAX_PAUSE = 600.0
"""Most seconds between two attempts to run a service that fails at once."""

StorageAway = (sqlalchemy.exc.DBAPIError, psycopg2.Error)
"""What Dagster's own storage raises while its database is away."""

Events = Sequence[AssetMaterialization | AssetObservation]
Reporter = Callable[[Heartbeat, "Resources"], Events]
"""What to tell the assets about the newest heartbeat, every REPORT seconds."""


class Resources:
    """The resources of a supervising run."""

    def __init__(self, kafka: KafkaResource, spark: SparkResource, timescale: TimescaleResource) -> None:
        self.kafka = kafka
        self.spark = spark
        self.timescale = timescale

    def work_ends(self) -> Mapping[int, int] | None:
        """End offset of each partition; None while Kafka or the database is away."""
        try:
            if not self.timescale.is_reachable():
                return None
            return {partition: end for partition, (_, end) in self.kafka.offset_ranges().items()}
        except (KafkaException, UnknownTopic):
            return None


def supervisor_lock(settings: Settings, service: str) -> Path:
    return lock_path(settings, f"{service}-supervisor")


def service_job(service: ServiceName, description: str, report: Reporter, consumes_topic: bool) -> JobDefinition:
    """The job that supervises one service.

    Args:
        report: makes the events that the run logs every REPORT seconds.
        consumes_topic: whether the service stands still where the topic goes on only if it hangs.
    """

    @op(name=f"supervise_{service.replace('-', '_')}", description=description)
    def supervise(
        context: OpExecutionContext, kafka: KafkaResource, spark: SparkResource, timescale: TimescaleResource
    ) -> None:
        resources = Resources(kafka, spark, timescale)
        settings = load_settings()
        work_ends = resources.work_ends if consumes_topic else lambda: None
        supervisor = Supervisor(service, settings, work_ends)
        with hold(supervisor_lock(settings, service)):
            held_path(settings, service).unlink(missing_ok=True)
            try:
                _follow(context, supervisor, resources, report)
            except (DagsterExecutionInterruptedError, KeyboardInterrupt):
                if _status(context) in CANCELLED:
                    _stop_for_a_person(supervisor)
                raise

    @job(
        name=service.replace("-", "_"),
        description=description,
        executor_def=in_process_executor,
        tags={"service": service},
    )
    def supervise_service() -> None:
        supervise()

    return supervise_service


def _follow(context: OpExecutionContext, supervisor: Supervisor, resources: Resources, report: Reporter) -> None:
    with _tolerating_storage():
        context.log.info(f"{supervisor.name}: {supervisor.ensure_started()}")
    began = time.monotonic()
    reported = looked = began
    while time.monotonic() - began < LEASE:
        beat = supervisor.check()
        if beat is None and supervisor.has_stopped():
            with _tolerating_storage():
                context.log.info(f"{supervisor.name} was stopped")
            return
        now = time.monotonic()
        if beat is not None and beat.state == "running" and (now - reported >= REPORT or reported == began):
            reported = now
            with _tolerating_storage():
                for event in report(beat, resources):
                    context.log_event(event)
        if now - looked >= STATUS_LOOK:
            looked = now
            status = _status(context)
            if status in CANCELLED:
                _stop_for_a_person(supervisor)
                return
            if status == DagsterRunStatus.FAILURE:
                # Dagster takes this process for dead: the next run, which it shows as running, attaches.
                return
        time.sleep(LOOK)


def _stop_for_a_person(supervisor: Supervisor) -> None:
    held_path(supervisor.settings, supervisor.name).touch()
    supervisor.stop()


@contextmanager
def _tolerating_storage() -> Iterator[None]:
    """Go on while the database is away, where Dagster keeps its events and the reports get their figures."""
    try:
        yield
    except (*StorageAway, psycopg.OperationalError, KafkaException) as error:
        print(f"not reported, since a server is away: {first_line(error)}")


def _status(context: OpExecutionContext) -> DagsterRunStatus | None:
    """What Dagster takes the run for; None: unknown, while its storage is away."""
    try:
        run = context.instance.get_run_by_id(context.run_id)
    except StorageAway:
        return None
    return None if run is None else run.status


def service_sensor(service: ServiceName, target: JobDefinition) -> SensorDefinition:
    """The sensor that keeps the job of a service running."""

    @sensor(
        name=f"keep_{target.name}_running",
        job=target,
        default_status=DefaultSensorStatus.RUNNING,
        description=f"Starts the job {target.name} where no run of it supervises the {service}.",
    )
    def keep_running(context: SensorEvaluationContext) -> RunRequest | SkipReason:
        settings = load_settings()
        records = context.instance.get_run_records(RunsFilter(job_name=target.name), limit=25)
        supervised = is_held(supervisor_lock(settings, service))
        for record in records:
            if record.dagster_run.status not in LIVE:
                continue
            if supervised or not _is_abandoned(record):
                return SkipReason(status_line(service, read_heartbeat(settings, service), record))
            _end_abandoned(context, record)
            if record.dagster_run.status == DagsterRunStatus.CANCELING:
                return SkipReason(f"{service}: the run that a person cancelled was ended")
        if supervised:
            return SkipReason(f"{service}: a run that Dagster shows as ended still supervises it")
        latest = records[0] if records else None
        if latest is not None:
            is_stopped = latest.dagster_run.status == DagsterRunStatus.CANCELED
        else:
            # Dagster has lost its runs, or has none yet.
            is_stopped = held_path(settings, service).exists()
        if is_stopped:
            return SkipReason(f"{service}: stopped by a person; launch the job {target.name} to start it again")
        # A process that runs is attached to at once, however often its runs ended: they end with Dagster, too.
        pause = 0.0 if is_held(lock_path(settings, service)) else _remaining_pause(records)
        if pause:
            return SkipReason(f"{service}: failed {_failures(records)} times at its start, next try in {pause:.0f} s")
        return RunRequest(run_key=f"{target.name}:{latest.dagster_run.run_id if latest else 'first'}")

    return keep_running


def status_line(service: str, beat: Heartbeat | None, record: RunRecord) -> str:
    """What a service does, in a line."""
    status = record.dagster_run.status.value.lower()
    if beat is None or not beat.is_alive():
        return f"{service}: run {status}, process starting"
    counts = ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in sorted(beat.counts.items()))
    return f"{service}: {beat.state}, pid {beat.pid}, {counts or 'nothing yet'}"


def _age(record: RunRecord) -> tuple[float, float]:
    """Seconds since the run was created and since it started."""
    now = datetime.now(UTC).timestamp()
    created = now - record.create_timestamp.timestamp()
    return created, now - record.start_time if record.start_time else 0.0


def _is_abandoned(record: RunRecord) -> bool:
    """Whether Dagster shows a run as live that nobody executes: after kill -9 it does so for ever."""
    created, started = _age(record)
    status = record.dagster_run.status
    if status in (DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING):
        return started > ATTACH_PATIENCE
    return status != DagsterRunStatus.QUEUED and created > LAUNCH_PATIENCE


def _end_abandoned(context: SensorEvaluationContext, record: RunRecord) -> None:
    run = record.dagster_run
    if run.status == DagsterRunStatus.CANCELING:
        context.instance.report_run_canceled(run, "The run was cancelled, and its process is gone.")
    else:
        context.instance.report_run_failed(run, "Nobody executes this run any more: its process is gone.")


def _failures(records: Sequence[RunRecord]) -> int:
    """How many of the newest runs, one after the other, failed soon after their start."""
    count = 0
    for record in records:
        failed = record.dagster_run.status == DagsterRunStatus.FAILURE
        began = record.start_time or record.create_timestamp.timestamp()
        if not failed or (record.end_time or began) - began > SHORT_LIFE:
            break
        count += 1
    return count


def _remaining_pause(records: Sequence[RunRecord]) -> float:
    """Seconds to wait before the next attempt; none for the first two failures."""
    failures = _failures(records)
    if failures < 3:
        return 0.0
    pause = min(MAX_PAUSE, 15 * 2.0 ** (failures - 2))
    ended = records[0].end_time or records[0].create_timestamp.timestamp()
    return max(0.0, ended + pause - datetime.now(UTC).timestamp())
