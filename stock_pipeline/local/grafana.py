"""Grafana with the project's dashboards, where this machine has it."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from stock_pipeline import PROJECT_ROOT
from stock_pipeline.errors import SettingsError
from stock_pipeline.settings import Settings

FOLDER = PROJECT_ROOT / "grafana"

WHERE_TO_GET_IT = "https://grafana.com/grafana/download"

DEBIAN_HOME = Path("/usr/share/grafana")
"""Where Grafana's own packages put what belongs to /usr/sbin/grafana."""


def grafana_command(settings: Settings) -> Sequence[str] | None:
    """The server in the foreground, of GRAFANA_HOME or else of the `grafana` on PATH; None where there is neither.

    Raises:
        SettingsError: GRAFANA_HOME is no unpacked Grafana.
    """
    home = settings.grafana_home
    program = (home and shutil.which("grafana", path=str(home / "bin"))) or shutil.which("grafana")
    homes = [home] if home else [Path(program).resolve().parent.parent, DEBIAN_HOME] if program else []
    found = next((folder for folder in homes if (folder / "public").is_dir()), None)
    if program and found:
        return [program, "server", "--homepath", str(found)]
    if home is not None:
        raise SettingsError(
            f"grafana_home: {home} is no unpacked Grafana, with bin/grafana and public/ in it; get one from "
            f"{WHERE_TO_GET_IT}, or unset it"
        )
    return None


def grafana_environment(settings: Settings) -> dict[str, str]:
    """The project's provisioning, data under our home, and no login: whoever reaches the port may look and not edit."""
    host, port = settings.db_address
    user, password = settings.role("reader")
    data = settings.home / "grafana"
    # Grafana takes a missing folder for an error.
    (data / "plugins").mkdir(parents=True, exist_ok=True)
    webhook = settings.alert_webhook_url
    return {
        "STOCK_PIPELINE_DASHBOARDS": str(FOLDER / "dashboards"),
        "STOCK_PIPELINE_DB_ADDRESS": f"{host}:{port}",
        "STOCK_PIPELINE_DB_NAME": settings.db_name,
        "STOCK_PIPELINE_DB_READER": user,
        "STOCK_PIPELINE_DB_READER_PASSWORD": password or "",
        # Without a webhook no alert is sent, but Grafana wants the contact point to have a URL all the same.
        "STOCK_PIPELINE_ALERTS_GO_TO": "webhook" if webhook else "",
        "STOCK_PIPELINE_ALERT_WEBHOOK_URL": webhook.get_secret_value() if webhook else "http://localhost",
        "GF_PATHS_PROVISIONING": str(FOLDER / "provisioning"),
        "GF_PATHS_DATA": str(data),
        "GF_PATHS_PLUGINS": str(data / "plugins"),
        "GF_PATHS_LOGS": str(data / "log"),
        "GF_LOG_MODE": "console",
        "GF_LOG_LEVEL": "warn",
        "GF_SERVER_HTTP_ADDR": "127.0.0.1",
        "GF_SERVER_HTTP_PORT": str(settings.grafana_port),
        "GF_AUTH_ANONYMOUS_ENABLED": "true",
        "GF_AUTH_BASIC_ENABLED": "false",
        "GF_AUTH_DISABLE_LOGIN_FORM": "true",
        "GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION": "true",
        # The market's dashboard asks every second; without it Grafana makes that five.
        "GF_DASHBOARDS_MIN_REFRESH_INTERVAL": "1s",
        "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH": str(FOLDER / "dashboards" / "market.json"),
        # For so long after its first start Grafana sends alerts to an address that it makes up.
        "GF_UNIFIED_ALERTING_ALERTMANAGER_CONFIG_POLL_INTERVAL": "10s",
        "GF_USERS_DEFAULT_LANGUAGE": "en-US",
        "GF_ANALYTICS_REPORTING_ENABLED": "false",
        "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
        "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
        "GF_PLUGINS_PREINSTALL_DISABLED": "true",
        "GF_PLUGINS_PUBLIC_KEY_RETRIEVAL_DISABLED": "true",
        "GF_NEWS_NEWS_FEED_ENABLED": "false",
    }
