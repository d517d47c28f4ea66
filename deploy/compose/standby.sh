#!/usr/bin/env bash
# Runs a standby of compose.replicas.yaml: copies the server PRIMARY into a new volume, and then follows it. A copy that was
# interrupted begins again. NAME is that of its slot of replication, and `cluster_name`, by which the primary waits for it.
#   standby.sh copy    replaces the data of a server that was the primary by a copy, and ends
set -euo pipefail
umask 077
if [ "${1:-}" = copy ] || [ ! -s "$PGDATA/PG_VERSION" ]; then
  rm -rf "$PGDATA.partial"
  PGPASSWORD=$REPLICATION_PASSWORD pg_basebackup --host "$PRIMARY" --username replication --slot "$NAME" --wal-method stream \
    --checkpoint fast --write-recovery-conf --pgdata "$PGDATA.partial"
  rm -rf "$PGDATA"
  mv "$PGDATA.partial" "$PGDATA"
fi
[ "${1:-}" = copy ] || exec postgres -c cluster_name="$NAME" "$@"
