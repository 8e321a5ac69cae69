#!/usr/bin/env bash
# Write docker/images.lock: the digest of every foreign image, as the registry gives it now. The file is laid
# over the compose file by who wants these very images: docker compose -f compose.yaml -f docker/images.lock up
set -euo pipefail
cd "$(dirname "$0")/.."

new=$(mktemp)
trap 'rm -f "$new"' EXIT
digest() {
    docker pull --quiet "$1" > /dev/null || { echo "error: no registry gave $1; nothing was written" >&2; exit 1; }
    docker image inspect --format '{{index .RepoDigests 0}}' "$1" | sed "s|^[^@]*|$1|"
}

python=$(sed -n 's/^ARG PYTHON_IMAGE=//p' docker/Dockerfile)
python_digest=$(digest "$python")
{
    echo "# Written by make lock-images."
    echo "services:"
    for service in init mlflow; do
        printf '  %s: {build: {args: {PYTHON_IMAGE: "%s"}}}\n' "$service" "$python_digest"
    done
} > "$new"
sed -nE 's/^  ([a-z0-9-]+):$/\1/p; s/^    image: ([^$]+)$/=\1/p' docker/compose.yaml | while read -r line; do
    case $line in
        =*) found=$(digest "${line#=}"); printf '  %s: {image: "%s"}\n' "$service" "$found" >> "$new" ;;
        *) service=$line ;;
    esac
done
cp "$new" docker/images.lock
echo "wrote docker/images.lock"
