#!/usr/bin/env bash
# MLflow's runs to a folder and back; the services run meanwhile, at a restore all but MLflow.
#
#   docker/backup.sh save FOLDER       the database (pg_dump) and the files that runs have logged
#   docker/backup.sh restore FOLDER    the same; what the database holds now is replaced
#
# Artifacts of the workflow are not in it: they lie in the volume `data` and can be made again. Neither are
# the secrets: keep .secrets/values beside the backup, for the login is in the database.
set -euo pipefail

fail() { echo "error: $*" >&2; exit 1; }
[ $# = 2 ] || fail "usage: $0 save|restore FOLDER"
folder=$(realpath -m "$2")
cd "$(dirname "$0")/.."
postgres() { docker compose exec -T postgres "$@"; }

case $1 in
    save)
        [ ! -e "$folder" ] || fail "$folder exists; name a new one"
        mkdir -p "$(dirname "$folder")"
        new=$(mktemp -d "$folder.XXXXXX")
        trap 'rm -rf "$new"' EXIT
        # The database first: what it names was written before it was named.
        postgres pg_dump -U mlflow --format=custom mlflow > "$new/mlflow.dump"
        docker compose exec -T mlflow tar -C /mlflow -c . > "$new/files.tar"
        chmod 700 "$new"
        mv "$new" "$folder"
        echo "saved to $folder"
        ;;
    restore)
        [ -s "$folder/mlflow.dump" ] && [ -s "$folder/files.tar" ] || fail "$folder is no backup"
        docker compose up --no-build --wait postgres
        docker compose stop mlflow
        postgres psql -q -U mlflow -d postgres -v ON_ERROR_STOP=1 \
            -c 'DROP DATABASE IF EXISTS mlflow WITH (FORCE)' -c 'CREATE DATABASE mlflow'
        postgres pg_restore -U mlflow -d mlflow --exit-on-error < "$folder/mlflow.dump"
        docker compose run --rm --no-deps -T --entrypoint tar mlflow -C /mlflow --overwrite -x < "$folder/files.tar"
        docker compose up --no-build --wait mlflow
        echo "restored from $folder"
        ;;
    *) fail "usage: $0 save|restore FOLDER" ;;
esac
