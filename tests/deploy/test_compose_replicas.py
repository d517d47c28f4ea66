"""compose.replicas.yaml: its parts fit together, and its scripts make a primary whose COMMITs wait for a standby."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from service.store.log.postgres_schema import create_schema
from tests.support.paths import ROOT
from tests.support.postgres_servers import (
    OWNER,
    cluster_folder,
    find_programs,
    free_port,
    give_to_owner,
    owner_command,
    require_postgres,
    run_program,
)
from tests.support.programs import program
from tests.support.waiting import wait_until

FILE = ROOT / "compose.replicas.yaml"
SCRIPTS = ROOT / "deploy" / "compose"
# Characters that quoting in a shell, in SQL or in a connection string would have to escape.
LOG_PASSWORD, REPLICATION_PASSWORD = "a'b c", 'r"d$1\\'
START_SECONDS = 60.0
# Of a service in Compose's specification, those that the files use.
KEYS = {
    *("build", "cap_drop", "command", "depends_on", "entrypoint", "environment", "healthcheck", "image", "mem_limit"),
    *("pids_limit", "ports", "read_only", "restart", "security_opt", "shm_size", "stop_grace_period", "stop_signal"),
    *("tmpfs", "user", "volumes"),
}
CONDITIONS = {"service_started", "service_healthy", "service_completed_successfully"}


def services() -> dict[str, dict[str, Any]]:
    """Return the services of the file."""
    return dict(yaml.safe_load(FILE.read_text())["services"])


@pytest.mark.parametrize("name", ["compose.yaml", "compose.replicas.yaml"])
def test_files_say_what_compose_knows(name: str) -> None:
    """Each key is one of Compose's, and what a service names is there: services, volumes and files."""
    file = yaml.safe_load((ROOT / name).read_text())
    assert {key for key in file if not key.startswith("x-")} <= {"services", "volumes"}
    for service in file["services"].values():
        assert service.keys() <= KEYS
        assert service.get("healthcheck", {}).keys() <= {"test", "interval", "timeout", "start_period", "retries"}
        assert service.get("restart", "no") in {"no", "always", "on-failure", "unless-stopped"}
        assert service.get("depends_on", {}).keys() <= file["services"].keys()
        for dependency in service.get("depends_on", {}).values():
            assert dependency["condition"] in CONDITIONS
        for mount in service.get("volumes", []):
            source, target, *mode = mount.split(":")
            assert (ROOT / source).exists() if source.startswith("./") else source in file["volumes"]
            assert target.startswith("/")
            assert mode in ([], ["ro"])


