#!/usr/bin/env bash
# What the official image's entrypoint does with the settings that docker/compose.yaml gives it: the first
# start makes the cluster, the user and the database; every start becomes the server.
set -euo pipefail

if [ "$1" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
    user=${POSTGRES_USER:-postgres}
    [ -s "${POSTGRES_PASSWORD_FILE:-}" ] || { echo "error: POSTGRES_PASSWORD_FILE names no file" >&2; exit 1; }
    chmod 700 "$PGDATA"
    initdb --username "$user" --pwfile "$POSTGRES_PASSWORD_FILE" --auth-host=scram-sha-256 --auth-local=trust
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
    pg_ctl -D "$PGDATA" -o "-c listen_addresses=''" -w start
    if [ "${POSTGRES_DB:-$user}" != postgres ]; then
        psql -v ON_ERROR_STOP=1 --username "$user" --dbname postgres -c "CREATE DATABASE \"${POSTGRES_DB:-$user}\""
    fi
    pg_ctl -D "$PGDATA" -m fast -w stop
    exec postgres -c listen_addresses='*'
fi
if [ "$1" = postgres ]; then exec postgres -c listen_addresses='*' "${@:2}"; fi
exec "$@"
