#!/usr/bin/env bash
# Stand-ins for the official images that docker/ builds on and runs, for machines whose engine reaches no
# image registry: made of Debian packages, imported under the official names, labelled, removable.
#
#   docker/bases/make.sh make [PROFILE ...]     the default profile's images, and those of s3 and monitoring
#   docker/bases/make.sh remove                 every image with the label
#
# It refuses where a registry answers and where an image of the name exists that it did not make. Nothing in
# the Dockerfiles and in the compose file knows of it. Root, debootstrap, and for s3 cargo are needed.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
label=org.reptok.stand-in
# Where a private authority signs the package registry, its certificates go into the stand-ins.
authority=${REPTOK_CA:-${SSL_CERT_FILE:-}}

fail() { echo "error: $*" >&2; exit 1; }
say() { echo "docker-bases: $*"; }

# The image's name with its tag, as docker/ names it.
named() {
    local name
    name=$(sed -nE "s|^ *(image:\|ARG [A-Z]+_IMAGE=) ?($1:[^ ]+)$|\2|p" \
        "$here/../Dockerfile" "$here/../compose.yaml" | sort -u)
    [ -n "$name" ] || fail "docker/ names no image $1"
    echo "$name"
}

# 0: to be made; 1: a stand-in of that name is here already.
wanted() {
    local answer
    if docker image inspect "$1" > /dev/null 2>&1; then
        [ "$(docker image inspect -f "{{index .Config.Labels \"$label\"}}" "$1")" = true ] \
            || fail "$1 is here, and no stand-in; it is used as it is (docker image rm $1 removes it)"
        say "$1 is here"
        return 1
    fi
    if answer=$(docker manifest inspect "$1" 2>&1); then
        fail "a registry has $1: docker compose pull brings the official image"
    fi
    case $answer in
        *"no such manifest"* | *denied* | *unauthorized* | *toomanyrequests* | *"manifest unknown"*)
            fail "a registry answers ($answer): docker compose pull brings the official images" ;;
    esac
}

import() { # FOLDER NAME CHANGES...
    local folder=$1 name=$2 changes=()
    shift 2
    for change in "LABEL $label=true" "$@"; do changes+=(-c "$change"); done
    tar -C "$folder" --exclude ./var/cache/apt/archives/*.deb --exclude './var/lib/apt/lists/*' -c . \
        | docker import "${changes[@]}" - "$name" > /dev/null
    say "made $name"
}

# A Debian tree in $work/NAME, a copy of the bootstrapped one, with packages of its security suite too.
tree() { # NAME PACKAGES...
    local root=$work/$1
    shift
    cp -a "$work/debian" "$root"
    { chroot "$root" apt-get update -q &&
        DEBIAN_FRONTEND=noninteractive chroot "$root" apt-get install -y -q --no-install-recommends "$@"
    } > "$work/log" 2>&1 || { tail -n 20 "$work/log" >&2; fail "apt-get install $*"; }
}

debian() {
    [ ! -d "$work/debian" ] || return 0
    say "debootstrap of bookworm"
    debootstrap --variant=minbase --include=ca-certificates bookworm "$work/debian" > "$work/log" \
        || { tail -n 5 "$work/log" >&2; fail "debootstrap"; }
    local mirror
    read -r _ mirror _ < "$work/debian/etc/apt/sources.list"
    echo "deb ${mirror%/}-security bookworm-security main" >> "$work/debian/etc/apt/sources.list"
    printf '#!/bin/sh\nexit 101\n' > "$work/debian/usr/sbin/policy-rc.d" # no package starts its service
    chmod +x "$work/debian/usr/sbin/policy-rc.d"
    if [ -n "$authority" ]; then
        cp "$authority" "$work/debian/usr/local/share/ca-certificates/private.crt"
        cp "$authority" "$work/debian/etc/ssl/certs/ca-certificates.crt"
    fi
}

python() {
    local name trust=()
    name=$(named python)
    wanted "$name" || return 0
    debian
    tree python python3 python3-venv python3-dev
    ln -sf /usr/bin/python3 "$work/python/usr/local/bin/python"
    [ -z "$authority" ] || trust=(
        "ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt" "ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt")
    import "$work/python" "$name" 'CMD ["python3"]' "ENV LANG=C.UTF-8" \
        "ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin" "${trust[@]}"
}

postgres() {
    local name root=$work/postgres
    name=$(named postgres)
    wanted "$name" || return 0
    debian
    chroot "$work/debian" groupadd -r -g 999 postgres
    chroot "$work/debian" useradd -r -g postgres -u 999 -d /var/lib/postgresql -s /bin/bash postgres
    mkdir -p "$work/debian/etc/postgresql-common"
    echo "create_main_cluster = false" > "$work/debian/etc/postgresql-common/createcluster.conf"
    tree postgres postgresql-15
    chroot "$root" localedef -i en_US -f UTF-8 en_US.UTF-8
    install -m 755 "$here/postgres-entrypoint.sh" "$root/usr/local/bin/docker-entrypoint.sh"
    install -d -o 999 -g 999 -m 1777 "$root/var/lib/postgresql/data" "$root/var/run/postgresql"
    import "$root" "$name" 'ENTRYPOINT ["docker-entrypoint.sh"]' 'CMD ["postgres"]' \
        "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/postgresql/15/bin" \
        "ENV PGDATA=/var/lib/postgresql/data" "ENV LANG=en_US.utf8" "VOLUME /var/lib/postgresql/data"
}

monitoring() {
    local name
    name=$(named prom/prometheus)
    if wanted "$name"; then
        debian
        tree prometheus prometheus busybox
        ln -sf busybox "$work/prometheus/bin/wget" # the official image is made of it
        import "$work/prometheus" "$name" 'ENTRYPOINT ["/bin/prometheus"]' "USER 65534" "WORKDIR /prometheus"
    fi
    name=$(named prom/alertmanager)
    if wanted "$name"; then
        debian
        tree alertmanager prometheus-alertmanager
        ln -sf prometheus-alertmanager "$work/alertmanager/usr/bin/alertmanager"
        import "$work/alertmanager" "$name" 'ENTRYPOINT ["/bin/alertmanager"]' "USER 65534" "WORKDIR /alertmanager"
    fi
    say "no package of Debian gives $(named grafana/grafana): start monitoring without it:"
    say "docker compose --profile monitoring up --wait head worker mlflow prometheus alertmanager"
}

s3() {
    local name root
    name=$(named dxflrs/garage)
    wanted "$name" || return 0
    debian
    cp -a "$work/debian" "$work/garage"
    root=${GARAGE_ROOT:-$work/cargo}
    [ -x "$root/bin/garage" ] || cargo install --quiet --root "$root" --no-default-features \
        --features sqlite,bundled-libs --version "${name##*:v}" garage
    install "$root/bin/garage" "$work/garage/garage"
    import "$work/garage" "$name" 'CMD ["/garage", "server"]'
}

remove() {
    local images
    mapfile -t images < <(docker image ls -q --filter "label=$label=true" | sort -u)
    [ ${#images[@]} = 0 ] || docker image rm -f "${images[@]}" > /dev/null
    say "removed ${#images[@]} stand-ins"
}

case ${1:-} in
    make)
        shift
        [ "$(id -u)" = 0 ] || fail "debootstrap wants root"
        command -v debootstrap > /dev/null || apt-get install -y -q debootstrap > /dev/null \
            || fail "debootstrap is missing, and apt-get does not bring it"
        work=$(mktemp -d "${TMPDIR:-/var/tmp}/reptok-bases.XXXXXX")
        trap 'rm -rf "$work"' EXIT
        for what in python postgres "$@"; do
            case $what in
                python | postgres | s3 | monitoring) "$what" ;;
                *) fail "no profile $what: s3, monitoring" ;;
            esac
        done
        ;;
    remove) remove ;;
    *) fail "usage: $0 make [s3] [monitoring] | remove" ;;
esac
