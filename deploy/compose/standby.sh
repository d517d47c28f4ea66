#!/usr/bin/env bash
# Runs the standby of compose.replicas.yaml: copies the primary into a new volume, and then follows it. A copy that was
# interrupted begins again. `cluster_name` is the name by which the primary waits for it.
set -euo pipefail
umask 077
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  rm -rf "$PGDATA.partial"
  PGPASSWORD=$REPLICATION_PASSWORD pg_basebackup --host "$PRIMARY" --username replication --slot standby --wal-method stream \
    --checkpoint fast --write-recovery-conf --pgdata "$PGDATA.partial"
  mv "$PGDATA.partial" "$PGDATA"
fi
exec postgres -c cluster_name=standby "$@"
