"""Incidents, announced once when they begin and once when they are over. Knows nothing of Dagster."""

import html
import json
from collections.abc import Iterable, Set
from datetime import datetime, timedelta
from urllib.request import Request, urlopen

from pydantic import BaseModel

PATIENCE = 10.0
"""Seconds that the webhook has to answer."""

LONGEST = 300
"""Most characters of what an alert says of an error."""


def post(url: str, text: str) -> None:
    """Send a text to a webhook in Slack's format, where &, < and > are written as in HTML.

    Raises:
        OSError: it cannot be reached, or does not accept the text.
        HTTPException: it does not speak HTTP.
    """
    body = json.dumps({"text": html.escape(text, quote=False)}).encode()
    with urlopen(Request(url, body, {"Content-Type": "application/json"}), timeout=PATIENCE):
        pass


def brief(text: str, secrets: Iterable[str]) -> str:
    """The first line of a text, not too long, secrets masked."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    for secret in secrets:
        line = line.replace(secret, "***")
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}…"


class Incident(BaseModel):
    """Something that is wrong and has been announced, or waits for it."""

    since: datetime
    run_id: str = ""
    assets: set[str] = set()
    """What failed, where that is known: it is over when all of them are well again."""


class Incidents(BaseModel):
    """What is open, and the announcements that were not delivered yet."""

    open: dict[str, Incident] = {}
    unsent: list[str] = []

    def begin(
        self, key: str, problem: str, since: datetime, where: str, run_id: str = "", assets: Set[str] = frozenset()
    ) -> None:
        """Announce an incident, unless it is open."""
        if key not in self.open:
            self.open[key] = Incident(since=since, run_id=run_id)
            self.unsent.append(f"{key}: {problem}; since {since:%Y-%m-%d %H:%M:%S} UTC; see {where}")
        self.open[key].assets |= assets

    def end(self, key: str, now: datetime, how: str = "resolved", assets: Set[str] | None = None) -> None:
        """Announce that an incident is over, if it is open.

        Args:
            assets: those that are well again; None: all.
        """
        incident = self.open.get(key)
        if incident is not None and (assets is None or incident.assets <= assets):
            del self.open[key]
            self.unsent.append(f"{how} after {_duration(now - incident.since)}: {key}")

    def status_line(self) -> str:
        if not self.open:
            return "nothing is wrong"
        return f"{len(self.open)} open incident{'s' * (len(self.open) > 1)}: {', '.join(sorted(self.open))}"


def _duration(time: timedelta) -> str:
    seconds = time.total_seconds()
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
