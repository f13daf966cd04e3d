"""The real TimescaleDB: this machine's own PostgreSQL where it has the extension, else Debian's, unpacked."""

import json
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import psutil
import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from stock_pipeline.errors import StartError
from stock_pipeline.local.component import Component
from stock_pipeline.local.downloads import timescaledb
from stock_pipeline.services.processes import spawn, wait_until

SUPERUSER = "postgres"

SERVER_SETTINGS = {
    "shared_preload_libraries": "timescaledb",
    "timescaledb.telemetry_level": "off",
    # TCP only: a socket's path under home could be too long.
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    # The unpacked server comes without LLVM, and short queries gain nothing.
    "jit": "off",
}


RECOVERING = ("starting up", "in recovery mode", "not yet accepting connections")
"""What a server that replays its log says of the database system."""


class TimescaleDB(Component):
    name = "timescaledb"
    setting = "db_url"
    # At SIGTERM it would wait until every client has gone.
    stop_signal = signal.SIGINT

    @property
    def address(self) -> tuple[str, int]:
        return self.settings.db_address

    @property
    def _folder(self) -> Path:
        return self.settings.home / "timescaledb"

    def install(self) -> None:
        self._programs = _system_programs()
        if self._programs is None:
            self._programs = timescaledb(self.settings.debian_mirror) / "usr/lib/postgresql/17/bin"

    def prepare(self) -> None:
        passwords = self._passwords()
        if (self._folder / "PG_VERSION").exists():
            self._remove_stale_lock()
            return
        # Under another name until it is whole: what a killed initdb leaves looks like a database.
        partial = self._folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        with tempfile.TemporaryDirectory() as temporary:
            password_file = Path(temporary) / "password"
            password_file.write_text(passwords["superuser"])
            self._give_to_server(Path(temporary), password_file, partial)
            options = [f"--username={SUPERUSER}", f"--pwfile={password_file}", "--auth=scram-sha-256"]
            options += ["--encoding=UTF8", "--locale=C", f"--pgdata={partial}"]
            done = subprocess.run(
                [*self._as_server(), str(self._program("initdb")), *options],
                capture_output=True,
                text=True,
                cwd=temporary,
            )
        if done.returncode != 0:
            shutil.rmtree(partial)
            raise StartError(f"timescaledb: {self._folder} could not be created:\n{done.stdout}{done.stderr}")
        partial.rename(self._folder)

    def _remove_stale_lock(self) -> None:
        """Remove postmaster.pid where its process is a zombie, which PostgreSQL takes for a living one.

        In a container nobody may wait for a process whose parent is gone. Backends outlive a killed postmaster for
        a moment; there must be none left.
        """
        path = self._folder / "postmaster.pid"
        if not path.exists():
            return
        pid = int(path.read_text().splitlines()[0])
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            return
        if not wait_until(lambda: not self._has_backends(), patience=15):
            raise StartError(f"timescaledb: backends of a killed server still use {self._folder}: end them")
        path.unlink()

    def _has_backends(self) -> bool:
        return any(process.info["cwd"] == str(self._folder) for process in psutil.process_iter(["cwd"]))

    def _program(self, name: str) -> Path:
        assert self._programs is not None, "install() comes first"
        return self._programs / name

    def launch(self) -> subprocess.Popen[bytes]:
        host, port = self.address
        options = [word for key, value in SERVER_SETTINGS.items() for word in ("-c", f"{key}={value}")]
        server = [str(self._program("postgres")), "-D", str(self._folder), "-h", host, "-p", str(port)]
        return spawn([*self._as_server(), *server, *options], self.log_file, cwd=self._folder)

    def is_healthy(self) -> bool:
        try:
            with psycopg.connect(self._superuser_conninfo()):
                return True
        except psycopg.OperationalError:
            return False

    def is_recovering(self) -> bool:
        """Whether it replays its log, as after a kill."""
        try:
            with psycopg.connect(make_conninfo(self._superuser_conninfo(), connect_timeout=10)):
                return False
        except psycopg.OperationalError as error:
            # libpq keeps no SQLSTATE of a connection that failed; the server speaks English, by --locale=C.
            return any(words in str(error) for words in RECOVERING)

    def on_healthy(self) -> None:
        """Create the owner of the database, who is no superuser."""
        user, password = self.settings.role("owner")
        if user == SUPERUSER:
            return
        with psycopg.connect(self._superuser_conninfo()) as connection:
            if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [user]).fetchone() is None:
                connection.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(user)))
            rights = sql.SQL("ALTER ROLE {} LOGIN CREATEDB CREATEROLE PASSWORD {}")
            connection.execute(rights.format(sql.Identifier(user), sql.Literal(password)))

    def version(self) -> str:
        query = """
            SELECT current_setting('server_version'), default_version
            FROM pg_available_extensions
            WHERE name = 'timescaledb'
        """
        with psycopg.connect(self._superuser_conninfo()) as connection:
            row = connection.execute(query).fetchone()
        assert row is not None
        return f"{row[1]} on PostgreSQL {row[0].split()[0]}"

    def _superuser_conninfo(self) -> str:
        host, port = self.address
        password = self._passwords()["superuser"]
        return make_conninfo(
            host=host, port=port, user=SUPERUSER, password=password, dbname="postgres", connect_timeout=3
        )

    def _passwords(self) -> dict[str, str]:
        """The passwords of this home, made when first asked for."""
        path = self.settings.credentials_path
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            generated = {role: secrets.token_urlsafe(24) for role in ("owner", "writer", "reader")}
            configured = self.settings.db_password
            owner = configured.get_secret_value() if configured else generated["owner"]
            generated["superuser"] = owner if self.settings.db_user == SUPERUSER else secrets.token_urlsafe(24)
            partial = path.with_suffix(".partial")
            partial.unlink(missing_ok=True)
            partial.touch(0o600)
            partial.write_text(json.dumps(generated, indent=2))
            partial.replace(path)
        passwords: dict[str, str] = json.loads(path.read_text())
        return passwords

    def _as_server(self) -> list[str]:
        """Prefix of a command that must not run as root, which PostgreSQL refuses.

        The ordinary user that takes root's place may read everything, since home and the cache can lie in
        a folder that only root may enter.
        """
        if os.geteuid() != 0:
            return []
        user = _server_user()
        setpriv = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        capability = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
        # Without it access(2), with which initdb looks for postgres, ignores the capability.
        return [*setpriv, *capability, "--securebits=+no_setuid_fixup"]

    def _give_to_server(self, *paths: Path) -> None:
        if os.geteuid() == 0:
            user = _server_user()
            for path in paths:
                os.chown(path, user.pw_uid, user.pw_gid)


def _server_user() -> pwd.struct_passwd:
    """The user that PostgreSQL runs as where the pipeline runs as root."""
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise StartError("PostgreSQL refuses to run as root, and there is no user postgres or nobody: run as another user")


def _system_programs() -> Path | None:
    """Folder of an installed PostgreSQL that has TimescaleDB, the newest first."""
    usr = Path("/usr")
    candidates = sorted([*usr.glob("lib/postgresql/*/bin"), *usr.glob("pgsql-*/bin")], reverse=True)
    for folder in candidates:
        if not (folder / "pg_config").exists() or not (folder / "postgres").exists():
            continue
        share = subprocess.run([folder / "pg_config", "--sharedir"], capture_output=True, text=True).stdout.strip()
        if (Path(share) / "extension" / "timescaledb.control").exists():
            return folder
    return None
