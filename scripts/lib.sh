# shellcheck shell=bash disable=SC2034 # what is set here is used where this is sourced
# What the scripts here share: messages, Debian packages, a Docker engine, the release binary.
# Sourced, never run.

PROJECT_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$PROJECT_DIR" || exit 1

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
  BOLD=$'\e[1m' RED=$'\e[31m' GREEN=$'\e[32m' PLAIN=$'\e[0m'
else
  BOLD='' RED='' GREEN='' PLAIN=''
fi

step() { printf '\n%s==> %s%s\n' "$BOLD" "$*" "$PLAIN"; }
note() { printf '    %s\n' "$*"; }
good() { printf '    %sok%s  %s\n' "$GREEN" "$PLAIN" "$*"; }
warn() { printf '    %s%s%s\n' "$RED" "$*" "$PLAIN" >&2; }
fail() {
  printf '%serror:%s %s\n' "$RED" "$PLAIN" "$1" >&2
  shift
  local line
  for line in "$@"; do printf '       %s\n' "$line" >&2; done
  exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }

# --- packages ---------------------------------------------------------------------------------

# Runs a command as root: as it is, or through sudo. Fails (without ending the script) if neither
# can be had.
as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif has sudo; then
    sudo "$@"
  else
    return 126
  fi
}

can_be_root() { [ "$(id -u)" = 0 ] || has sudo; }

APT_UPDATED=''

# install_packages NAME… : from Debian, without what is only recommended. Returns 1 if it can't.
install_packages() {
  has apt-get || return 1
  can_be_root || return 1
  note "installing $* (apt)"
  local log
  log=$(mktemp)
  if [ -z "$APT_UPDATED" ]; then
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q update >"$log" 2>&1 || true
    APT_UPDATED=1
  fi
  if as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends "$@" \
    >>"$log" 2>&1; then
    rm -f "$log"
    return 0
  fi
  tail -n 15 "$log" | sed 's/^/      /' >&2
  rm -f "$log"
  return 1
}

# need COMMAND PACKAGE : sees to it that the command is there, or ends the script with advice.
need() {
  has "$1" && return 0
  install_packages "$2" && has "$1" && return 0
  if can_be_root; then
    fail "$1 is missing and the Debian package $2 could not be installed." \
      "Install $1 by hand and run this again."
  fi
  fail "$1 is missing, and installing it needs root or sudo." \
    "Run as root:  apt-get install $2" "and then this script again."
}

# What cargo needs besides Rust itself: a C compiler and linker.
need_build_tools() {
  if ! has cargo && [ -x "$HOME/.cargo/bin/cargo" ]; then
    PATH="$HOME/.cargo/bin:$PATH"
  fi
  has cargo || fail "Rust is missing: there is no cargo on the PATH." \
    "Get it from https://rustup.rs and run this again."
  if ! has cc || [ ! -e /usr/include/stdlib.h ]; then
    install_packages gcc libc6-dev ||
      fail "A C compiler is missing (Rust links with it)." "Run as root:  apt-get install gcc libc6-dev"
  fi
}

# A busybox that needs no libraries: the only thing in the images made here.
BUSYBOX=''
need_static_busybox() {
  local candidate
  for candidate in /bin/busybox /usr/bin/busybox; do
    # ldd fails on a file that needs no libraries.
    if [ -x "$candidate" ] && ! ldd "$candidate" >/dev/null 2>&1; then
      BUSYBOX=$candidate
      return 0
    fi
  done
  install_packages busybox-static || return 1
  BUSYBOX=/bin/busybox
}

# A real ZooKeeper with its Java, to test against.
need_zookeeper() {
  [ -e /usr/share/java/zookeeper.jar ] && has java && return 0
  install_packages zookeeper && [ -e /usr/share/java/zookeeper.jar ] && has java && return 0
  fail "ZooKeeper is missing: the tests run against a real one." \
    "Run as root:  apt-get install --no-install-recommends zookeeper"
}

# --- Docker engine ----------------------------------------------------------------------------

ENGINE_PID=''        # of the dockerd started here
ENGINE_PIDFILE=''
ENGINE_LOG=''
ENGINE_PROBLEM=''    # why there is none

engine_answers() { has docker && timeout 10 docker version >/dev/null 2>&1; }

