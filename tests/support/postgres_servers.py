"""PostgreSQL clusters for tests: started from a cached template, paired with a synchronous standby, killed, promoted.

A cluster belongs to the user `postgres` if the tests run as root, because PostgreSQL refuses root, else to the tests'
own user. It listens on a Unix socket, for its superuser, and on a port of the loopback interface, for ROLE.

Only processes that this module started are ended. The kernel stops a cluster when the thread that started it ends
(PR_SET_PDEATHSIG), so start clusters from a thread that outlives them. A folder that a killed test process left is
removed when the next cluster starts: its lock is free then.
"""

import contextlib
import ctypes
import fcntl
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from psycopg import sql

from tests.support.paths import ROOT
from tests.support.processes import children, is_running
from tests.support.tcp_relay import TcpRelay
from tests.support.waiting import wait_until

PACKAGE: Final = "postgresql"
OWNER: Final = "postgres"
# The role of a service, without privileges over the cluster. Its password is in every address, though none is asked.
ROLE: Final = "softstep"
PASSWORD: Final = "a-password-that-no-log-may-have"  # noqa: S105  # of test clusters alone
START_SECONDS = STOP_SECONDS = 60.0
# Below the ports that the kernel gives to connections, so that a cluster that is down keeps its port.
PORTS: Final = range(20_000, 32_000)
FOLDER_PREFIX: Final = "softstep-pg-"
MEMORY: Final = Path("/dev/shm")  # noqa: S108  # within folders that mkdtemp makes
# Several test processes with a few clusters each; a container often has 64 MiB.
MEMORY_BYTES_MIN: Final = 4 << 30
# Settings of every cluster; durability is off unless a test asks for it.
SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    "fsync": "off",
    "shared_buffers": "32MB",
    "max_connections": "100",
    "wal_log_hints": "on",
    "wal_keep_size": "256MB",
    "max_wal_size": "1GB",
    "wal_retrieve_retry_interval": "100ms",
    # In the data directory: a killed cluster leaves nothing in the machine's shared memory.
    "dynamic_shared_memory_type": "mmap",
}
# Of databases, in all clusters: a standby gets those of its primary.
NUMBERS: Final = itertools.count(1)
ACCESS: Final = f"""\
local all,replication all trust
host all {ROLE} 127.0.0.1/32 trust
host replication {OWNER} 127.0.0.1/32 trust
"""


def find_programs() -> Path | None:
    """Return the folder of PostgreSQL's programs, the newest release of Debian's, or None if it is not installed."""
    releases = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    newest = max(releases, key=lambda path: float(path.parents[1].name), default=None)
    found = newest or shutil.which("postgres")
    return None if found is None else Path(found).resolve().parent


def require_program(found: object, name: str, package: str) -> None:
    """Skip the test if a program is not installed; with NEED_POSTGRES, which .ci/run sets, or in CI, fail it."""
    if found:
        return
    reason = f"{name} is missing, so nothing was tested: apt-get install --no-install-recommends {package}"
    if os.environ.get("CI") or os.environ.get("NEED_POSTGRES"):
        pytest.fail(reason)
    pytest.skip(reason)


def require_postgres() -> None:
    """Skip or fail the test if PostgreSQL is not installed."""
    require_program(find_programs(), "PostgreSQL", PACKAGE)


def owner_command(death_signal: str) -> list[str]:
    """Return the start of a command that runs a program as the clusters' owner, and ends it with this process."""
    user = [f"--reuid={OWNER}", f"--regid={OWNER}", "--init-groups"] if os.geteuid() == 0 else []
    return ["setpriv", *user, f"--pdeathsig={death_signal}", "--"]


def run_program(name: str, *arguments: str | Path, folder: Path) -> None:
    """Run one of PostgreSQL's programs as the clusters' owner; fail with its output."""
    command = [*owner_command("KILL"), str(_programs() / name), *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=START_SECONDS, check=False)
    assert done.returncode == 0, f"{name} failed:\n{done.stdout}{done.stderr}"


def free_port() -> int:
    """Return a port that is free now, and that no connection is given by chance."""
    while True:
        port = random.SystemRandom().choice(PORTS)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def cluster_parent(*, on_disk: bool = False) -> Path:
    """Return where folders of clusters are made: in memory if there is enough, because many start and are copied."""
    memory = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= MEMORY_BYTES_MIN and not on_disk
    return MEMORY if memory else Path(tempfile.gettempdir())


