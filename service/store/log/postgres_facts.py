"""Facts that replicas agree on, and which replicas there are, in PostgreSQL: the tables `facts` and `replicas`."""

from collections.abc import Mapping
from typing import Final

import orjson

from service.store.log.postgres_connection import BEGIN, COMMIT, PostgresConnection
from service.store.log.postgres_files import NO_WAIT
from service.store.log.postgres_values import Statement
from service.store.log.shared_facts import Replica

INSERT_FACT: Final = b"INSERT INTO facts VALUES($1::text, $2::bytea) ON CONFLICT DO NOTHING"
SELECT_FACT: Final = b"SELECT value FROM facts WHERE name = $1::text"
REPORT_REPLICA: Final = b"""
INSERT INTO replicas(name, seen, reached) VALUES($1::text, clock_timestamp(), $2::text::jsonb)
ON CONFLICT(name) DO UPDATE SET seen = clock_timestamp(), reached = excluded.reached
"""
DELETE_REPLICAS: Final = Statement(b"DELETE FROM replicas WHERE seen < clock_timestamp() - interval '1 day'")
SELECT_REPLICAS: Final = Statement(
    b"SELECT name, extract(epoch FROM clock_timestamp() - seen)::double precision, reached::text FROM replicas "
    b"ORDER BY name"
)


class PostgresFacts:
    """The `SharedFacts` of a log in PostgreSQL.

    Args:
        connection: The connection of the log.
    """

    def __init__(self, connection: PostgresConnection) -> None:
        self._connection = connection

    def read_or_add(self, name: str, value: bytes) -> bytes:
        """See SharedFacts."""
        select = Statement(SELECT_FACT, (name.encode(),))
        with self._connection.call():
            rows = self._connection.query(select)
            if not rows:
                self._connection.commit(BEGIN, Statement(INSERT_FACT, (name.encode(), value)))
                rows = self._connection.query(select)
        found: bytes = rows[0][0]
        return found

    def report_replica(self, name: str, erased: Mapping[int, int]) -> None:
        """See SharedFacts."""
        reached = orjson.dumps({"erased": {str(stream): epoch for stream, epoch in erased.items()}})
        with self._connection.call():
            report = Statement(REPORT_REPLICA, (name.encode(), reached))
            self._connection.run(BEGIN, NO_WAIT, report, DELETE_REPLICAS, COMMIT)

    def list_replicas(self) -> list[Replica]:
        """See SharedFacts."""
        with self._connection.call():
            rows = self._connection.query(SELECT_REPLICAS)
        found = []
        for name, seconds, reached in rows:
            erased = orjson.loads(reached).get("erased", {})
            found.append(Replica(name, seconds, {int(stream): epoch for stream, epoch in erased.items()}))
        return found