def test_three_replicas_share_a_log_and_nothing_else() -> None:
    """They are equal, wait for the tables, follow the keys of the log, and write to no volume."""
    replicas = [part for name, part in services().items() if name.startswith("replica-")]
    assert len(replicas) == 3
    assert replicas[0] == replicas[1] == replicas[2]
    replica = replicas[0]
    assert replica["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
    assert any(mount.startswith(f"{replica['environment']['SOFTSTEP_DATA']}:") for mount in replica["tmpfs"])
    assert replica["volumes"] == ["./models:/models:ro"]
    assert "SOFTSTEP_KEYS_FILE" not in replica["environment"]
    assert replica["environment"]["SOFTSTEP_OPEN"] == "${SOFTSTEP_OPEN:-false}"
    assert services()["migrate"]["environment"].items() <= replica["environment"].items()


def test_no_password_has_a_default_and_no_port_is_public() -> None:
    """Passwords are required variables, and nginx alone publishes ports, of this machine."""
    text = FILE.read_text()
    assert set(re.findall(r"\$\{(\w*PASSWORD)([^}]{2})", text)) == {
        ("LOG_PASSWORD", ":?"),
        ("REPLICATION_PASSWORD", ":?"),
    }
    published = {name: part["ports"] for name, part in services().items() if "ports" in part}
    assert published.keys() == {"nginx"}
    assert all(port.startswith("127.0.0.1:") for port in published["nginx"])


def test_nginx_takes_the_file_and_asks_each_replica(tmp_path: Path) -> None:
    """The real nginx finds no fault; no request that was sent is repeated."""
    text = (SCRIPTS / "nginx.conf").read_text()
    names = {name for name in services() if name.startswith("replica-")}
    for port in (8000, 9000):
        assert set(re.findall(rf"server (\S+):{port};", text)) == names
    assert re.findall(r"\w+_next_upstream (.*);", text) == ["error timeout", "error timeout"]
    conf = tmp_path / "nginx.conf"
    conf.write_text(re.sub(r"replica-\d", "127.0.0.1", text))  # names that only compose knows
    done = subprocess.run([program("nginx"), "-t", "-c", conf], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class Servers:
    """The two servers of PostgreSQL of the file, of which each runs by the command of its service.

    Args:
        folder: Where their data and sockets are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._programs = folder, find_programs()
        self._ports = {name: free_port() for name in ("primary", "standby")}
        for name in ("primary.sh", "standby.sh"):
            shutil.copy(SCRIPTS / name, folder)
            (folder / name).chmod(0o755)
            give_to_owner(folder / name)

    @property
    def address(self) -> str:
        """The address of the log, which names both."""
        return psycopg.conninfo.make_conninfo(
            host="127.0.0.1,127.0.0.1", port=f"{self._ports['standby']},{self._ports['primary']}", user="softstep",
            dbname="softstep", password=LOG_PASSWORD, target_session_attrs="read-write",
        )  # fmt: skip

    def superuser(self, name: str, database: str = "postgres") -> str:
        """Return the address of a server for its superuser."""
        return f"host={self._folder} port={self._ports[name]} user={OWNER} dbname={database}"

    def environment(self, name: str) -> dict[str, str]:
        """Return the variables of a server, or of a script in its container."""
        other = {"primary": "standby", "standby": "primary"}[name]
        own = services()[name]["environment"]
        assert own.get("NAME", name) == name
        return {
            "PATH": f"{self._programs}:{os.environ['PATH']}",
            "PGDATA": str(self._folder / name),
            "LOG_PASSWORD": LOG_PASSWORD,
            "REPLICATION_PASSWORD": REPLICATION_PASSWORD,
            "NAME": name,
            "PRIMARY": "127.0.0.1",
            "PGPORT": str(self._ports[other]),
        }

    def create(self) -> None:
        """Make the data directory of the primary as PostgreSQL's image does, with primary.sh."""
        data = self._folder / "primary"
        access = ["--auth-local=trust", "--auth-host=scram-sha-256"]
        run_program("initdb", "-D", data, "-U", OWNER, "--no-sync", *access, folder=self._folder)
        with self.running("primary", "-c", "listen_addresses="):
            variables = {"PGHOST": str(self._folder), "PGPORT": str(self._ports["primary"])}
            self.run_script("primary.sh", "primary", **variables)

    def run_script(self, script: str, name: str, *arguments: str, **variables: str) -> None:
        """Run a script to its end, in the container of a server."""
        command = [*owner_command("KILL"), "bash", str(self._folder / script), *arguments]
        environment = {**self.environment(name), **variables}
        subprocess.run(command, env=environment, check=True, timeout=START_SECONDS)

    @contextmanager
    def running(self, name: str, *more: str) -> Iterator[None]:
        """Run a server until the end of the block, once it answers."""
        postgres = services()["primary"]["command"]
        commands = {"primary": [f"{self._programs}/{postgres[0]}", *postgres[1:]], "standby": ["bash", "standby.sh"]}
        options = ["-k", str(self._folder), "-c", f"port={self._ports[name]}", "-c", "fsync=off", *more]
        command = [*owner_command("KILL"), *commands[name], *options]
        with (self._folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command, cwd=self._folder, env=self.environment(name), stdout=log, stderr=log, start_new_session=True
            )
        try:
            wait_until(lambda: _answers(self.superuser(name)), START_SECONDS)
            yield
        finally:
            process.terminate()
            process.wait(START_SECONDS)


def test_the_scripts_make_a_primary_that_waits_for_its_standby() -> None:
    """Tables are made through the standby's COMMITs; after a promotion the old primary follows the new one.

    The steps are those of docs/compose_replicas.md.
    """
    require_postgres()
    with cluster_folder(on_disk=True) as folder:
        servers = Servers(folder)
        servers.create()
        with ExitStack() as first:
            first.enter_context(servers.running("primary"))
            with servers.running("standby"):
                wait_until(lambda: _streams(servers.superuser("primary"), "standby"), START_SECONDS)
                create_schema(servers.address)
            with servers.running("standby"):  # this time it has its data
                wait_until(lambda: _streams(servers.superuser("primary"), "standby"), START_SECONDS)
                first.close()
                with psycopg.connect(servers.superuser("standby"), autocommit=True) as connection:
                    connection.execute("SELECT pg_promote()")
                    connection.execute("SELECT pg_create_physical_replication_slot('primary')")
                servers.run_script("standby.sh", "primary", "copy")
                with servers.running("primary"):
                    wait_until(lambda: _streams(servers.superuser("standby"), "primary"), START_SECONDS)
                    with psycopg.connect(servers.address) as connection:
                        connection.execute("CREATE TABLE stored_by_both ()")
                    wait_until(lambda: _has(servers.superuser("primary", "softstep"), "stored_by_both"), START_SECONDS)
                    assert _has(servers.superuser("primary", "softstep"), "events")


def _answers(address: str) -> bool:
    try:
        psycopg.connect(address).close()
    except psycopg.OperationalError:
        return False
    return True


def _streams(address: str, standby: str) -> bool:
    with psycopg.connect(address) as connection:
        query = "SELECT application_name, sync_state FROM pg_stat_replication WHERE state = 'streaming'"
        return connection.execute(query).fetchall() == [(standby, "quorum")]


def _has(address: str, table: str) -> bool:
    with psycopg.connect(address) as connection:
        return connection.execute("SELECT to_regclass(%s) IS NOT NULL", [table]).fetchall() == [(True,)]


@pytest.mark.parametrize("name", ["primary.sh", "standby.sh"])
def test_scripts_are_mounted(name: str) -> None:
    """Each script of the folder is one that a service runs."""
    assert f"./deploy/compose/{name}:" in FILE.read_text()
