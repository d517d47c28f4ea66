"""compose.replicas.yaml: its parts fit together, and its scripts make a primary whose COMMITs wait for a standby."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
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
from tests.support.waiting import wait_until

FILE = ROOT / "compose.replicas.yaml"
SCRIPTS = ROOT / "deploy" / "compose"
# Characters that quoting in a shell, in SQL or in a connection string would have to escape.
LOG_PASSWORD, REPLICATION_PASSWORD = "a'b c", 'r"d$1\\'
START_SECONDS = 60.0


def services() -> dict[str, dict[str, Any]]:
    """Return the services of the file."""
    return dict(yaml.safe_load(FILE.read_text())["services"])


def test_three_replicas_share_a_log_and_nothing_else_but_keys() -> None:
    """They are equal, wait for the tables, and have a data directory that is no volume."""
    replicas = [part for name, part in services().items() if name.startswith("replica-")]
    assert len(replicas) == 3
    assert replicas[0] == replicas[1] == replicas[2]
    replica = replicas[0]
    assert replica["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
    assert any(mount.startswith(f"{replica['environment']['SOFTSTEP_DATA']}:") for mount in replica["tmpfs"])
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
    nginx = shutil.which("nginx")
    if nginx is None:
        pytest.skip("nginx is missing, so its file was not tested: apt-get install --no-install-recommends nginx-light")
    text = (SCRIPTS / "nginx.conf").read_text()
    names = {name for name in services() if name.startswith("replica-")}
    for port in (8000, 9000):
        assert set(re.findall(rf"server (\S+):{port};", text)) == names
    assert re.findall(r"\w+_next_upstream (.*);", text) == ["error", "error"]
    conf = tmp_path / "nginx.conf"
    conf.write_text(re.sub(r"replica-\d", "127.0.0.1", text))  # names that only compose knows
    done = subprocess.run([nginx, "-t", "-c", conf], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@contextmanager
def running_server(command: list[str], folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """Run a server until the end of the block."""
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        yield
    finally:
        process.terminate()
        process.wait(START_SECONDS)


def test_the_scripts_make_a_primary_that_waits_for_its_standby() -> None:
    """The role of the log makes its tables through the standby's COMMITs, which hold them; the volume starts again."""
    require_postgres()
    programs = find_programs()
    with cluster_folder(on_disk=True) as folder:
        for name in ("primary.sh", "standby.sh"):
            shutil.copy(SCRIPTS / name, folder)
            (folder / name).chmod(0o755)
            give_to_owner(folder / name)
        data, port, standby_port = folder / "primary", free_port(), free_port()
        environment = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PGDATA": str(data),
            "PGPORT": str(port),
            "LOG_PASSWORD": LOG_PASSWORD,
            "REPLICATION_PASSWORD": REPLICATION_PASSWORD,
        }
        run_program(
            "initdb",
            "-D",
            data,
            "-U",
            OWNER,
            "--no-sync",
            "--auth-local=trust",
            "--auth-host=scram-sha-256",
            folder=folder,
        )
        server = [*owner_command("KILL"), f"{programs}/postgres", "-D", str(data), "-k", str(folder), "-c", "fsync=off"]
        with running_server([*server, "-c", "listen_addresses="], folder, environment):
            socket = f"host={folder} port={port} user={OWNER} dbname=postgres"
            wait_until(lambda: _answers(socket), START_SECONDS)
            script = [*owner_command("KILL"), "bash", str(folder / "primary.sh")]
            subprocess.run(script, env={**environment, "PGHOST": str(folder)}, check=True, timeout=START_SECONDS)
        standby = [*owner_command("KILL"), "bash", str(folder / "standby.sh")]
        standby += ["-k", str(folder), "-c", f"port={standby_port}", "-c", "fsync=off"]
        of_standby = {**environment, "PGDATA": str(folder / "standby"), "PRIMARY": "127.0.0.1"}
        address = psycopg.conninfo.make_conninfo(
            host="127.0.0.1,127.0.0.1", port=f"{standby_port},{port}", user="softstep", dbname="softstep",
            password=LOG_PASSWORD, target_session_attrs="read-write",
        )  # fmt: skip
        with running_server([*server, "-c", "listen_addresses=127.0.0.1"], folder, environment):
            wait_until(lambda: _answers(socket), START_SECONDS)
            for _ in range(2):  # the second time the standby has its data
                with running_server(standby, folder, of_standby):
                    wait_until(lambda: _streams(socket), START_SECONDS)
                    create_schema(address)
        assert "standby" in {path.name for path in folder.iterdir()}


def _answers(address: str) -> bool:
    try:
        psycopg.connect(address).close()
    except psycopg.OperationalError:
        return False
    return True


def _streams(address: str) -> bool:
    with psycopg.connect(address) as connection:
        query = "SELECT application_name, sync_state FROM pg_stat_replication WHERE state = 'streaming'"
        return connection.execute(query).fetchall() == [("standby", "quorum")]


@pytest.mark.parametrize("name", ["primary.sh", "standby.sh"])
def test_scripts_are_mounted(name: str) -> None:
    """Each script of the folder is one that a service runs."""
    assert f"./deploy/compose/{name}:" in FILE.read_text()