@contextlib.contextmanager
def cluster_folder(*, on_disk: bool = False) -> Iterator[Path]:
    """Make a folder of the clusters' owner, locked until it is removed at the end of the block."""
    _remove_stale_folders()
    folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=cluster_parent(on_disk=on_disk)))
    with (folder / "unlocked").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (folder / "unlocked").rename(folder / "lock")  # only now can another process find it
        give_to_owner(folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder)


def give_to_owner(*paths: Path) -> None:
    """Let the clusters' owner have files that root has made."""
    if os.geteuid() == 0:
        for path in paths:
            shutil.chown(path, OWNER, OWNER)


def _programs() -> Path:
    folder = find_programs()
    assert folder is not None
    return folder


def _remove_stale_folders() -> None:
    """Remove the folders of test processes that were killed."""
    parents = {cluster_parent(), cluster_parent(on_disk=True)}
    for folder in (path for parent in parents for path in parent.glob(f"{FOLDER_PREFIX}*")):
        with contextlib.suppress(OSError), (folder / "lock").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)


def _template(folder: Path) -> Path:
    """Return a data directory as `initdb` makes it, which later test processes find in build/."""
    programs = _programs()
    version = subprocess.run([programs / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    template = ROOT / "build" / "postgres" / version.split()[2]
    if not template.exists():
        made = folder / "template"
        arguments = ["-U", OWNER, "--encoding=UTF8", "--locale=C", "--data-checksums", "--no-sync", "--auth=trust"]
        run_program("initdb", "-D", made, *arguments, folder=folder)
        template.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=template.parent) as beside:
            shutil.copytree(made, Path(beside) / "template")
            with contextlib.suppress(OSError):  # another process was first
                (Path(beside) / "template").rename(template)
        shutil.rmtree(made)
    return template


class PostgresCluster:
    """One PostgreSQL server with its data directory.

    Args:
        folder: Where the data, the log and the Unix socket are made; see `cluster_folder`.
        name: The name of the data directory, and of this server as a standby.
        settings: Settings beside SETTINGS.

    Attributes:
        port: The port on the loopback interface, the same for all starts.
        data: The data directory.
        log: What the server writes to standard error.
    """

    def __init__(self, folder: Path, name: str = "a", settings: Mapping[str, str] | None = None) -> None:
        self.folder, self.name = folder, name
        self.port = free_port()
        self.data = folder / name
        self.log = folder / f"{name}.log"
        self._settings = {**SETTINGS, "unix_socket_directories": str(folder), **(settings or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._templates: dict[Callable[[str], None] | None, str] = {}

    # Start and stop

    def create(self, source: Path | None = None) -> None:
        """Make the data directory, from the template or as a copy of another that no server uses."""
        shutil.copytree(source or _template(self.folder), self.data)
        self.data.chmod(0o700)
        give_to_owner(self.data, *self.data.rglob("*"))

    def start(self) -> None:
        """Start the server, and wait until it takes connections."""
        assert not self.is_running
        self._configure()
        command = [*owner_command("QUIT"), str(_programs() / "postgres"), "-D", str(self.data)]
        with self.log.open("ab") as log:
            # Its own session: the signals of a terminal are requests to stop, or to load the configuration.
            self._process = subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        until = time.monotonic() + START_SECONDS
        while not self._is_ready():
            assert self.is_running, f"PostgreSQL did not start; its log:\n{self.log.read_text()}"
            assert time.monotonic() < until, f"PostgreSQL is not ready; its log:\n{self.log.read_text()}"
            time.sleep(0.01)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server if it runs: SIGINT ends its sessions and writes a checkpoint, SIGQUIT recovers later."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(STOP_SECONDS)
            self._process = None

    def kill(self) -> None:
        """Kill (-9) all processes of the server. Its first process is stopped before, so that it starts no others."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        victims = [self._process.pid, *children(self._process.pid)]
        for process in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self._process.wait(STOP_SECONDS)
        wait_until(lambda: not any(map(is_running, victims)), STOP_SECONDS)
        self._process = None
        self._release_memory()

    @property
    def is_running(self) -> bool:
        """Whether the server's first process runs."""
        return self._process is not None and self._process.poll() is None

    # Its processes

    def processes(self, title: str) -> list[int]:
        """Return the server's processes whose title has a word, such as walsender, walreceiver or COMMIT."""
        assert self._process is not None
        found = []
        for child in children(self._process.pid):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if title.encode() in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.append(child)
        return found

    @contextlib.contextmanager
    def paused(self, title: str) -> Iterator[None]:
        """Stop (SIGSTOP) the processes with a word in their title, and continue those that still exist afterwards."""
        stopped = self.processes(title)
        assert stopped, f"no process of PostgreSQL has the title {title}"
        for process in stopped:
            os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in set(stopped) & set(children(self._process.pid) if self._process else []):
                os.kill(process, signal.SIGCONT)

    # Replication

    def follow(self, primary: "PostgresCluster", address: str | None = None) -> None:
        """Become a standby of a primary, with a copy of its data, and start.

        Args:
            primary: The primary; if it is down, then because it is new or was stopped by SIGINT.
            address: Where the primary is reached for the stream, as a connection string; by its Unix socket if None.
        """
        shutil.rmtree(self.data, ignore_errors=True)
        if primary.is_running:
            arguments = ("-U", OWNER, "--wal-method=stream", "--checkpoint=fast", "--no-sync")
            server = ("-h", primary.folder, "-p", str(primary.port))
            run_program("pg_basebackup", *server, "-D", self.data, *arguments, folder=self.folder)
        else:
            self.create(primary.data)
        stream = address or f"host={primary.folder} port={primary.port}"
        self._settings["primary_conninfo"] = f"{stream} user={OWNER} application_name={self.name}"
        (self.data / "standby.signal").touch()
        give_to_owner(self.data / "standby.signal")
        self.start()

    def switch_to(self, primary: "PostgresCluster") -> None:
        """Follow another primary that was promoted, with the data that this standby has."""
        stream = f"host={primary.folder} port={primary.port} user={OWNER} application_name={self.name}"
        self.configure("primary_conninfo", stream)

    def received(self) -> int:
        """Return how far this standby has received the stream, in bytes."""
        return int(self.execute("SELECT pg_wal_lsn_diff(pg_last_wal_receive_lsn(), '0/0')")[0][0])

    def wait_for_standby(self, name: str, state: str = "quorum") -> None:
        """Wait until a standby streams, and is a synchronous one; `state` is "async" for one that is not."""
        query = (
            "SELECT 1 FROM pg_stat_replication WHERE application_name = %s AND state = 'streaming' AND sync_state = %s"
        )
        wait_until(lambda: self.execute(query, name, state) == [(1,)], START_SECONDS)

    def promote(self) -> None:
        """Make this standby a primary; its COMMITs wait for a standby if its settings say so."""
        self.execute("SELECT pg_promote(true, 60)")
        self._settings.pop("primary_conninfo", None)

    def configure(self, name: str, value: str) -> None:
        """Change a setting; if the server runs, it has it at once, and new sessions see it."""
        self._settings[name] = value
        if self.is_running:
            self._configure()
            self.execute("SELECT pg_reload_conf()")
            wait_until(lambda: self.execute("SELECT current_setting(%s)", name) == [(value,)])

    def replicate_to(self, *names: str) -> None:
        """Let each COMMIT wait for one of these standbys, and wait until a log acknowledges events by that."""
        self.configure("synchronous_standby_names", f"ANY 1 ({', '.join(names)})")
        for name in names:
            self.wait_for_standby(name)
        self.wait_until_settled()

    def wait_until_settled(self) -> None:
        """Wait until the configuration was loaded a second ago: a log acknowledges nothing before that."""
        settled = "SELECT pg_conf_load_time() < clock_timestamp() - interval '1 s'"
        wait_until(lambda: self.execute(settled) == [(True,)])

    # Sessions

    def address(self, database: str = "postgres", *, port: int | None = None) -> str:
        """Return the address of a database for ROLE, at this server's port or at that of something before it."""
        return f"postgresql://{ROLE}:{PASSWORD}@127.0.0.1:{port or self.port}/{database}"

    def execute(self, query: Any, *arguments: object, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run one statement as the superuser, committed at once; return its rows."""
        with psycopg.connect(
            host=str(self.folder), port=self.port, user=OWNER, dbname=database, autocommit=True
        ) as session:
            cursor = session.execute(query, arguments or None)
            return cursor.fetchall() if cursor.description else []

    def make_database(self, prepare: Callable[[str], None] | None = None) -> str:
        """Make a database of ROLE, and return its address.

        Args:
            prepare: Fills a database at an address. It is called once; further databases are copies of that one.
        """
        if prepare not in self._templates:
            self._templates[prepare] = f"template_{next(NUMBERS)}"
            self._ensure_role()
            self._create_database(self._templates[prepare], "template1")
            if prepare is not None:
                prepare(self.address(self._templates[prepare]))
        name = f"test_{next(NUMBERS)}"
        self._create_database(name, self._templates[prepare])
        return self.address(name)

    def drop_database(self, address: str) -> None:
        """Drop a database of `make_database`, with all its sessions."""
        name = address.rpartition("/")[2]
        self.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def _ensure_role(self) -> None:
        if not self.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", ROLE):
            self.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(ROLE)))

    def _create_database(self, name: str, template: str) -> None:
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {}")
        self.execute(statement.format(*map(sql.Identifier, (name, template, ROLE))))

    # Files

    def _configure(self) -> None:
        lines = [f"{name} = '{value}'\n" for name, value in {**self._settings, "port": str(self.port)}.items()]
        (self.data / "postgresql.conf").write_text("".join(lines))
        (self.data / "pg_hba.conf").write_text(ACCESS)

    def _is_ready(self) -> bool:
        """Return whether postmaster.pid says that connections are taken, by a primary or a standby."""
        with contextlib.suppress(FileNotFoundError):
            lines = (self.data / "postmaster.pid").read_text().splitlines()
            own = self._process is not None and lines[:1] == [str(self._process.pid)]
            return own and lines[7:8] != [] and lines[7].strip() in {"ready", "standby"}
        return False

    def _release_memory(self) -> None:
        """Remove the shared memory that a killed server cannot remove; postmaster.pid has its number."""
        lines = (self.data / "postmaster.pid").read_text().splitlines()
        if len(lines) > 6 and lines[6].split()[1:]:
            ctypes.CDLL(None).shmctl(int(lines[6].split()[1]), 0, None)


@contextlib.contextmanager
def running_cluster(settings: Mapping[str, str] | None = None) -> Iterator[PostgresCluster]:
    """Run one server until the end of the block."""
    with cluster_folder() as folder:
        cluster = PostgresCluster(folder, settings=settings)
        cluster.create()
        with stopping([cluster]):
            cluster.start()
            yield cluster


@contextlib.contextmanager
def running_group(
    settings: Mapping[str, str] | None = None,
    *,
    standbys: int = 1,
    synchronous: bool = True,
    relay: TcpRelay | None = None,
    on_disk: bool = False,
) -> Iterator[list[PostgresCluster]]:
    """Run a primary, the first of the list, and its standbys until the end of the block.

    Args:
        settings: Settings of all.
        standbys: The number of standbys.
        synchronous: Whether each COMMIT waits for one other, whichever is the primary, from its first moment as one.
        relay: A running relay; the standbys reach the primary through it.
        on_disk: Whether the data is on a disk, even if there is enough memory.
    """
    names = "abcdefgh"[: standbys + 1]
    with cluster_folder(on_disk=on_disk) as folder:
        primary, *others = group = [PostgresCluster(folder, name, settings) for name in names]
        primary.create()
        address = None
        if relay is not None:
            relay.target = ("127.0.0.1", primary.port)
            address = f"host=127.0.0.1 port={relay.port}"
        with stopping(group):
            for standby in others:
                standby.follow(primary, address)
            primary.start()
            for standby in others:
                primary.wait_for_standby(standby.name, "async")
            if synchronous:
                for cluster in group:
                    cluster.configure("synchronous_standby_names", f"ANY 1 ({', '.join(names)})")
                for standby in others:
                    primary.wait_for_standby(standby.name)
                primary.wait_until_settled()
            yield group


@contextlib.contextmanager
def running_pair(
    settings: Mapping[str, str] | None = None, *, synchronous: bool = True, relay: TcpRelay | None = None
) -> Iterator[tuple[PostgresCluster, PostgresCluster]]:
    """Run a primary and one standby until the end of the block; see `running_group`."""
    with running_group(settings, synchronous=synchronous, relay=relay) as (primary, standby):
        yield primary, standby


@contextlib.contextmanager
def stopping(clusters: Sequence[PostgresCluster]) -> Iterator[None]:
    """Stop those servers that still run at the end of the block, without checkpoints."""
    try:
        yield
    finally:
        for cluster in clusters:
            cluster.stop(signal.SIGQUIT)
