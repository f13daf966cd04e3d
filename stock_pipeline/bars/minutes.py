"""A range of minutes, as a person gives it."""

from datetime import UTC, datetime, timedelta

from stock_pipeline.errors import BadRange

MINUTE = timedelta(minutes=1)


def parse_time(option: str, text: str) -> datetime:
    """A point in time, ISO 8601; without an offset it is UTC.

    Raises:
        BadRange: the text is no such time.
    """
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadRange(f"{option}: {text!r} is no time; write 2026-11-23 or 2026-11-23T14:30, which is UTC") from error
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def whole_minutes(begin: datetime, end: datetime) -> tuple[datetime, datetime]:
    """The range in whole minutes, never smaller.

    Raises:
        BadRange: it is back to front, empty, or in the future.
    """
    if begin > datetime.now(UTC):
        raise BadRange(f"--from {begin.isoformat()} is in the future: there are no trades yet")
    if begin >= end:
        raise BadRange(f"the range is back to front: --from {begin.isoformat()} is not before --to {end.isoformat()}")
    return _floor(begin), _floor(end + MINUTE - timedelta(microseconds=1))


def _floor(time: datetime) -> datetime:
    return time.replace(second=0, microsecond=0)
