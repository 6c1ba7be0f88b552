#!/usr/bin/env bash
# Gives a machine without Docker a working Engine with Compose v2, from package registries alone.
#
#   engine.sh up      install what is missing, start the Engine if none answers, print "ready"
#   engine.sh base    make the image debian:bookworm-slim, where it cannot be pulled
#   engine.sh status  say what is there
#   engine.sh down    stop the Engine that `up` started; its images and volumes stay
#
# A machine that has both already needs nothing of this, nor root. The first `up` takes about three minutes, later
# ones a second. What it starts keeps its data under ${TOWPATH_DOCKER_HOME:-/var/lib/towpath-docker} and listens on
# the usual socket. Debian and its derivatives only: elsewhere, install Docker as its makers say.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
home=${TOWPATH_DOCKER_HOME:-/var/lib/towpath-docker}
plugins=/usr/local/lib/docker/cli-plugins
compose_version=v2.40.3   # the version that compose/go.mod requires, with the hashes of all it needs in go.sum
base_image=debian:bookworm-slim

say() { echo "engine: $*" >&2; }

fail() {
  say "$1"
  [ -z "${2:-}" ] || say "next: $2"
  exit 1
}

# logged WHAT COMMAND... runs a command with its output in a log, and shows the log's end when it fails.
logged() {
  local log="$home/$1.log"
  shift
  "$@" >"$log" 2>&1 && return
  tail -n 15 "$log" >&2
  fail "'$*' failed" "read $log, fix the cause, and run this again: what was done is kept"
}

need_root() {
  [ "$(id -u)" = 0 ] || fail "$1 needs root" "sudo $here/engine.sh up"
  mkdir -p "$home"
}

engine_answers() { docker info >/dev/null 2>&1; }
compose_answers() { docker compose version >/dev/null 2>&1; }

# install_packages COMMAND=PACKAGE... installs the Debian packages whose commands are not there.
install_packages() {
  local wanted=() pair
  for pair in "$@"; do
    command -v "${pair%%=*}" >/dev/null || wanted+=("${pair##*=}")
  done
  [ ${#wanted[@]} -gt 0 ] || return 0
  need_root "installing ${wanted[*]}"
  command -v apt-get >/dev/null || fail "${wanted[*]} is missing, and this machine has no apt-get" "install Docker Engine"
  say "installing ${wanted[*]}"
  export DEBIAN_FRONTEND=noninteractive
  logged apt-update apt-get update -q
  logged apt-install apt-get install -y -q "${wanted[@]}"
}

# Debian carries no Compose v2, but it is a Go module: built from its own lock file, as a plugin for every user.
install_compose() {
  compose_answers && return
  need_root "installing Compose v2"
  command -v go >/dev/null ||
    fail "Compose v2 is missing, and there is no Go to build it with" "install docker-compose-plugin, or Go 1.24 or later"
  say "building Compose $compose_version"
  mkdir -p "$plugins"
  export HOME=${HOME:-/root} GOFLAGS=-mod=readonly
  cd "$here/compose"
  logged compose go build -trimpath -ldflags "-s -w -X github.com/docker/compose/v2/internal.Version=$compose_version" \
    -o "$plugins/docker-compose" github.com/docker/compose/v2/cmd
  compose_answers || fail "Compose was built, and 'docker compose' does not find it" "look at $plugins"
}

start_engine() {
  engine_answers && return
  need_root "starting the Engine"
  if [ -d /run/systemd/system ]; then
    logged systemd systemctl start docker
  else
    say "starting the Engine"
    # A session of its own: the Engine must outlive the test run or terminal that asked for it.
    setsid dockerd --data-root "$home/data" --exec-root "$home/exec" --pidfile "$home/dockerd.pid" \
      >"$home/dockerd.log" 2>&1 </dev/null &
  fi
  for _ in $(seq 120); do
    engine_answers && return
    sleep 0.5
  done
  tail -n 20 "$home/dockerd.log" >&2 || true
  fail "the Engine did not answer within 60 s" "read $home/dockerd.log"
}

# What Debian's own slim image leaves out is left out here too: 200 MB become 110.
make_base() {
  docker image inspect "$base_image" >/dev/null 2>&1 && return
  install_packages debootstrap=debootstrap
  need_root "making $base_image"
  local tree="$home/base"
  if [ ! -e "$tree/.complete" ]; then
    say "making $base_image"
    rm -rf "$tree"
    logged debootstrap debootstrap --variant=minbase bookworm "$tree"
    touch "$tree/.complete"
  fi
  tar -C "$tree" --exclude=./.complete --exclude='./proc/*' --exclude='./sys/*' --exclude='./var/cache/apt/*' \
    --exclude='./var/lib/apt/lists/*' --exclude='./var/log/*' --exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' \
    --exclude='./usr/share/info/*' --exclude='./usr/share/locale/*' -c . |
    docker import --change 'CMD ["bash"]' - "$base_image" >/dev/null
}

status() {
  engine_answers && say "Engine $(docker version --format '{{.Server.Version}}')" || say "no Engine answers"
  compose_answers && say "Compose $(docker compose version --short)" || say "no Compose v2"
  docker image inspect "$base_image" >/dev/null 2>&1 && say "$base_image is there" || say "$base_image is not there"
}

stop_engine() {
  [ -f "$home/dockerd.pid" ] || { say "no Engine of ours is running"; return; }
  need_root "stopping the Engine"
  local pid
  pid=$(cat "$home/dockerd.pid")
  # A pid file outlives a crash, and its number may belong to another process by then.
  [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = dockerd ] || { rm -f "$home/dockerd.pid"; return; }
  kill "$pid"
  for _ in $(seq 120); do
    [ -d "/proc/$pid" ] || return 0
    sleep 0.5
  done
  fail "the Engine (pid $pid) did not stop within 60 s" "read $home/dockerd.log"
}

case "${1:-}" in
  up)
    install_packages dockerd=docker.io docker=docker.io iptables=iptables
    start_engine
    install_compose
    echo ready
    ;;
  base) make_base ;;
  status) status ;;
  down) stop_engine ;;
  *)
    sed -n '2,11s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
    ;;
esac