# Sees to it that a Docker engine answers: the one that is there, the system's own service, or a
# dockerd started by hand (and stopped again by engine_stop). Returns 1 and sets ENGINE_PROBLEM if
# none can be had.
engine_start() {
  if engine_answers; then
    good "Docker engine $(docker version --format '{{.Server.Version}}')"
    return 0
  fi
  if [ -S /var/run/docker.sock ] && [ ! -w /var/run/docker.sock ]; then
    ENGINE_PROBLEM="$(id -un) may not use the Docker engine; as root: usermod -aG docker $(id -un), then log in again"
    return 1
  fi
  if ! can_be_root; then
    ENGINE_PROBLEM='no Docker engine answers, and starting one needs root or sudo'
    return 1
  fi
  if ! has dockerd || ! has docker; then
    if ! install_packages docker.io iptables; then
      ENGINE_PROBLEM='the Debian package docker.io could not be installed'
      return 1
    fi
    sleep 1
    engine_answers && { good 'Docker engine installed and started'; return 0; }
  fi
  if [ -d /run/systemd/system ] && as_root systemctl start docker >/dev/null 2>&1 && engine_answers; then
    good 'Docker engine started (systemd)'
    return 0
  fi
  if ! grep -q ' cgroup2\? ' /proc/mounts; then
    install_packages cgroupfs-mount >/dev/null 2>&1 && as_root cgroupfs-mount >/dev/null 2>&1
  fi
  ENGINE_LOG=$(mktemp /tmp/orch-dockerd.XXXXXX.log)
  ENGINE_PIDFILE=/var/run/docker.pid
  local group
  group=$(id -gn)
  # A session of its own, so that Ctrl-C here does not end it under the containers.
  as_root setsid dockerd --group "$group" >"$ENGINE_LOG" 2>&1 &
  local waited
  for ((waited = 0; waited < 120; waited++)); do
    if engine_answers; then
      ENGINE_PID=$(cat "$ENGINE_PIDFILE" 2>/dev/null || true)
      good "Docker engine $(docker version --format '{{.Server.Version}}') started here (stopped again at the end)"
      return 0
    fi
    # dockerd writes its PID file at once; without the process there is nothing to wait for.
    if ((waited > 8)) && ! jobs -r | grep -q .; then break; fi
    sleep 0.25
  done
  ENGINE_PROBLEM="dockerd did not start: $(grep -a 'level=\(fatal\|error\)\|failed' "$ENGINE_LOG" | tail -n 1 | cut -c 1-300)"
  engine_stop
  return 1
}

# Ends the dockerd that engine_start started, if it did.
engine_stop() {
  [ -n "$ENGINE_PID" ] || return 0
  as_root kill "$ENGINE_PID" 2>/dev/null || true
  local waited
  for ((waited = 0; waited < 80; waited++)); do
    [ -d "/proc/$ENGINE_PID" ] || break
    sleep 0.25
  done
  ENGINE_PID=''
  rm -f "$ENGINE_LOG"
}

# make_image NAME : an image of a static busybox, made on this machine, from no registry.
make_image() {
  docker image inspect "$1" >/dev/null 2>&1 && return 0
  need_static_busybox || fail 'A static busybox is needed to make an image.' \
    'Run as root:  apt-get install busybox-static'
  local root
  root=$(mktemp -d)
  mkdir -p "$root/bin" "$root/www" "$root/tmp" "$root/etc"
  chmod 1777 "$root/tmp" "$root/www"
  cp "$BUSYBOX" "$root/bin/busybox"
  local applet
  for applet in $("$BUSYBOX" --list); do
    [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
  done
  echo 'root:x:0:0:root:/:/bin/sh' >"$root/etc/passwd"
  echo 'nobody:x:65534:65534:nobody:/:/bin/sh' >>"$root/etc/passwd"
  tar -C "$root" -c . | docker import --change 'CMD ["sh"]' - "$1" >/dev/null
  rm -rf "$root"
}

# --- the release binary -----------------------------------------------------------------------

ORCH_BINARY=${CARGO_TARGET_DIR:-$PROJECT_DIR/target}/release/orch

# Builds the release binary: one static file that runs on any Linux of this architecture. Only
# the last crate is told to link statically, so that build scripts and macros stay as they are.
# What a surrounding `cargo test` says of its own package is taken away: build scripts that look at
# it would run again, and half of the dependencies be compiled anew.
build_release() (
  for name in $(compgen -e CARGO_PKG_) $(compgen -e CARGO_MANIFEST_); do unset "$name"; done
  cargo rustc --release --locked --bin orch -- -C target-feature=+crt-static
)
