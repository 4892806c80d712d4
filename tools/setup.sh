#!/usr/bin/env bash
# Makes .venv: Python 3.13, what requirements.lock pins, and this project's packages as editable installs.
# Repeating it repairs or updates what is there. PYTHON=/path/to/python3.13 names the interpreter.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly LOCK=requirements.lock PACKAGES=(worker layers/mirroring)
export UV_SYSTEM_CERTS=true UV_PYTHON_DOWNLOADS=manual PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf 'setup: %s\n' "$*"; }
fail() {
    printf 'setup: %s\n' "$@" >&2
    exit 1
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
log=$scratch/log
[ -w "${HOME:-/nonexistent}" ] || export UV_CACHE_DIR=$scratch/cache # a user without a home of its own

# attempt WORDS COMMAND...: says WORDS, and shows the end of the command's output only if it fails.
attempt() {
    say "$1"
    "${@:2}" >"$log" 2>&1 </dev/null || {
        tail -n 20 "$log" >&2
        fail "could not finish: $1"
    }
}

uv_pin() { awk '/^uv==/ { found = 1 } found { print } found && !/\\$/ { exit }' "$LOCK"; }

# install_uv PYTHON: uv, as the lock pins it, from the package index. Everything else is uv's work.
install_uv() {
    uv_pin >"$scratch/uv.txt"
    "$1" -m pip install --quiet --no-input --require-hashes --requirement "$scratch/uv.txt"
}

# Brings Python 3.13 to a machine that has none, with a uv that lives only as long as this script.
fetch_python() {
    python3 -m venv "$scratch/bootstrap" || {
        echo "python3 here cannot make a virtual environment"
        return 1
    }
    install_uv "$scratch/bootstrap/bin/python" || return
    UV_HTTP_RETRIES=1 "$scratch/bootstrap/bin/uv" python install --no-bin 3.13
}

why() { grep -v '^ *$' "$log" | tail -n 1 | sed 's/^ *\(error: \|cause: \)\?//'; }

python_313() {
    tools/find-python.sh && return
    [ -z "${PYTHON:-}" ] || fail "PYTHON=$PYTHON is not a Python 3.13 with venv and pip."
    say "no Python 3.13 here; asking uv for one" >&2
    fetch_python >"$log" 2>&1 </dev/null && tools/find-python.sh && return
    fail "Python 3.13 is needed, and uv could not bring it: $(why)" \
        "Install it (Debian 13: apt-get install python3.13-venv; or pyenv install 3.13), or say PYTHON=/path/to/python3.13."
}

usable() { .venv/bin/python -c 'import sys, pip; sys.exit(sys.version_info[:2] != (3, 13))' 2>/dev/null; }
made_here() { ! [ -e .venv/.ready ] || [ "$(<.venv/.ready)" = "$(pwd -P)" ]; }

if ! usable || ! made_here; then
    python=$(python_313)
    rm -rf .venv
    attempt "making .venv with $python" "$python" -m venv .venv
fi
pinned=$(uv_pin | sed -n 's/^uv==\([^ ;]*\).*/\1/p')
if [[ "$(.venv/bin/uv --version 2>/dev/null)" != "uv $pinned"* ]]; then
    attempt "installing uv $pinned" install_uv .venv/bin/python
fi
export VIRTUAL_ENV=$PWD/.venv
attempt "installing $(grep -c '^[A-Za-z]' "$LOCK") pinned packages" .venv/bin/uv pip sync --require-hashes "$LOCK"
for package in "${PACKAGES[@]}"; do
    attempt "installing $package/ (editable)" .venv/bin/uv pip install --no-deps --no-build-isolation --editable "$package"
done
pwd -P >.venv/.ready
say "done"
