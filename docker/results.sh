#!/usr/bin/env bash
# Copy the newest model with its report and pictures from the cluster's volume to ./runs/model.
set -euo pipefail
cd "$(dirname "$0")/.."

# shellcheck disable=SC2016 # the variables are the container's
newest=$(docker compose exec -T head sh -c 'cd "$REPTOK_ROOT/model" && ls -t -- */manifest.json' 2> /dev/null \
    | head -n 1) || true
[ -n "$newest" ] || {
    echo "error: no model is published in the cluster yet, or its head does not run (docker compose ps)" >&2
    exit 1
}
name=${newest%/manifest.json}
mkdir -p runs/model
new=$(mktemp -d runs/model/.copy.XXXXXX)
trap 'rm -rf "$new"' EXIT
# shellcheck disable=SC2016
docker compose exec -T head sh -c 'tar -C "$REPTOK_ROOT/model" -c "$0"' "$name" \
    | tar -C "$new" --no-same-owner -x
rm -rf "runs/model/$name"
mv "$new/$name" "runs/model/$name"
echo "Report:   runs/model/$name/report.html"
echo "Model:    runs/model/$name"
