# Sourced by .ci/run: a Docker engine, a base image where no registry is reached, and Compose. For Debian, as root.

install_docker() {
    command -v docker >/dev/null && command -v dockerd >/dev/null && command -v debootstrap >/dev/null || {
        apt-get -qq update
        DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends docker.io debootstrap
    }
}

# Starts an engine of its own unless one is there. It has no network: images are built and run on the host's.
start_docker() {
    if docker info >/dev/null 2>&1; then return; fi
    docker_folder=$(mktemp -d)
    export DOCKER_HOST=unix://$docker_folder/docker.sock
    # Debian's client brings BuildKit along; others on the PATH may lack its plugin.
    export DOCKER=/usr/bin/docker
    dockerd --host "$DOCKER_HOST" --data-root "$docker_folder/data" --exec-root "$docker_folder/exec" \
        --pidfile "$docker_folder/pid" --bridge=none --iptables=false >"$docker_folder/log" 2>&1 &
    docker_pid=$!
    trap stop_docker EXIT
    for _ in $(seq 300); do
        if "$DOCKER" info >/dev/null 2>&1; then return; fi
        kill -0 "$docker_pid" 2>/dev/null || break
        sleep 0.1
    done
    echo "dockerd does not start:" >&2
    tail -n 20 "$docker_folder/log" >&2
    return 1
}

stop_docker() {
    kill "$docker_pid" 2>/dev/null || true
    wait "$docker_pid" 2>/dev/null || true
    umount "$docker_folder"/exec/netns/* 2>/dev/null || true
    rm -rf "$docker_folder"
}

# BASE_IMAGE of the images: a minimal Debian with Python, kept in .cache as it takes a minute.
make_base_image() {
    local archive=$PWD/.cache/base-image.tar folder
    if ! [ -f "$archive" ]; then
        mkdir -p .cache
        folder=$(mktemp -d)
        debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$folder" >"$folder.log" ||
            { tail -n 20 "$folder.log" >&2 && return 1; }
        tar -C "$folder" --exclude=./var/cache/apt --exclude=./var/lib/apt/lists --exclude=./usr/share/doc \
            --exclude=./usr/share/man --exclude=./usr/share/locale -cf "$archive.new" .
        mv "$archive.new" "$archive"
        rm -rf "$folder" "$folder.log"
    fi
    export BASE_IMAGE=natterjack-base:ci
    "${DOCKER:-docker}" import "$archive" "$BASE_IMAGE" >/dev/null
}

# Compose out of its sources, which Go fetches, unless it is there as a plugin or by itself.
install_compose() {
    local program=$PWD/.cache/bin/docker-compose module=github.com/docker/compose/v2 version=v2.40.3 folder
    if docker compose version >/dev/null 2>&1 || docker-compose version >/dev/null 2>&1; then return; fi
    if [ -x "$program" ]; then return; fi
    command -v go >/dev/null || { echo "Compose is missing, and without Go it cannot be built" >&2 && return 1; }
    folder=$(go mod download -json "$module@$version" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
    # Not optimised: it only reads a file, and so it is built in half the time.
    (cd "$folder" && CGO_ENABLED=0 go build -gcflags='all=-N -l' -o "$program" \
        -ldflags "-s -w -X $module/internal.Version=$version" ./cmd)
}
