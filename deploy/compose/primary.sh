#!/usr/bin/env bash
# Prepares the primary of compose.replicas.yaml. The image of PostgreSQL runs it once, in a new data directory, with a server
# that only this container reaches. The names of standbys are read at the next start: no COMMIT here waits for one.
set -euo pipefail
psql --username "${POSTGRES_USER:-postgres}" --dbname postgres --no-psqlrc --quiet --set ON_ERROR_STOP=1 <<'SQL'
\getenv log_password LOG_PASSWORD
\getenv replication_password REPLICATION_PASSWORD
CREATE ROLE softstep LOGIN PASSWORD :'log_password';
CREATE ROLE replication LOGIN REPLICATION PASSWORD :'replication_password';
CREATE DATABASE softstep OWNER softstep;
-- The primary keeps what a stopped standby has not received yet, up to a limit; beyond it the standby is copied again.
SELECT FROM pg_create_physical_replication_slot('standby');
ALTER SYSTEM SET max_slot_wal_keep_size = '8GB';
-- Both servers: the one that is promoted has the setting too, and waits for the other one from its first moment on.
ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (primary, standby)';
SQL
echo "host replication replication all scram-sha-256" >>"$PGDATA/pg_hba.conf"
