"""PgBouncer in transaction mode before a PostgreSQL cluster: each transaction may run in another session."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping

from tests.support.postgres_servers import (
    PASSWORD,
    ROLE,
    STOP_SECONDS,
    PostgresCluster,
    free_port,
    give_to_owner,
    owner_command,
    require_program,
)
from tests.support.waiting import wait_until

PACKAGE = "pgbouncer"
SETTINGS = {
    "listen_addr": "127.0.0.1",
    "pool_mode": "transaction",
    "auth_type": "trust",
    "max_client_conn": "200",
    "default_pool_size": "4",
}


@contextlib.contextmanager
def pooled(cluster: PostgresCluster, settings: Mapping[str, str] | None = None) -> Iterator[int]:
    """Run PgBouncer until the end of the block; its value is the port, for `PostgresCluster.address`."""
    # Debian's folder is not on the path of every user.
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    require_program(program, "PgBouncer", PACKAGE)
    port = free_port()
    users, configuration = cluster.folder / "users.txt", cluster.folder / f"pgbouncer-{port}.ini"
    users.write_text(f'"{ROLE}" "{PASSWORD}"\n')
    lines = {
        **SETTINGS,
        "listen_port": str(port),
        "unix_socket_dir": str(cluster.folder),
        "auth_file": str(users),
        **(settings or {}),
    }
    text = "".join(f"{name} = {value}\n" for name, value in lines.items())
    configuration.write_text(f"[databases]\n* = host=127.0.0.1 port={cluster.port}\n[pgbouncer]\n{text}")
    give_to_owner(users, configuration)
    command = [*owner_command("KILL"), str(program), str(configuration)]
    log = cluster.folder / f"pgbouncer-{port}.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(command, cwd=cluster.folder, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors)
    try:
        wait_until(lambda: process.poll() is not None or _accepts(port))
        assert process.poll() is None, f"PgBouncer did not start; its log:\n{log.read_text()}"
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_SECONDS)


def _accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False
