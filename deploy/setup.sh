# What `deploy/try` and `tests/run` need before they can start: Debian packages, llama.cpp compiled for this CPU, and
# edged in .venv of this checkout. Sourced by both, with $root set; the only entry is
#
#     set_up EXTRAS [COMMAND:PACKAGE ...]     e.g.  set_up demo,test mosquitto:mosquitto
#
# Everything it says goes to standard error. Run again it finds its own stamp and returns at once.
# shellcheck shell=bash

venv="$root/.venv"
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin" # Debian keeps them from plain users; mosquitto lives there
policy=/usr/sbin/policy-rc.d

say() { printf 'edged: %s\n' "$*" >&2; }
fail() {
    say "$@"
    exit 1
}

# quietly WHAT COMMAND...: one line for the step; its output only when it fails.
quietly() {
    local what="$1" log
    shift
    say "$what"
    log="$(mktemp)"
    if ! "$@" >"$log" 2>&1 </dev/null; then
        tail -n 15 "$log" | sed 's/^/  /' >&2
        rm -f "$log"
        fail "this step failed: $what"
    fi
    rm -f "$log"
}

# Caches need a home. cron, containers and CI jobs may have none, or one that cannot be written; of an earlier run with
# sudo the folders in it may be root's.
find_home() {
    local cache
    if [ -z "${HOME:-}" ]; then
        HOME="$(getent passwd "$(id -u)" | cut -d: -f6)" || true
        export HOME="${HOME:-/nonexistent}"
    fi
    cache="${XDG_CACHE_HOME:-$HOME/.cache}/edged"
    mkdir -p "$cache/wheels" "$cache/models" 2>/dev/null || true
    if ! [ -w "$cache/wheels" ] || ! [ -w "$cache/models" ]; then
        export XDG_CACHE_HOME="$root/.cache"
        mkdir -p "$XDG_CACHE_HOME/edged" || fail "no place for a cache: neither HOME nor $root can be written"
    fi
}

# Sets $python: the first Python on PATH that is new enough.
find_python() {
    local name PATH="${PATH//"$venv/bin:"/}" # not .venv's own, which would be cleared and made from itself
    for name in python3 python3.14 python3.13 python3.12 python3.11; do
        python="$(command -v "$name")" || continue
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            return
        fi
    done
    fail "edged needs Python 3.11 or newer; here is $(python3 --version 2>&1 || true) (Debian 12 has 3.11)"
}

# install_packages PACKAGE...: from Debian, as root or through sudo.
install_packages() {
    local as_root=()
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || fail "missing Debian packages, and no sudo; as root: apt-get install $*"
        as_root=(sudo)
    fi
    command -v apt-get >/dev/null || fail "install these with your system's tool (Debian's names): $*"
    if [ "${#as_root[@]}" -gt 0 ]; then
        sudo true </dev/null || fail "sudo refused; as root: apt-get install $*"
    fi
    # A broken third-party source must not stop us: what matters is whether the packages can be had.
    quietly "reading Debian's package lists" "${as_root[@]}" sh -c 'apt-get update || true'
    # A fresh server package starts its service at once, and Mosquitto's would hold the port 1883. policy-rc.d is
    # Debian's way to say no (invoke-rc.d(8)); one that is there already is its owner's. Ours must go whatever ends us:
    # with it no package starts its service any more. sh runs no EXIT trap when a signal ends it, and what a power cut
    # or kill -9 left, the mark in it tells from another's.
    local guard='' command mark='of deploy/setup.sh of edged'
    printf -v command '%q ' env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
        -o DPkg::Lock::Timeout=300 "$@"
    if [ ! -e "$policy" ] || grep -q "$mark" "$policy"; then
        guard="trap 'rm -f $policy' EXIT; trap 'exit 130' HUP INT TERM;
            printf '#!/bin/sh\n# $mark\nexit 101\n' >$policy; chmod 755 $policy;"
    fi
    quietly "installing Debian packages: $*" "${as_root[@]}" sh -c "$guard $command"
    local service
    for service in mosquitto prometheus; do
        case " $* " in
        *" $service "*)
            if command -v systemctl >/dev/null; then
                "${as_root[@]}" systemctl disable "$service.service" >/dev/null 2>&1 || true
            fi
            say "the service of the package $service is left switched off: tests start their own"
            ;;
        esac
    done
}

# Debian packages that are missing here, into $packages. Arguments: COMMAND:PACKAGE.
missing_packages() {
    local pair
    packages=()
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        case "$python" in
        /usr/bin/python3) packages+=(python3-venv) ;;
        /usr/bin/*) packages+=("$(basename "$python")-venv") ;;
        *) fail "$python lacks the modules venv and ensurepip: reinstall it with them" ;;
        esac
    fi
    if ! "$python" "$root/deploy/llama_wheel.py" find >/dev/null; then
        command -v g++ >/dev/null || packages+=(g++)
    elif ! compgen -G '/usr/lib*/*/libgomp.so.1' >/dev/null && ! compgen -G '/usr/lib*/libgomp.so.1' >/dev/null; then
        packages+=(libgomp1) # compiled earlier, maybe before g++ and what it brings were removed
    fi
    for pair in "$@"; do
        command -v "${pair%%:*}" >/dev/null || packages+=("${pair#*:}")
    done
}

# stamp EXTRAS: all that .venv was made from. Its first line stands for everything but the extras.
stamp() {
    printf '%s %s %s %s\n%s\n' "$root" "$python" "$("$python" "$root/deploy/llama_wheel.py" key)" \
        "$(cat "$root/pyproject.toml" "$root/deploy/setup.sh" | sha256sum | cut -c1-16)" "$1"
}

# has_extras HAVE WANTED: whether every one of the wanted extras is among those there.
has_extras() {
    local one
    for one in ${2//,/ }; do
        case ",$1," in *",$one,"*) ;; *) return 1 ;; esac
    done
}

install_edged() {
    local extras="$1" wanted there_line='' there_extras='' wheel
    wanted="$(stamp "$extras")"
    wanted="${wanted%%$'\n'*}" # no pipe to head: under pipefail its early end would end us
    if [ -r "$venv/edged-stamp" ]; then
        { read -r there_line && read -r there_extras; } <"$venv/edged-stamp" || true
    fi
    if [ "$there_line" = "$wanted" ] && "$venv/bin/python" -c '' 2>/dev/null; then
        if has_extras "$there_extras" "$extras"; then
            return
        fi
        extras="$there_extras,$extras"
    else
        quietly "making a Python environment in $venv" "$python" -m venv --clear "$venv"
    fi
    rm -f "$venv/edged-stamp"
    wheel="$("$venv/bin/python" "$root/deploy/llama_wheel.py" build)" || exit 1
    quietly "installing edged and the Python packages it needs" "$venv/bin/python" -m pip install \
        --disable-pip-version-check --progress-bar off "$wheel" --editable "$root[$extras]"
    stamp "$extras" >"$venv/edged-stamp"
}

set_up() {
    local extras="$1"
    shift
    { true <&0; } 2>/dev/null || exec </dev/null # some CI systems close it
    find_home
    find_python
    (
        # Ctrl-C: bash comes to this when the program that runs has ended, which may call it a failure.
        trap 'rm -f "${log:-}"; [ ! -t 2 ] || echo >&2; say "interrupted"; exit 130' INT
        flock 9 # one at a time in a checkout; the subshell's end gives it back
        missing_packages "$@"
        if [ "${#packages[@]}" -gt 0 ]; then
            install_packages "${packages[@]}"
        fi
        install_edged "$extras"
    ) 9>"$root/.cache/setup.lock"
}
