"""Every error that the product raises on purpose. Each message names the setting or the record, and what to do."""


class StockPipelineError(Exception):
    """A fault that a person can mend; the command line prints its text without a traceback."""


class SettingsError(StockPipelineError):
    """A setting is missing or has a wrong value."""


class PortTaken(StockPipelineError):
    """Another program listens where a part of the stack should."""


class InstallError(StockPipelineError):
    """A component could not be downloaded, or what was downloaded is damaged."""


class StartError(StockPipelineError):
    """A component of the stack did not become healthy."""


class AlreadyRunning(StockPipelineError):
    """The lock of a service is held by another process."""


class ServiceDied(StockPipelineError):
    """A supervised process is gone, without having been asked to stop."""


class ServiceStalled(StockPipelineError):
    """A supervised process lives but has stopped working."""


class NotATrade(StockPipelineError):
    """An element of a frame is no trade; the message is the reason given in the dead letter."""


class FinnhubRefused(StockPipelineError):
    """Finnhub did not accept the connection."""


class SpoolFull(StockPipelineError):
    """The producer can keep no more of what Kafka does not take."""


class UnknownTopic(StockPipelineError):
    """The Kafka topic does not exist."""


class BadRange(StockPipelineError):
    """A range of time is back to front, in the future, or no longer there."""


class UnknownSymbol(StockPipelineError):
    """There has never been a trade of this symbol."""


class BadDashboard(StockPipelineError):
    """A file of grafana/dashboards, or a query in it, cannot be read."""


def first_line(error: BaseException) -> str:
    """What an error says, in one line for a log."""
    return next((line for line in str(error).splitlines() if line.strip()), repr(error))
